"""The models that the first rows name, where a step's `model` is a template: found by rendering, nothing is sent."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted
from enrich.prompt.cells import spellings
from enrich.prompt.template import RowError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enrich.files.source import Source
    from enrich.rows.step import Step
    from enrich.runs.job import Job

ROWS = 100  # looked at
SHOWN = 10  # models of a step, the most frequent first


@dataclass(slots=True)
class Named:
    """The models that rows name at one step.

    Attributes:
        step: its name.
        waits_for: the steps whose answers name the models; then nothing is known yet.
        rows: how many were looked at.
        models: by how many rows each is named first.
        further: those named to turn to.
        problem: why the first row without one has none.
    """

    step: str
    waits_for: tuple[str, ...] = ()
    rows: int = 0
    models: Counter[str] = field(default_factory=Counter)
    further: set[str] = field(default_factory=set)
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether some row names a model, as far as that can be known."""
        return bool(self.models) or bool(self.waits_for) or not self.problem

    def __str__(self) -> str:
        if self.waits_for:
            return f"step {self.step}: known when {', '.join(self.waits_for)} has answered"
        shown = [f"{model} ({count:,})" for model, count in self.models.most_common(SHOWN)]
        more = len(self.models) - len(shown)
        named = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "") or "none"
        none = f"; not every row names one: {self.problem}" if self.problem else ""
        return f"step {self.step}, first {counted(self.rows, 'row')}: {named}{none}"


def named_models(job: Job, source: Source) -> list[Named]:
    """Give what the first rows name at each step whose `model`, or one of its `fallback_models`, is a template."""
    steps = [step for step in job.steps if step.builder.models.templates]
    found = [Named(step.name, _waits_for(step, job.steps)) for step in steps]
    rows = itertools.chain.from_iterable(
        spellings(batch, {step.builder.step.prompt_text for step in steps})
        for batch in (source.batches(columns=job.columns, written=True) if steps else ())
    )
    for spelled in itertools.islice(rows, ROWS):
        for step, named in zip(steps, found, strict=True):
            if not named.waits_for:
                _look(step, spelled[step.builder.step.prompt_text], named)
    return found


def _waits_for(step: Step, steps: Sequence[Step]) -> tuple[str, ...]:
    needed = step.builder.models.columns
    return tuple(
        other.name for other in steps if other.name in step.follows and needed.intersection(other.given)
    )


def _look(step: Step, row: Mapping[str, Any], named: Named) -> None:
    named.rows += 1
    try:
        models = step.builder.models_of(row)
    except RowError as error:
        named.problem = named.problem or str(error)
        return
    named.models[models[0]] += 1
    named.further.update(models[1:])
