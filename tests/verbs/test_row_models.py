"""Check tells which models the first rows name, and whether the endpoint lists them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from enrich.base.loops import run_sync
from enrich.config import load_config
from enrich.verbs.check import CheckLine, check_job
from enrich.verbs.row_models import SHOWN
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = [
    {"t": "one", "m": "fast-1"},
    {"t": "two", "m": "slow-2"},
    {"t": "three", "m": "fast-1"},
    {"t": "four", "m": None},
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def lists(*models: str) -> Callable[[Seen], Raw | None]:
    """List these models."""
    listed = json.dumps({"data": [{"id": model} for model in models]}).encode()
    return lambda seen: Raw(listed) if seen.path.endswith("/models") else None


def checked(path: Path) -> dict[str, CheckLine]:
    """Check a job; gives the lines by their names."""
    return {finding.name: finding for finding in run_sync(lambda: check_job(load_config(path)))}


def test_the_models_that_rows_name(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Each with the rows that name it; one that the endpoint does not list is told, fallbacks as well."""
    endpoint.script = lists("fast-1", "slow-2")
    found = checked(job(ROWS, step={"model": "{{ m }}", "fallback_models": ["last-3"]}))
    assert found["model"].ok
    assert found["model"].text == (
        "step s, first 4 rows: fast-1 (2), slow-2 (1); not every row names one: "
        "null_value: column `m` is null"
    )
    assert "not listed: last-3" in found["models"].text
    endpoint.script = lists("fast-1", "last-3")
    found = checked(job(ROWS, step={"model": "{{ m }}", "fallback_models": ["last-3"]}))
    assert "not listed: slow-2" in found["models"].text
    assert not endpoint.posts


def test_no_row_names_one(job: Callable[..., Path]) -> None:
    """Nothing but failed rows would come of it."""
    found = checked(job([{"t": "x", "m": ""}], step={"model": "{{ m }}"}))
    assert not found["model"].ok
    assert "none; not every row names one: template_error" in found["model"].text


def test_many_models(job: Callable[..., Path]) -> None:
    """The most frequent are named, the rest counted."""
    rows = [{"t": "x", "m": f"m{n}"} for n in range(SHOWN + 3)]
    assert "m9 (1) and 3 more" in checked(job(rows, step={"model": "{{ m }}"}))["model"].text


def test_a_model_that_an_answer_names(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """It is not known before; a column that is not there is refused as in a prompt."""
    endpoint.script = lists("auto")
    steps = [
        {"name": "route", "prompt": "{{ t }}"},
        {"name": "s", "prompt": "{{ t }}", "model": "{{ route }}"},
    ]
    found = checked(job(ROWS, steps=steps))
    assert found["model"].text == "step s: known when route has answered"
    assert found["models"].ok
    refused = checked(job(ROWS, step={"model": "{{ mode }}"}))["templates"]
    assert not refused.ok
    assert "steps.s.model: no column `mode`" in refused.text
    assert "model" not in checked(job(ROWS))
