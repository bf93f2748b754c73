"""The models that steps are pinned to: who answered first, kept in the ledger; who answers now is held to that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from enrich.errors import ModelChanged
from enrich.records import Completion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from enrich.config import StepConfig
    from enrich.config.pin import Pin
    from enrich.ledger.protocol import Ledger
    from enrich.records import Outcome, Settled

log = logging.getLogger("enrich")


class Served(NamedTuple):
    """Who answered, as far as the endpoint tells; what it does not tell is held against nobody."""

    model: str | None
    fingerprint: str | None

    def is_same(self, other: Served, *, fingerprint: bool) -> bool:
        """Say whether another one may be the same."""
        pairs = [(self.model, other.model)]
        if fingerprint:
            pairs.append((self.fingerprint, other.fingerprint))
        return all(one == two or one is None or two is None for one, two in pairs)

    def __str__(self) -> str:
        told = self.model or "a model without a name"
        return told if self.fingerprint is None else f"{told} ({self.fingerprint})"


class Pins:
    """Holds the answers of one run to the models that its steps are pinned to.

    Args:
        steps: the configurations of all steps; those without a pin are let be.
        ledger: keeps the pins: processes that begin at once agree on one.
        base_url: what requests are keyed by: of another endpoint nothing is known.
        further: whether a model that is not the pinned one is taken, and pinned beside it.
        sends: whether an answer that is met first is pinned; who only looks pins nothing.
    """

    def __init__(
        self,
        steps: Iterable[StepConfig],
        ledger: Ledger,
        base_url: str,
        *,
        further: bool = False,
        sends: bool = False,
    ) -> None:
        self._of: dict[str, Pin] = {step.name: pin for step in steps if (pin := step.pinned) is not None}
        self._ledger = ledger
        self._base_url = base_url
        self._further = further
        self._sends = sends
        self._taken: dict[tuple[str, str], list[Served]] = {}
        self._met: dict[tuple[str, str, Served], None] = {}
        self._told: set[tuple[str, str, Served]] = set()

    def __bool__(self) -> bool:
        return bool(self._of)

    def meet(self, step: str, settled: Settled) -> None:
        """Note who gave an answer, where its step is pinned; `settle` says what comes of it."""
        result = settled.result
        if step in self._of and isinstance(result, Completion):
            served = Served(result.model, result.system_fingerprint)
            if any(served) and not self._is_taken(step, settled.asked, served):
                self._met[step, settled.asked, served] = None

    async def settle(self) -> ModelChanged | None:
        """Pin what has no pin yet, and hold to the pins what was met since.

        Returns:
            Why the run is to stop; None where it may go on.
        """
        while self._met:
            step, asked, served = next(iter(self._met))
            taken = await self._pinned(step, asked, served)
            self._met.pop((step, asked, served))
            if not taken or self._is_taken(step, asked, served):
                continue
            if self._of[step].on_change != "mark":
                return _changed(step, asked, taken[-1], served, asks=self._of[step].on_change == "ask")
            if (step, asked, served) not in self._told:
                self._told.add((step, asked, served))
                log.warning(
                    "step `%s`: `%s` is answered by %s, and was answered by %s: such rows are true in `%s_model_changed`",
                    step,
                    asked,
                    served,
                    taken[0],
                    step,
                )
        return None

    async def _pinned(self, step: str, asked: str, served: Served) -> list[Served]:
        """Give who may answer, after this one was pinned where it is the first, or may join."""
        if not self._sends:
            return await self._recalled(step, asked)
        items = await self._ledger.enlist(
            pin_name(self._base_url, step, asked), list(served), further=self._further
        )
        self._taken[step, asked] = [Served(*item) for item in items]
        return self._taken[step, asked]

    async def _recalled(self, step: str, asked: str) -> list[Served]:
        told = await self._ledger.recall(pin_name(self._base_url, step, asked), vital=True) or {}
        self._taken[step, asked] = [Served(*item) for item in told.get("items", ())]
        return self._taken[step, asked]

    def _is_taken(self, step: str, asked: str, served: Served) -> bool:
        strict = self._of[step].fingerprint
        return any(served.is_same(one, fingerprint=strict) for one in self._taken.get((step, asked), ()))

    async def marked(self, step: str, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Say of each outcome of a pinned step whether another model had a part in it than the one that answered first."""
        if step not in self._of:
            return list(outcomes)
        strict = self._of[step].fingerprint
        for asked in {one[0] for outcome in outcomes for one in outcome.served or ()}:
            if (step, asked) not in self._taken:
                await self._recalled(step, asked)
        return [self._mark(step, outcome, strict=strict) for outcome in outcomes]

    def _mark(self, step: str, outcome: Outcome, *, strict: bool) -> Outcome:
        if outcome.served is None:
            return outcome
        changed = any(
            not Served(model, fingerprint).is_same(taken[0], fingerprint=strict)
            for asked, model, fingerprint in outcome.served
            if (taken := self._taken.get((step, asked)))
        )
        return outcome._replace(model_changed=changed)


def pin_name(base_url: str, step: str, asked: str) -> str:
    """Name the note with the models that may answer where a step asks for one."""
    return f"pin:{base_url}:{step}:{asked}"


def _changed(step: str, asked: str, pinned: Served, served: Served, *, asks: bool) -> ModelChanged:
    change: dict[str, Any] = {
        "step": step,
        "asked": asked,
        "pinned": pinned._asdict(),
        "served": served._asdict(),
        "asks": asks,
    }
    return ModelChanged(
        f"step `{step}` asks for `{asked}`, which {served} answers now; it is pinned to {pinned}",
        hint="look at some answers of both, then take the new one with `run --accept-model` (in Python accept_model=True), "
        f"or have its rows marked with steps.{step}.pin: mark.",
        change=change,
    )
