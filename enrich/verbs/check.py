"""Everything about a job that can be checked without asking for a completion."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.base.words import counted
from enrich.errors import EnrichError, KeyRefused, RunStopped
from enrich.files.rehearsal import rehearse
from enrich.files.sink import preflight
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger
from enrich.runs.job import Job, compile_job, refuse_overlap
from enrich.runs.partitions import find_units
from enrich.wire.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from enrich.config import Config
    from enrich.config.endpoint import Endpoint
    from enrich.files.source import Source


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `check`."""

    name: str
    ok: bool
    text: str

    def line(self, *, color: bool = False) -> str:
        """Write it for people."""
        mark = "ok  " if self.ok else "FAIL"
        if color:
            mark = f"\033[32m{mark}\033[0m" if self.ok else f"\033[31m{mark}\033[0m"
        return f"{mark}  {self.name:10} {self.text}"


async def check_job(config: Config, limit: int | None = None) -> list[Finding]:
    """Check a job from its input to its endpoint; sends no completion.

    What depends on something that failed is left out.
    """
    findings = [Finding("config", ok=True, text=_steps(config))]
    try:
        source = await asyncio.to_thread(open_source, config.input, limit=limit)
    except EnrichError as error:
        return [*findings, _failed("input", error)]
    findings.append(Finding("input", ok=True, text=_input(source)))
    try:
        job = compile_job(config, source.schema)
    except EnrichError as error:
        return [*findings, _failed("templates", error)]
    findings.append(Finding("templates", ok=True, text=f"use {', '.join(job.columns) or 'no column'}"))
    findings.append(await asyncio.to_thread(_try, "output", lambda: _output(config, source, job)))
    findings.append(await _ledger(config))
    return [*findings, *await _endpoint(config, job)]


def _try(name: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, text=work())
    except EnrichError as error:
        return _failed(name, error)


def _failed(name: str, error: EnrichError) -> Finding:
    return Finding(name, ok=False, text=str(error).replace("\n", "\n" + " " * 17))


def _steps(config: Config) -> str:
    return f"{counted(len(config.steps), 'step')}: {', '.join(step.name for step in config.steps)}"


def _input(source: Source) -> str:
    rows, files = counted(source.num_rows, "row"), counted(len(source.files), "file")
    return f"{rows} in {files}, {counted(len(source.schema), 'column')}"


def _output(config: Config, source: Source, job: Job) -> str:
    refuse_overlap(config, source)
    columns = counted(len(job.output_schema), "column")
    if not config.output.partitioned:
        preflight(config.output, job.output_schema)
        rehearse(source, job.output_schema, config.output)
        return f"{config.output.path} can be written, {columns}"
    units = find_units(source.files, config.output)
    preflight(units[0].output, job.output_schema)
    rehearse(source, job.output_schema, units[0].output)
    return f"{config.output.path} can be written, {counted(len(units), 'partition')} of {columns}"


async def _ledger(config: Config) -> Finding:
    try:
        ledger = await open_ledger(config.ledger_location())
    except EnrichError as error:
        return _failed("ledger", error)
    await ledger.close()
    return Finding("ledger", ok=True, text=config.ledger_shown())


async def _endpoint(config: Config, job: Job) -> list[Finding]:
    if job.endpoint is None:
        return [Finding("endpoint", ok=True, text="the built-in sandbox")]
    return await check_endpoint(
        job.endpoint, {model for step in config.steps for model in (step.model, *step.fallback_models)}
    )


async def check_endpoint(endpoint: Endpoint, models: Iterable[str] = ()) -> list[Finding]:
    """Ask for health and models; sends no completion.

    Args:
        endpoint: where to, and with which key.
        models: those that are wanted; one that is not listed is named, for lists may be incomplete.
    """
    async with Client(endpoint, concurrency=2) as client:
        health = await client.health()
        detail = "it has no health check" if health.absent else health.detail
        findings = [Finding("endpoint", health.ok or health.absent, f"{endpoint.base_url}: {detail}")]
        try:
            found = await client.models()
        except RunStopped as error:
            if not findings[0].ok and not isinstance(error, KeyRefused):
                return findings  # what is wrong there is said
            return [*findings, _failed("key", error)]
    missing = sorted(set(models) - {"auto"} - set(found)) if found else []
    text = f"{len(found)} listed" + (f"; not among them: {', '.join(missing)}" if missing else "")
    return [*findings, Finding("key", ok=True, text="accepted"), Finding("models", not missing, text)]
