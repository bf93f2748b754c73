"""A completion becomes an answer: text, typed values, a status; and what to say when it must be asked again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from enrich.template import Expression, RowError, compile_value

if TYPE_CHECKING:
    from enrich.config import StepConfig
    from enrich.records import Completion, RowStatus
    from enrich.schema import AnswerSchema

MAX_PROBLEMS = 8  # as many as a model can act on in one reply
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
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
    """Reads the answers of one step."""

    def __init__(self, step: StepConfig, schema: AnswerSchema | None) -> None:
        self._schema = schema
        self._repair = step.repair
        self._tools = "tools" in step.params
        check = step.check
        if check is not None and "{{" not in check:
            check = "{{ " + check + " }}"
        compiled = compile_value(check, f"steps.{step.name}.check") if check is not None else None
        self._check = compiled

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
        if self._schema is None:
            values: dict[str, Any] | None = None
            problems = self._broken_rule({"answer": text})
        else:
            values, problems = self._parse(text, self._schema)
            if values is not None:
                problems = self._broken_rule({**values, "answer": text})
        if problems:
            shown = "; ".join(problems)[:1_000]
            return Answer("invalid_output", text, f"invalid_output: {shown}", problems=tuple(problems))
        return Answer("ok", text, values=values)

    def _parse(self, text: str, schema: AnswerSchema) -> tuple[dict[str, Any] | None, list[str]]:
        """Read the JSON in a text: as it stands, else repaired; a repair counts only when it then validates."""
        problems: list[str] = []
        for candidate in self._candidates(text):
            values, found = schema.read(candidate)
            if values is not None:
                return values, []
            problems = problems or found
        return None, (problems or ["the answer is not JSON"])[:MAX_PROBLEMS]

    def _candidates(self, text: str) -> Any:
        try:
            yield orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        else:
            return
        if not self._repair:
            return
        for inner in (*_FENCE.findall(text), _outermost_object(text)):
            try:
                yield orjson.loads(inner)
            except orjson.JSONDecodeError:
                continue
        yield from _repaired(text)

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


def _outermost_object(text: str) -> str:
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else ""


def _repaired(text: str) -> Any:
    from json_repair import repair_json

    if "{" not in text:
        return
    try:
        fixed = repair_json(text, return_objects=True, skip_json_loads=True)
    except (
        ValueError,
        RecursionError,
        IndexError,
        TypeError,
        KeyError,
    ):  # the library promises no set of errors
        return
    if isinstance(fixed, list):
        yield from (item for item in fixed if isinstance(item, dict))
    elif isinstance(fixed, dict):
        yield fixed


def reask_messages(answer: Answer) -> list[dict[str, str]]:
    """Give the two messages that ask again: the bad answer as the model gave it, and what is wrong with it."""
    lines = "\n".join(f"- {problem}" for problem in answer.problems[:MAX_PROBLEMS])
    correction = (
        f"That answer cannot be used:\n{lines}\nAnswer again with the corrected JSON object and nothing else."
    )
    return [
        {"role": "assistant", "content": answer.text or ""},
        {"role": "user", "content": correction},
    ]
