"""What a sample says of the rest: in range in 19 of 20 cases and more, whatever the price looks like."""

from __future__ import annotations

import hashlib
import random
import statistics
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from enrich.sandbox.answers import complete
from enrich.verbs.forecast import Estimate, extrapolate, student_quantile

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, SAMPLE, SEEDS = 10_000, 50, 20
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "why": {"type": "string", "maxLength": 400}},
    "required": ["label", "why"],
}


def charged_by_sandbox(chance: random.Random, **fields: Any) -> tuple[int, float]:
    """Give a request's size and what the built-in emulator charges for it."""
    text = " ".join(["word"] * max(1, int(chance.lognormvariate(3, 1))))
    body = {"model": "auto", "messages": [{"role": "user", "content": f"{chance.random()} {text}"}], **fields}
    raw = orjson.dumps(body)
    _, bill = complete(body, hashlib.sha256(raw).digest(), completion_id="c", model="fast-1")
    return len(raw), bill.credits


def with_schema(chance: random.Random) -> tuple[int, float]:
    """Give a request for an answer of made-up length."""
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    return charged_by_sandbox(chance, response_format=form)


def reasoning(chance: random.Random) -> tuple[int, float]:
    """Give a request whose answer's length has little to do with its own: log-normal."""
    size = 200 + int(chance.lognormvariate(5, 1))
    return size, size / 4 * 1e-4 + chance.lognormvariate(5, 1) * 4e-4


def proportional(chance: random.Random) -> tuple[int, float]:
    """Give a translation: the answer is about as long as the text, and texts are of very different lengths."""
    size = 150 + int(chance.lognormvariate(6, 1.3))
    return size, size * chance.uniform(0.8, 1.2) * 1e-4


@pytest.mark.parametrize("charged", [charged_by_sandbox, with_schema, reasoning, proportional])
def test_fifty_rows_foretell_ten_thousand(charged: Callable[[random.Random], tuple[int, float]]) -> None:
    """The credits of a run of 10,000 rows lie within the range that 50 of them give, for 19 of 20 samples at least."""
    chance = random.Random(11)
    rows = [charged(chance) for _ in range(ROWS)]
    within, widths = 0, []
    for seed in range(SEEDS):
        chosen = set(random.Random(seed).sample(range(ROWS), SAMPLE))
        sample = [rows[i] for i in chosen]
        rest = [row for i, row in enumerate(rows) if i not in chosen]
        sizes, costs = zip(*sample, strict=True)
        estimate = extrapolate(sizes, costs, count=len(rest), size=sum(size for size, _ in rest))
        truth = sum(cost for _, cost in rest)
        within += estimate.low <= truth <= estimate.high
        assert estimate.low <= estimate.likely <= estimate.high
        widths.append((estimate.high - estimate.low) / truth)
    assert within >= 19
    assert statistics.median(widths) < 2  # a range that says something


def test_equal_costs_give_a_narrow_range() -> None:
    """Where every row costs the same there is nothing to doubt but rounding."""
    estimate = extrapolate([100] * 20, [0.5] * 20, count=1000, size=100_000)
    assert estimate.likely == pytest.approx(500)
    assert estimate.high - estimate.low < 0.5


def test_the_sizes_of_the_rest_count() -> None:
    """A sample of short prompts does not make long ones cheap."""
    sizes = list(range(100, 150))
    estimate = extrapolate(sizes, [s / 100 for s in sizes], count=10, size=10 * 1000)
    assert estimate.likely == pytest.approx(100)


def test_few_rows_give_a_rough_range() -> None:
    """With fewer than five rows measured the range is a factor of three either way."""
    estimate = extrapolate([100, 200], [1.0, 2.0], count=10, size=1500)
    assert estimate.likely == pytest.approx(15)
    assert estimate.low == pytest.approx(5)
    assert estimate.high == pytest.approx(45)


def test_nothing_left_costs_nothing() -> None:
    """When nothing is to be asked, nothing is to be paid."""
    assert extrapolate([1] * 9, [1.0] * 9, count=0, size=0) == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("freedom", "expected"), [(3, 5.841), (5, 4.032), (10, 3.169), (48, 2.682)])
def test_quantiles_of_students_t(freedom: int, expected: float) -> None:
    """The quantiles are those of the tables, to one in a hundred where samples are smallest."""
    assert student_quantile(0.995, freedom) == pytest.approx(expected, rel=0.01)
