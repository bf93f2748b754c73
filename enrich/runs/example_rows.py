"""Rows that a prompt shows as examples: the model was told their answers, so nothing is concluded from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.prompt.cells import spellings
from enrich.prompt.messages import without_files
from enrich.prompt.template import RowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.prompt.request import RequestBuilder
    from enrich.runs.job import Job

    Rows = np.ndarray[Any, np.dtype[np.int64]]


def has_examples(config: Config) -> bool:
    """Say whether some step's prompt shows examples."""
    return any(step.examples or step.examples_file is not None for step in config.steps)


def example_rows(source: Source, jobs: Sequence[Job]) -> Rows:
    """Find the rows whose prompt is one of its step's examples, word for word.

    Args:
        source: whose rows they are; gone through once, where there are examples.
        jobs: compiled against it.

    Returns:
        Their indices, from 0, in order.
    """
    shown = [
        (step.builder, users)
        for job in jobs
        for step in job.steps
        if (users := {example.user.strip() for example in without_files(step.builder.step).examples})
        and not step.follows
    ]
    if not shown:
        return np.zeros(0, np.int64)
    columns = list(dict.fromkeys(name for job in jobs for name in job.columns))
    spelled_as = {builder.step.prompt_text for builder, _ in shown}
    found: list[int] = []
    row = 0
    for batch in source.batches(columns=columns, written=True):
        for place, spelled in enumerate(spellings(batch, spelled_as), row):
            if any(_prompt(builder, spelled[builder.step.prompt_text]) in users for builder, users in shown):
                found.append(place)
        row += batch.num_rows
    return np.asarray(found, dtype=np.int64)


def _prompt(builder: RequestBuilder, values: dict[str, Any]) -> str | None:
    """Give what a row asks; None of one that cannot be asked."""
    try:
        messages = builder.messages_of(values)
    except RowError:
        return None
    return next((str(m["content"]).strip() for m in reversed(messages) if m["role"] == "user"), None)
