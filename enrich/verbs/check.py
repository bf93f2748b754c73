"""Everything about a job that can be checked without asking for a completion."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from enrich.base.words import counted
from enrich.config.endpoint import DEFAULT_BASE_URL, resolve_endpoint
from enrich.errors import ConfigError, EnrichError, KeyRefused, RunStopped
from enrich.files.rehearsal import rehearse
from enrich.files.sink import preflight
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger
from enrich.pace.lengths import FIRST_ANSWER
from enrich.records import Failure
from enrich.runs.job import Job, compile_job, refuse_overlap
from enrich.runs.partitions import find_units
from enrich.runs.promise import Promise, note_promise
from enrich.runs.since import own_columns
from enrich.verbs.cache_doctor import told_by_templates
from enrich.verbs.row_models import Named, named_models
from enrich.wire.client import Client
from enrich.wire.envelope import loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from enrich.config import Config, StepConfig
    from enrich.config.endpoint import Endpoint
    from enrich.files.source import Source
    from enrich.records import Reply
    from enrich.wire.gauges import Load

PROBE = "Say ok."


MODELS_SHOWN = 20  # of those that the endpoint lists


@dataclass(frozen=True, slots=True)
class CheckLine:
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


async def check_job(config: Config, limit: int | None = None, *, probe: bool = False) -> list[CheckLine]:
    """Check a job from its input to its endpoint; sends no completion, unless it is to probe.

    What depends on something that failed is left out.

    Args:
        config: the job.
        limit: only the first so many rows.
        probe: send one tiny request twice under one key, to see whether the endpoint keeps keys.
    """
    findings = [CheckLine("config", ok=True, text=_steps(config))]
    try:
        source = await asyncio.to_thread(open_source, config.input, limit=limit, own=own_columns(config))
    except EnrichError as error:
        return [*findings, _failed("input", error)]
    findings.append(CheckLine("input", ok=True, text=_input(source)))
    try:
        job = compile_job(config, source.schema, key_needed=False)
    except EnrichError as error:
        return [*findings, _failed("templates", error)]
    findings.append(CheckLine("templates", ok=True, text=f"use {', '.join(job.columns) or 'no column'}"))
    findings.append(await asyncio.to_thread(_try, "output", lambda: _output(config, source, job)))
    if config.gold is not None:
        findings.append(await asyncio.to_thread(_try, "gold", lambda: _gold(config, source, job)))
    findings.append(await _ledger(config))
    findings += [
        CheckLine("budget", ok=True, text=said) for step in config.steps if (said := _soft(config, step))
    ]
    findings += [await _guarantee(config, source, step.name) for step in config.steps if _promises(step)]
    findings += [CheckLine("images", ok=True, text=_images(step)) for step in config.steps if step.images]
    findings += [
        CheckLine("cache", ok=True, text=said)
        for step in job.steps
        if (said := told_by_templates(step, config.endpoint.cache_from)) is not None
    ]
    named = await asyncio.to_thread(named_models, job, source)
    findings += [CheckLine("model", one.ok, str(one)) for one in named]
    wanted = _wanted(job, named)
    findings += await _endpoint(config, job, wanted)
    if probe and job.endpoint is not None and all(finding.ok for finding in findings):
        findings.append(await _probe(config, job.endpoint, next(iter(wanted), "auto")))
    return findings


def _wanted(job: Job, named: Iterable[Named]) -> list[str]:
    """Give the models that will be asked, as far as they are known: the steps', and those that the first rows name."""
    same = [model for step in job.steps for model in step.builder.models.same]
    for step in job.config.steps:
        same += [stage.model for stage in step.escalation.stages] if step.escalation is not None else []
        same += step.ballot.models if step.ballot is not None else []
    return list(dict.fromkeys([*same, *(model for one in named for model in (*one.models, *one.further))]))


async def _probe(config: Config, endpoint: Endpoint, model: str) -> CheckLine:
    """See whether one request, sent twice under one key, gets one answer; what is found is remembered in the ledger."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROBE}]}).encode()
    key = str(uuid.uuid4())
    ids: list[str] = []
    async with Client(endpoint, concurrency=1) as client:
        for _ in range(2):
            reply = await client.attempt(body, key=key, request_id=str(uuid.uuid4()), stream=False)
            if isinstance(reply, Failure):
                return CheckLine("probe", ok=False, text=f"no answer: {reply}")
            ids.append(_id_of(reply))
    if not all(ids):
        return CheckLine("probe", ok=False, text="the answers have no id to compare; set endpoint.idempotent")
    kept = ids[0] == ids[1]
    ledger = await open_ledger(config.ledger_location())
    try:
        await note_promise(endpoint.base_url, ledger, kept=kept)
    finally:
        await ledger.close()
    cost = "1 completion was" if kept else "2 completions were"
    return CheckLine("probe", ok=True, text=f"{Promise(kept, 'probe').text()}; {cost} paid for")


def _id_of(reply: Reply) -> str:
    try:
        said = loads(reply.body)
    except ValueError:
        return ""
    name = said.get("id") if isinstance(said, dict) else None
    return name if isinstance(name, str) else ""


def _gold(config: Config, source: Source, job: Job) -> str:
    from enrich.report.gold import check_gold, foreign_labels, shown_to_model

    check_gold(config, job.output_schema)
    given = config.gold.columns if config.gold is not None else {}
    held = ", ".join(f"{answer} is held to {known}" for answer, known in given.items())
    warnings = [shown_to_model(config, job.columns), *foreign_labels(config, source)]
    return "; warning: ".join([held, *(said for said in warnings if said)])


def _try(name: str, work: Callable[[], str]) -> CheckLine:
    try:
        return CheckLine(name, ok=True, text=work())
    except EnrichError as error:
        return _failed(name, error)


def _failed(name: str, error: EnrichError) -> CheckLine:
    return CheckLine(name, ok=False, text=str(error).replace("\n", "\n" + " " * 17))


def _promises(step: StepConfig) -> bool:
    return step.escalation is not None and step.escalation.guarantee is not None


async def _guarantee(config: Config, source: Source, name: str) -> CheckLine:
    """Say on how many rows a guarantee will be found, or that nothing is known of any."""
    from enrich.runs.guarantee import known_values

    try:
        ledger = await open_ledger(config.ledger_location())
        try:
            column, known = await known_values(config, source, ledger, name)
        finally:
            await ledger.close()
    except EnrichError as error:
        return _failed("guarantee", error)
    return CheckLine(
        "guarantee", ok=True, text=f"{counted(len(known), 'row')} with a known `{column}` to find it on"
    )


def _images(step: StepConfig) -> str:
    return (
        f"warning: step `{step.name}` sends pictures as content parts. By Beatra's contract a message's content is a string: "
        "ask an endpoint that takes parts (the sandbox does with --parts)"
    )


def _soft(config: Config, step: StepConfig) -> str | None:
    """Say where nobody knows what an answer costs at most: a budget in anything but requests may be passed by one."""
    bounded = any(isinstance(limit, int) for limit in (step.max_tokens, step.max_completion_tokens))
    hard = all(window.tokens is window.credits is window.usd is None for window in config.budget.windows)
    if bounded or hard:
        return None
    return (
        f"`budget.windows` is soft: step `{step.name}` sets no max_tokens, so an answer longer than {FIRST_ANSWER:,} tokens"
        " may pass it by what it costs more; set max_tokens and it cannot"
    )


def _steps(config: Config) -> str:
    return f"{counted(len(config.steps), 'step')}: {', '.join(step.name for step in config.steps)}"


def _input(source: Source) -> str:
    is_query = any(file.copy_of for file in source.files)
    rows = counted(source.num_rows, "row")
    files = "the result of a query" if is_query else counted(len(source.files), "file")
    return f"{rows} in {files}, {counted(len(source.schema), 'column')}"


def _output(config: Config, source: Source, job: Job) -> str:
    refuse_overlap(config, source)
    columns = counted(len(job.output_schema), "column")
    if not config.output.partitioned:
        preflight(config.output, job.output_schema)
        rehearse(source, job.output_schema, config.output)
        return f"{config.output.told} can be written, {columns}"
    units = find_units(source.files, config.output)
    preflight(units[0].output, job.output_schema)
    rehearse(source, job.output_schema, units[0].output)
    return f"{config.output.path} can be written, {counted(len(units), 'partition')} of {columns}"


async def _ledger(config: Config) -> CheckLine:
    try:
        ledger = await open_ledger(config.ledger_location())
    except EnrichError as error:
        return _failed("ledger", error)
    await ledger.close()
    return CheckLine("ledger", ok=True, text=config.ledger_shown())


async def _endpoint(config: Config, job: Job, wanted: Iterable[str]) -> list[CheckLine]:
    if job.endpoint is None:
        return [
            CheckLine(
                "endpoint", ok=True, text="the built-in sandbox: answers are made up, nothing is charged"
            )
        ]
    try:
        return await check_endpoint(resolve_endpoint(config.endpoint, os.environ), wanted)
    except ConfigError as error:  # without a key the endpoint's health can be asked for all the same
        async with Client(replace(job.endpoint, api_key=None), concurrency=1) as client:
            return [await _health(client, job.endpoint.base_url), _failed("key", error)]


async def check_endpoint(endpoint: Endpoint, models: Iterable[str] = ()) -> list[CheckLine]:
    """Ask for health and models; sends no completion.

    Args:
        endpoint: where to, and with which key.
        models: those that are wanted; one that is not listed is named, for lists may be incomplete.
    """
    if endpoint.whole:
        said = f"{endpoint.base_url} is named whole: where its health and models are is not known; --probe asks it"
        return [CheckLine("endpoint", ok=True, text=said)]
    async with Client(endpoint, concurrency=2) as client:
        findings = [await _health(client, endpoint.base_url), *_gateway(client, endpoint)]
        try:
            found = await client.models()
        except RunStopped as error:
            if not findings[0].ok and not isinstance(error, KeyRefused):
                return findings  # what is wrong there is said
            return [*findings, _failed("key", error)]
        if endpoint.metrics_url is not None:
            findings.append(_gauges(await client.load()))
    source = endpoint.key_source
    key = f"accepted, from {source.name}" if source is not None else "none is set, and none was asked for"
    return [*findings, CheckLine("key", ok=True, text=key), _models(endpoint, set(models), found)]


async def _health(client: Client, base_url: str) -> CheckLine:
    health = await client.health()
    detail = "it has no health check" if health.absent else health.detail
    return CheckLine("endpoint", health.ok or health.absent, f"{base_url}: {detail}")


def _gauges(load: Load | None) -> CheckLine:
    if load is None:
        said = "endpoint.metrics_url gives no gauges of vLLM, SGLang, llama.cpp or TGI\nHint: give the URL of the engine's own /metrics."
        return CheckLine("metrics", ok=False, text=said.replace("\n", "\n" + " " * 17))
    return CheckLine(
        "metrics", ok=True, text=f"{load.working:,} requests are worked on, {load.waiting:,} wait"
    )


def _models(endpoint: Endpoint, wanted: set[str], found: list[str]) -> CheckLine:
    """Say which of the models wanted are not listed; `auto` is Beatra's own, other endpoints must list it."""
    if endpoint.base_url == DEFAULT_BASE_URL:
        wanted = wanted - {"auto"}
    missing = sorted(wanted - set(found)) if found else []
    if not missing:
        return CheckLine("models", ok=True, text=f"{len(found)} listed")
    listed = ", ".join(sorted(found)[:MODELS_SHOWN]) + (", …" if len(found) > MODELS_SHOWN else "")
    name = "steps.*.model: " if "auto" in missing else ""
    text = f"not listed: {', '.join(missing)}\nHint: {name}choose one of {listed}"
    return CheckLine("models", ok=False, text=text.replace("\n", "\n" + " " * 17))


def _gateway(client: Client, endpoint: Endpoint) -> list[CheckLine]:
    """Name a gateway that stands in front of the endpoint, and what it wants to be told."""
    gateway = client.gateway
    if gateway is None:
        return []
    set_already = gateway.setting in {name.lower() for name in endpoint.headers}
    advice = "" if set_already else gateway.advice.replace("{timeout}", f"{endpoint.timeout:g}")
    return [CheckLine("gateway", ok=True, text=f"{gateway.name}{f': {advice}' if advice else ''}")]
