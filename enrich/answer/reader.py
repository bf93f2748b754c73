"""A completion becomes an answer: text, typed values, a status; and what to say when it must be asked again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from enrich.errors import TemplateError, did_you_mean
from enrich.prompt.template import Expression, RowError, compile_value
from enrich.records import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config import StepConfig
    from enrich.prompt.template import Template
    from enrich.records import Completion, RowStatus
    from enrich.schema.schema import AnswerSchema

MAX_PROBLEMS = 8  # as many as a model can act on in one reply
MAX_REPAIR_CHARS = 32_768  # characters; the repair library takes quadratic time
MAX_REPAIR_DEPTH = 64  # levels; deeper, it takes seconds
MAX_BLOCKS = 8  # fenced blocks of one answer; in more of them nobody can tell which one is meant
NOT_JSON = "the answer is not JSON"
SEVERAL = "the answer holds several JSON objects that differ"

_LONG_NUMBER = re.compile(r"\d{19}")  # orjson turns integers of more than 64 bits into floats
_QUOTED = re.compile(r"""\"(?:\\["'\\/nrt]|[^"\\])*\"|'(?:\\["'\\/nrt]|[^'\\])*'""")
_TOKEN = re.compile(
    r"""""|[\s{}\[\]:,]|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\b(?:[tT]rue|[fF]alse|null|None|[A-Za-z_]\w*(?=\s*:))\b"""
)
_LINE_ESCAPES = re.compile(r"\\[nrt]")
_TRAILING_COMMA = re.compile(r",(?=[}\]])")
_TRAILING_ZEROS = re.compile(r"\.(\d*?)0+(?!\d)")
_BARE_KEY = re.compile(r"([{,])([a-z_]\w*):")
_DRESS = str.maketrans("'", '"', " \t\r\n\\")


@frozen
class Answer:
    """What a completion amounts to.

    Attributes:
        status: ``ok``, ``invalid_output``, ``truncated`` or ``filtered``.
        error: ``code: message`` unless ``ok``.
        text: the answer's text as it came.
        values: schema property → value, ready for Arrow; None without a schema or unless ``ok``.
        problems: what is wrong with it, for a re-ask.
    """

    status: RowStatus
    text: str | None
    error: str | None = None
    values: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()


class AnswerReader:
    """Reads the answers of one step.

    Raises:
        TemplateError: ``check`` cannot be compiled, or names what the answer does not have.
    """

    def __init__(self, step: StepConfig, schema: AnswerSchema | None) -> None:
        self._schema = schema
        self._repair = step.repair
        self._tools = "tools" in step.params
        self._check = _compile_check(step, schema)

    def read(self, completion: Completion) -> Answer:
        """Say what a completion amounts to; the same completion always gives the same answer."""
        text = completion.text
        if completion.finish_reason == "content_filter":
            return Answer("filtered", text, "content_filter: the answer was withheld by the content filter")
        if completion.refusal is not None:
            return Answer("filtered", text, f"refusal: {' '.join(completion.refusal.split())[:500]}")
        if completion.finish_reason == "length":
            return Answer("truncated", text, "length: the answer ran out of tokens")
        if text is None:
            return self._without_text(completion)
        return self._valued(text)

    def _without_text(self, completion: Completion) -> Answer:
        if completion.tool_calls and self._tools and self._schema is None:
            return Answer("ok", None)
        what = "tool calls" if completion.tool_calls else "no content"
        return Answer("invalid_output", None, f"no_content: the model answered with {what}", problems=(what,))

    def _valued(self, text: str) -> Answer:
        values: dict[str, Any] | None = None
        problems: list[str] = []
        if self._schema is not None:
            values, problems = self._parse(text, self._schema)
        problems = problems or self._broken_rule({"answer": text, **(values or {})})
        if problems:
            shown = "; ".join(problems)[:1_000]
            return Answer("invalid_output", text, f"invalid_output: {shown}", problems=tuple(problems))
        return Answer("ok", text, values=values)

    def _parse(self, text: str, schema: AnswerSchema) -> tuple[dict[str, Any] | None, list[str]]:
        """Read the JSON in a text: as it stands, else repaired; a repair counts only when it then validates."""
        try:
            return schema.read(_exact(text))
        except ValueError:
            if not self._repair:
                return None, [NOT_JSON]
        found: list[dict[str, Any]] = []
        problems: list[str] = []
        for value in _repaired(text):
            values, wrong = schema.read(value)
            problems = problems or wrong
            if values is not None and values not in found:
                found.append(values)
        if len(found) == 1:
            return found[0], []
        return None, [SEVERAL] if found else problems or [NOT_JSON]

    def _broken_rule(self, values: dict[str, Any]) -> list[str]:
        if self._check is None:
            return []
        try:
            if isinstance(self._check, Expression):
                good = bool(self._check.value(values))
            else:
                good = self._check.is_true(values)
        except RowError as error:
            return [str(error)]
        return [] if good else [f"the rule `{self._check.source}` does not hold"]


def _compile_check(step: StepConfig, schema: AnswerSchema | None) -> Template | Expression | None:
    if step.check is None:
        return None
    where = f"steps.{step.name}.check"
    source = step.check if "{{" in step.check or "{%" in step.check else "{{ " + step.check + " }}"
    check = compile_value(source, where)
    known = ["answer", *(schema.columns if schema is not None else ())]
    for name in sorted(check.variables.difference(known)):
        raise TemplateError(f"{where}: the answer has no `{name}`", hint=did_you_mean(name, known))
    return check


# --- reading what is not quite JSON --------------------------------------------------------------------


def _exact(text: str) -> Any:
    """Read JSON and keep every digit of an integer.

    Raises:
        ValueError: it is no JSON, holds NaN, Infinity or a number beyond a double, or is nested without end.
    """
    value = orjson.loads(text)
    if not _LONG_NUMBER.search(text):
        return value
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _repaired(text: str) -> Iterator[Any]:
    """Give the objects that stand in fences or within other text, mended where that takes nothing away."""
    blocks = text.split("```")[1::2]
    if len(blocks) > MAX_BLOCKS:
        return
    for source in dict.fromkeys(_outermost_object(part) for part in (*blocks, text)):
        try:
            yield _exact(source)
        except ValueError:
            yield from _mended(source)


def _outermost_object(text: str) -> str:
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else ""


def _mended(source: str) -> Iterator[dict[str, Any]]:
    """Have the library mend an object; what it made up, dropped or moved is no answer."""
    from json_repair import repair_json

    if not _is_whole(source):
        return
    try:
        value = repair_json(source, return_objects=True, skip_json_loads=True)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict) and _undressed(text) == _undressed(source):
        yield value


def _is_whole(source: str) -> bool:
    """Say whether a text may be an object to mend: nothing cut off, no word without quotes but a key or a literal."""
    if not 0 < len(source) <= MAX_REPAIR_CHARS:
        return False
    bare = _QUOTED.sub('""', source)
    if _TOKEN.sub("", bare):
        return False
    depth = deepest = 0
    for sign in bare:
        depth += (sign in "{[") - (sign in "}]")
        deepest = max(deepest, depth)
    return depth == 0 and deepest <= MAX_REPAIR_DEPTH


def _undressed(text: str) -> str:
    """Leave out of JSON, or nearly JSON, what a repair may change: blanks, the kind of quotes, trailing commas."""
    bare = _LINE_ESCAPES.sub("", text).translate(_DRESS).lower().replace("none", "null")
    bare = _TRAILING_ZEROS.sub(r".\1", _TRAILING_COMMA.sub("", bare))
    return _BARE_KEY.sub(r'\1"\2":', bare)


def reask_messages(answer: Answer, *, as_json: bool) -> list[dict[str, str]]:
    """Give the two messages that ask again: the bad answer as the model gave it, and what is wrong with it.

    Args:
        answer: the bad one.
        as_json: whether a JSON object is wanted.
    """
    lines = "\n".join(f"- {problem}" for problem in answer.problems[:MAX_PROBLEMS])
    wanted = (
        "Answer again with the corrected JSON object" if as_json else "Answer again with a corrected text"
    )
    return [
        {"role": "assistant", "content": answer.text or "(no text)"},
        {"role": "user", "content": f"That answer cannot be used:\n{lines}\n{wanted} and nothing else."},
    ]
