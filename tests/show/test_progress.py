"""What a person sees of a run: true, on one screen, and gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from enrich.base.interrupt import Interrupt
from enrich.base.words import duration
from enrich.config import LimitsConfig, load_config
from enrich.engine.engine import Engine, Stats
from enrich.engine.outage import Outage
from enrich.pace.pace import Pace
from enrich.runs.options import RunOptions
from enrich.runs.pipeline import run_job
from enrich.show import progress
from enrich.show.logs import PROGRESS, set_up_logs
from enrich.show.progress import Snapshot, Watch, gap, shown
from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SNAPSHOTS = st.builds(
    Snapshot,
    phase=st.sampled_from(["asking", "reading the input", "writing the output"]),
    done=st.integers(0, 10**9),
    total=st.none() | st.integers(0, 10**9),
    seconds=st.floats(0, 1e6),
    rate=st.floats(0, 1e6),
    eta=st.none() | st.floats(0, 1e7),
    in_flight=st.integers(0, 20_000),
    ceiling=st.integers(0, 20_000),
    tokens=st.integers(0, 10**12),
    credits=st.floats(0, 1e9),
    failures=st.lists(
        st.tuples(st.sampled_from(["timeout", "invalid_request"]), st.integers(1, 10**6)),
        max_size=2,
        unique_by=lambda cause: cause[0],
    ).map(tuple),
    waiting_for=st.sampled_from(["", "paused for 12 s: the endpoint asked to wait (429)"]),
)


@given(SNAPSHOTS, st.integers(20, 250))
def test_the_picture_fits_the_terminal(now: Snapshot, width: int) -> None:
    """At any width the picture has at most five lines, none wider than the terminal."""
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(progress._picture(now, width))
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 5
    assert all(len(line.rstrip()) <= width for line in lines)


@given(SNAPSHOTS)
def test_a_snapshot_survives_the_ledger(now: Snapshot) -> None:
    """What a run notes of itself reads back as it was."""
    assert Snapshot.from_dict(json.loads(json.dumps(now.to_dict()))) == now


def test_the_line_says_it_all() -> None:
    """One line tells phase, rows, rate, time left, requests in flight, costs, failures by cause, and why it waits."""
    line = Snapshot(
        "asking", 1200, 5000, 60.0, 20.0, 190.0, 12, 64, 56_000, 1.5,
        (("timeout", 3),), (("rate_limited", 7),), "paused for 4 s: rate limited (429)", 62.0,
    ).line()  # fmt: skip
    assert line == (
        "asking: 1,200 of 5,000 rows · 20/s · 3 min 10 s left · 1 min 02 s so far · 12 in flight of 64 · 56,000 tokens · 1.5 credits · "
        "retried: 7 rate_limited · failed: 3 timeout · paused for 4 s: rate limited (429)"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    """Seconds are written as people say them."""
    assert duration(seconds) == text


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Turn the clock that progress reads."""
    clock = SimpleNamespace(at=1000.0)
    fake = SimpleNamespace(monotonic=lambda: clock.at, time=time.time, thread_time=time.thread_time)
    monkeypatch.setattr(progress, "time", fake)

    def forward(seconds: float) -> None:
        clock.at += seconds

    return forward


def test_the_rate_is_that_of_late(now: Callable[[float], None]) -> None:
    """Rows that the ledger knew at the start do not flatter the rate of those that are asked."""
    watch = Watch()
    watch.phase("asking", 10_000)
    watch.advance(5000)
    for _ in range(60):
        now(1)
        watch.advance(10)
        snapshot = watch.snapshot()
    assert snapshot.rate == pytest.approx(10)
    assert snapshot.eta == pytest.approx(4400 / 10)


def test_the_time_left_reckons_with_the_limits(now: Callable[[float], None]) -> None:
    """A fast start does not hide that only 60 requests a minute may go."""
    engine = SimpleNamespace(
        stats=Stats(), pace=Pace(LimitsConfig()), outage=Outage(), in_flight=0, held="", stopped=None
    )
    watch = Watch(LimitsConfig(requests_per_minute=60))
    rows = SimpleNamespace(rows_done=0, rows_asked=0, failure_codes=tuple)
    watch.asking(1000, rows, cast("Engine", engine))
    now(1)
    rows.rows_done, rows.rows_asked, engine.stats.answered = 100, 100, 50  # half of the rows are copies
    assert watch.snapshot().eta == pytest.approx(900 / 2)


def test_the_time_left_is_by_what_is_asked(now: Callable[[float], None]) -> None:
    """Of a resumed run, the thousands of rows that come free at the start do not promise an early end."""
    engine = SimpleNamespace(
        stats=Stats(), pace=Pace(LimitsConfig()), outage=Outage(), in_flight=0, held="", stopped=None
    )
    watch = Watch(LimitsConfig())
    rows = SimpleNamespace(rows_done=0, rows_asked=0, failure_codes=tuple)
    watch.asking(10_000, rows, cast("Engine", engine))
    now(0.5)
    rows.rows_done = 8_000
    watch.snapshot()
    for _ in range(10):
        now(1)
        rows.rows_done += 20
        rows.rows_asked += 20
        eta = watch.snapshot().eta
    assert eta == pytest.approx(1_800 / 20, rel=0.2)


def test_more_in_flight_than_may_be_is_told_as_such() -> None:
    """After a cut of the ceiling the line never says that ten of one are in flight."""
    line = Snapshot("asking", 1, 10, 1.0, in_flight=10, ceiling=1).line()
    assert "10 in flight, going down to 1" in line


# --- a real run -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(config: Path, watch: Watch) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a job in a task; interrupt it at the end if it is still going on."""
    interrupt = Interrupt()
    task = asyncio.create_task(run_job(load_config(config), RunOptions(progress=watch, interrupt=interrupt)))
    try:
        yield task
    finally:
        interrupt.fire()
        await task


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
        await asyncio.sleep(0.01)


@pytest.fixture
def _there(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


@pytest.mark.usefixtures("_there")
async def test_a_heartbeat_when_nothing_comes(
    job: Callable[..., Path], endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When answers fail to come, it is said how many requests are waited for."""
    monkeypatch.setattr(progress, "QUIET_AFTER", 0.0)
    endpoint.pause()
    watch = Watch()
    async with running(job(), watch) as task:
        await until(lambda: len(endpoint.posts) == 3)
        assert watch.snapshot().in_flight == 3
        assert "waiting for 3 in flight" in watch.snapshot().line()
        endpoint.resume()
        assert (await task).exit_code == 0


@pytest.mark.usefixtures("_there")
async def test_a_pause_is_told_with_its_end(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """While the endpoint has asked to wait, the time left is shown, with the cause."""
    wait = {"Content-Type": "application/json", "Retry-After": "40"}
    busy = Raw(envelope("rate_limited", 429, retryable=True).body, 429, headers=wait)
    endpoint.script = lambda _: busy
    watch = Watch()
    async with running(job(), watch):
        await until(lambda: bool(watch.snapshot().waiting_for))
        assert "paused for" in watch.snapshot().line()
        assert "429" in watch.snapshot().line()


def test_an_outage_is_told_between_its_pauses() -> None:
    """While single requests try an endpoint that is out of service, that is said: no limit is waited for."""
    engine = SimpleNamespace(stats=Stats(), pace=Pace(LimitsConfig()), outage=Outage(), in_flight=1, held="")
    engine.stopped, engine.outage.on = None, True
    watch = Watch()
    watch.asking(10, SimpleNamespace(rows_done=0, rows_asked=0, failure_codes=tuple), cast("Engine", engine))
    told = "the endpoint is out of service: one request at a time tries it"
    assert watch.snapshot().waiting_for == told


@pytest.mark.usefixtures("_there")
async def test_a_budget_that_holds_requests_back_is_told(
    job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """When the budget lets only one request go, the others are said to wait for it."""
    endpoint.pause()
    watch = Watch()
    async with running(job(budget={"credits": 5}), watch):
        await until(lambda: len(endpoint.posts) == 1 and bool(watch.snapshot().waiting_for))
        assert "price is not known" in watch.snapshot().waiting_for
        endpoint.resume()


async def test_lines_and_events(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line per interval; in JSON logs it is an event with the figures apart."""
    watch, stream = Watch(), io.StringIO()
    watch.phase("writing the output", 10)
    async with shown(watch, stream, live=False, every=0.01):
        await until(lambda: stream.getvalue().count("\n") >= 2)
    assert stream.getvalue().startswith("writing the output: 0 of 10 rows\n")
    set_up_logs(0, "json", quiet=False)
    async with shown(watch, stream, live=False, log=PROGRESS, every=0.01):
        await asyncio.sleep(0.1)
    event = json.loads(capsys.readouterr().err.splitlines()[0])
    assert event["level"] == "info"
    assert event["progress"]["phase"] == "writing the output"
    assert event["progress"]["total"] == 10


def test_drawing_takes_next_to_nothing_of_the_run() -> None:
    """Redraws come ten times a second, and less often where a picture costs more than a fiftieth of a core's time."""
    assert gap(0.001) == pytest.approx(0.1)
    assert gap(0.01) == pytest.approx(0.5)
    assert gap(10.0) == progress.BAR_AT_LEAST


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal_nothing_is_left_over(
    job: Callable[..., Path], endpoint: BookedEndpoint, columns: int
) -> None:
    """On a real terminal of any width the bar is drawn, wiped at the end, and the cursor is back."""
    endpoint.pause()
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    there = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [SCRIPT, "run", job()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, **there},
    )
    os.close(theirs)
    seen = b""
    while b"in flight" not in seen:
        seen += os.read(ours, 4096)
    endpoint.resume()
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 4096):
            seen += more
    process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    *_, end = seen.split(b"\x1b[?25h")  # from here on the cursor is visible again
    assert b"3 rows done" in end
    assert b"in flight" not in end
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1
