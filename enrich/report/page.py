"""Gather a report and write it: one HTML file that needs nothing else and asks nobody."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from markupsafe import escape

from enrich.base.location import ObjectUrl, is_url
from enrich.base.texts import json_bytes
from enrich.base.version import __version__
from enrich.config import Place, refuse_target
from enrich.errors import UsageError
from enrich.files.sink import destination, read_manifest
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.records import STATUSES
from enrich.report import texts
from enrich.report.facts import Finding, Report, Rows
from enrich.report.findings import find
from enrich.report.gold import gold_scores
from enrich.report.html import asset, policy, put_in_place, template, trusted
from enrich.report.job_words import job_words
from enrich.report.log import read_log
from enrich.report.rows import read_rows
from enrich.report.told import told
from enrich.report.waste import CACHE_HINT, unread_caches, waste_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from enrich.config import Config
    from enrich.ledger.protocol import Ledger, RunInfo
    from enrich.report.facts import Sample, Spread

LIBRARY = "vendor/uplot-1.6.32"
HEAD = 4_096  # bytes of a page in which its title stands
FRAME = "data frame"  # what a page calls it
FINISHED = (0, 3)  # the exit codes of runs that replaced the output
MAX_LABELS = 12  # values of a column that are drawn as bars
MAX_RUNS = 200  # told one by one
GOLD_FIGURES = {
    "accuracy": "Accuracy",
    "normalised": "Normalised match",
    "kappa": "Cohen's κ",
    "alpha": "Krippendorff's α",  # noqa: RUF001  # its Greek letter
    "mae": "Mean absolute error",
    "bias": "Bias",
}


@dataclass(frozen=True, slots=True)
class Written:
    """A report that was written.

    Attributes:
        path: where it lies.
        report: what it shows.
    """

    path: str
    report: Report

    def to_dict(self) -> dict[str, Any]:
        """Give where it lies, and what it shows, as plain JSON: see `told`."""
        return {"report": self.path, **told(self.report)}


async def report_job(config: Config, path: str | None = None, *, content: bool = True) -> str:
    """Write the report on a job as `written_report` does; gives where it lies."""
    return (await written_report(config, path, content=content)).path


async def written_report(config: Config, path: str | None = None, *, content: bool = True) -> Written:
    """Write the report on a job; gives where it lies, and what it shows. Sends nothing.

    Args:
        config: the job.
        path: default: ``report`` of the configuration, else ``report.html`` beside the output.
        content: False leaves out everything that prompts and answers say.

    Raises:
        UsageError: there is no ledger yet, no run has ended, or the last one was another job's.
        OutputError: the file cannot be written.
    """
    location = config.ledger_location()
    require_ledger(location)
    page = destination(path or config.report or _beside(config))
    refuse_target(Place("the report", page), config, location)
    ledger = await open_ledger(location, read_only=True, make=False)
    try:
        return await _write(config, ledger, page, content=content)
    finally:
        await ledger.close()


def _beside(config: Config) -> str:
    """Give where the page lies unless it is told: beside the output, and not in the place of another job's page."""
    output = config.output.path
    if is_url(output):
        return str(ObjectUrl.parse(output).beside("report.html"))
    name = Path(output).name
    page = Path(output).parent / "report.html"
    return str(page if _is_free(page, name) else page.with_name(f"{name.partition('.')[0]}.report.html"))


def _is_free(page: Path, name: str) -> bool:
    """Say whether there is no page, or one on an output of this name."""
    try:
        with page.open("rb") as file:
            return f"<title>{escape(name)}: report</title>".encode() in file.read(HEAD)
    except OSError:
        return True


async def write_report(config: Config, ledger: Ledger, path: str | Path, *, content: bool = True) -> str:
    """Write the report on a job, by its ledger.

    Args:
        config: the job.
        ledger: where its last run has ended.
        path: the HTML file, or the URL of an object; replaced whole.
        content: False leaves out everything that prompts and answers say.

    Raises:
        UsageError: no run has ended yet, or the last one was another job's.
        OutputError: the file cannot be written.
    """
    return (await _write(config, ledger, path, content=content)).path


async def _write(config: Config, ledger: Ledger, path: str | Path, *, content: bool) -> Written:
    """Write the report as `write_report` does; gives what it shows, too."""
    place = destination(str(path))
    report = await gather(config, ledger, content=content)
    html = await asyncio.to_thread(render, report)
    await asyncio.to_thread(put_in_place, place, html)
    return Written(place, report)


async def report_frame(config: Config, path: str, named: str, *, content: bool = True) -> str:
    """Write the report on what was asked of a data frame; gives where it lies.

    Args:
        config: the frame as a job over files, whose output was collected.
        path: the HTML file.
        named: what the ledger calls the question.
        content: as for `written_report`.

    Raises:
        UsageError: nothing was asked yet.
        OutputError: the file cannot be written.
    """
    location = config.ledger_location()
    require_ledger(location)
    place = destination(path)
    refuse_target(Place("the report", place), config, location)
    ledger = await open_ledger(location, read_only=True, make=False)
    try:
        report = await gather(config, ledger, content=content, named=named)
    finally:
        await ledger.close()
    await asyncio.to_thread(put_in_place, place, await asyncio.to_thread(render, report))
    return place


async def gather(config: Config, ledger: Ledger, *, content: bool, named: str | None = None) -> Report:
    """Read everything that a report shows.

    Args:
        config: the job.
        ledger: where its runs stand.
        content: as for `written_report`.
        named: what the ledger calls the question, of a data frame.

    Raises:
        UsageError: no run has ended yet, or the last one was another job's.
    """
    runs = await ledger.runs()
    last = await _last_run(config, ledger) if named is None else _last_asked(runs, named)
    summary = last.summary or {}
    mine = [run for run in runs if run.output == (named or summary["output"])]
    others = {run.number for run in runs if run.output is not None} - {run.number for run in mine}
    if named is not None:
        others |= {run.number for run in runs if run.output is None}
    rows, manifest = await asyncio.to_thread(_read_output, config, None if named else summary)
    gold = await asyncio.to_thread(gold_scores, config) if rows is not None else ()
    log = await read_log(
        ledger,
        others=others,
        wanted=_keys(rows) if rows is not None else (),
    )
    rows = (
        _with_prompts(rows, log.prompts)
        if rows is not None
        else Rows(0, (), (), log.failures, log.samples, ())
    )
    return Report(
        last=last,
        summary=summary,
        output=config.output.path if named is None else FRAME,
        ledger=config.ledger_shown(),
        runs=tuple(reversed(mine)),
        job=job_words(config, content=content),
        manifest=manifest,
        rows=rows,
        requests=log.requests,
        findings=(
            *find(rows, log.requests, content=content),
            *(
                Finding("The prompt cache is hardly read", said, CACHE_HINT)
                for said in unread_caches(summary.get("waste"), config.endpoint.cache_from)
            ),
        ),
        content=content,
        gold=gold,
        waste=waste_of(mine),
    )


async def _last_run(config: Config, ledger: Ledger) -> RunInfo:
    """Give the last run of a ledger, which is this job's and has ended."""
    last = await ledger.last_run()
    if last is None or last.summary is None:
        raise UsageError(
            f"no run has ended yet in {config.ledger_shown()}",
            hint="beatra-enrich run CONFIG goes on with it; beatra-enrich status CONFIG shows how far it came.",
        )
    summary, output = last.summary, config.output.path
    if summary["output"] != orjson.loads(json_bytes(output)):  # as the ledger has it
        raise UsageError(
            f"the last run in {config.ledger_shown()} wrote {summary['output']}, not {output}",
            hint=f"add --output {summary['output']}, or run this job again: nothing is sent twice.",
        )
    return last


def _last_asked(runs: Sequence[RunInfo], named: str) -> RunInfo:
    """Give the last run that has ended of those that asked a question of a data frame."""
    for run in reversed(runs):
        if run.output == named and run.summary is not None:
            return run
    raise UsageError(
        "nothing was asked yet that a report could tell of",
        hint="ask first; `report` takes the arguments that `complete` was given, `name` and `ledger` among them.",
    )


def _read_output(config: Config, summary: dict[str, Any] | None) -> tuple[Rows | None, dict[str, Any]]:
    """Give the rows of the output and its manifest; None and an empty one where the last run did not write it."""
    if summary is not None and summary["exit_code"] not in FINISHED:
        return None, {}
    manifest = read_manifest(config.output.path)
    folder = not is_url(config.output.path) and Path(config.output.path).is_dir()
    return (read_rows(config) if manifest is not None or folder else None), manifest or {}


def _keys(rows: Rows) -> set[bytes]:
    """Give the requests whose prompts are shown."""
    keys = [*(sample.key for sample in rows.samples), *(failure.key for failure in rows.failures)]
    return {key for key in keys if key is not None}


def _with_prompts(rows: Rows, prompts: dict[bytes, str]) -> Rows:
    return replace(
        rows,
        samples=tuple(replace(s, prompt=prompts.get(s.key or b"", s.prompt)) for s in rows.samples),
        failures=tuple(
            replace(f, prompt=texts.cut(prompts.get(f.key or b"", f.prompt), texts.FAILED_CHARACTERS))
            for f in rows.failures
        ),
    )


def render(report: Report) -> str:
    """Make the page. Its policy forbids any network, and any script or style that is not its own."""
    styles = asset(f"{LIBRARY}/uPlot.min.css") + asset("page.css")
    licence = f"/*\n{asset(f'{LIBRARY}/LICENSE')}\n*/\n"  # it asks to go with every copy
    scripts = [licence + asset(f"{LIBRARY}/uPlot.iife.min.js"), asset("page.js") + asset("lists.js")]
    return template("page.html.jinja", moment=texts.moment, tags=_tags).render(
        report=report,
        summary=report.summary,
        reason=_reason(report),
        told=_told(report),
        runs=[(run, _ending(report, run)) for run in report.runs[:MAX_RUNS]],
        rows=report.rows,
        requests=report.requests,
        statuses=_row_statuses(report),
        standing=_standing(report),
        spreads=_spreads(report),
        gold=report.gold,
        changes=[(step.name, step.change) for step in report.rows.steps if step.change is not None],
        figures=GOLD_FIGURES,
        max_labels=MAX_LABELS,
        choices=_choices(report),
        percent=texts.percent,
        version=__version__,
        charts=_script_json(_charts(report)),
        styles=trusted(styles),
        scripts=[trusted(script) for script in scripts],
        policy=policy(styles, scripts),
    )


def _reason(report: Report) -> str:
    """Say how the last run ended."""
    reason = _ending(report, report.last)
    return reason[:1].upper() + reason[1:]


def _told(report: Report) -> dict[str, Any]:
    """Give what the newest run that sent anything said of its pace: what held it up, what was found of the limits."""
    for run in report.runs:
        if run.summary is not None and run.summary.get("requests"):
            held = run.summary.get("bound_by") or {"text": ""}  # an older version says nothing of it
            return {"run": run.number, "held": held, "found": run.summary.get("found") or ()}
    return {"run": 0, "held": {"text": ""}, "found": ()}


def _ending(report: Report, run: RunInfo) -> str:
    """Say how a run ended; without content, of what the endpoint said only the code."""
    if run.summary is None:
        return "has not ended: it is at work, or was killed"
    reason: str = run.summary["reason"]
    if not report.content and run.summary["exit_code"] not in FINISHED:
        reason = ": ".join(reason.split(": ")[:3])
    return reason


def _row_statuses(report: Report) -> list[tuple[str, list[tuple[str, int]]]]:
    """Give rows per status: of each step, or of the run when no output tells of steps."""
    order: dict[str, int] = {status: place for place, status in enumerate(STATUSES)}
    given = [(step.name, list(step.statuses)) for step in report.rows.steps if step.statuses]
    if not given:
        given = [
            ("rows", [(status, report.summary[status]) for status in STATUSES if report.summary[status]])
        ]
    return [(name, sorted(counts, key=lambda item: order.get(item[0], 99))) for name, counts in given]


def _standing(report: Report) -> tuple[int, int, int]:
    """Give how many rows there are, how many of them are ok, and how many were left out on purpose."""
    rows, summary = report.rows, report.summary
    if rows.steps and all(step.statuses for step in rows.steps):
        return rows.count, rows.count - rows.failed - rows.skipped, rows.skipped
    return summary["rows"], summary["ok"], summary["skipped"]


def _spreads(report: Report) -> list[Spread]:
    """Give what is told of the answers' columns; nothing when content is left out."""
    if not report.content:
        return []
    return [spread for step in report.rows.steps for spread in step.spreads]


def _tags(sample: Sample) -> str:
    """Give what a sample may be chosen by, as JSON."""
    return orjson.dumps([sample.status, *(f"{column}: {label}" for column, label in sample.labels)]).decode()


def _choices(report: Report) -> list[str]:
    """Give what samples may be chosen by."""
    found = [(sample.status, "", "") for sample in report.rows.samples]
    found += [("", column, label) for sample in report.rows.samples for column, label in sample.labels]
    return [status or f"{column}: {label}" for status, column, label in sorted(set(found))]


def _charts(report: Report) -> dict[str, Any]:
    latency = report.requests.latency
    return {"time": asdict(report.requests.timeline), "latency": asdict(latency) if latency else None}


def _script_json(value: Any) -> Markup:
    """Give JSON that nothing in it can end the script element with."""
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return trusted(text)
