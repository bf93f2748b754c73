from __future__ import annotations

import asyncio
import math
import re
import socket
from typing import TYPE_CHECKING

import pytest

from enrich.engine import outage
from enrich.engine.outage import Alike, Outage, alike_error, stop_error
from enrich.errors import EndpointFailing
from enrich.records import Failure, Fate
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.sandbox import Fault, Sandbox, SandboxOptions, ThreadedSandbox
from tests.helpers.wire import config_of, logs, read_ledger, read_rows, run

if TYPE_CHECKING:
    import logging
    from pathlib import Path

LOST = Failure("connection_lost", "gone", Fate.UNKNOWN)
UNREACHED = Failure("connect_failed", "refused", Fate.UNSENT)
BROKEN = Failure("internal_error", "", Fate.REFUSED, status=500, retryable=True)
WRONG = Failure("invalid_request", "", Fate.REFUSED, status=400)
LIMITED = Failure("rate_limited", "", Fate.REFUSED, status=429, retryable=True)
NO_MODEL = Failure("model_unavailable", "", Fate.REFUSED, status=503, retryable=True)


class Time:
    """A clock to turn."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Give the time it was turned to."""
        return self.now


@pytest.fixture
def time() -> Time:
    """A clock that stands still."""
    return Time()


def failing(breaker: Outage, time: Time, failures: int, failure: Failure = LOST) -> list[float | None]:
    """Let an attempt of each of so many requests fail, all sent now."""
    return [breaker.failure(failure, bytes([number]), time.now) for number in range(failures)]


# --- the breaker -----------------------------------------------------------------------------------------


def test_few_failures(time: Time) -> None:
    """Fewer failures than a judgement needs are none."""
    breaker = Outage(time)
    assert failing(breaker, time, outage.ENOUGH - 1) == [None] * (outage.ENOUGH - 1)
    assert not breaker.on


@pytest.mark.parametrize("failure", [LOST, BROKEN])
def test_nearly_all_fail(time: Time, failure: Failure) -> None:
    """When nearly all of the first attempts fail, the run pauses."""
    breaker = Outage(time)
    breaker.success(time.now)
    assert failing(breaker, time, outage.ENOUGH - 1, failure)[-1] == outage.FIRST_PAUSE
    assert breaker.on


def test_after_a_good_while(time: Time) -> None:
    """However well it went before: so many failures in a row are an outage."""
    breaker = Outage(time)
    for _ in range(10_000):
        breaker.success(time.now)
    assert failing(breaker, time, outage.ENOUGH)[-1] == outage.FIRST_PAUSE


def test_the_same_few_fail(time: Time) -> None:
    """Requests that fail again and again, behind others that were answered, say nothing of the endpoint."""
    breaker = Outage(time)
    breaker.success(time.now)
    few = outage.DIFFERENT - 1
    for _ in range(10):
        assert failing(breaker, time, few) == [None] * few
    assert failing(breaker, time, outage.DIFFERENT)[-1] == outage.FIRST_PAUSE


def test_some_fail(time: Time) -> None:
    """A share of failures is no outage."""
    breaker = Outage(time)
    for number in range(1_000):
        if number % 3:
            assert breaker.failure(LOST, str(number).encode(), time.now) is None
        else:
            breaker.success(time.now)


@pytest.mark.parametrize("failure", [WRONG, LIMITED, NO_MODEL])
def test_what_is_no_outage(time: Time, failure: Failure) -> None:
    """Refusals, rate limits and a missing model say nothing against the endpoint."""
    breaker = Outage(time)
    assert failing(breaker, time, 100, failure) == [None] * 100


def test_unreachable_from_the_start(time: Time) -> None:
    """An endpoint that cannot be connected to is given up for now after a handful of attempts."""
    breaker = Outage(time)
    assert failing(breaker, time, outage.UNREACHABLE, UNREACHED)[-1] == outage.FIRST_PAUSE


def test_pauses_grow_with_probes(time: Time) -> None:
    """Each probe that fails doubles the pause, up to a bound; what was in flight before does not."""
    breaker = Outage(time)
    before = time.now
    failing(breaker, time, outage.ENOUGH)
    assert [breaker.failure(LOST, b"k", before - 1) for _ in range(50)] == [None] * 50
    pauses = []
    for _ in range(8):
        time.now += 100
        pauses.append(breaker.failure(LOST, b"k", time.now))
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize("failure", [None, WRONG, LIMITED])
def test_recovery(time: Time, failure: Failure | None) -> None:
    """A probe that is answered, be it with a refusal, ends the outage; the next one begins anew."""
    breaker = Outage(time)
    failing(breaker, time, outage.ENOUGH)
    time.now += 1
    if failure is None:
        breaker.success(time.now)
    else:
        assert breaker.failure(failure, b"k", time.now) is None
    assert not breaker.on
    assert failing(breaker, time, outage.ENOUGH)[-1] == outage.FIRST_PAUSE


def test_late_answer(time: Time) -> None:
    """An answer to what was sent before the outage is no recovery."""
    breaker = Outage(time)
    failing(breaker, time, outage.ENOUGH)
    breaker.success(time.now - 1)
    assert breaker.on


@pytest.mark.parametrize(
    ("succeeded", "patience"), [(True, outage.PATIENCE), (False, outage.PATIENCE_AT_START)]
)
def test_hopeless(time: Time, succeeded: bool, patience: float) -> None:
    """An outage that lasts is hopeless, sooner where nothing ever succeeded."""
    breaker = Outage(time)
    if succeeded:
        breaker.success(time.now)
    failing(breaker, time, outage.ENOUGH)
    time.now += patience
    assert not breaker.hopeless
    time.now += 1
    assert breaker.hopeless


@pytest.mark.parametrize(
    "kind", ["key_refused", "balance", "certificate", "retry_after", "unsupported_model", "outage"]
)
def test_stop_errors(kind: str) -> None:
    """Each reason to stop says what the endpoint said, under which request id, and what to do."""
    failure = Failure("some_code", "some words", Fate.REFUSED, 400, request_id="r-1", retry_after=400.0)
    error = stop_error(kind, failure, "fast-1")
    assert "some_code: some words (request id r-1)" in error.message
    assert error.hint
    assert error.exit_code == 4


def test_failures_that_overtake_an_answer_are_not_the_first_rows() -> None:
    """Twenty failures stop nothing while a request sent before them is awaited; its own failure then does."""
    alike = Alike()
    assert not any(alike.failed(WRONG, 2.0 + n, lambda: 1.0) for n in range(30))
    assert alike.failed(WRONG, 1.0, lambda: math.inf)


def test_a_request_that_hangs_does_not_hold_up_the_verdict_for_long() -> None:
    """Two hundred rows that failed alike are enough, whatever else is awaited."""
    alike = Alike()
    verdicts = [alike.failed(WRONG, 2.0 + n, lambda: 1.0) for n in range(200)]
    assert verdicts == [False] * 199 + [True]
    assert alike.rows == 200


def test_one_answer_shows_that_rows_do_not_all_fail() -> None:
    """After an answer, or a failure of another kind, no number of failures is a verdict."""
    answered, mixed = Alike(), Alike()
    answered.succeeded()
    mixed.failed(NO_MODEL, 1.0, lambda: math.inf)
    for alike in (answered, mixed):
        assert not any(alike.failed(WRONG, 2.0 + n, lambda: math.inf) for n in range(300))


def test_alike_error() -> None:
    """Rows that all fail alike are told with the failure they share."""
    error = alike_error(WRONG, 20)
    assert isinstance(error, EndpointFailing)
    assert "first 20 requests all failed alike: invalid_request" in error.message


# --- in a run --------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe after milliseconds."""
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def impatient(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a moment, too."""
    monkeypatch.setattr(outage, "PATIENCE_AT_START", 0.3)


@pytest.mark.parametrize(("deadline", "patience"), [(math.inf, outage.PATIENCE_LIMITED), (60.0, 54.0)])
def test_nothing_but_429s(time: Time, deadline: float, patience: float) -> None:
    """Minutes of nothing else are enough, less where a row gets less; whatever else comes begins them anew."""
    breaker = Outage(time, deadline=deadline)
    for failure in (LIMITED, WRONG, LIMITED):
        breaker.failure(failure, b"a", time.now)
        time.now += patience
    verdicts = [breaker.fruitless]
    time.now += 1
    verdicts.append(breaker.fruitless)
    breaker.success(time.now)
    assert [*verdicts, breaker.fruitless] == [False, True, False]


@pytest.mark.parametrize("kind", ["empty_500", "reset", "reset_after_charge"])
def test_outage_in_a_run(tmp_path: Path, kind: str, quick: None) -> None:
    """An outage in the middle of a run costs time and no row: its waits use up no attempts."""
    texts = [f"row {n}" for n in range(300)]
    faults = (Fault(kind, after=100, times=60),)
    with ThreadedSandbox(SandboxOptions(faults=faults)) as sandbox:
        config = config_of(tmp_path, texts, sandbox.base_url, limits={"adaptive": False, "concurrency": 32})
        ran = run(config)
    assert ran.summary.exit_code == 0, ran.summary.reason
    assert ran.summary.statuses["ok"] == 300
    assert sandbox.books.faults[kind] == 60
    assert {tally.charges for tally in sandbox.books.bodies.values()} == {1}
    assert sum(ran.summary.retries.values()) == 60
    assert ran.summary.attempts == sandbox.books.total.requests


async def test_restart_of_the_endpoint(tmp_path: Path, quick: None) -> None:
    """An endpoint that goes away and comes back finds the run waiting; nothing is lost or paid for twice."""
    texts = [f"row {n}" for n in range(300)]
    away = asyncio.Event()
    failures = 0

    def count(record: logging.LogRecord) -> None:
        nonlocal failures
        failures += getattr(record, "code", "") == "connect_failed"
        if failures >= 30:
            away.set()

    sandbox = Sandbox(SandboxOptions(latency=0.005))
    with logs(count):
        async with sandbox:
            config = config_of(
                tmp_path, texts, sandbox.base_url, limits={"adaptive": False, "concurrency": 16}
            )
            running = asyncio.create_task(run_job(config, RunOptions()))
            await sandbox.books.received(60)
        await asyncio.wait({running, asyncio.create_task(away.wait())}, return_when="FIRST_COMPLETED")
        async with sandbox:
            summary = await running
    assert summary.exit_code == 0, summary.reason
    rows = read_rows(config)
    assert [row["t"] for row in rows] == texts
    assert {row["s_status"] for row in rows} == {"ok"}
    assert sum(row["s_attempts"] for row in rows) == summary.attempts
    assert max(tally.charges for tally in sandbox.books.bodies.values()) == 1


def test_wrong_address(tmp_path: Path, impatient: None) -> None:
    """Where nothing listens the run stops, resumable, with every row pending and nothing in the ledger."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        ran = run(config_of(tmp_path, [f"row {n}" for n in range(50)], url))
    assert ran.summary.exit_code == 4
    assert "out of service: connect_failed" in ran.summary.reason
    assert ran.summary.statuses["pending"] == 50
    assert (ran.summary.requests, ran.summary.attempts) == (0, 0)
    assert ran.entries == []


def test_hopeless_run(tmp_path: Path, impatient: None) -> None:
    """An endpoint that only breaks stops the run; the next one goes on with the same keys."""
    texts = [f"row {n}" for n in range(50)]
    faults = (Fault("bad_gateway_html", times=10_000),)
    with ThreadedSandbox(SandboxOptions(faults=faults)) as sandbox:
        config = config_of(tmp_path, texts, sandbox.base_url, limits={"adaptive": False, "concurrency": 16})
        stopped = run(config)
        assert stopped.summary.exit_code == 4
        assert "out of service: http_502" in stopped.summary.reason
        assert stopped.summary.statuses["in_doubt"] + stopped.summary.statuses["pending"] == 50
        assert stopped.rows == []
    with ThreadedSandbox(SandboxOptions()) as healthy:
        moved = config.model_copy(
            update={"endpoint": config.endpoint.model_copy(update={"base_url": healthy.base_url})}
        )
        again = run(moved)
    assert again.summary.statuses["ok"] == 50


def test_a_run_that_meets_nothing_but_429s(tmp_path: Path, quick: None) -> None:
    """Where nothing else comes for as long as a row may take, the run stops with 4; the next one asks every row."""
    texts = [f"row {n}" for n in range(50)]
    with ThreadedSandbox(SandboxOptions(faults=(Fault("rate_limited", times=100_000),))) as sandbox:
        config = config_of(tmp_path, texts, sandbox.base_url, retry={"deadline": 1.0})
        stopped = run(config)
    assert stopped.summary.exit_code == 4
    assert "the endpoint refused every request: rate_limited" in stopped.summary.reason
    assert stopped.summary.resumable
    assert stopped.summary.attempts == sandbox.books.total.requests
    assert sandbox.books.total.charges == 0
    assert stopped.summary.statuses["pending"] == 50
    assert stopped.rows == []
    with ThreadedSandbox(SandboxOptions()) as healthy:
        moved = config.model_copy(
            update={"endpoint": config.endpoint.model_copy(update={"base_url": healthy.base_url})}
        )
        again = run(moved)
    assert again.summary.statuses["ok"] == 50


def test_first_rows_alike(tmp_path: Path) -> None:
    """When the first rows, twenty or a few in flight more, are refused alike the run stops; what is refused costs nothing."""
    texts = [f"row {n}" for n in range(500)]
    with ThreadedSandbox(SandboxOptions(faults=(Fault("invalid_request"),))) as sandbox:
        ran = run(config_of(tmp_path, texts, sandbox.base_url, limits={"concurrency": 8}))
    assert ran.summary.exit_code == 4
    told = re.search(r"first (\d+) requests all failed alike: invalid_request", ran.summary.reason)
    assert told is not None
    assert 20 <= int(told[1]) < 60
    assert sandbox.books.total.requests < 60
    assert sandbox.books.total.charges == 0
    assert sum(ran.summary.statuses.values()) == 500


async def test_ledger_after_an_outage(tmp_path: Path, quick: None) -> None:
    """Attempts of an outage stand in the log, each with its code."""
    faults = (Fault("empty_500", times=40),)
    async with Sandbox(SandboxOptions(faults=faults)) as sandbox:
        config = config_of(
            tmp_path, [f"row {n}" for n in range(20)], sandbox.base_url, limits={"adaptive": False}
        )
        summary = await run_job(config, RunOptions())
    assert summary.statuses["ok"] == 20
    entries = await read_ledger(config)
    assert sum(len(entry.failures) for entry in entries) == 40
    assert {line.failure.code for entry in entries for line in entry.failures} == {"http_500"}
