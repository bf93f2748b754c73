"""Days, weeks and months of a time zone: when the one of a moment began, and when the next one does."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from enrich.config.budget import Per


def begin(per: Per, zone: str, at: float) -> float:
    """Give when the period of a moment began; both in seconds since the epoch. 0 for ``total``."""
    return 0.0 if per == "total" else _midnight(_first_day(per, _day(zone, at)), zone)


def opens(per: Per, zone: str, at: float) -> datetime | None:
    """Give when the next period begins, in the zone's time; None for ``total``."""
    if per == "total":
        return None
    first = _first_day(per, _day(zone, at))
    days = {"day": 1, "week": 7, "month": 31}[per]
    following = _first_day(per, first + timedelta(days=days))
    return datetime.fromtimestamp(_midnight(following, zone), ZoneInfo(zone))


def _day(zone: str, at: float) -> date:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).date()


def _first_day(per: Per, day: date) -> date:
    """Give the day that a period begins on: a week's is its Monday (ISO 8601)."""
    if per == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if per == "month" else day


def _midnight(day: date, zone: str) -> float:
    """Give the first moment of a day: where its midnight is left out, or comes twice, that is when the clock is turned, or the first.

    A time that is left out is read by the offset before it (PEP 495), which gives the moment at which the clock is turned.
    """
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp()
