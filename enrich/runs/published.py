"""The last step of a job whose output is a table: its file's rows are put there, once, in one transaction."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from enrich.config.database_url import is_delta_url, is_iceberg_url
from enrich.files.delta_table import publish_delta
from enrich.files.iceberg_table import publish_iceberg
from enrich.files.sink import read_manifest
from enrich.files.table_output import publish

if TYPE_CHECKING:
    from enrich.files.source import Source
    from enrich.records import Summary
    from enrich.runs.job import Job
    from enrich.runs.prepare import Opened


async def publish_output(begun: Opened, summary: Summary) -> Summary:
    """Put the output's rows into its table, if it has one; the summary says so.

    Raises:
        RunStopped: the database does not take them.
    """
    output, job = begun.config.output, begun.session.job
    if output.table is None:
        return summary
    begun.options.progress.phase(f"writing the table {output.table}", None)
    own = set(job.output_schema.names).difference(job.passed)
    manifest = json.dumps(await asyncio.to_thread(read_manifest, output.path))
    record = _record(begun.source, job)
    if is_delta_url(output.url):
        put = await asyncio.to_thread(publish_delta, output, own, record, manifest)
    elif is_iceberg_url(output.url):
        put = await asyncio.to_thread(publish_iceberg, output, record, manifest)
    else:
        put = await asyncio.to_thread(publish, output, own, record, manifest)
    told = f"put into {output.table}" if put else f"which {output.table} had before"
    return replace(summary, reason=f"{summary.reason}, {told}")


def _record(source: Source, job: Job) -> str:
    """Name rows by what they are made of: the input, and what is asked of it."""
    files = [[f.told, f.size, f.mtime_ns, f.version, f.rows] for f in source.files]
    steps = [step.builder.fingerprint.hex() for step in job.steps]
    facts = json.dumps([files, steps, job.base_url, source.num_rows, job.output_schema.names])
    return hashlib.sha256(facts.encode()).hexdigest()
