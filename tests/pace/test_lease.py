"""The leases of a shared limit: the database's function and the one in Python agree, and neither gives too much."""

from __future__ import annotations

import itertools
import math
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.ledger.postgres_database import SQL, Database, migrate
from enrich.ledger.postgres_leases import lease_values
from enrich.pace.lease import LIVE, PERIOD, Account, Cut, LeaseRequest, SharedWindow, grant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import psycopg

    from tests.helpers.postgres import Server

WINDOWS = [
    SharedWindow(False, 600, 60, 0.1),
    SharedWindow(False, 10, 1, 0.104),
    SharedWindow(True, 200_000, 60, 0.0003),
    SharedWindow(True, 50, 1, 0.02),
]
SECONDS = st.sampled_from([0.0, 0.001, 0.02, 0.25, 1.0, 14.0, 16.0, 100.0, -30.0])
AMOUNTS = st.sampled_from([0.0, 0.5, 3.0, 170.0])
CUTS = st.builds(
    Cut,
    episode=st.integers(0, 2),
    known=st.sampled_from([1.0, 300.0]),
)
REQUESTS = st.builds(
    LeaseRequest,
    windows=st.lists(st.sampled_from(WINDOWS), unique=True, max_size=3).map(tuple),
    want=st.sampled_from([0, 1, 5, 1_000]),
    each=AMOUNTS,
    settled=st.sampled_from([0.0, -500.0, 2_000.0]),
    sent=st.integers(0, 5),
    cut=st.none() | CUTS,
)


@pytest.fixture(scope="module")
def connection(postgres_server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a ledger in a database, as the leases have it."""
    with Database(postgres_server.create(f"lease_{uuid.uuid4().hex}")).connect() as connected:
        migrate(connected)
        yield connected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(SECONDS, st.integers(1, 1_000), REQUESTS), min_size=1, max_size=12))
def test_the_database_and_the_function_agree(
    connection: psycopg.Connection[Any], steps: list[tuple[float, int, LeaseRequest]]
) -> None:
    """Whatever is asked for and told, in whatever order and with whatever jumps of the clock, both give the same."""
    name = uuid.uuid4().bytes
    account, now = Account(), 1_800_000_000.0
    for after, runs, request in steps:
        now += after
        account, lease = grant(account, request, now=now, runs=runs, started=1_800_000_000.0)
        values = lease_values(name, request, runs=runs, started=1_800_000_000.0, now=now)
        (row,) = connection.execute(SQL["lease"].encode(), values).fetchall()
        assert row == tuple(asdict(lease).values())
        lanes = {(lane.window.tokens, lane.window.amount): (lane.next, lane.until) for lane in account.lanes}
        assert lanes_of(connection, name) == lanes


def lanes_of(
    connection: psycopg.Connection[Any], account: bytes
) -> dict[tuple[bool, float], tuple[float, float]]:
    """Read from the database when each lane of an account is free, and until when it holds."""
    query = b"SELECT tokens, amount, next, until FROM lane WHERE account = %s"
    return {
        (line[0], line[1]): (line[2], line[3]) for line in connection.execute(query, (account,)).fetchall()
    }


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.001, 0.05, 0.3, 2.0]), st.integers(1, 200), st.integers(1, 20)),
        max_size=60,
    ),
    st.sampled_from([(600.0, 60.0), (10.0, 1.0), (3_000.0, 1.0)]),
)
def test_slots_of_one_lane_never_come_closer(
    asked: list[tuple[float, int, int]], window: tuple[float, float]
) -> None:
    """Whoever asks, whenever and for however many: all slots together keep the lane's distance."""
    amount, seconds = window
    lane = SharedWindow(False, amount, seconds, seconds / amount)
    account, now, slots = Account(), 1_000.0, list[float]()
    for after, want, runs in asked:
        now += after
        account, lease = grant(account, LeaseRequest((lane,), want), now=now, runs=runs)
        slots += [lease.start + number * lease.step for number in range(lease.count)]
    assert slots == sorted(slots)
    assert all(b - a >= lane.spacing * (1 - 1e-6) for a, b in itertools.pairwise(slots))


def test_the_tightest_window_that_anybody_declares_holds_for_all() -> None:
    """Two jobs that say different things of one account are both held to less, until the stricter one is gone."""
    strict, generous = SharedWindow(False, 60, 60, 1.0), SharedWindow(False, 600, 60, 0.1)
    account, _ = grant(Account(), LeaseRequest((strict,), 1), now=1_000.0)
    account, lease = grant(account, LeaseRequest((generous,), 50), now=1_000.0, runs=2)
    assert (lease.start, lease.step) == (1_001.0, 1.0)
    _, lease = grant(account, LeaseRequest((generous,), 50), now=1_002.0 + LIVE, runs=1)
    assert lease.step == 0.1


def test_an_episode_counts_once() -> None:
    """Two processes that meet the same 429s tell of one episode; what the first one learned stands."""
    account, _ = grant(Account(), LeaseRequest(cut=Cut(0, 300.0)), now=1_000.0)
    _, lease = grant(account, LeaseRequest(cut=Cut(0, 10.0), want=10), now=1_000.1)
    assert (lease.episode, lease.known, lease.count) == (1, 300.0, 10)


def test_a_restarted_server_gives_nothing_twice() -> None:
    """What a server forgot in its crash lies in its first second: no slot is given there."""
    _, lease = grant(Account(), LeaseRequest((WINDOWS[0],), 5), now=1_000.2, started=1_000.0)
    assert lease.start == 1_001.0


def test_no_lease_holds_more_than_its_share_of_a_period() -> None:
    """Of a limit of 3,000 a second, one of ten processes gets a fortieth of a second at once."""
    lane = SharedWindow(False, 3_000, 1, 1 / 3_000)
    _, lease = grant(Account(), LeaseRequest((lane,), 10_000), now=1_000.0, runs=10)
    assert lease.count == math.ceil(3_000 * PERIOD / 10)
