"""Several runs at once: one output has one run, one ledger may have many, and each request is paid for once."""

from __future__ import annotations

import contextlib
import signal
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.chaos import Job, make_job, place, violations
from tests.helpers.endpoint import BookedEndpoint, Raw, answer_to
from tests.helpers.warm import Warm
from tests.runs.test_stopping import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.endpoint import Seen
    from tests.helpers.postgres import Server


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Warm, Warm]]:
    """Two command lines at once, without the wait."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(Warm()), stack.enter_context(Warm())


def share(folder: Path, name: str, texts: list[str], ledger: str = "../shared.db", **config: Any) -> Job:
    """Write a job with an input and an output of its own, on a ledger it has in common with others."""
    job = make_job(folder / name, 0, ledger=ledger, **config)
    pq.write_table(pa.table({"n": list(range(len(texts))), "t": texts}), job.folder / "in.parquet")
    return Job(job.folder, texts, job.config)


def test_a_second_run_on_one_output_is_turned_away(pair: tuple[Warm, Warm], tmp_path: Path) -> None:
    """It exits with 5, names the process that holds the output, and sends nothing; the first is not disturbed."""
    job = make_job(tmp_path / "job", 6)
    with BookedEndpoint() as endpoint:
        endpoint.pause()
        first = pair[0].start(job.folder, "run", job.config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 6)
        second = pair[1].run(tmp_path, "run", job.config, "-q", env=place(endpoint))
        assert second.code == 5
        assert f"process {first.pid}" in second.err
        endpoint.resume()
        assert first.wait().code == 0
        assert len(endpoint.posts) == 6
        assert violations(job, endpoint) == []


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest) -> str:
    """Give a ledger that several runs can have in common, of each kind."""
    if request.param == "sqlite":
        return "../shared.db"
    server: Server = request.getfixturevalue("postgres_server")
    return server.create(f"sharing_{uuid.uuid4().hex}")


def test_two_runs_on_one_ledger_pay_once_between_them(
    pair: tuple[Warm, Warm], tmp_path: Path, ledger: str
) -> None:
    """Started together on rows of which half are common, both end whole, and no body is charged twice."""
    texts = [f"shared {number}" for number in range(90)]
    with BookedEndpoint() as endpoint:
        jobs = [
            share(tmp_path, "a", texts[:60], ledger, limits={"concurrency": 4}),
            share(tmp_path, "b", texts[:29:-1], ledger, limits={"concurrency": 4}),
        ]
        endpoint.pause()
        runs = [
            warm.start(job.folder, "run", job.config, "-q", env=place(endpoint))
            for warm, job in zip(pair, jobs, strict=True)
        ]
        until(lambda: len(endpoint.posts) == 8)
        endpoint.resume()
        assert [run.wait().code for run in runs] == [0, 0]
        assert len(endpoint.charges) == len(texts)
        for job in jobs:
            assert violations(job, endpoint) == []


def test_a_lost_database_pauses_a_run_and_nothing_is_lost_or_paid_twice(
    pair: tuple[Warm, Warm], tmp_path: Path, postgres_server: Server
) -> None:
    """The database crashes while answers are on their way, comes back, and the run ends as if nothing had been."""
    texts = [f"outlives the database {number}" for number in range(40)]
    url = postgres_server.create(f"lost_{uuid.uuid4().hex}")
    with BookedEndpoint() as endpoint:
        job = share(tmp_path, "a", texts, url, limits={"concurrency": 8})
        endpoint.pause()
        run = pair[0].start(job.folder, "run", job.config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 8)
        postgres_server.stop()
        endpoint.resume()
        until(lambda: len(endpoint.charges) >= 8)
        postgres_server.start()
        assert run.wait().code == 0
        assert len(endpoint.charges) == len(texts)
        assert violations(job, endpoint) == []


def charged(endpoint: BookedEndpoint, completions: int) -> bool:
    """Say whether so many completions were charged for."""
    return len(endpoint.charges) >= completions


def test_a_file_shares_no_limit_and_the_second_run_says_so(pair: tuple[Warm, Warm], tmp_path: Path) -> None:
    """Not to the first, which was alone; nor where nothing is limited."""
    with BookedEndpoint() as endpoint:
        limits = {"requests_per_minute": 6_000}
        jobs = [
            share(tmp_path, "a", ["a"], limits=limits),
            share(tmp_path, "b", ["b"], limits=limits),
            share(tmp_path, "c", ["c"]),
        ]
        endpoint.pause()
        first = pair[0].start(jobs[0].folder, "run", jobs[0].config, env=place(endpoint))
        until(lambda: len(endpoint.posts) == 1)
        second = pair[1].start(jobs[1].folder, "run", jobs[1].config, env=place(endpoint))
        until(lambda: len(endpoint.posts) == 2)
        endpoint.resume()
        ended = [
            first.wait(),
            second.wait(),
            pair[1].run(tmp_path, "run", jobs[2].config, env=place(endpoint)),
        ]
        assert [run.code for run in ended] == [0, 0, 0]
        told = ["each keeps `limits.requests_per_minute` by itself" in run.err for run in ended]
        assert told == [False, True, False]


def test_connections_that_are_severed_cost_nothing(
    pair: tuple[Warm, Warm], tmp_path: Path, postgres_server: Server
) -> None:
    """Every connection to the database is cut, again and again, at whatever it is doing: both runs end whole."""
    texts = [f"severed {number}" for number in range(120)]
    url = postgres_server.create(f"severed_{uuid.uuid4().hex}")
    with BookedEndpoint() as endpoint, psycopg.connect(postgres_server.url, autocommit=True) as connection:
        jobs = [
            share(tmp_path, "a", texts[:80], url, limits={"concurrency": 4, "requests_per_minute": 3_000}),
            share(tmp_path, "b", texts[:39:-1], url, limits={"concurrency": 4, "requests_per_minute": 3_000}),
        ]
        runs = [
            warm.start(job.folder, "run", job.config, "-q", env=place(endpoint))
            for warm, job in zip(pair, jobs, strict=True)
        ]
        for charges in range(4, len(texts), 4):
            until(partial(charged, endpoint, charges))
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (url.rpartition("/")[2],),
            )
        assert [run.wait().code for run in runs] == [0, 0]
        assert len(endpoint.charges) == len(texts)
        for job in jobs:
            assert violations(job, endpoint) == []


def test_what_a_killed_run_was_sending_is_taken_over(pair: tuple[Warm, Warm], tmp_path: Path) -> None:
    """A run that waits for another one's requests sends them itself, with the same bytes, when that one dies."""
    texts = [f"taken {number}" for number in range(12)]
    with BookedEndpoint() as endpoint:
        jobs = [share(tmp_path, name, texts, limits={"concurrency": 4}) for name in "ab"]
        endpoint.pause()
        dies = pair[0].start(jobs[0].folder, "run", jobs[0].config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 4)
        lives = pair[1].start(jobs[1].folder, "run", jobs[1].config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 8)
        dies.signal(signal.SIGKILL)
        assert dies.wait().code == -signal.SIGKILL
        endpoint.resume()
        assert lives.wait().code == 0
        assert violations(jobs[1], endpoint) == []
        bodies = {seen.key: set[bytes]() for seen in endpoint.posts}
        for seen in endpoint.posts:
            bodies[seen.key].add(seen.raw)
        assert all(len(bytes_sent) == 1 for bytes_sent in bodies.values())
        assert pair[0].run(jobs[0].folder, "run", jobs[0].config, "-q", env=place(endpoint)).code == 0
        assert violations(jobs[0], endpoint) == []
        assert len(endpoint.charges) == len(texts)


@pytest.mark.slow
def test_a_run_that_stood_still_finds_its_requests_answered(
    pair: tuple[Warm, Warm], tmp_path: Path, postgres_server: Server
) -> None:
    """Stopped beyond its lease and then continued, it neither loses nor pays for what another run took over."""
    texts = [f"stood still {number}" for number in range(12)]
    url = postgres_server.create(f"still_{uuid.uuid4().hex}")
    with BookedEndpoint() as endpoint:
        jobs = [share(tmp_path, name, texts, url, limits={"concurrency": 4}) for name in "ab"]
        endpoint.pause()
        still = pair[0].start(jobs[0].folder, "run", jobs[0].config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 4)
        still.signal(signal.SIGSTOP)
        goes_on = pair[1].start(jobs[1].folder, "run", jobs[1].config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 8)
        endpoint.resume()
        assert goes_on.wait().code == 0
        still.signal(signal.SIGCONT)
        assert still.wait().code == 0
        assert len(endpoint.charges) == len(texts)
        for job in jobs:
            assert violations(job, endpoint) == []


def test_two_runs_do_not_wait_for_what_each_has_given_up(pair: tuple[Warm, Warm], tmp_path: Path) -> None:
    """When neither gets some answers, both end and say which rows are in doubt; a later run gets the answers."""
    texts = [f"{'lost' if number % 4 == 1 else 'fine'} {number}" for number in range(16)]

    def lose(seen: Seen) -> Raw | None:
        lost = seen.method == "POST" and b"lost" in seen.raw
        return Raw(b"{" + b" " * 80, cut=8, charge=True) if lost else None

    with BookedEndpoint(script=lose) as endpoint:
        jobs = [
            share(tmp_path, name, order, limits={"concurrency": 1}, retry={"max_wait": 0.1})
            for name, order in (("a", texts), ("b", texts[::-1]))
        ]
        endpoint.pause()
        runs = [
            warm.start(job.folder, "run", job.config, "-q", env=place(endpoint))
            for warm, job in zip(pair, jobs, strict=True)
        ]
        until(lambda: len(endpoint.posts) == 2)
        endpoint.resume()
        assert [run.wait().code for run in runs] == [3, 3]
        wanted = ["in_doubt" if text.startswith("lost") else "ok" for text in texts]
        assert jobs[0].table()["s_status"].to_pylist() == wanted
        endpoint.script = None
        assert pair[0].run(jobs[0].folder, "run", jobs[0].config, "-q", env=place(endpoint)).code == 0
        assert jobs[0].table()["s"].to_pylist() == [answer_to(text) for text in texts]
        assert len(endpoint.charges) == len(texts)


def test_a_ledger_may_be_named_by_several_jobs(pair: tuple[Warm, Warm], tmp_path: Path) -> None:
    """What one job has paid for, another one on the same ledger gets for nothing."""
    texts = [f"common {number}" for number in range(5)]
    with BookedEndpoint() as endpoint:
        for name in "ab":
            job = share(tmp_path, name, texts)
            assert pair[0].run(job.folder, "run", job.config, "-q", env=place(endpoint)).code == 0
        assert set(job.table()["s_source"].to_pylist()) == {"ledger"}
        assert len(endpoint.posts) == len(texts)
        assert yaml.safe_load(job.config.read_text(encoding="utf-8"))["ledger"] == "../shared.db"
