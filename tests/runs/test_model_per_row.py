"""Each row asks the model that it names: fallbacks, refusals and the breaker are that model's."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

MODELS = ("fast-1", "slow-2", "gone-3")
ROWS = [{"t": f"text {n}", "m": MODELS[n % 3]} for n in range(60)]


def gone(seen: Seen) -> Raw | None:
    """Serve all models but one."""
    if seen.method == "POST" and seen.body["model"] == "gone-3":
        return envelope("unsupported_model", 400)
    return None


def test_each_row_asks_its_own_model(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """One that is not served fails the rows that name it, and no other; the answers serve a step that names the model."""
    endpoint.script = gone
    config = job(ROWS, step={"model": "{{ m }}"}, tolerate=20)
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {(row["m"], row["s_status"]) for row in table} == {
        ("fast-1", "ok"),
        ("slow-2", "ok"),
        ("gone-3", "error"),
    }
    assert all(row["s_error"].startswith("unsupported_model") for row in table if row["m"] == "gone-3")
    assert Counter(seen.body["model"] for seen in endpoint.posts) == dict.fromkeys(MODELS, 20)
    plain = job([row for row in ROWS if row["m"] == "fast-1"], step={"model": "fast-1"})
    again = cli("run", plain, "--json", endpoint=endpoint)
    assert (json.loads(again.out)["requests"], len(endpoint.charges)) == (0, 40)


def test_fallbacks_are_each_row_s_own(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A row turns to what it names next; a second run finds the answers there."""
    endpoint.script = gone
    rows = [{**row, "next": "fast-1" if n % 2 else "slow-2"} for n, row in enumerate(ROWS)]
    config = job(rows, step={"model": "{{ m }}", "fallback_models": ["{{ next }}"]})
    assert cli("run", config, endpoint=endpoint).code == 0
    asked = {
        (seen.body["messages"][-1]["content"], seen.body["model"])
        for seen in endpoint.posts
        if not gone(seen)
    }
    expected = {(row["t"], row["next"] if row["m"] == "gone-3" else row["m"]) for row in rows}
    assert asked == expected
    posts = len(endpoint.posts)
    assert cli("run", config, "--force", endpoint=endpoint).code == 0
    assert len(endpoint.posts) == posts
    assert pq.read_table(tmp_path / "out.parquet")["s_status"].to_pylist() == ["ok"] * 60


def test_no_row_s_model_is_served(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """When all rows fail alike the run stops, as for any other refusal."""
    endpoint.script = gone
    rows = [{"t": f"text {n}", "m": "gone-3"} for n in range(400)]
    ended = cli("run", job(rows, step={"model": "{{ m }}"}, limits={"concurrency": 4}), endpoint=endpoint)
    assert ended.code == 4
    assert "all failed alike: unsupported_model" in ended.err
    assert len(endpoint.posts) < 100


def test_a_step_s_answer_names_the_model(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """The model may be what an earlier step answered."""
    endpoint.answer = lambda body: "slow-2" if body["model"] == "auto" else "done"
    steps = [
        {"name": "route", "prompt": "Which? {{ t }}"},
        {"name": "s", "prompt": "{{ t }}", "model": "{{ route }}"},
    ]
    assert cli("run", job(ROWS[:5], steps=steps), endpoint=endpoint).code == 0
    assert Counter(seen.body["model"] for seen in endpoint.posts) == {"auto": 5, "slow-2": 5}
