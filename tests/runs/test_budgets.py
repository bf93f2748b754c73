"""Budgets that outlive a run: by an endpoint's books no window is ever passed, whoever spends, dies or restarts."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.helpers.chaos import place, violations
from tests.helpers.endpoint import BookedEndpoint
from tests.helpers.postgres import running
from tests.helpers.warm import Warm
from tests.ledger.test_sharing import share
from tests.runs.test_stopping import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.postgres import Server

STEP = {"name": "s", "prompt": "{{ t }}", "max_tokens": 24}


@pytest.fixture(scope="module")
def warms() -> Iterator[list[Warm]]:
    """Three command lines at once, without the wait."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Warm()) for _ in range(3)]


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest) -> str:
    """Give a ledger that several runs can have in common, of each kind."""
    if request.param == "sqlite":
        return "../shared.db"
    server: Server = request.getfixturevalue("postgres_server")
    return server.create(f"budgets_{uuid.uuid4().hex}")


def job(folder: Path, name: str, rows: int, ledger: str, **window: Any) -> Job:
    """Write a job of rows of its own, with one window of a budget."""
    texts = [f"{name} {row}" for row in range(rows)]
    return share(folder, name, texts, ledger, steps=[STEP], budget={"windows": [{"per": "day", **window}]})


def rewrite(one: Job, **keys: Any) -> None:
    """Change a job's configuration."""
    document = yaml.safe_load(one.config.read_text(encoding="utf-8"))
    one.config.write_text(yaml.safe_dump({**document, **keys}), encoding="utf-8")


def tokens(endpoint: BookedEndpoint) -> int:
    """Give the tokens that were charged."""
    return sum(endpoint.tokens)


def test_a_budget_outlives_the_run(warms: list[Warm], tmp_path: Path, ledger: str) -> None:
    """What one run spent the next one has less; who finds nothing left sends nothing, and says whose budget it is and when it opens."""
    with BookedEndpoint() as endpoint:
        one = job(tmp_path, "one", 60, ledger, tokens=800, tag="marketing", zone="Europe/Berlin")
        first = warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint))
        spent = tokens(endpoint)
        assert first.code == 4, first.err
        assert 500 < spent <= 800
        assert (
            f"the budget of 800 tokens a day of `marketing` is spent ({spent} used, 0 reserved; " in first.err
        )
        assert "00:00 CE" in first.err  # midnight in Berlin
        other = job(tmp_path, "other", 5, ledger, tokens=800, tag="marketing", zone="Europe/Berlin")
        assert warms[0].run(other.folder, "run", other.config, "-q", env=place(endpoint)).code == 4
        assert tokens(endpoint) == spent
        sales = job(tmp_path, "sales", 5, ledger, tokens=800, tag="sales", zone="Europe/Berlin")
        assert warms[0].run(sales.folder, "run", sales.config, "-q", env=place(endpoint)).code == 0
        rewrite(one, budget={"windows": [{"tokens": 80_000, "per": "day", "tag": "marketing"}]})
        assert warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint)).code == 0
        assert violations(one, endpoint) == []


@pytest.mark.parametrize("unit", ["credits", "usd", "requests"])
def test_a_budget_in_each_unit(warms: list[Warm], tmp_path: Path, unit: str) -> None:
    """Credits and dollars as the endpoint tells them, before any price is known too; and requests."""
    limit = {"credits": 1.0, "usd": 0.01, "requests": 20}[unit]
    with BookedEndpoint() as endpoint:
        one = job(tmp_path, "one", 60, "../shared.db", **{unit: limit})
        for _ in range(2):
            assert warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint)).code == 4
            booked = {
                "credits": endpoint.credits,
                "usd": endpoint.credits / 100,
                "requests": len(endpoint.charges),
            }
            assert 0.6 * limit <= booked[unit] <= limit


def test_a_price_list_counts_dollars_where_the_endpoint_tells_none(warms: list[Warm], tmp_path: Path) -> None:
    """A thousand tokens at a dollar a thousand; what is reserved is what a request can cost at most."""
    with BookedEndpoint(further=lambda _: {"credits_usd_reference": None, "credits": None}) as endpoint:
        one = job(tmp_path, "one", 60, "../shared.db", usd=1.0)
        rewrite(one, prices={"auto": {"input": 1_000, "output": 1_000}})
        assert warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint)).code == 4
        assert 700 <= tokens(endpoint) <= 1_000


def test_a_budget_in_what_nobody_tells_is_refused(warms: list[Warm], tmp_path: Path) -> None:
    """After the first answer without a charge nothing more is sent."""
    with BookedEndpoint(further=lambda _: {"credits_usd_reference": None, "credits": None}) as endpoint:
        one = job(tmp_path, "one", 20, "../shared.db", credits=5)
        ended = warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint))
        assert (ended.code, len(endpoint.charges)) == (4, 1)
        assert "cannot be held: the endpoint names no charge" in ended.err


def killed_and_settled(warm: Warm, folder: Path, ledger: str) -> None:
    """Kill a run with all it may spend reserved; see that another one is refused, until the first has been run again."""
    with BookedEndpoint() as endpoint:
        one = job(folder, "one", 6, ledger, tokens=680, tag="t")
        endpoint.pause()
        run = warm.start(one.folder, "run", one.config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 6)
        run.signal(signal.SIGKILL)
        run.wait()
        endpoint.resume()
        other = job(folder, "other", 4, ledger, tokens=680, tag="t")
        ended = warm.run(other.folder, "run", other.config, "-q", env=place(endpoint))
        assert ended.code == 4
        assert "when the jobs that ended early have been run again" in ended.err
        assert warm.run(one.folder, "run", one.config, "-q", env=place(endpoint)).code == 0
        assert warm.run(other.folder, "run", other.config, "-q", env=place(endpoint)).code == 0
        assert violations(one, endpoint) == violations(other, endpoint) == []


def test_what_a_killed_run_reserved_comes_back(warms: list[Warm], tmp_path: Path) -> None:
    """It stays reserved while nobody knows what became of it, and is settled by whoever asks again: nothing is counted twice."""
    killed_and_settled(warms[0], tmp_path, "../shared.db")


@pytest.mark.slow
def test_what_a_lost_lease_reserved_comes_back(
    warms: list[Warm], tmp_path: Path, postgres_server: Server
) -> None:
    """On PostgreSQL others wait until the lease of a run that was killed has run out."""
    killed_and_settled(warms[0], tmp_path, postgres_server.create(f"budgets_{uuid.uuid4().hex}"))


def spend_together(
    warms: list[Warm], folder: Path, ledger: str, endpoint: BookedEndpoint, *, rounds: int, **window: Any
) -> list[Job]:
    """Let processes spend of one budget, and kill one of them each round, until all have stopped."""
    jobs = [job(folder, f"job{n}", 60, ledger, **window) for n in range(len(warms))]
    runs = [
        w.start(j.folder, "run", j.config, "-q", env=place(endpoint))
        for w, j in zip(warms, jobs, strict=True)
    ]
    for number in range(rounds):
        seen, deadline = len(endpoint.charges), time.monotonic() + 3
        while len(endpoint.charges) < seen + 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        victim = number % len(warms)
        runs[victim].signal(signal.SIGKILL)
        runs[victim].wait()
        again = jobs[victim]
        runs[victim] = warms[victim].start(again.folder, "run", again.config, "-q", env=place(endpoint))
    for run in runs:
        run.wait()
    return jobs


def test_processes_that_share_a_budget_never_pass_it(warms: list[Warm], tmp_path: Path, ledger: str) -> None:
    """Three at once, each killed and started again: by the endpoint's books not one token too many, and all of it can be spent."""
    with BookedEndpoint() as endpoint:
        spend_together(warms, tmp_path, ledger, endpoint, rounds=3, tokens=2_500, tag="t")
        assert 1_500 < tokens(endpoint) <= 2_500


def test_a_repaired_ledger_knows_what_was_spent(warms: list[Warm], tmp_path: Path) -> None:
    """The budget does not begin anew with the file that was made of what is left."""
    with BookedEndpoint() as endpoint:
        one = job(tmp_path, "one", 60, "../shared.db", tokens=800, tag="t")
        assert warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint)).code == 4
        spent = tokens(endpoint)
        assert warms[0].run(tmp_path, "ledger", "repair", "shared.db", "-o", "new.db").code == 0
        rewrite(one, ledger="../new.db")
        ended = warms[0].run(one.folder, "run", one.config, "-q", env=place(endpoint))
        assert (ended.code, tokens(endpoint)) == (4, spent)
        assert f"{spent} used" in ended.err


@pytest.mark.slow
def test_sixteen_processes_kills_and_a_restart(tmp_path: Path) -> None:
    """Sixteen at once on PostgreSQL, eight of them killed, the database itself once: not one token and not one credit too many."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running())
        warms = [stack.enter_context(Warm()) for _ in range(16)]
        endpoint = stack.enter_context(BookedEndpoint())
        url = server.create("budgets")

        def restart() -> None:
            server.stop()
            server.start()

        crash = threading.Timer(4.0, restart)
        crash.start()
        spend_together(warms, tmp_path, url, endpoint, rounds=8, tokens=9_000, credits=8.5, tag="t")
        crash.join()
        assert 5_000 < tokens(endpoint) <= 9_000
        assert endpoint.credits <= 8.5
