"""Checksums notice whatever decides about money, and a key that may be forgotten is too old by either clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from enrich.ledger.checks import (
    CLOCK_TOLERANCE,
    LONG_AGO,
    Moment,
    answer_crc,
    answer_holds,
    boot_number,
    request_crc,
    request_holds,
    seal_of,
)
from enrich.ledger.protocol import DOUBT_AFTER

FIRST = Moment(1_750_000_000.0, 7, 1_000.0)
BYTES = st.binary(max_size=40)


def later(wall: float, boottime: float | None = None, boot: int = FIRST.boot) -> Moment:
    """Give a moment so many seconds after the first one, by either clock."""
    up = wall if boottime is None else boottime
    return Moment(FIRST.wall + wall, boot, FIRST.boottime + up)


@pytest.mark.parametrize(
    ("now", "too_old"),
    [
        (later(0), False),
        (later(DOUBT_AFTER), False),
        (later(DOUBT_AFTER + 1), True),
        (later(-3_600, DOUBT_AFTER + 1), True),
        (later(DOUBT_AFTER + 1, 5), True),
        (later(-3_600, 5), False),
        (later(60, boot=8), False),
        (later(DOUBT_AFTER + 1, boot=8), True),
        (later(-CLOCK_TOLERANCE, boot=8), False),
        (later(-CLOCK_TOLERANCE - 1, boot=8), True),
        (later(-CLOCK_TOLERANCE - 1, boot=0), True),
    ],
    ids=[
        "at once",
        "just young enough",
        "too old",
        "the wall clock was set back",
        "the wall clock was set on",
        "set back, but young by the time since the start",
        "after a restart",
        "too old after a restart",
        "a restart, and a clock a little behind",
        "a restart, and a clock that runs backwards",
        "a system that tells no start, and a clock that runs backwards",
    ],
)
def test_a_key_is_too_old_by_the_longer_span(now: Moment, *, too_old: bool) -> None:
    """Setting the clock makes no key younger, and where nothing can be known it counts as too old."""
    assert now.outlives(FIRST) is too_old


def test_a_time_that_is_lost_is_too_old() -> None:
    """What damage took the time of is not sent again by itself."""
    assert later(0).outlives(LONG_AGO)


def test_starts_are_told_apart() -> None:
    """Each start has a number of its own, below 2**48; a system that tells none has 0, which is nobody's."""
    numbers = [boot_number(str(n)) for n in range(1_000)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < 1 << 48 for number in numbers)
    assert boot_number("") == 0


@given(BYTES, BYTES, BYTES, BYTES)
def test_an_answer_holds_as_it_was_written(key: bytes, request_id: bytes, body: bytes, other: bytes) -> None:
    """Another body under the same checksum is noticed, and so is one whose type damage has changed."""
    crc = answer_crc(key, request_id, body)
    assert answer_holds(crc, key, request_id, body)
    assert not answer_holds(None, key, request_id, body)
    assert not answer_holds(crc, key, request_id, 5)  # type: ignore[arg-type]  # as SQLite may give it
    assume(other != body)
    assert not answer_holds(crc, key, request_id, other)


@given(BYTES, BYTES)
def test_a_request_holds_with_and_without_its_time(key: bytes, body: bytes) -> None:
    """Another time is noticed; of ledgers that sealed no time, key and body are enough; a broken time never holds."""
    crc = request_crc(key, body, FIRST)
    assert request_holds(crc, key, body, FIRST)
    assert not request_holds(crc, key, body, replace(FIRST, wall=FIRST.wall - 1.0))
    assert not request_holds(crc, key, body, replace(FIRST, wall="then"))  # type: ignore[arg-type]  # as SQLite may give it
    assert not request_holds(None, key, body, FIRST)


def test_whatever_decides_is_under_the_seal() -> None:
    """State, run, attempts, failure, model, parent and question each change it, and where one ends counts."""
    standing, belongs = (1, 2, 3, None), (b"m", None, None)
    others = [
        seal_of(b"k", (0, 2, 3, None), belongs),
        seal_of(b"k", (1, 0, 3, None), belongs),
        seal_of(b"k", (1, 2, 0, None), belongs),
        seal_of(b"k", (1, 2, 3, 4), belongs),
        seal_of(b"x", standing, belongs),
        seal_of(b"k", standing, (b"x", None, None)),
        seal_of(b"k", standing, (b"m", b"p", None)),
        seal_of(b"k", standing, (b"m", None, b"p")),
    ]
    assert len({seal_of(b"k", standing, belongs), *others}) == len(others) + 1
