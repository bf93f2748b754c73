from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from enrich.engine.fallback import COOL_DOWN, COOL_DOWN_MAX, ModelBreaker
from enrich.sandbox import Fault, SandboxOptions, ThreadedSandbox
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, envelope
from tests.helpers.wire import config_of, run

if TYPE_CHECKING:
    from pathlib import Path

MODELS = ["fast-1", "smart-1", "auto"]
STEP = {"model": "fast-1", "fallback_models": ["smart-1", "auto"]}


class Time:
    """A clock to turn."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Give the time it was turned to."""
        return self.now


# --- the breaker -----------------------------------------------------------------------------------------


def test_all_usable() -> None:
    """Models of which nothing bad is known are asked in their order."""
    assert ModelBreaker().usable(MODELS) == MODELS


def test_unavailable_is_left_out() -> None:
    """A model that was given up is not asked by others for a while; the last one always is."""
    breaker = ModelBreaker(Time())
    breaker.unavailable("fast-1")
    assert breaker.usable(MODELS) == ["smart-1", "auto"]
    breaker.unavailable("smart-1")
    breaker.unavailable("auto")
    assert breaker.usable(MODELS) == ["auto"]


def test_single_probe() -> None:
    """After the cool-down one row tries the model, the others wait for its word."""
    time = Time()
    breaker = ModelBreaker(time)
    breaker.unavailable("fast-1")
    time.now += COOL_DOWN
    assert breaker.usable(MODELS) == MODELS
    assert breaker.usable(MODELS) == ["smart-1", "auto"]


def test_recovery() -> None:
    """A probe that is served opens the model to all."""
    time = Time()
    breaker = ModelBreaker(time)
    breaker.unavailable("fast-1")
    time.now += COOL_DOWN
    breaker.usable(MODELS)
    breaker.served("fast-1")
    assert [breaker.usable(MODELS) for _ in range(3)] == [MODELS] * 3


def test_cool_down_grows() -> None:
    """Each probe that fails doubles the cool-down, up to a bound; a lost probe is followed by another."""
    time = Time()
    breaker = ModelBreaker(time)
    waits = []
    for _ in range(6):
        breaker.unavailable("fast-1")
        start = time.now
        while breaker.usable(MODELS) != MODELS:
            time.now += COOL_DOWN
        waits.append(time.now - start)
    assert waits == [30.0, 60.0, 120.0, 240.0, COOL_DOWN_MAX, COOL_DOWN_MAX]


def test_rows_of_one_moment() -> None:
    """Rows that were in flight when a model went away count as one sign, not as many."""
    time = Time()
    breaker = ModelBreaker(time)
    for _ in range(50):
        breaker.unavailable("fast-1")
    time.now += COOL_DOWN
    assert breaker.usable(MODELS) == MODELS


# --- in a run --------------------------------------------------------------------------------------------


def unavailable(*models: str, kind: str = "model_unavailable") -> SandboxOptions:
    """Let these models be unavailable."""
    return SandboxOptions(faults=tuple(Fault(kind, match=f'"model":"{model}"') for model in models))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["model_unavailable", "unsupported_model", "unsupported_capability"])
def test_next_model(tmp_path: Path, kind: str, stream: bool) -> None:
    """A model that stays unavailable, or cannot do what is asked, is replaced by the next one, under a new key."""
    with ThreadedSandbox(unavailable("fast-1", kind=kind)) as sandbox:
        ran = run(config_of(tmp_path, ["one"], sandbox.base_url, step={**STEP, "stream": stream}))
    tries = 3 if kind == "model_unavailable" else 1
    (row,) = ran.rows
    assert (row["s_status"], row["s_model"], row["s_attempts"]) == ("ok", "smart-1", tries + 1)
    keys = [attempt.key for attempt in sandbox.books.attempts]
    assert (len(keys), len(set(keys))) == (tries + 1, 2)
    assert row["s_idempotency_key"] == keys[-1]
    assert len({attempt.body for attempt in sandbox.books.attempts}) == 2
    assert ran.summary.retries == {kind: tries}
    assert ran.summary.statuses["ok"] == 1


def test_a_model_that_is_loading_is_left_for_the_next(tmp_path: Path) -> None:
    """In other servers' words too: asked three times, it did nothing that may be charged."""

    def script(seen: Seen) -> Raw | None:
        if b'"model":"slow-1"' not in seen.raw:
            return None
        return Raw(b'{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}', 503)

    step = {"model": "slow-1", "fallback_models": ["served-1"]}
    with BookedEndpoint(script=script) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url, step=step))
        assert len(endpoint.charges) == 1
    assert (ran.rows[0]["s_status"], ran.rows[0]["s_model"], ran.rows[0]["s_attempts"]) == (
        "ok",
        "served-1",
        4,
    )


def test_finally_auto(tmp_path: Path) -> None:
    """When all named models are unavailable, `auto` is asked; the served model is in the output."""
    with ThreadedSandbox(unavailable("fast-1", "smart-1")) as sandbox:
        ran = run(config_of(tmp_path, ["one"], sandbox.base_url, step=STEP))
    assert (ran.rows[0]["s_status"], ran.rows[0]["s_model"]) == ("ok", "fast-1")  # what `auto` means there
    assert sandbox.books.total.charges == 1


def test_none_left(tmp_path: Path) -> None:
    """When every model is unavailable the row fails, after as many attempts as allowed of the last."""
    with ThreadedSandbox(unavailable("fast-1", "smart-1", "auto")) as sandbox:
        ran = run(config_of(tmp_path, ["one"], sandbox.base_url, step=STEP))
    assert ran.rows[0]["s_status"] == "error"
    assert ran.rows[0]["s_error"].startswith("model_unavailable: ")
    assert ran.rows[0]["s_attempts"] == 3 + 3 + 4
    assert ran.summary.exit_code == 3


def test_not_each_row_finds_out(tmp_path: Path) -> None:
    """Once a few rows found a model unavailable, the others do not ask it."""
    texts = [f"row {n}" for n in range(400)]
    with ThreadedSandbox(unavailable("fast-1")) as sandbox:
        ran = run(config_of(tmp_path, texts, sandbox.base_url, step=STEP, limits={"concurrency": 4}))
    assert {(row["s_status"], row["s_model"]) for row in ran.rows} == {("ok", "smart-1")}
    assert sandbox.books.faults["model_unavailable"] < 200
    assert max(tally.charges for tally in sandbox.books.bodies.values()) == 1
    assert ran.summary.attempts == sandbox.books.total.requests


def test_resume_after_fallback(tmp_path: Path) -> None:
    """A second run finds the answers of the fallback model and sends nothing."""
    with ThreadedSandbox(unavailable("fast-1")) as sandbox:
        config = config_of(tmp_path, ["one", "two"], sandbox.base_url, step=STEP)
        first = run(config)
        asked = sandbox.books.total.requests
        second = run(config)
    assert sandbox.books.total.requests == asked
    assert second.summary.requests == 0
    assert [row["s"] for row in second.rows] == [row["s"] for row in first.rows]
    assert [row["s_source"] for row in second.rows] == ["ledger", "ledger"]


def test_brief_unavailability(tmp_path: Path) -> None:
    """A model that is unavailable for a moment keeps its rows."""
    faults = (Fault("model_unavailable", times=2, per_key=True),)
    with ThreadedSandbox(SandboxOptions(faults=faults)) as sandbox:
        ran = run(config_of(tmp_path, ["one"], sandbox.base_url, step=STEP))
    assert (ran.rows[0]["s_model"], ran.rows[0]["s_attempts"]) == ("fast-1", 3)
    assert len({attempt.key for attempt in sandbox.books.attempts}) == 1


def test_final_unavailability(tmp_path: Path) -> None:
    """A model that is unavailable for good (not retryable) is left at once."""

    def script(seen: Seen) -> Raw | None:
        gone = seen.body["model"] == "fast-1"
        return envelope("model_unavailable", 503, retryable=False) if gone else None

    with BookedEndpoint(script=script) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url, step=STEP))
    assert (ran.rows[0]["s_status"], ran.rows[0]["s_model"]) == ("ok", "smart-1")
    assert [seen.body["model"] for seen in endpoint.posts] == ["fast-1", "smart-1"]


def test_pinned_model_not_served(tmp_path: Path) -> None:
    """A pinned model that is not served stops the run at its first answer, and is named."""
    texts = [f"row {n}" for n in range(200)]
    with ThreadedSandbox(SandboxOptions()) as sandbox:
        config = config_of(
            tmp_path, texts, sandbox.base_url, step={"model": "gone-9"}, limits={"concurrency": 4}
        )
        ran = run(config)
    assert ran.summary.exit_code == 4
    assert "`gone-9`" in ran.summary.reason
    assert "beatra-enrich models" in ran.summary.reason
    assert sandbox.books.total.requests <= 4
    assert ran.summary.statuses["pending"] == 200


def test_unsupported_option(tmp_path: Path) -> None:
    """An option that the model does not take is named in the row's error."""

    def script(seen: Seen) -> Raw | None:
        error = {
            "code": "unsupported_option",
            "message": "not for this model",
            "retryable": False,
            "details": {"unsupported_fields": ["temperature", "seed"]},
        }
        return Raw(json.dumps({"error": error}).encode(), 422) if "seed" in seen.body else None

    step: dict[str, Any] = {"temperature": 0, "params": {"seed": 7}}
    with BookedEndpoint(script=script) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url, step=step))
    assert ran.rows[0]["s_error"] == "unsupported_option: not for this model; remove temperature; seed"
    assert ran.summary.exit_code == 3
    assert len(endpoint.posts) == 1
