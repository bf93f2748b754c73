"""Which input columns stand behind each output column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.answer.columns import step_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from enrich.rows.step import Step
    from enrich.runs.job import Job


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an output column comes from.

    Attributes:
        columns: of the input, in its order; the column itself for one that is passed through.
        step: the step whose answer it is; None for one that is passed through.
    """

    columns: tuple[str, ...]
    step: str | None = None


def column_origins(job: Job, input_schema: pa.Schema) -> dict[str, Origin]:
    """Tell for each output column, in order, where it comes from.

    A step's columns come from the columns that its templates use, `when` included; what it uses of an earlier step's
    answer comes from whatever that step uses.
    """
    origins = {name: Origin((name,)) for name in input_schema.names}
    written = {name: origins[name] for name in job.passed}
    for step in job.steps:
        origin = Origin(_used(step, input_schema.names, origins), step.name)
        origins.update({field.name: origin for field in step_fields(step.name, step.builder.schema)})
        written.update({column.field.name: origin for column in step.columns})
    return written


def _used(step: Step, inputs: Sequence[str], origins: dict[str, Origin]) -> tuple[str, ...]:
    if step.builder.whole_row:
        return tuple(inputs)
    used = {column for name in step.builder.columns for column in origins[name].columns}
    return tuple(name for name in inputs if name in used)
