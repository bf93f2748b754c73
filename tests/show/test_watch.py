"""What is told of a run while it goes on: its rate, the time that is left, and what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from enrich.base.interrupt import Interrupt
from enrich.config import LimitsConfig, load_config
from enrich.engine.engine import Engine, Stats
from enrich.engine.outage import Outage
from enrich.ledger.commit import Commits
from enrich.pace.pace import Pace
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.show import watch as watch_module
from enrich.show.watch import Watch
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, envelope
from tests.helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Turn the clock that progress reads."""
    clock = SimpleNamespace(at=1000.0)
    fake = SimpleNamespace(monotonic=lambda: clock.at, time=time.time, thread_time=time.thread_time)
    monkeypatch.setattr(watch_module, "time", fake)

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
        stats=Stats(),
        pace=Pace(LimitsConfig()),
        outage=Outage(),
        in_flight=0,
        held="",
        stopped=None,
        budget_left={},
        commits=Commits(),
    )
    watch = Watch(LimitsConfig(requests_per_minute=60))
    rows = SimpleNamespace(rows_done=0, rows_asked=0, failure_codes=tuple, rows_by_step=dict)
    watch.asking(1000, rows, cast("Engine", engine))
    now(1)
    rows.rows_done, rows.rows_asked, engine.stats.answered = 100, 100, 50  # half of the rows are copies
    assert watch.snapshot().eta == pytest.approx(900 / 2)


def test_the_time_left_is_by_what_is_asked(now: Callable[[float], None]) -> None:
    """Of a resumed run, the thousands of rows that come free at the start do not promise an early end."""
    engine = SimpleNamespace(
        stats=Stats(),
        pace=Pace(LimitsConfig()),
        outage=Outage(),
        in_flight=0,
        held="",
        stopped=None,
        budget_left={},
        commits=Commits(),
    )
    watch = Watch(LimitsConfig())
    rows = SimpleNamespace(rows_done=0, rows_asked=0, failure_codes=tuple, rows_by_step=dict)
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


@pytest.fixture
def _there(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


@pytest.mark.usefixtures("_there")
async def test_a_heartbeat_when_nothing_comes(
    job: Callable[..., Path], endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When answers fail to come, it is said how many requests are waited for."""
    monkeypatch.setattr(watch_module, "QUIET_AFTER", 0.0)
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
    engine.budget_left, engine.commits = {}, Commits()
    engine.stopped, engine.outage.on = None, True
    watch = Watch()
    watch.asking(
        10,
        SimpleNamespace(rows_done=0, rows_asked=0, failure_codes=tuple, rows_by_step=dict),
        cast("Engine", engine),
    )
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
