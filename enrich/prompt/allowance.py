"""What one rendering may do: so many steps, the same on every machine, so that loops within loops end as an error of their row."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sized
from typing import Any, Final

MAX_STEPS: Final = 1_000_000  # a rendering; some tenths of a second
CHARACTERS: Final = 100  # of a text that is made, a step
_TEXTS = (str, bytes)
_CONTAINERS = (list, dict, tuple, set, frozenset, Mapping)
_SCALARS = frozenset({int, float, bool, type(None)})


class _Allowance(threading.local):
    left = MAX_STEPS


_allowance: Final = _Allowance()


def grant() -> None:
    """Begin a rendering of this thread."""
    _allowance.left = MAX_STEPS


def spend(steps: int) -> None:
    """Count steps that are taken: a turn of a loop, a call, an item that is made or looked at.

    Raises:
        OverflowError: they are more than a rendering may take.
    """
    _allowance.left -= steps
    if _allowance.left < 0:
        raise OverflowError(
            f"more than {MAX_STEPS:,} steps: loops within loops, or texts and lists made over and over"
        )


def steps_of(value: Any) -> int:
    """Say what it costs to make a value, or to go through it."""
    kind = type(value)
    if kind is str:
        return len(value) // CHARACTERS
    if kind in _SCALARS:
        return 0
    if kind is list or kind is dict or kind is tuple:
        return len(value)
    if isinstance(value, _TEXTS):
        return len(value) // CHARACTERS
    return len(value) if isinstance(value, Sized) else 0


def spend_within(value: Any) -> int:
    """Count what writes a value out: all that it holds, at any depth, as often as it holds it; gives the steps.

    Raises:
        OverflowError: it holds more than a rendering may write.
    """
    if type(value) in _SCALARS:
        return 0
    total = steps_of(value)
    open_ = [value] if isinstance(value, _CONTAINERS) else []
    while open_:
        found = open_.pop()
        spend(len(found))
        for item in found.values() if isinstance(found, Mapping) else found:
            kind = type(item)
            if kind is str:
                total += len(item) // CHARACTERS
            elif kind not in _SCALARS:
                total += steps_of(item)
                if isinstance(item, _CONTAINERS):
                    open_.append(item)
    return total
