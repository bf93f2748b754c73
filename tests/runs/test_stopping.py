"""A run that must stop keeps what is paid for, leaves the output alone, and says how to go on."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from enrich.cli.signals import DOUBLED
from tests.helpers.chaos import answers_kept, make_job, place, violations
from tests.helpers.endpoint import BookedEndpoint, Raw, envelope
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.endpoint import Seen
    from tests.helpers.warm import Ended

IN_FLIGHT = 4


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job of 30 rows, whose output of an earlier day is in place."""
    job = make_job(tmp_path / "job", 30, limits={"concurrency": IN_FLIGHT})
    job.output.write_bytes(b"of an earlier day")
    return job


def until(happened: Callable[[], bool]) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stopped_well(ended: Ended, job: Job, code: int) -> None:
    """Check what every early stop owes its user."""
    assert ended.code == code, ended
    assert job.output.read_bytes() == b"of an earlier day"
    (sentence,) = [line for line in ended.err.splitlines() if f"beatra-enrich run {job.config}" in line]
    assert f"beatra-enrich collect {job.config}" in sentence
    summary = json.loads(ended.out)
    assert summary["exit_code"] == code
    assert summary["rows"] == len(job.texts)
    assert summary["pending"] + summary["ok"] + summary["error"] == len(job.texts)


def goes_on(warm: Warm, job: Job, endpoint: BookedEndpoint) -> None:
    """Run again, to the end."""
    ended = warm.run(job.folder, "run", job.config, "-q", env=place(endpoint))
    assert ended.code == 0, ended
    assert violations(job, endpoint) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_awaits_what_is_in_flight(warm: Warm, job: Job, number: int) -> None:
    """Nothing new is sent, what is in flight is kept, exit 130; `collect` shows it, `run` goes on."""
    with BookedEndpoint() as endpoint:
        endpoint.pause()
        running = warm.start(job.folder, "run", job.config, "--json", env=place(endpoint))
        until(lambda: len(endpoint.posts) == IN_FLIGHT)
        running.signal(number)
        until(lambda: "stopping:" in (job.folder / "stderr").read_text(encoding="utf-8"))
        endpoint.resume()
        stopped_well(running.wait(), job, 130)
        assert len(endpoint.posts) == IN_FLIGHT
        assert answers_kept(job.ledger) == IN_FLIGHT
        so_far = warm.run(
            job.folder, "collect", job.config, "-o", "so-far.csv", "--json", env=place(endpoint)
        )
        assert json.loads(so_far.out)["ok"] == IN_FLIGHT
        assert json.loads(so_far.out)["pending"] == len(job.texts) - IN_FLIGHT
        goes_on(warm, job, endpoint)


def test_the_second_signal_leaves_at_once(warm: Warm, job: Job) -> None:
    """It waits for nothing; what was in flight is fetched by the next run, under its key."""
    with BookedEndpoint() as endpoint:
        endpoint.pause()
        running = warm.start(job.folder, "run", job.config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == IN_FLIGHT)
        running.signal(signal.SIGINT)
        until(lambda: "stopping:" in (job.folder / "stderr").read_text(encoding="utf-8"))
        time.sleep(2 * DOUBLED)  # nobody types faster; what comes closer together counts as one
        running.signal(signal.SIGINT)
        assert running.wait().code == 130  # while the endpoint still holds its answers
        assert job.output.read_bytes() == b"of an earlier day"
        endpoint.resume()
        goes_on(warm, job, endpoint)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "invalid_api_key"), (402, "insufficient_balance"), (403, "tenant_disabled")],
)
def test_a_refused_key_or_an_empty_balance_stops_the_run(
    warm: Warm, job: Job, status: int, code: str
) -> None:
    """Exit 4 after the answers so far; when it is put right, the next run goes on from there."""

    def script(seen: Seen) -> Raw | None:
        return envelope(code, status) if len(endpoint.posts) > 10 and seen.method == "POST" else None

    with BookedEndpoint(script=script) as endpoint:
        stopped_well(warm.run(job.folder, "run", job.config, "--json", env=place(endpoint)), job, 4)
        assert len(endpoint.posts) <= 10 + IN_FLIGHT
        assert answers_kept(job.ledger) == len(endpoint.charges) == 10
        endpoint.script = None
        goes_on(warm, job, endpoint)


@pytest.mark.parametrize("budget", ["requests=7", "tokens=400", "credits=0.4"])
def test_a_spent_budget_stops_the_run(warm: Warm, job: Job, budget: str) -> None:
    """Exit 4 within the budget; without it, the next run goes on from there."""
    with BookedEndpoint() as endpoint:
        limit = ("--set", f"budget.{budget}", "--set", "steps.s.max_tokens=30")
        ended = warm.run(job.folder, "run", job.config, "--json", *limit, env=place(endpoint))
        stopped_well(ended, job, 4)
        spent = {
            "requests": len(endpoint.charges),
            "tokens": sum(endpoint.tokens),
            "credits": endpoint.credits,
        }
        name, _, most = budget.partition("=")
        assert 0 < spent[name] <= float(most)
        ended = warm.run(job.folder, "run", job.config, "-q", "--set", limit[3], env=place(endpoint))
        assert ended.code == 0
        assert violations(job, endpoint) == []


def test_a_budget_waits_for_a_retry_it_has_reserved_for(warm: Warm, tmp_path: Path) -> None:
    """A request that will be tried again holds its share of the budget; the run waits for it, and then ends."""
    job = make_job(tmp_path / "job", 5, limits={"concurrency": 2}, retry={"max_wait": 0.3})
    refused: set[str] = set()

    def script(seen: Seen) -> Raw | None:
        if seen.method != "POST" or len(refused) >= 2 or seen.key in refused:
            return None
        refused.add(seen.key)
        return envelope("billing_failed", 500, retryable=True)

    with BookedEndpoint(script=script) as endpoint:
        budget = ("--set", "budget.requests=2")
        ended = warm.run(job.folder, "run", job.config, "-q", *budget, env=place(endpoint))
        assert ended.code == 4, ended
        assert len(endpoint.charges) == 2


def test_a_run_in_which_every_row_fails_alike_stops(warm: Warm, job: Job) -> None:
    """Exit 4 after 20 rows; `retry` asks them again once the endpoint takes them."""
    with BookedEndpoint(script=lambda seen: envelope("invalid_request", 400)) as endpoint:
        stopped_well(warm.run(job.folder, "run", job.config, "--json", env=place(endpoint)), job, 4)
        # As many as are in flight may have answers on their way into the ledger.
        assert 20 <= len(endpoint.posts) <= 20 + 2 * IN_FLIGHT
        endpoint.script = None
        assert warm.run(job.folder, "run", job.config, "-q", env=place(endpoint)).code == 3
        ended = warm.run(job.folder, "retry", job.config, "-q", env=place(endpoint))
        assert ended.code == 0, ended
        assert violations(job, endpoint) == []


def test_a_wait_that_ended_a_run_does_not_slow_the_next_one(warm: Warm, job: Job) -> None:
    """An hour's Retry-After stops the run; started again when the endpoint is back, it goes at full speed."""
    with BookedEndpoint() as endpoint:

        def back_in_an_hour(_: Seen) -> Raw | None:
            return Raw(b"", 503, {"Retry-After": "3600"}) if len(endpoint.charges) >= 5 else None

        endpoint.script = back_in_an_hour
        stopped_well(warm.run(job.folder, "run", job.config, "--json", env=place(endpoint)), job, 4)
        endpoint.script = None
        goes_on(warm, job, endpoint)
