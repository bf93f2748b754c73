"""What a run used and spent, as it is told in every place, against the books of the endpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from enrich.records import AMOUNTS
from enrich.show.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended


def told_too(body: dict[str, Any]) -> dict[str, Any]:
    """Give what an endpoint tells beside the usual counts: for some prompts in full, in other shapes, or not at all."""
    size = len(body["messages"][-1]["content"])
    if size % 3 == 0:
        return {"prompt_tokens_details": None, "credits_usd_reference": None}
    if size % 3 == 1:
        return {
            "prompt_tokens_details": {"cached_tokens": float(size)},
            "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": None},
            "credits_usd_reference": "0.001",
        }
    return {"prompt_cache_hit_tokens": 0, "completion_tokens_details": {}, "credits_usd_reference": 1e-7}


def booked(endpoint: BookedEndpoint) -> dict[str, float]:
    """Add up what the endpoint told, from what it was asked."""
    asked = [json.loads(charge.body) for charge in endpoint.charges]
    sizes = [len(body["messages"][-1]["content"]) for body in asked]
    prompt, completion = endpoint.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cached_tokens": sum(size for size in sizes if size % 3 == 1),
        "reasoning_tokens": sum(7 for size in sizes if size % 3 == 1),
        "credits": endpoint.credits,
        "credits_usd": sum({0: 0.0, 1: 0.001, 2: 1e-7}[size % 3] for size in sizes),
    }


def manifest_of(path: Path) -> dict[str, Any]:
    """Read what an output says of its run."""
    metadata = pq.read_metadata(path).metadata
    assert metadata is not None
    found: dict[str, Any] = json.loads(metadata[b"beatra_enrich"])
    return found


ROWS = [{"t": "x" * size, "day": "mon" if size % 2 else "tue"} for size in range(1, 41)]


def test_sums_are_those_of_the_books(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Summary, manifest, report and the ledger's export tell the same sums, exact against the endpoint's books."""
    endpoint.further = told_too
    config = job([*ROWS, *ROWS], report="report.html")
    summary = json.loads(cli("run", config, "--json", endpoint=endpoint).out)
    books = pytest.approx(booked(endpoint), rel=1e-9)
    assert {name: summary[name] for name in AMOUNTS} == books
    manifest = manifest_of(tmp_path / "out.parquet")
    assert {name: manifest[name] for name in AMOUNTS} == books
    page = (tmp_path / "report.html").read_text()
    assert f"{summary['cached_tokens']:,} in from a cache" in page
    assert f"{summary['reasoning_tokens']:,} out for reasoning" in page
    cli("ledger", "export", config, "-o", tmp_path / "ledger.parquet", endpoint=endpoint)
    exported = pq.read_table(tmp_path / "ledger.parquet")
    sums = {name: sum(value or 0 for value in exported[name].to_pylist()) for name in AMOUNTS}
    assert sums == books
    assert None in exported["cached_tokens"].to_pylist()  # not told is not nothing


def test_a_plan_estimates_them(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A plan extrapolates what every measured answer tells, and says nothing of what some do not tell."""
    endpoint.further = lambda _: {"cached_tokens": 2, "reasoning_tokens": 0, "credits_usd_reference": 0.5}
    config = job(ROWS)
    plan = json.loads(cli("plan", config, "--sample", "30", "--json", endpoint=endpoint).out)
    assert plan["cached_tokens"]["likely"] == pytest.approx(2 * plan["to_ask"])
    assert plan["reasoning_tokens"]["likely"] == 0
    assert plan["credits_usd"]["likely"] == pytest.approx(0.5 * plan["to_ask"])
    assert plan["sampled_credits_usd"] == pytest.approx(15.0)
    said = cli("plan", config, endpoint=endpoint).out
    assert "  cached    20\n" in said
    assert "USD         5" in said


def test_a_plan_does_not_guess_what_answers_do_not_tell(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """What only some of the measured answers tell is not known of the rest."""
    endpoint.further = told_too
    plan = json.loads(cli("plan", job(ROWS), "--sample", "30", "--json", endpoint=endpoint).out)
    assert plan["cached_tokens"] is None
    assert plan["credits_usd"] is None
    assert plan["credits"]["likely"] > 0


def test_a_folder_s_manifests_add_up(
    cli: Callable[..., Ended], endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """The files of a folder tell each what its own rows cost."""
    endpoint.further = told_too
    for day in ("mon", "tue"):
        (tmp_path / f"day={day}").mkdir()
        rows = [json.dumps({"t": row["t"]}) for row in ROWS if row["day"] == day]
        (tmp_path / f"day={day}" / "rows.jsonl").write_text("\n".join(rows))
    config = job(ROWS, input=str(tmp_path / "day=*"), output="made/")
    summary = json.loads(cli("run", config, "--json", endpoint=endpoint).out)
    parts = [manifest_of(path) for path in (tmp_path / "made").rglob("*.parquet")]
    assert len(parts) == 2
    assert {name: sum(part[name] for part in parts) for name in AMOUNTS} == pytest.approx(booked(endpoint))
    assert {name: summary[name] for name in AMOUNTS} == pytest.approx(booked(endpoint))


def test_progress_tells_them() -> None:
    """The line of a run tells cached and reasoning tokens, and dollars, where there are any."""
    now = Snapshot("asking", 1, 2, 3.0, tokens=50)
    assert "50 tokens" in now.line()
    assert "cached" not in now.line()
    now = replace(now, cached_tokens=20, reasoning_tokens=10, credits=2.0, credits_usd=0.02)
    assert "50 tokens (20 cached, 10 reasoning) · 2 credits · 0.02 USD" in now.line()
