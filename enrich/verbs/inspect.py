"""What can be known without asking for a completion: preview, check, status, models."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted, duration
from enrich.config import URL_VARIABLE, EndpointConfig
from enrich.config.endpoint import Endpoint, resolve_endpoint
from enrich.errors import EnrichError, KeyRefused, RunStopped
from enrich.files.sink import preflight
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.prompt.template import RowError
from enrich.records import STATES, key_text
from enrich.runs.job import SANDBOX, Job, compile_job, refuse_overlap
from enrich.runs.partition_todo import survey
from enrich.runs.partitions import find_units
from enrich.runs.session import sandbox_endpoint
from enrich.show.progress import Pulse, pulse_name
from enrich.wire.client import Client
from enrich.wire.completion import completion_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.show.progress import Snapshot

LATE_AFTER = 10.0  # seconds without a note of a run, which makes one every other second
LOST_AFTER = 60.0  # seconds after which it counts as gone


def preview_job(config: Config, rows: int) -> Iterator[str]:
    """Give the first rows' requests as text."""
    source = open_source(config.input, limit=rows)
    job = compile_job(config, source.schema, key_needed=False)
    batches = source.batches(columns=job.columns)
    return request_texts(job, [row for batch in batches for row in batch.to_pylist()])


def request_texts(job: Job, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Give these rows' requests as text: method, key and body, or why a row has none.

    Later steps are shown as far as they do not need an earlier step's answer.
    """
    for number, row in enumerate(rows):
        for step in job.steps:
            yield f"# row {number + 1}, step {step.name}"
            if step.needs:
                yield f"needs the answer of {', '.join(step.needs)}"
                continue
            try:
                if not step.builder.wanted(row):
                    yield "skipped: `when` is false"
                    continue
                ask = step.builder.ask(step.builder.prepare(row))
            except RowError as error:
                yield f"no request: {error}"
                continue
            yield f"POST {job.base_url}/chat/completions"
            yield f"Idempotency-Key: {key_text(ask.key)}"
            yield json.dumps(json.loads(ask.body), indent=2, ensure_ascii=False)
            yield ""


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
        return f"{config.output.path} can be written, {columns}"
    units = find_units(source.files, config.output)
    preflight(units[0].output, job.output_schema)
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


async def list_models(endpoint: EndpointConfig | None) -> list[str]:
    """List the account's models.

    Raises:
        ConfigError: there is no key.
        EnrichError: the endpoint gave no list.
    """
    config = endpoint or EndpointConfig()
    base_url = config.base_url or os.environ.get(URL_VARIABLE)
    if base_url == SANDBOX:
        with sandbox_endpoint(config.timeout) as local:
            return await _models_of(local)
    return await _models_of(resolve_endpoint(config, os.environ))


async def _models_of(endpoint: Endpoint) -> list[str]:
    async with Client(endpoint, concurrency=1) as client:
        return await client.models()


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What a ledger holds.

    Attributes:
        requests: per state: answered, failed, sent (no answer yet), in_doubt, skipped.
        credits: charged for the answers it holds, all runs together.
        partitions: of an output that is a folder, its files by how they stand; None of one that is a file.
    """

    ledger: str
    requests: dict[str, int]
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    credits: float
    last_run: dict[str, Any] | None
    partitions: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return asdict(self)

    def text(self) -> str:
        """Write it for people."""
        lines = [f"ledger      {self.ledger}"]
        lines += [f"{state:11} {count:,}" for state, count in self.requests.items()]
        lines.append(f"attempts    {self.attempts:,}")
        lines.append(
            f"tokens      {self.total_tokens:,} ({self.prompt_tokens:,} prompt, {self.completion_tokens:,} completion)"
        )
        lines.append(f"credits     {self.credits:,.6g}")
        if self.partitions is not None:
            told = ", ".join(f"{count:,} {state}" for state, count in self.partitions.items() if count)
            lines.append(f"partitions  {told}")
        if self.last_run is not None:
            lines.append(f"last run    {self.last_run.get('reason', '')}")
        if self.requests.get("in_doubt"):
            lines.append(
                "Hint: `beatra-enrich retry CONFIG --in-doubt resend` or `--in-doubt skip` settles what is in doubt."
            )
        return "\n".join(lines)


async def status_job(config: Config) -> LedgerStatus:
    """Read what the ledger of a job knows; sends nothing.

    Raises:
        LedgerError: there is no ledger yet.
    """
    location = config.ledger_location()
    require_ledger(location)
    ledger = await open_ledger(location, make=False)
    requests = dict.fromkeys(STATES, 0)
    attempts = prompt = answer = total = 0
    credits_ = 0.0
    try:
        async for entries in ledger.scan():
            for entry in entries:
                record = entry.record
                attempts += record.attempts
                requests[record.standing] += 1
                completion = completion_of(record)
                if completion is not None:
                    prompt += completion.usage.prompt_tokens or 0
                    answer += completion.usage.completion_tokens or 0
                    total += completion.usage.total_tokens or 0
                    credits_ += completion.usage.credits or 0.0
        last = await ledger.last_run()
    finally:
        await ledger.close()
    return LedgerStatus(
        config.ledger_shown(),
        requests,
        attempts,
        prompt,
        answer,
        total,
        round(credits_, 9),
        last.summary if last else None,
        await survey(config) if config.output.partitioned else None,
    )


async def watch_job(config: Config, show: Callable[[Snapshot], None], *, every: float) -> str:
    """Follow a run of this job from outside until it ends; reads notes in the ledger, writes nothing.

    Args:
        config: the job.
        show: told where the run stands.
        every: seconds between looks.

    Returns:
        How it ended, for people.

    Raises:
        LedgerError: there is no ledger yet.
    """
    location = config.ledger_location()
    require_ledger(location)
    ledger = await open_ledger(location, read_only=True)
    try:
        while True:
            note = await ledger.recall(pulse_name(config.output.path))
            if note is None:
                return "no run of this job has begun yet"
            pulse = Pulse.from_dict(note)
            if pulse.ended:
                return await _ending(ledger, pulse.run)
            age = time.time() - pulse.at
            if age > LOST_AFTER:
                return (
                    f"nothing was heard of the run for {duration(age)}: it was killed, or its machine sleeps\n"
                    "Hint: beatra-enrich run CONFIG goes on from there."
                )
            late = f"nothing was heard of the run for {duration(age)}" if age > LATE_AFTER else ""
            show(replace(pulse.snapshot, waiting_for=late or pulse.snapshot.waiting_for))
            await asyncio.sleep(every)
    finally:
        await ledger.close()


async def _ending(ledger: Ledger, run: int) -> str:
    last = await ledger.last_run()
    if last is None or last.number < run or last.summary is None:
        return "the last run of this job has ended"
    return f"the last run has ended: {last.summary.get('reason', '')}"
