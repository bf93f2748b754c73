"""What models cost: told by a price list, or bounded by what earlier answers were charged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enrich.config import ModelPrices
    from enrich.records import Usage

PRICE_MARGIN = 1.1  # over the dearest price that what was charged so far allows
MILLION = 1e6  # tokens, that a price is told for


def usd_of(usage: Usage, prices: Mapping[str, ModelPrices], *models: str | None) -> float | None:
    """Give what a completion cost in US dollars: by the price list, else as the endpoint tells; None where neither does.

    Args:
        usage: of the completion.
        prices: the list.
        models: that it may be priced as, the one that served it first.
    """
    told = next((prices[model] for model in models if model is not None and model in prices), None)
    if told is None or usage.prompt_tokens is None:
        return usage.credits_usd
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    of_cached = cached * (told.input if told.cached is None else told.cached)
    of_rest = (usage.prompt_tokens - cached) * told.input
    return (of_cached + of_rest + (usage.completion_tokens or 0) * told.output) / MILLION


def saved_usd(cached_tokens: int, prices: Mapping[str, ModelPrices], model: str) -> float | None:
    """Give what a cache saved against prompts that are read anew, in US dollars; None where no price says."""
    told = prices.get(model)
    if told is None or told.cached is None:
        return None
    return cached_tokens * (told.input - told.cached) / MILLION


class Charge(NamedTuple):
    """What one completion was charged."""

    prompt: int
    completion: int
    credits: float

    @property
    def share(self) -> float:
        """Give the share of its tokens that the answer makes up."""
        return self.completion / max(self.prompt + self.completion, 1)


class Prices:
    """Bounds what a request can cost by what earlier ones did; the endpoint names charges, but no rates.

    A charge is taken as linear in prompt and completion tokens. Each charge then bounds the two rates; of every
    model the two that tell most are kept, those with the largest and the smallest share of completion tokens.
    The bound is what a request would cost at the dearest rates that both allow. A charge above its bound widens
    the margin of all later ones.
    """

    def __init__(self) -> None:
        self._extremes: dict[str | None, tuple[Charge, Charge]] = {}
        self._cheapest = math.inf
        self._margin = PRICE_MARGIN

    @property
    def known(self) -> bool:
        """Say whether any charge was seen."""
        return bool(self._extremes)

    def learn(self, model: str | None, charge: Charge) -> None:
        """Take in what a completion by this model was charged."""
        if model in self._extremes:
            expected = _dearest(*self._extremes[model], charge.prompt, charge.completion)
            if charge.credits > expected > 0:
                self._margin = max(self._margin, PRICE_MARGIN * charge.credits / expected)
        least, most = self._extremes.get(model, (charge, charge))
        self._extremes[model] = (
            min(least, charge, key=lambda c: c.share),
            max(most, charge, key=lambda c: c.share),
        )
        self._cheapest = min(self._cheapest, charge.credits)

    def to_list(self) -> list[tuple[str | None, list[Charge]]]:
        """Give the charges that tell most of each model, for another process to `learn`."""
        return [(model, list(pair)) for model, pair in self._extremes.items()]

    def worst(self, prompt: float, completion: float) -> float:
        """Give the most credits that so many tokens can cost, whichever model seen so far serves them."""
        dearest = (_dearest(*pair, prompt, completion) for pair in self._extremes.values())
        return self._margin * max(self._cheapest, *dearest)


def _dearest(one: Charge, two: Charge, prompt: float, completion: float) -> float:
    """Maximise what the tokens cost over all rates that do not make either charge cheaper than it was.

    A linear programme in two unknowns: its solution lies where the bounds meet each other or an axis.
    """
    by_prompt = min(c.credits / max(c.prompt, 1) for c in (one, two))
    by_completion = min(c.credits / max(c.completion, 1) for c in (one, two))
    best = max(by_prompt * prompt, by_completion * completion)
    determinant = one.prompt * two.completion - two.prompt * one.completion
    if determinant:
        p = (one.credits * two.completion - two.credits * one.completion) / determinant
        c = (one.prompt * two.credits - two.prompt * one.credits) / determinant
        if p >= 0 and c >= 0:
            best = max(best, p * prompt + c * completion)
    return best
