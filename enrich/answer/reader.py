"""A completion becomes an answer: text, typed values, a status; and what to say when it must be asked again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from enrich.answer.confidence import confidence, mean_logprob, tokens_of
from enrich.answer.json_values import NOT_JSON, SaidTwiceError, exact, objects
from enrich.answer.reasoning import before, part
from enrich.base.words import is_blank
from enrich.errors import TemplateError, did_you_mean
from enrich.prompt.template import Expression, RowError, compile_value
from enrich.records import frozen
from enrich.wire.envelope import one_line
from enrich.wire.finish import ending
from enrich.wire.stream_end import NO_FINISH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import StepConfig
    from enrich.prompt.template import Template
    from enrich.records import Completion, RowStatus
    from enrich.schema.choice import Column
    from enrich.schema.schema import AnswerSchema

MAX_PROBLEMS = 8  # as many as a model can act on in one reply
ASIDE = frozenset({"reasoning", "tool_calls", "refusal", "logprob", "confidence", "system_fingerprint"})
NOT_FORCED = (
    None,
    "auto",
    "none",
    False,
)  # values of `tool_choice` that leave it to the model whether it calls one
SEVERAL = "the answer holds several JSON objects that differ"


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

    Args:
        step: its configuration.
        schema: of its answers, or None.
        written: its columns that are written: what none of them shows is not looked at.

    Attributes:
        pinned: whether it matters who answered.

    Raises:
        TemplateError: ``check`` cannot be compiled, or names what the answer does not have.
    """

    def __init__(self, step: StepConfig, schema: AnswerSchema | None, written: Sequence[Column] = ()) -> None:
        self._schema = schema
        self._repair = step.repair
        self._tools = bool(step.params.keys() & {"tools", "functions"})
        self._forced = _forced(step.params.get("tool_choice", step.params.get("function_call")))
        self._wanted = {column.of for column in written if not column.is_value} & ASIDE
        doubts = _doubts(step)
        self._wanted |= {name for name in ASIDE if f"{step.name}_{name}" in doubts}
        self._check = _compile_check(step, schema)
        self.pinned = step.pinned is not None

    def read(self, completion: Completion) -> Answer:
        """Say what a completion amounts to; the same completion always gives the same answer."""
        unfit = _ended_unfit(completion)
        if unfit is not None:
            status, error = unfit
            return Answer(status, completion.text, error)
        arguments = self._arguments(completion)
        if arguments is not None:
            return self._valued(arguments, completion)
        if completion.text is None or is_blank(completion.text):
            return self._without_text(completion)
        return self._valued(completion.text, completion)

    def aside(self, completion: Completion, answer: Answer) -> dict[str, Any]:
        """Give what a completion says beside its answer, of what the step writes, as an `Outcome` names it."""
        if not self._wanted:  # as nearly always
            return {}
        tokens = tokens_of(completion.logprobs) if self._wanted & {"logprob", "confidence"} else []
        said = answer.text if answer.status in ("ok", "invalid_output") else None
        everything = {
            "reasoning": completion.reasoning or self._thought(completion.text),
            "tool_calls": [asdict(call) for call in completion.calls] or None,
            "refusal": completion.refusal,
            "logprob": mean_logprob(tokens),
            "confidence": confidence(tokens, said, answer.values, self._schema) if said else None,
            "system_fingerprint": completion.system_fingerprint,
        }
        return {name: everything[name] for name in self._wanted}

    def _thought(self, text: str | None) -> str | None:
        """Give the reasoning that stands in a text before its answer, within marks."""
        return before(text, anywhere=self._schema is not None) if text is not None else None

    def _arguments(self, completion: Completion) -> str | None:
        """Give the arguments of the tool that the step makes the model call, where they are to be the answer."""
        if self._schema is None or self._forced is None:
            return None
        called = [call for call in completion.calls if self._forced in ("", call.name)]
        texts = list(dict.fromkeys(call.arguments for call in called if call.arguments))
        return "\n".join(texts) if texts else None  # several that differ are no answer, as in a text

    def _without_text(self, completion: Completion, what: str = "no content") -> Answer:
        """Judge an answer that says nothing, be it null or empty: without a text there is nothing to correct."""
        if self._tools and self._schema is None and any(call.name for call in completion.calls):
            return Answer("ok", None)
        what = "tool calls" if completion.tool_calls else what
        error = f"no_content: the model answered with {what}"
        return Answer("invalid_output", None, error, problems=(what,))

    def _valued(self, text: str, completion: Completion) -> Answer:
        values: dict[str, Any] | None = None
        problems: list[str] = []
        said = text
        if self._schema is not None:
            values, problems = self._parse(text, self._schema)
        else:
            said = part(text, anywhere=False)
            if said is not text and is_blank(said):
                return self._without_text(completion, "reasoning alone")
        problems = problems or self._broken_rule(said, values or {})
        if problems:
            shown = "; ".join(problems)[:1_000]
            return Answer("invalid_output", said, f"invalid_output: {shown}", problems=tuple(problems))
        return Answer("ok", said, values=values)

    def _parse(self, text: str, schema: AnswerSchema) -> tuple[dict[str, Any] | None, list[str]]:
        """Read the JSON in a text: the whole of it, else what stands behind the reasoning, else the objects in that."""
        for whole in dict.fromkeys((text, part(text, anywhere=True))):
            try:
                return schema.read(exact(whole))
            except SaidTwiceError as error:
                return None, [str(error)]
            except ValueError:
                continue
        return self._choose(whole, schema) if self._repair else (None, [NOT_JSON])

    def _choose(self, text: str, schema: AnswerSchema) -> tuple[dict[str, Any] | None, list[str]]:
        """Take the one object that fits, unless another one says something else, or a later attempt is not valid."""
        fitting: list[dict[str, Any]] = []
        problems: list[str] = []
        for found in objects(text, repair=self._repair):
            values, wrong = (None, [found.problem]) if found.problem else schema.read(found.value)
            is_attempt = bool(found.problem or schema.columns.keys() & found.value.keys())
            if values is not None and is_attempt:
                fitting += [values] if values not in fitting else []
                problems = []
            elif is_attempt:
                problems = wrong
            elif not fitting:
                problems = problems or wrong
        if len(fitting) > 1:
            return None, [SEVERAL]
        return (fitting[0], []) if fitting and not problems else (None, problems or [NOT_JSON])

    def _broken_rule(self, said: str, fields: dict[str, Any]) -> list[str]:
        if self._check is None:
            return []
        values = {"answer": said, **fields}
        try:
            if isinstance(self._check, Expression):
                good = bool(self._check.value(values))
            else:
                good = self._check.is_true(values)
        except RowError as error:
            return [str(error)]
        return [] if good else [f"the rule `{self._check.source}` does not hold"]


def _doubts(step: StepConfig) -> str:
    """Give all that is said of when an answer is doubtful: what it names is looked at."""
    rules = [step.ballot.when] if step.ballot is not None else []
    if (escalate := step.escalation) is not None:
        rules += [stage.when for stage in escalate.stages]
        rules.append(escalate.score or f"{step.name}_confidence" if escalate.guarantee is not None else None)
    return " ".join(rule for rule in rules if rule)


def _ended_unfit(completion: Completion) -> tuple[RowStatus, str] | None:
    """Give status and error of a completion that ended before its answer was whole; None for one that did not."""
    ended = ending(completion.finish_reason)
    if ended == "filtered":
        return "filtered", "content_filter: the answer was withheld by the content filter"
    if completion.refusal is not None:
        return "filtered", f"refusal: {' '.join(completion.refusal.split())[:500]}"
    if ended == "truncated":
        return "truncated", "length: the answer ran out of tokens"
    if ended == "broken":
        said = one_line(completion.finish_reason or "", 60)
        return "truncated", f"generation_failed: the server broke the answer off (`{said}`)"
    return ("truncated", f"response_cut: {NO_FINISH}") if completion.cut else None


def _forced(choice: Any) -> str | None:
    """Give the name of the tool that ``tool_choice`` makes the model call; "" for any, None where it need not call one."""
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools")
        kind = allowed.get("mode") if isinstance(allowed, dict) else choice.get("mode", choice.get("type"))
        if kind in NOT_FORCED:
            return None
        function = choice.get("function")
        name = (function if isinstance(function, dict) else choice).get("name")
        return name if isinstance(name, str) and "{{" not in name else ""
    return None if choice in NOT_FORCED else ""


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
