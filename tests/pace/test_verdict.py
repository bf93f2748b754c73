"""Tests of the verdict on refusals: a limit's, or chance's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from enrich.pace.verdict import Verdict, judge
from tests.helpers.servers import Arrival, Bucket, RandomRefusals, Unlimited

if TYPE_CHECKING:
    from tests.helpers.servers import Server

SURELY = 4.0  # log-likelihood


def sweeps(server: Server, seed: int = 1, known: float = 1.0) -> list[tuple[float, bool]]:
    """Send for a while at a rate that climbs from a little below what is known, and falls back when one is refused."""
    source = random.Random(seed)
    at, rate, sent = 0.0, known, []
    for _ in range(120):
        at += 1 / rate
        refused = not server.arrive(Arrival(at), source).taken
        sent.append((at, refused))
        rate = 0.8 * rate if refused else 1.04 * rate
    return sent


def verdict(requests: list[tuple[float, bool]], usual: float = 0.0005) -> Verdict:
    """Judge what came, with limits around what was let through."""
    through = sum(not refused for _, refused in requests) / (requests[-1][0] - requests[0][0])
    return judge(requests, lowest=through, highest=through, usual=usual)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_refusals_that_come_whatever_the_rate_are_chances(share: float, seed: int) -> None:
    """A run that slows down at each refusal, and is refused as often as before, sees that no limit explains it."""
    assert verdict(sweeps(RandomRefusals(share, Unlimited()), seed)).chance > SURELY


@pytest.mark.parametrize("burst", [1.0, 4.0, 30.0])
def test_refusals_that_come_above_a_rate_are_a_limits(burst: float) -> None:
    """Whatever it lets through at once, a limit is told from chance, and found, to within a third."""
    found = verdict(sweeps(Bucket(1.0, burst)))
    assert found.chance < 0
    assert found.lowest / 1.3 <= 1.0 <= found.highest * 1.3
    assert found.stray < 0.5


def test_a_refusal_far_below_the_limit_is_a_stray() -> None:
    """Of one request that is refused at half of what was let through all the time before, the limit is not to blame."""
    requests = sweeps(Bucket(1.0, 1.0))
    end = requests[-1][0]
    slow = [(end + 2.0 * n, False) for n in range(1, 10)]
    assert verdict([*requests, *slow, (slow[-1][0] + 2.0, True)]).stray > 0.5


def test_refusals_again_and_again_far_below_the_limit_are_a_lower_limits() -> None:
    """A limit that fell is taken for that as soon as there is more than one refusal that the old one does not explain."""
    server = Bucket(1.0, 1.0)
    requests = sweeps(server)
    end, fallen, source = requests[-1][0], Bucket(0.25, 1.0), random.Random(1)
    requests += [
        (end + 2.0 * n, not fallen.arrive(Arrival(end + 2.0 * n), source).taken) for n in range(1, 10)
    ]
    found = verdict(requests)
    assert found.stray < 0.5
    assert found.highest < 0.6
