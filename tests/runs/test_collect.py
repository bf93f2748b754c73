"""`collect`: an output from what is answered so far, and not one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.base.loops import run_sync
from enrich.errors import OutputLocked
from enrich.files.output_lock import hold_output
from enrich.runs.collect import collect_job
from enrich.runs.options import RunOptions
from tests.helpers.endpoint import BookedEndpoint, answer_to, envelope
from tests.helpers.wire import config_of, read_rows, run

if TYPE_CHECKING:
    from pathlib import Path

    from enrich.config import Config
    from enrich.records import Summary

TEXTS = ["one", "two", "three"]


def collect(config: Config) -> Summary:
    """Collect in this process."""
    return run_sync(lambda: collect_job(config, RunOptions()))


def test_before_any_run_every_row_is_pending(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A ledger without answers makes an output all the same: one row for each of the input."""
    config = config_of(tmp_path, TEXTS, endpoint.base_url)
    summary = collect(config)
    assert summary.statuses["pending"] == 3
    assert [row["s_status"] for row in read_rows(config)] == ["pending"] * 3
    assert endpoint.seen == []


def test_what_a_stopped_run_was_answered_is_collected(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A run that ran out of balance leaves no output; what it paid for is in the one that is collected."""
    endpoint.script = lambda seen: (
        envelope("insufficient_credits", 402)
        if seen.method == "POST" and len(endpoint.charges) == 2
        else None
    )
    config = config_of(tmp_path, TEXTS, endpoint.base_url, limits={"concurrency": 1})
    assert run(config).summary.exit_code == 4
    assert read_rows(config) == []
    sent = len(endpoint.seen)
    assert collect(config).statuses["ok"] == 2
    assert [(row["s"], row["s_status"]) for row in read_rows(config)] == [
        *((answer_to(text), "ok") for text in TEXTS[:2]),
        (None, "pending"),
    ]
    assert len(endpoint.seen) == sent


def test_it_does_not_write_over_a_run(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """While a run has the output, it is not collected under it."""
    config = config_of(tmp_path, TEXTS, endpoint.base_url)
    with hold_output(config.output.path), pytest.raises(OutputLocked):
        collect(config)
    assert read_rows(config) == []
