"""A request that is in flight, as the pace sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Sent:
    """A request that is in flight.

    Attributes:
        number: among those of its model.
        order: among all.
        at: monotonic seconds.
        in_flight: others of its model that were in flight when it went.
        tokens: that were reserved for it.
        safe: whether what is known of the rate rules out that it is refused.
        landed: whether something whole came back.
        refused: whether a 429 did.
    """

    model: str
    number: int
    order: int
    at: float
    in_flight: int
    tokens: float
    safe: bool
    landed: bool = False
    refused: bool = False
