"""Days, weeks and months as the zone's calendar has them, on the days the clock is turned too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.pace.periods import begin, opens
from enrich.pace.purse import SLOT

if TYPE_CHECKING:
    from enrich.config.budget import Per

BERLIN, CAIRO, HAVANA = "Europe/Berlin", "Africa/Cairo", "America/Havana"


def moment(text: str, zone: str = "UTC") -> float:
    """Give a moment of a zone's clock in seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("per", "zone", "at", "began", "next_"),
    [
        ("day", BERLIN, "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours long
        ("day", BERLIN, "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours long
        (
            "day",
            CAIRO,
            "2026-04-24T06:00",
            "2026-04-23T22:00",
            "2026-04-24T21:00",
        ),  # its midnight is left out
        (
            "day",
            HAVANA,
            "2026-11-01T12:00",
            "2026-11-01T04:00",
            "2026-11-02T05:00",
        ),  # its midnight comes twice
        ("week", BERLIN, "2026-03-29T12:00", "2026-03-22T23:00", "2026-03-29T22:00"),
        ("month", BERLIN, "2026-12-31T22:59", "2026-11-30T23:00", "2026-12-31T23:00"),
        ("month", BERLIN, "2026-12-31T23:00", "2026-12-31T23:00", "2027-01-31T23:00"),
        ("month", "UTC", "2028-02-29T23:59", "2028-02-01T00:00", "2028-03-01T00:00"),
    ],
)
def test_where_a_period_begins_and_ends(per: Per, zone: str, at: str, began: str, next_: str) -> None:
    """All times here are UTC."""
    now = moment(at)
    following = opens(per, zone, now)
    assert following is not None
    assert datetime.fromtimestamp(begin(per, zone, now), UTC).isoformat()[:16] == began
    assert following.astimezone(UTC).isoformat()[:16] == next_


def test_a_total_has_neither_beginning_nor_end() -> None:
    """It counts everything, and does not open again."""
    assert begin("total", BERLIN, 1.8e9) == 0
    assert opens("total", BERLIN, 1.8e9) is None


@given(
    st.floats(0.2e9, 4e9),
    st.sampled_from(
        [BERLIN, CAIRO, HAVANA, "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "America/St_Johns"]
    ),
    st.sampled_from(["day", "week", "month"]),
)
def test_every_moment_is_in_one_period(at: float, zone: str, per: Per) -> None:
    """It lies between beginning and end; the next period begins where this one ends, at a whole quarter of an hour."""
    following = opens(per, zone, at)
    assert following is not None
    end = following.timestamp()
    began = begin(per, zone, at)
    assert began <= at < end
    assert begin(per, zone, end) == end
    assert end % SLOT == began % SLOT == 0
    assert end - began <= timedelta(days=32).total_seconds()
