"""`review --as-examples`: rows whose answer people corrected, as examples for the prompt."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from enrich.base.texts import json_bytes
from enrich.config import InputConfig, Place, refuse_target
from enrich.errors import UsageError
from enrich.files import storage
from enrich.files.sink import destination
from enrich.files.source import open_source
from enrich.ledger.opening import require_ledger
from enrich.measure.scores import normalised
from enrich.prompt.cells import spellings
from enrich.report.gold import text_of
from enrich.runs.cohort import rows_of
from enrich.runs.job import compile_job
from enrich.runs.since import own_columns
from enrich.verbs.review import known_review, refuse_changed, review_ledger, reviewed_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import Config, StepConfig
    from enrich.files.source import Source


async def write_examples(config: Config, path: str, column: str | None = None) -> tuple[str, int]:
    """Write the rows whose answer was corrected as an `examples_file`: each prompt with the answer as it should be.

    Returns:
        Where it lies, and how many there are.

    Raises:
        UsageError: no sheet was read, or the prompt needs an earlier step's answer.
    """
    name, owner = reviewed_column(config, column)
    location = config.ledger_location()
    require_ledger(location)
    place = destination(path)
    refuse_target(Place("the examples", place), config, location)
    async with review_ledger(location) as ledger:
        kept = await known_review(ledger, config, name)
    await asyncio.to_thread(refuse_changed, config, kept, name)
    wrong = {
        row: label
        for row, answer in zip(kept.rows, kept.answers, strict=True)
        if (label := kept.labels.get(str(row))) is not None and normalised(label) != normalised(answer)
    }
    lines = await asyncio.to_thread(_examples, config, owner.step, name, wrong) if wrong else []
    await asyncio.to_thread(storage.write, place, b"".join(json_bytes(line) + b"\n" for line in lines))
    return place, len(lines)


def _examples(config: Config, step: StepConfig, name: str, wrong: dict[int, str]) -> list[dict[str, Any]]:
    source = open_source(config.input, own=own_columns(config))
    job = compile_job(config, source.schema, key_needed=False)
    (compiled,) = (one for one in job.steps if one.name == step.name)
    if compiled.needs:
        raise UsageError(
            f"the prompt of step {step.name} needs the answer of {', '.join(compiled.needs)}",
            hint="examples are made of steps that ask of the input alone.",
        )
    rows = sorted(wrong)
    output = open_source(InputConfig(path=config.output.path, format=config.output.format))
    fields = {
        c.field.name: c.of for c in compiled.columns if c.is_value and c.field.name in output.schema.names
    }
    answers = (
        rows_of(output, rows, [*fields], written=False).to_pylist() if name in fields else [{} for _ in rows]
    )
    _refuse_other_input(source, output, rows)
    batch = rows_of(source, rows, job.columns, written=True)
    prompts = [spelled[step.prompt_text] for spelled in spellings(batch, {step.prompt_text})]
    found = []
    for row, values, cells in zip(rows, answers, prompts, strict=True):
        messages = compiled.builder.prepare(cells).messages
        asked = next(m["content"] for m in reversed(messages) if m["role"] == "user")
        corrected = {fields[column]: value for column, value in values.items()}
        if name in fields:
            corrected[fields[name]] = _typed(wrong[row], values[name])
        found.append({"user": asked, "assistant": corrected if name in fields else wrong[row]})
    return found


def _refuse_other_input(source: Source, output: Source, rows: Sequence[int]) -> None:
    """Keep prompts from being made of other rows than those that were answered.

    Raises:
        UsageError: the input is not what it was.
    """
    shared = [name for name in source.schema.names if name in output.schema.names]
    told = [
        [
            [text_of(value) for value in column.to_pylist()]
            for column in rows_of(one, rows, shared, written=False).columns
        ]
        if one.num_rows > rows[-1]
        else []
        for one in (source, output)
    ]
    if told[0] != told[1]:
        raise UsageError(
            "the input is not what it was when the output was written",
            hint="run the job again, then draw another sheet.",
        )


def _typed(label: str, like: Any) -> Any:
    """Give a label as a value of the answer's own type."""
    if isinstance(like, str):
        return label
    with contextlib.suppress(ValueError):
        return json.loads(label)
    return label
