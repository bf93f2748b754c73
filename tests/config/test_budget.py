"""What may stand under `budget` and `prices`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from enrich.config import validate_config
from enrich.config.budget import BudgetConfig, BudgetWindow, ModelPrices
from enrich.errors import ConfigError


def test_a_window_with_every_key() -> None:
    """They stay what they are; tag and zone may be left out."""
    keys = {
        "credits": 500.0,
        "tokens": 1,
        "requests": 2,
        "usd": 0.5,
        "per": "week",
        "tag": "a team",
        "zone": "Asia/Tokyo",
    }
    assert BudgetWindow.model_validate(keys).model_dump() == keys
    assert BudgetWindow.model_validate({"credits": 1, "per": "day"}).zone == "UTC"


@pytest.mark.parametrize(
    "window",
    [
        {"per": "day"},
        {"credits": 5},
        {"credits": 0, "per": "day"},
        {"tokens": 1.5, "per": "day"},
        {"credits": float("inf"), "per": "day"},
        {"credits": 5, "per": "hour"},
        {"credits": 5, "per": "day", "zone": "Europe/Atlantis"},
        {"credits": 5, "per": "day", "zone": "../etc/passwd"},
        {"credits": 5, "per": "day", "zone": ""},
        {"credits": 5, "per": "day", "tag": "a\nb"},
        {"credits": 5, "per": "day", "tags": "a"},
    ],
)
def test_what_is_no_window_is_refused(window: dict[str, Any]) -> None:
    """A limit of nothing, no span, an unknown zone, a tag of two lines: each is a mistake."""
    with pytest.raises(ValidationError):
        BudgetConfig.model_validate({"windows": [window]})


@pytest.mark.parametrize(
    "prices", [{"input": 1}, {"input": -1, "output": 1}, {"input": 1, "output": float("nan")}]
)
def test_what_is_no_price_is_refused(prices: dict[str, Any]) -> None:
    """Both directions have a price, of zero at least."""
    with pytest.raises(ValidationError):
        ModelPrices.model_validate(prices)


@pytest.mark.parametrize("unit", ["credits", "tokens", "requests"])
def test_a_budget_of_one_run_does_not_hold_a_guarantee(unit: str) -> None:
    """Its sample and its rows would each have it whole: it is refused, and the window that both share is taken."""
    escalate = {"models": ["small", "large"], "guarantee": 0.9, "sample": 50}
    step = {"name": "s", "prompt": "{{ t }}", "schema": SCHEMA, "escalate": escalate}
    document = {"input": "i.csv", "output": "o.csv", "gold": {"s_label": "by_hand"}, "steps": [step]}
    with pytest.raises(ConfigError, match=rf"`budget.{unit}` and `escalate.guarantee` exclude each other"):
        validate_config({**document, "budget": {unit: 5}})
    window = {unit: 5, "per": "total", "tag": "trial"}
    assert validate_config({**document, "budget": {"windows": [window]}}).budget.windows[0].tag == "trial"


SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}, "confidence": {"type": "number"}},
    "required": ["label", "confidence"],
}
