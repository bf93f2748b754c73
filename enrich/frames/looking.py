"""What the data frame accessors show without answering rows: requests, what asking would come to, a report."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from enrich.config import complete_config
from enrich.errors import UsageError
from enrich.frames import reasked
from enrich.frames.accessor import held, in_background, prepared
from enrich.frames.arguments import Planned, Reported, as_config
from enrich.report.page import report_frame
from enrich.runs.collect import collect_job
from enrich.runs.options import RunOptions
from enrich.runs.session import open_session
from enrich.show.display import displayed
from enrich.verbs.plan import Survey
from enrich.verbs.preview import request_texts

if TYPE_CHECKING:
    from typing import Any

    from enrich.config import JobConfig
    from enrich.frames.accessor import FrameJob, FrameSource
    from enrich.frames.arguments import Settings
    from enrich.runs.reasked import Reasked
    from enrich.runs.session import Session
    from enrich.verbs.forecast import Estimate
    from enrich.verbs.plan_result import JobPlan


@dataclass(frozen=True, slots=True)
class Plan:
    """What asking would come to, as far as it can be told without the answers of earlier steps.

    Attributes:
        rows: of the frame.
        requests: distinct ones.
        known: those of them that the ledger has an answer to.
        to_ask: those that would be sent.
        reasked: rows that were answered before and would be asked again, and why; None where there are none.
        whole: all of it, as `beatra-enrich plan` says it.
    """

    rows: int
    requests: int
    known: int
    to_ask: int
    reasked: Reasked | None = None
    whole: JobPlan | None = field(default=None, repr=False, compare=False)

    @property
    def tokens(self) -> Estimate | None:
        """Give the tokens that it would take: `likely`, `low` and `high`."""
        return self.whole.tokens if self.whole is not None else None

    @property
    def credits(self) -> Estimate | None:
        """Give the credits that it would cost, likewise; None as long as no answer named a charge."""
        return self.whole.credits if self.whole is not None else None

    @property
    def seconds(self) -> Estimate | None:
        """Give the seconds that it would take, likewise; None where there is nothing to ask."""
        return self.whole.seconds if self.whole is not None else None

    def __str__(self) -> str:
        return self.whole.text("sample=50") if self.whole is not None else repr(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # as IPython calls it
        """Show a notebook what `print` shows."""
        printer.text("Plan(…)" if cycle else str(self))


class Page(str):
    """A text that a notebook shows line by line."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def preview(asked: Settings, source: FrameSource) -> Page:
    """Write out the requests of these rows; sends nothing."""
    with prepared(asked, source, key_needed=False) as given:
        return Page("\n".join(request_texts(given.job, given.batches)))


# --- what it would come to ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Begun:
    """A frame's job, as a survey takes it."""

    config: JobConfig
    options: RunOptions
    source: reasked.FrameRows
    session: Session


def plan(asked: Planned, source: FrameSource) -> Plan:
    """Count what asking would come to, and measure it on a sample where one is wanted; else nothing is sent.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped: the sample could not be asked to its end; what was answered is kept.
    """
    if asked.sample < 0:
        raise UsageError(
            f"sample={asked.sample} is no number of rows", hint="sample=50 asks 50 rows and measures."
        )
    with prepared(asked, source, key_needed=bool(asked.sample)) as given:
        return in_background(_plan(asked, *held(asked, given)))


async def _plan(asked: Planned, given: FrameJob, rows: reasked.FrameRows | None) -> Plan:
    if rows is None:
        batches = list(given.batches)
        rows = reasked.FrameRows(given.schema, sum(batch.num_rows for batch in batches), batches)
    options = RunOptions(api_key=asked.api_key)
    wanted = asked.progress if asked.sample else False
    async with displayed(options.progress, wanted=wanted), open_session(given.job) as session:
        again = await reasked.find(rows, session) if asked.ledger is not None and rows.num_rows else None
        begun = _Begun(given.job.config, options, rows, session)
        survey = Survey(begun, asked.seed, reasked.name_of(given.job))
        whole, _ = await survey.plan(asked.sample, drawn=False)
    known, left = whole.in_ledger, whole.to_ask
    return Plan(whole.rows, known + left, known, left, again, whole)


# --- a report -------------------------------------------------------------------------------------------


def report(asked: Reported, source: FrameSource) -> Path:
    """Write a page on what was asked of a frame; sends nothing.

    Raises:
        UsageError: nothing was asked of it yet, or there is no ledger.
        OutputError: the page cannot be written.
    """
    if asked.ledger is None:
        raise UsageError("ledger=None keeps nothing that a report could tell of", hint="leave `ledger` out.")
    with prepared(asked, source, key_needed=False) as given:
        named = reasked.name_of(given.job)
    with tempfile.TemporaryDirectory(prefix="beatra-") as folder:
        page = str(Path(asked.path).absolute())
        return in_background(_report(asked, source, named, page, Path(folder)))


async def _report(asked: Reported, source: FrameSource, named: str, page: str, folder: Path) -> Path:
    """Let the frame be a file, collect its answers from the ledger, and tell of them as of any job over files."""
    names = [name for name in source.names if source.names.count(name) == 1]
    schema, batches = source.take(names)
    await asyncio.to_thread(_write, schema, batches, folder / "frame.arrow")
    document = as_config(asked).model_dump(by_alias=True, exclude_unset=True)
    files = {"input": str(folder / "frame.arrow"), "output": str(folder / "answers.parquet"), "report": None}
    config = complete_config({**document, **files}, folder=folder)
    await collect_job(config, RunOptions())
    return Path(await report_frame(config, page, named, content=asked.content))


def _write(schema: pa.Schema, batches: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
