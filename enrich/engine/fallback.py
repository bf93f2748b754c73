"""Which models are out of service at the moment, so that each row need not find out for itself."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COOL_DOWN = 30.0  # seconds before one row may try a model again that was unavailable
COOL_DOWN_MAX = 300.0  # seconds


class ModelBreaker:
    """Keeps unavailable models closed; after a cool-down one row probes, the others keep waiting for its word."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._closed: dict[str, tuple[float, float]] = {}
        self._given_up: Counter[str] = Counter()

    @property
    def troubled(self) -> bool:
        """Whether any model is out of service."""
        return bool(self._closed)

    def usable(self, models: Sequence[str]) -> list[str]:
        """Give the models worth asking, in order; the last one always, for somebody must be asked."""
        if not self._closed:
            return list(models)
        return [*(model for model in models[:-1] if self._may_ask(model)), models[-1]]

    def unavailable(self, model: str) -> None:
        """Note that a model was given up for a row; rows that find out together count as one."""
        self._given_up[model] += 1
        self._closed.setdefault(model, (self._monotonic() + COOL_DOWN, COOL_DOWN))

    def gone(self, model: str) -> None:
        """Note a model that is not served here: it does not come back in this run."""
        self._given_up[model] += 1
        self._closed[model] = (math.inf, math.inf)

    def watch(self, model: str) -> Callable[[], bool]:
        """Give a question for a request that waits to be sent: was its model given up meanwhile?"""
        before = self._given_up[model]
        return lambda: self._given_up[model] != before

    def served(self, model: str) -> None:
        """Note that a model answered."""
        if self._closed:
            self._closed.pop(model, None)

    def _may_ask(self, model: str) -> bool:
        if model not in self._closed:
            return True
        until, wait = self._closed[model]
        if self._monotonic() < until:
            return False
        wait = min(2 * wait, COOL_DOWN_MAX)
        self._closed[model] = (self._monotonic() + wait, wait)  # this row probes; the others wait on
        return True
