"""The promise of a budget: held to the last credit, whatever is in flight."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

import enrich
from enrich.config import BudgetConfig
from enrich.errors import BudgetSpent
from enrich.pace.budget import Budget, Reservation
from enrich.records import Completion, Usage
from enrich.sandbox import SandboxOptions, ThreadedSandbox, parse_fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY = 300  # bytes


def answered(prompt: int | None, answer: int | None, credits_: float | None, model: str = "m") -> Completion:
    """Make an answer with this usage."""
    total = None if prompt is None or answer is None else prompt + answer
    return Completion("x", model, "stop", Usage(prompt, answer, total, credits_))


def test_a_credit_budget_starts_with_one_request() -> None:
    """Before a price was seen, one request goes; the others wait for its answer."""
    budget = Budget(BudgetConfig(credits=10))
    first = budget.reserve(BODY, 64)
    assert first is not None
    assert budget.reserve(BODY, 64) is None
    assert "price" in budget.held
    budget.settle(first, BODY, answered(50, 20, 0.01))
    assert budget.reserve(BODY, 64) is not None
    assert budget.held == ""


def test_a_credit_budget_fails_closed_without_a_price() -> None:
    """An endpoint that names no charge stops a run that has a credit budget, after one request."""
    budget = Budget(BudgetConfig(credits=10))
    first = budget.reserve(BODY, 64)
    assert first is not None
    budget.settle(first, BODY, answered(50, 20, None))
    with pytest.raises(BudgetSpent, match="names no charge"):
        budget.reserve(BODY, 64)


def test_tokens_and_requests_are_held_without_a_price() -> None:
    """Without any charge named, the other budgets hold all the same."""
    budget = Budget(BudgetConfig(tokens=1000, requests=3))
    for _ in range(2):
        reservation = budget.reserve(BODY, 64)
        assert reservation is not None
        budget.settle(reservation, BODY, answered(50, 20, None))
    assert budget.reserve(BODY, 64) is not None
    assert budget.reserve(BODY, 64) is None
    assert "may use up" in budget.held


def test_what_may_have_been_paid_counts_as_reserved() -> None:
    """A request given up after an attempt of unknown outcome uses up what was reserved for it; a refused one nothing."""
    budget = Budget(BudgetConfig(tokens=10_000))
    doubtful, refused = budget.reserve(BODY, 64), budget.reserve(BODY, 64)
    assert doubtful is not None
    assert refused is not None
    budget.settle(doubtful, BODY, None, maybe_paid=True)
    budget.settle(refused, BODY, None)
    assert budget.tokens == doubtful.tokens == BODY + 64


def test_an_answer_without_usage_counts_as_reserved() -> None:
    """An answer that names no usage uses up what was reserved for it."""
    budget = Budget(BudgetConfig(tokens=10_000))
    reservation = budget.reserve(BODY, 64)
    assert reservation is not None
    budget.settle(reservation, BODY, answered(None, None, None))
    assert budget.tokens == reservation.tokens


def test_answers_without_usage_teach_nothing_of_their_length() -> None:
    """What a request is likely to take stays as the answers that named their usage, or the first guess, have it."""
    budget = Budget(BudgetConfig())
    guess = budget.likely_tokens(BODY, 64)
    budget.learn(BODY, answered(None, None, None))
    assert budget.likely_tokens(BODY, 64) == guess
    budget.learn(BODY, answered(300, 20, None))
    for _ in range(50):
        budget.learn(BODY, answered(None, None, None))
    assert budget.likely_tokens(BODY, 64) == pytest.approx(320)


def test_a_request_that_was_not_sent_is_given_back() -> None:
    """A request that another run answers meanwhile uses up nothing."""
    budget = Budget(BudgetConfig(requests=1))
    reservation = budget.reserve(BODY, None)
    assert reservation is not None
    budget.release(reservation)
    assert budget.reserve(BODY, None) is not None


@pytest.mark.parametrize("seed", range(20))
def test_never_overshot_by_what_is_in_flight(seed: int) -> None:
    """With up to 256 in flight that settle in any order, sorted or not, what is charged stays within the budget."""
    chance = random.Random(seed)
    limit = chance.uniform(1, 40)
    budget = Budget(BudgetConfig(credits=limit))
    lengths = [int(chance.lognormvariate(6, 1)) + 100 for _ in range(3000)]
    if seed % 2:
        lengths.sort()
    flying: list[tuple[Reservation, int]] = []
    charged, stopped = 0.0, False
    while lengths and not stopped:
        try:
            reservation = budget.reserve(lengths[0], 64) if len(flying) < 256 else None
        except BudgetSpent:
            stopped = True
            continue
        if reservation is not None:
            flying.append((reservation, lengths.pop(0)))
            continue
        reservation, body = flying.pop(chance.randrange(len(flying)))
        prompt, answer = body // 4, chance.randrange(1, 65)
        cost = prompt * 0.0001 + answer * 0.0004
        charged += cost
        budget.settle(reservation, body, answered(prompt, answer, cost))
        assert charged <= limit
    assert stopped
    assert charged > 0.8 * limit


@pytest.fixture
def table(tmp_path: Path) -> Callable[[int], Path]:
    """Write rows of prose of very different lengths."""

    def write(rows: int) -> Path:
        chance = random.Random(3)
        text = "\n".join(f'"{number} {"word " * int(chance.lognormvariate(3, 1))}"' for number in range(rows))
        path = tmp_path / "in.csv"
        path.write_text(f"t\n{text}\n", encoding="utf-8")
        return path

    return write


def config_of(tmp_path: Path, base_url: str, budget: dict[str, float], **step: Any) -> dict[str, Any]:
    """Give a job that may have 256 requests in flight."""
    return {
        "input": str(tmp_path / "in.csv"),
        "output": str(tmp_path / "out.parquet"),
        "endpoint": {"base_url": base_url},
        "steps": [{"name": "s", "prompt": "Sum up: {{ t }}", **step}],
        "limits": {"concurrency": 256, "adaptive": False},
        "budget": budget,
    }


@pytest.mark.parametrize("step", [{}, {"max_tokens": 40}])
def test_the_books_stay_within_a_credit_budget(
    tmp_path: Path, table: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, step: dict[str, Any]
) -> None:
    """With 256 in flight, the endpoint's books never pass the budget; raised, the run goes on and pays nothing twice."""
    monkeypatch.setenv("BEATRA_API_KEY", "sk-any")
    table(700)
    lossy = (parse_fault("reset_after_charge=0.02:1"),)
    with ThreadedSandbox(SandboxOptions(latency=0.01, latency_spread=0.5, faults=lossy)) as sandbox:
        spent = 0.0
        for limit in (2, 3):
            summary = enrich.run(config_of(tmp_path, sandbox.base_url, {"credits": limit}, **step))
            assert summary.exit_code == 4, summary.reason
            assert f"budget of {limit} credits is spent" in summary.reason
            assert 0.7 * limit < sandbox.books.total.credits - spent <= limit
            spent = sandbox.books.total.credits
        summary = enrich.run(config_of(tmp_path, sandbox.base_url, {"credits": 1000}, **step))
        assert summary.exit_code == 0, summary.reason
        assert len(sandbox.books.keys) == 700
        assert {tally.charges for tally in sandbox.books.keys.values()} == {1}


@pytest.mark.parametrize(("name", "limit"), [("tokens", 20_000), ("requests", 233)])
def test_the_books_stay_within_tokens_and_requests(
    tmp_path: Path, table: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    """Budgets of tokens and of requests are held as well, and said to be spent by name."""
    monkeypatch.setenv("BEATRA_API_KEY", "sk-any")
    table(600)
    with ThreadedSandbox(SandboxOptions(latency=0.01)) as sandbox:
        summary = enrich.run(config_of(tmp_path, sandbox.base_url, {name: limit}, max_tokens=40))
        assert summary.exit_code == 4
        assert f"budget of {limit:,} {name} is spent" in summary.reason
        assert "goes on from here" in summary.reason
        used = {"tokens": sandbox.books.total.tokens, "requests": len(sandbox.books.keys)}[name]
        assert 0.9 * limit < used <= limit
