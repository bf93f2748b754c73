"""The requests of the first rows, as text; nothing is sent."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from enrich.files.source import open_source
from enrich.prompt.cells import spellings
from enrich.prompt.template import RowError
from enrich.records import key_text
from enrich.runs.job import Job, compile_job
from enrich.runs.since import own_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from enrich.config import Config


def preview_job(config: Config, rows: int) -> Iterator[str]:
    """Give the first rows' requests as text."""
    source = open_source(config.input, limit=rows, own=own_columns(config))
    job = compile_job(config, source.schema, key_needed=False)
    return request_texts(job, source.batches(columns=job.columns, written=True))


def request_texts(job: Job, batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    """Give these rows' requests as text: method, key and body, or why a row has none.

    Later steps are shown as far as they do not need an earlier step's answer.
    """
    wanted = {step.builder.step.prompt_text for step in job.steps}
    rows = itertools.chain.from_iterable(spellings(batch, wanted) for batch in batches)
    for number, spelled in enumerate(rows):
        for step in job.steps:
            row = spelled[step.builder.step.prompt_text]
            yield f"# row {number + 1}, step {step.name}"
            if step.needs:
                yield f"needs the answer of {', '.join(step.needs)}"
                continue
            try:
                if not step.builder.wanted(row):
                    yield "skipped: `when` is false"
                    continue
                ask = step.builder.ask(step.builder.look(step.builder.prepare(row)))
            except RowError as error:
                yield f"no request: {error}"
                continue
            yield f"POST {job.base_url}/chat/completions"
            yield f"Idempotency-Key: {key_text(ask.key)}"
            yield json.dumps(json.loads(ask.body), indent=2, ensure_ascii=False)
            yield ""
