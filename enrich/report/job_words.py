"""The job in words: what is asked of which model, within which limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from enrich.base.texts import json_text
from enrich.base.words import counted
from enrich.errors import ConfigError
from enrich.prompt.messages import without_files
from enrich.report.facts import JobWords, StepWords
from enrich.report.texts import PROMPT_CHARACTERS, VALUE_CHARACTERS, cut, number
from enrich.schema.schema import step_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config import BudgetWindow, Config, LimitsConfig, StepConfig, StepLimits
    from enrich.schema.schema import AnswerSchema

Facts = tuple[tuple[str, str], ...]
SAMPLING = ("temperature", "top_p", "max_tokens", "max_completion_tokens")
EXAMPLES = 3  # shown of a step
NULLS = {"error": "fail", "skip": "are skipped", "render": "are asked with nothing in its place"}
BLANKS = {"error": "fail", "skip": "are skipped", "send": "are asked"}


def job_words(config: Config, *, content: bool) -> JobWords:
    """Say what a job is about.

    Args:
        config: the job, as it stands now.
        content: False leaves out what prompts, conditions and parameters say.
    """
    return JobWords(
        (
            ("in flight", _in_flight(config.limits)),
            (
                "limits told",
                "; ".join(_rates(config.limits)) or "none; what the endpoint allows is found out",
            ),
            ("budget of a run", "; ".join(_amounts(config.budget)) or "none"),
            *(("budget together with others", _budget(window)) for window in config.budget.windows),
            ("retries", f"up to {counted(config.retry.attempts, 'attempt')} of a request"),
            ("identical requests", "asked once" if config.dedupe else "each row is asked on its own"),
            ("failed rows tolerated", str(config.tolerate)),
        ),
        tuple(_step_words(step, content=content) for step in config.steps),
    )


def _in_flight(limits: LimitsConfig) -> str:
    if limits.adaptive:
        most = f", {limits.concurrency:,} at most" if limits.concurrency is not None else ""
        return f"as many as bring more answers{most}"
    return f"{limits.most:,}"


def _rates(limits: LimitsConfig | StepLimits) -> Iterator[str]:
    if limits.requests_per_minute is not None:
        yield f"{number(limits.requests_per_minute)} requests a minute"
    if tokens := getattr(limits, "tokens_per_minute", None):
        yield f"{number(tokens)} tokens a minute"
    for window in getattr(limits, "windows", ()):
        yield f"{', '.join(_amounts(window))} in {number(window.seconds)} s"


def _budget(window: BudgetWindow) -> str:
    whose = f" of {window.tag}" if window.tag else ""
    per = "in total" if window.per == "total" else f"a {window.per} ({window.zone})"
    return f"{', '.join(_amounts(window))} {per}{whose}"


def _amounts(section: Any) -> Iterator[str]:
    for name in ("credits", "tokens", "requests", "usd"):
        if (amount := getattr(section, name, None)) is not None:
            yield f"{number(amount)} {name}"


def _step_words(step: StepConfig, *, content: bool) -> StepWords:
    facts = [("model", ", then ".join((step.model, *step.fallback_models)))]
    if (escalate := step.escalation) is not None:
        told = (
            f"{stage.model} where {stage.when}" if stage.when and content else stage.model
            for stage in escalate.stages[1:]
        )
        facts.append(("where there is doubt", ", then ".join(told)))
        if escalate.guarantee is not None:
            found = f"so that {escalate.guarantee:g} of the answers are right, by {counted(escalate.sample, 'row')} with known values"
            facts.append(("guarantee", found))
    if step.limits is not None:
        flight = [f"{step.limits.concurrency:,} in flight"] if step.limits.concurrency is not None else []
        facts.append(("limits of the step", "; ".join((*_rates(step.limits), *flight)) or "none"))
    facts += [(name, str(value)) for name in SAMPLING if (value := getattr(step, name)) is not None]
    if (schema := step_schema(step)) is not None:
        kinds = (
            f"{field.name}: {_kind(schema, field) if content else field.type}" for field in schema.fields
        )
        facts.append(("answer", "; ".join(kinds)))
        again = f"asked again {counted(step.reask, 'time')} at most" if step.reask else "not asked again"
        facts.append(("an answer breaks the schema", again))
    facts.append(("a value is missing", f"such rows {NULLS[step.on_null]}"))
    facts.append(("the prompt is blank", f"such rows {BLANKS[step.on_empty]}"))
    if not content:
        return StepWords(step.name, tuple(facts), ())
    conditions = [("asked when", step.when), ("right when", step.check)]
    facts += [(name, text) for name, text in conditions if text is not None]
    if step.params:
        facts.append(("further parameters", cut(orjson.dumps(step.params, default=str).decode(), 300)))
    try:
        messages = tuple(
            (role, cut(text, PROMPT_CHARACTERS)) for role, text in _messages(without_files(step))
        )
    except ConfigError as error:
        messages = ((str(error), ""),)
    return StepWords(step.name, tuple(facts), messages)


def _kind(schema: AnswerSchema, field: pa.Field[Any]) -> str:
    """Say what a property may be: the values that it may have, else its type."""
    properties = schema.json.get("properties")
    said = properties.get(field.name) if isinstance(properties, dict) else None
    values = said.get("enum") if isinstance(said, dict) else None
    if isinstance(values, list):
        return cut(" | ".join(json_text(value) for value in values), VALUE_CHARACTERS)
    return "text" if pa.types.is_dictionary(field.type) else str(field.type)


def _messages(step: StepConfig) -> Iterator[tuple[str, str]]:
    """Give role and template of each message, with the first of the examples."""
    if step.messages is not None:
        yield from ((message.role, message.content) for message in step.messages)
        return
    if step.system is not None:
        yield "system", step.system
    for example in step.examples[:EXAMPLES]:
        yield "example", example.user
        answer = example.assistant
        yield "its answer", answer if isinstance(answer, str) else orjson.dumps(answer).decode()
    if len(step.examples) > EXAMPLES:
        yield f"and {len(step.examples) - EXAMPLES:,} more examples", ""
    yield "user", step.prompt or ""
