from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from enrich.config.budget import BudgetConfig
from enrich.config.limits import RATES, LimitsConfig, RetryConfig, WindowConfig

if TYPE_CHECKING:
    from enrich.config.section import Section


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (LimitsConfig, {"concurrency": 1}),
        (LimitsConfig, {"concurrency": 20_000}),
        (LimitsConfig, {"requests_per_minute": 0.1}),
        (RetryConfig, {"attempts": 1}),
        (RetryConfig, {"attempts": 100}),
        (BudgetConfig, {"credits": 1e-9}),
        (BudgetConfig, {"requests": 1}),
        (WindowConfig, {"tokens": 1, "seconds": 0.001}),
    ],
)
def test_the_last_value_that_is_taken(kind: type[Section], keys: dict[str, Any]) -> None:
    """At the borders a value is still taken, and stays what it is."""
    found = kind.model_validate(keys)
    assert found.model_dump(include=set(keys)) == keys


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (LimitsConfig, {"concurrency": 0}),
        (LimitsConfig, {"concurrency": 20_001}),
        (LimitsConfig, {"requests_per_minute": 0}),
        (LimitsConfig, {"tokens_per_minute": -1}),
        (RetryConfig, {"attempts": 0}),
        (RetryConfig, {"max_wait": 0}),
        (RetryConfig, {"deadline": 0}),
        (BudgetConfig, {"credits": 0}),
        (BudgetConfig, {"tokens": 0}),
        (BudgetConfig, {"requests": 0}),
        (WindowConfig, {"requests": 1, "seconds": 0}),
        (WindowConfig, {"requests": 0, "seconds": 1}),
        (WindowConfig, {"seconds": 1}),
        (WindowConfig, {"requests": 1}),
    ],
)
def test_the_first_value_that_is_refused(kind: type[Section], keys: dict[str, Any]) -> None:
    """A limit of nothing would let nothing through, for ever: it is a mistake, not a wish."""
    with pytest.raises(ValidationError):
        kind.model_validate(keys)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (LimitsConfig, "requests_per_minute"),
        (LimitsConfig, "tokens_per_minute"),
        (RetryConfig, "max_wait"),
        (RetryConfig, "deadline"),
        (BudgetConfig, "credits"),
    ],
)
def test_what_is_no_number_limits_nothing(kind: type[Section], name: str, number: float) -> None:
    """`.nan` is refused wherever it would stand for a limit that is always, or never, reached; so is `.inf`."""
    with pytest.raises(ValidationError):
        kind.model_validate({name: number})


def test_the_rates_are_keys() -> None:
    """What counts as a limit over a span of time is a key of the limits, and none unless it is set."""
    limits = LimitsConfig()
    assert [getattr(limits, name) for name in RATES] == [None, None]
