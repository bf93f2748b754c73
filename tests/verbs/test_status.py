"""Looking at a job from outside: status while it runs, watching it, and a configuration for one's own data."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from enrich.config import load_config
from enrich.errors import LedgerError
from enrich.ledger.opening import open_ledger
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.show.pulse import pulse_name
from enrich.show.snapshot import Snapshot
from enrich.verbs.status import status_job, watch_job
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every job in this module is for the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


async def test_watching_a_run(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Whoever watches sees the run's own figures as long as it runs, and then how it ended."""
    endpoint.pause()
    config = load_config(job())
    run = asyncio.create_task(run_job(config, RunOptions()))
    while len(endpoint.posts) < 3:  # noqa: ASYNC110  # the endpoint lives in another thread
        await asyncio.sleep(0.01)
    seen: list[Snapshot] = []

    def show(now: Snapshot) -> None:
        if now.phase == "asking":  # what was noted before, a run that reads its input, may be seen first
            seen.append(now)
            endpoint.resume()

    ending = await watch_job(config, show, every=0.05)
    assert (await run).exit_code == 0
    assert seen[0].total == 3
    assert seen[0].phase == "asking"
    assert "3 rows done" in ending


async def test_status_while_a_run_goes_on(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Status can be asked while a run holds the ledger; the run is none the worse."""
    endpoint.pause()
    config = load_config(job())
    run = asyncio.create_task(run_job(config, RunOptions()))
    while len(endpoint.posts) < 3:  # noqa: ASYNC110  # the endpoint lives in another thread
        await asyncio.sleep(0.01)
    assert (await status_job(config)).requests["sent"] == 3
    endpoint.resume()
    assert (await run).exit_code == 0
    assert (await status_job(config)).requests["answered"] == 3
    assert len(endpoint.charges) == 3


async def test_watching_a_run_that_was_killed(job: Callable[..., Path]) -> None:
    """A run that is heard of no more is said to be gone, with what to type next."""
    config = load_config(job())
    ledger = await open_ledger(config.ledger_location())
    note = {
        "run": 1,
        "at": time.time() - 3600,
        "ended": False,
        "snapshot": Snapshot("asking", 1, 3, 2.0).to_dict(),
    }
    await ledger.remember(pulse_name(config.output.path), note)
    await ledger.close()
    ending = await watch_job(config, lambda _: None, every=0.05)
    assert "nothing was heard of the run for 1 h 00 min" in ending
    assert "Hint: beatra-enrich run" in ending


async def test_watching_before_the_first_run(job: Callable[..., Path]) -> None:
    """Without a ledger, or without a run in it, it is said so."""
    config = load_config(job())
    with pytest.raises(LedgerError, match="there is no ledger"):
        await watch_job(config, lambda _: None, every=0.05)
    await (await open_ledger(config.ledger_location())).close()
    assert "no run of this job has begun" in await watch_job(config, lambda _: None, every=0.05)


def test_watch_as_a_command(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`status --watch` of a run that has ended says how, and leaves with 0."""
    config = job()
    assert cli("run", config, endpoint=endpoint).code == 0
    ended = cli("status", config, "--watch", endpoint=endpoint)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "the last run has ended: 3 rows done\n"


# --- init -------------------------------------------------------------------------------------------------


def test_the_status_tells_of_rows_failures_and_the_sandbox(
    cli: Callable[..., Ended], job: Callable[..., Path]
) -> None:
    """Rows that no request could be made of are counted as failed, with their cause; made-up answers are marked."""
    config = job([{"t": "a"}, {"t": None}, {"t": None}, {"t": "b"}])
    cli("run", config, "--sandbox")
    told = cli("status", config, "--sandbox").out
    assert "rows        4: 2 ok (50.0%), 2 error (50.0%)" in told
    assert "            2 rows null_value at step s, first in row 2" in told
    assert "the last run's answers are made up" in told
