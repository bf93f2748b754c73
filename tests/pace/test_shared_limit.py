"""Real processes that share one limit through a real PostgreSQL, as the endpoint's own clock sees it."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.chaos import place, violations
from tests.helpers.endpoint import BookedEndpoint, Raw, envelope
from tests.helpers.virtual import busiest
from tests.helpers.warm import Warm
from tests.ledger.test_sharing import share
from tests.runs.test_stopping import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.endpoint import Seen
    from tests.helpers.postgres import Server
    from tests.helpers.warm import Running


@dataclass
class Site:
    """Jobs on one ledger, processes to run them, and when their requests came.

    Attributes:
        times: seconds at which completions were asked for.
        keys: of those requests.
        refusals: 429s that are still to be given, as seconds of Retry-After.
    """

    folder: Path
    url: str
    warm: list[Warm]
    endpoint: BookedEndpoint
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)

    def start(
        self, rows: int, processes: int, *, steps: list[dict[str, Any]] | None = None, **limits: Any
    ) -> tuple[list[Job], list[Running]]:
        """Start so many processes, each with rows of its own."""
        config = {"steps": steps} if steps else {}
        jobs = [
            share(
                self.folder,
                f"job{number}",
                [f"{number} {row}" for row in range(rows)],
                self.url,
                limits=limits,
                **config,
            )
            for number in range(processes)
        ]
        runs = [
            warm.start(job.folder, "run", job.config, "-q", env=place(self.endpoint))
            for warm, job in zip(self.warm, jobs, strict=False)
        ]
        return jobs, runs

    def script(self, seen: Seen) -> Raw | None:
        """Note when a request came; refuse it if that is wanted."""
        if seen.method != "POST":
            return None
        self.times.append(time.monotonic())
        self.keys.append(seen.key)
        if not self.refusals or len(self.times) < 40:
            return None
        refused = envelope("rate_limited", 429, retryable=True)
        return Raw(refused.body, 429, {**refused.headers, "Retry-After": str(self.refusals.pop())})

    def sent(self, key: str) -> list[float]:
        """Give when a request was sent, each time."""
        return [at for at, other in zip(self.times, self.keys, strict=True) if other == key]

    def rate(self, *, skip: int = 0) -> float:
        """Give the requests per second, from so many requests after the first on."""
        times = self.times[skip:]
        return (len(times) - 1) / (times[-1] - times[0])


@pytest.fixture(scope="module")
def warms() -> Iterator[list[Warm]]:
    """Four command lines at once, without the wait."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Warm()) for _ in range(4)]


@pytest.fixture
def site(tmp_path: Path, warms: list[Warm], postgres_server: Server) -> Iterator[Site]:
    """An endpoint that keeps books, and a ledger that processes can share."""
    url = postgres_server.create(f"limit_{uuid.uuid4().hex}")
    with BookedEndpoint() as endpoint:
        site = Site(tmp_path, url, warms, endpoint)
        endpoint.script = site.script
        yield site


def whole(site: Site, jobs: list[Job], runs: list[Running]) -> None:
    """Check that every run ended well and paid for each of its rows once."""
    assert [run.wait().code for run in runs] == [0] * len(runs)
    for job in jobs:
        assert violations(job, site.endpoint) == []


def held(times: list[float], rate: float) -> None:
    """Check that a limit per second was kept: any five seconds within 5 %, any second but for what a busy machine delays."""
    assert busiest(times, 5.0) <= 1.05 * 5 * rate + 1
    assert busiest(times, 1.0) <= 1.2 * rate + 1


def test_two_processes_hold_one_limit(site: Site) -> None:
    """Twenty-five a second between them, from the first second on, not twenty-five each."""
    jobs, runs = site.start(60, 2, requests_per_minute=1_500)
    whole(site, jobs, runs)
    held(site.times, 25)


def test_a_steps_own_limit_holds_for_all_who_ask_the_same(site: Site) -> None:
    """Twenty-five a second between two processes whose steps are the same."""
    step = {"name": "s", "prompt": "{{ t }}", "limits": {"requests_per_minute": 1_500}}
    jobs, runs = site.start(50, 2, steps=[step])
    whole(site, jobs, runs)
    held(site.times, 25)


def test_a_retry_after_binds_the_request_that_got_it(site: Site) -> None:
    """One request of two processes is told to wait for four seconds: it does; nobody else waits for it."""
    site.refusals = [4]
    jobs, runs = site.start(40, 2, requests_per_minute=3_000, concurrency=4)
    whole(site, jobs, runs)
    assert not site.refusals
    ((first, again),) = [times for key in set(site.keys) if len(times := site.sent(key)) > 1]
    assert again - first >= 4.0
    others = [site.sent(key)[0] for key in set(site.keys)]
    assert len(others) == 2 * 40
    assert all(at < again for at in others)  # some forty were left: the refusal came in the middle
    assert sum(at > first for at in others) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 4])
def test_the_limit_is_used(site: Site, processes: int) -> None:
    """Fifty a second, by one process or by four: used to nine tenths and more, no second over it."""
    jobs, runs = site.start(1_200 // processes, processes, requests_per_minute=3_000)
    whole(site, jobs, runs)
    held(site.times, 50)
    assert site.rate() >= 0.9 * 50


@pytest.mark.slow
def test_two_windows_hold_at_once(site: Site) -> None:
    """Twenty in a second and a hundred in ten: three processes keep both."""
    windows = [{"requests": 20, "seconds": 1}, {"requests": 100, "seconds": 10}]
    jobs, runs = site.start(100, 3, windows=windows)
    whole(site, jobs, runs)
    assert busiest(site.times, 1.0) <= 20
    assert busiest(site.times, 10.0) <= 105
    assert site.rate() >= 0.9 * 10


@pytest.mark.slow
def test_tokens_are_counted_together(site: Site) -> None:
    """A window of tokens holds over the answers of both processes, though their length is known afterwards."""
    limit = 3_000.0  # tokens in ten seconds; a request takes 26
    jobs, runs = site.start(150, 2, windows=[{"tokens": limit, "seconds": 10}], adaptive=False)
    whole(site, jobs, runs)
    each = sum(site.endpoint.tokens) / len(site.endpoint.charges)
    assert busiest(site.times, 10.0) * each <= 1.05 * limit
    assert site.rate(skip=60) * each >= 0.85 * limit / 10


@pytest.mark.slow
def test_a_killed_process_leaves_its_share_to_the_others(site: Site) -> None:
    """After a SIGKILL the one that is left has the whole limit."""
    jobs, runs = site.start(700, 2, requests_per_minute=3_000)
    until(lambda: len(site.times) > 200)
    runs[0].signal(signal.SIGKILL)
    killed = len(site.times)
    assert runs[0].wait().code == -signal.SIGKILL
    whole(site, jobs[1:], runs[1:])
    held(site.times, 50)
    assert site.rate(skip=killed + 50) >= 0.9 * 50


@pytest.mark.slow
def test_a_restarted_database_loses_nothing_and_no_burst_follows(site: Site, postgres_server: Server) -> None:
    """The server crashes and comes back in the middle: both go on at the limit's pace, every row is paid for once."""
    jobs, runs = site.start(500, 2, requests_per_minute=3_000)
    until(lambda: len(site.times) > 200)
    postgres_server.stop()
    time.sleep(2.0)
    postgres_server.start()
    whole(site, jobs, runs)
    held(site.times, 50)
    assert max(b - a for a, b in itertools.pairwise(site.times)) >= 1.5
