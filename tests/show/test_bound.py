"""What held a run up: the seconds of each cause add up, the longest is named with its figure and with what to change."""

from __future__ import annotations

import time

import pytest

from enrich.config import LimitsConfig
from enrich.pace.bound import Bound, Cause
from enrich.pace.pace import Pace
from enrich.pace.windows import OwnSlots
from enrich.show.bound import bound_by


def waited(**seconds: float) -> Bound:
    """Give the sums of a run of ten seconds that waited so long for these causes."""
    now = [100.0]
    bound = Bound(lambda: now[0])
    bound.begin()
    for name, spent in seconds.items():
        with bound.by(Cause(name)):
            now[0] += spent
    now[0] = max(now[0], 110.0)
    return bound


@pytest.mark.parametrize(
    ("seconds", "cause", "share"),
    [
        ({"limits": 6.0, "source": 2.0}, Cause.LIMITS, 0.6),
        ({"source": 5.0, "ledger": 1.0}, Cause.SOURCE, 0.5),
        ({"growing": 7.0, "endpoint": 2.0}, Cause.ENDPOINT, 0.2),
        ({"queueing": 10.0}, Cause.QUEUEING, 1.0),
    ],
)
def test_the_longest_wait_is_named(seconds: dict[str, float], cause: Cause, share: float) -> None:
    """Of several causes it is the one that took longest; the search for the ceiling is none of them."""
    worst = waited(**seconds).worst()
    assert worst is not None
    assert worst[0] is cause
    assert worst[1] == pytest.approx(share)


def test_a_wait_for_nothing_to_send_does_not_count() -> None:
    """A run whose last answers are awaited was held up by what it waited for before."""
    worst = waited(end=30.0, budget=5.0).worst()
    assert worst is not None
    assert worst[0] is Cause.BUDGET
    assert worst[1] == pytest.approx(1.0)


def test_nothing_held_it_up() -> None:
    """A run that waited for nothing, or that did not begin, has no cause."""
    assert waited().worst() is None
    assert Bound(time.monotonic).worst() is None


@pytest.mark.parametrize(
    ("limits", "cause", "by", "text", "change"),
    [
        (
            LimitsConfig(requests_per_minute=600),
            "limits",
            "limits",
            "the limits that were told: 600 requests per 60 s",
            "raise them if the account allows more",
        ),
        (
            LimitsConfig(concurrency=8),
            "concurrency",
            "limits",
            "limits.concurrency: 8 in flight",
            "raise limits.concurrency",
        ),
        (
            LimitsConfig(adaptive=False),
            "concurrency",
            "limits",
            "64 in flight, as limits.adaptive is false",
            "set limits.concurrency",
        ),
        (
            LimitsConfig(),
            "source",
            "source",
            "the source: rows came too slowly for 40% of the time",
            "read them from something faster",
        ),
        (
            LimitsConfig(),
            "outage",
            "outage",
            "an endpoint that was out of service",
            "run again when it is well",
        ),
    ],
)
async def test_it_is_said_with_its_figure(
    limits: LimitsConfig, cause: str, by: str, text: str, change: str
) -> None:
    """The text holds the figure, `change` what would make it faster."""
    pace = Pace(limits, slots=OwnSlots(limits), most=limits.most)
    pace.bound = waited(**{cause: 4.0})
    assert bound_by(pace, limits) == {"by": by, "share": 0.4, "text": text, "change": change}
