"""A run's figures as a text file for Prometheus: node exporter's textfile collector reads it from its folder.

The format is Prometheus' text exposition format 0.0.4. Counters begin at zero with each run, which `rate()` takes as it
takes any restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from enrich.base.loops import meanwhile
from enrich.base.version import __version__
from enrich.errors import EnrichError, OutputError, RunInterrupted
from enrich.files.placing import Temporary, sweep

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

    from enrich.records import Summary
    from enrich.show.snapshot import Snapshot
    from enrich.show.watch import Watch

METRICS_EVERY = 60.0  # seconds between writes while a run goes on
PREFIX = "beatra_enrich_"
LAST = f"{PREFIX}last_"  # what holds until the next run has ended, too
LAST_RUN = f"{LAST}run_"
DEFECT = 1  # the exit code of what is no error of ours

log = logging.getLogger("enrich")


class Family(NamedTuple):
    """One metric with its samples.

    Attributes:
        kind: ``gauge`` or ``counter``, as Prometheus means them.
        about: one sentence.
        samples: labels beside the output's, and the value.
    """

    name: str
    kind: str
    about: str
    samples: list[tuple[Mapping[str, str], float]]


Rows = tuple[tuple[str, str, int], ...]  # step, status, count


class Ended(NamedTuple):
    """How a run ended.

    Attributes:
        at: wall-clock seconds since the epoch.
        rows: per step and status, where the run counted them.
    """

    exit_code: int
    at: float
    seconds: float
    rows: Rows = ()


async def metered(
    work: Coroutine[object, object, Summary], watch: Watch, *, path: Path | None, output: str
) -> Summary:
    """Do a run, and keep its figures in a file meanwhile, and how it ended; without a path just do it.

    Raises:
        OutputError: there is something else than a file. What stands in the way later is told, and does not undo the run.
    """
    if path is None:
        return await work
    try:
        file = MetricsFile(path, watch, output)
    except BaseException:
        work.close()
        raise
    code, rows = DEFECT, Rows()
    async with meanwhile(file.keep_up(), "beatra-metrics"):
        try:
            summary = await work
            code, rows = summary.exit_code, summary.by_step
        except EnrichError as error:
            code = error.exit_code
            raise
        except (asyncio.CancelledError, KeyboardInterrupt):
            code = RunInterrupted.exit_code
            raise
        finally:
            file.end(code, rows)
    return summary


class MetricsFile:
    """A file with the figures of a run, replaced whole each time.

    Args:
        path: where it lies.
        watch: what the run is doing.
        output: of the run; a label of every sample, by which files of several jobs are told apart.

    Raises:
        OutputError: there is something else than a file.
    """

    def __init__(self, path: Path, watch: Watch, output: str) -> None:
        self._path = Path(os.path.realpath(path))
        if self._path.exists() and not self._path.is_file():
            raise OutputError(
                f"the metrics file {path} is no regular file",
                hint="name a file, such as beatra.prom in the folder that node exporter reads.",
            )
        self._watch = watch
        self._output = output
        self._lock = threading.Lock()
        self._ended = False
        self._begun = time.monotonic()
        self._before = _kept_of(self._path)

    async def keep_up(self) -> None:
        """Write the file again and again."""
        while True:
            await asyncio.to_thread(self._write_now)
            await asyncio.sleep(METRICS_EVERY)

    def end(self, exit_code: int, rows: Rows) -> None:
        """Write it for the last time."""
        with self._lock:
            self._ended = True
            self._put(Ended(exit_code, time.time(), time.monotonic() - self._begun, rows))

    def _write_now(self) -> None:
        with self._lock:
            if not self._ended:
                self._put(None)

    def _put(self, ended: Ended | None) -> None:
        text = exposition(self._watch.snapshot(), self._output, ended=ended, before=self._before)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            sweep(self._path)
            temporary = Temporary(self._path)
            try:
                temporary.path.write_bytes(text.encode())
                temporary.replace(self._path)
            finally:
                temporary.discard()
        except (OSError, EnrichError) as error:
            log.warning("the metrics file %s cannot be written: %s", self._path, error)


def exposition(now: Snapshot, output: str, *, ended: Ended | None = None, before: str = "") -> str:
    """Write a run's figures.

    Args:
        now: where the run stands.
        output: of the run.
        ended: how it ended; None while it goes on.
        before: what an earlier file said of the last run, as it said it: it holds until this one has ended.
    """
    families = list(_of_rows(now, ended)) + list(_of_requests(now)) + list(_of_the_run(now, ended))
    text = "".join(_written(family, output) for family in families)
    if ended is None:
        return text + before
    outdated = LAST_RUN if ended.exit_code else LAST
    text += "".join(line for line in before.splitlines(keepends=True) if outdated not in line)
    return text + "".join(_written(family, output) for family in _of_the_end(ended))


def _of_rows(now: Snapshot, ended: Ended | None) -> Iterator[Family]:
    rows = (ended.rows if ended is not None else ()) or now.rows
    counts = Counter({(step, status): count for step, status, count in rows})
    for step in dict.fromkeys(step for step, _, _ in rows):
        decided = sum(count for name, _, count in rows if name == step)
        counts[step, "pending"] += max(0, now.input_rows - decided)
    yield Family(
        "rows",
        "gauge",
        "Rows by step and status.",
        [({"step": step, "status": status}, count) for (step, status), count in counts.items()],
    )
    yield _one("rows_per_second", "gauge", "Rows per second, of the last half minute.", now.rate)


def _of_requests(now: Snapshot) -> Iterator[Family]:
    yield _one("requests_total", "counter", "Distinct requests sent.", now.requests)
    yield _one("attempts_total", "counter", "HTTP requests sent, retries included.", now.attempts)
    yield _by("retries_total", "counter", "Attempts that were made again, by cause.", "cause", now.retries)
    tokens = {
        "prompt": now.prompt_tokens,
        "completion": now.completion_tokens,
        "cached": now.cached_tokens,
        "reasoning": now.reasoning_tokens,
    }
    about = "Tokens of the answers; those cached are of the prompts, those of reasoning of the completions."
    yield _by("tokens_total", "counter", about, "kind", tuple(tokens.items()))
    yield _one("credits_total", "counter", "Credits charged.", now.credits)
    yield _one("in_flight", "gauge", "Requests that are out.", now.in_flight)
    yield _one(
        "ceiling", "gauge", "The most requests that may be out now; 0 where none are sent.", now.ceiling
    )
    yield _one("pause_seconds", "gauge", "Seconds for which nobody may send.", now.pause)
    about = "What may still be spent of what there is a budget for."
    yield _by("budget_left", "gauge", about, "of", now.budget_left)
    yield _one("ledger_commits_total", "counter", "Commits of the ledger.", now.commits)
    about = "Seconds that the commits of the ledger took."
    yield _one("ledger_commit_seconds_total", "counter", about, now.commit_seconds)


def _of_the_run(now: Snapshot, ended: Ended | None) -> Iterator[Family]:
    yield Family("build_info", "gauge", "The program.", [({"version": __version__}, 1)])
    yield _one("running", "gauge", "Whether a run goes on.", ended is None)
    yield _one("run_seconds", "gauge", "Seconds since the run began.", now.elapsed)
    about = "When this file was written."
    yield _one("updated_timestamp_seconds", "gauge", about, ended.at if ended is not None else time.time())


def _of_the_end(ended: Ended) -> Iterator[Family]:
    yield _one("last_run_end_timestamp_seconds", "gauge", "When the last run ended.", ended.at)
    yield _one("last_run_exit_code", "gauge", "The exit code of the last run.", ended.exit_code)
    if not ended.exit_code:
        yield _one("last_success_timestamp_seconds", "gauge", "When a run last ended with 0.", ended.at)
    yield _one("last_run_seconds", "gauge", "Seconds that the last run took.", ended.seconds)


def _one(name: str, kind: str, about: str, value: float) -> Family:
    return Family(name, kind, about, [({}, value)])


def _by(name: str, kind: str, about: str, label: str, values: tuple[tuple[str, float], ...]) -> Family:
    return Family(name, kind, about, [({label: what}, value) for what, value in values])


def _written(family: Family, output: str) -> str:
    """Write a family; nothing where it has no sample."""
    if not family.samples:
        return ""
    name = PREFIX + family.name
    lines = [f"# HELP {name} {family.about}", f"# TYPE {name} {family.kind}"]
    for labels, value in family.samples:
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in {**labels, "output": output}.items())
        lines.append(f"{name}{{{told}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    r"""Write a label's value: ``\``, ``"`` and the line feed stand behind a backslash; what is no text is written as its number."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(float(value))


def _kept_of(path: Path) -> str:
    """Give the lines of an earlier file that tell of the last run; nothing of a file that is not ours."""
    with contextlib.suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8")
        return "".join(re.findall(rf"^(?:# (?:HELP|TYPE) )?{LAST}.*\n", text, re.MULTILINE))
    return ""
