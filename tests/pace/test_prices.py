"""What models cost: a price list is arithmetic; what was charged bounds what will be."""

from __future__ import annotations

import random

import pytest

from enrich.config import ModelPrices
from enrich.pace.prices import Charge, Prices, usd_of
from enrich.records import Usage


def test_a_price_list_counts_what_was_cached_apart() -> None:
    """Cached tokens cost their own price, or that of the others where none is told; an unlisted model is what the endpoint tells."""
    prices = {"m": ModelPrices(input=2, output=8, cached=0.5), "n": ModelPrices(input=2, output=8)}
    usage = Usage(1_000, 100, 1_100, cached_tokens=600, credits_usd=7.0)
    assert usd_of(usage, prices, "m") == pytest.approx((400 * 2 + 600 * 0.5 + 100 * 8) / 1e6)
    assert usd_of(usage, prices, None, "n") == pytest.approx((1_000 * 2 + 100 * 8) / 1e6)
    assert usd_of(usage, prices, "other") == 7.0
    assert usd_of(Usage(), prices, "m") is None


@pytest.mark.parametrize("seed", range(20))
def test_prices_bound_every_linear_charge(seed: int) -> None:
    """Whatever the two rates are, no later request costs more than the bound, and the bound is not far off."""
    chance = random.Random(seed)
    rates = (chance.random(), 10 * chance.random())
    prices = Prices()
    bound = charged = 0.0
    for number in range(200):
        prompt, answer = chance.randrange(1, 2000), chance.randrange(1, 200)
        cost = prompt * rates[0] + answer * rates[1]
        if number:
            assert cost <= prices.worst(prompt, answer)
        if number > 20:
            bound, charged = bound + prices.worst(prompt, answer), charged + cost
        prices.learn("m", Charge(prompt, answer, cost))
    assert bound < 2 * charged


def test_prices_are_those_of_the_dearest_model() -> None:
    """With several models in use, the bound is that of the dearest."""
    prices = Prices()
    prices.learn("cheap", Charge(100, 10, 0.01))
    prices.learn("dear", Charge(100, 10, 1.0))
    assert prices.worst(100, 10) >= 1.0


def test_a_charge_above_its_bound_widens_the_margin() -> None:
    """A tariff that is not linear is learned from: the same surprise does not come twice."""
    prices = Prices()
    for charge in (Charge(100, 10, 0.01), Charge(100, 10, 0.05)):
        prices.learn("m", charge)
    assert prices.worst(100, 10) >= 0.05
