"""The limits that a run holds: told, bounded by the machine, and held against other runs of the same ledger."""

from __future__ import annotations

import contextlib
import logging
import resource
import time
from typing import TYPE_CHECKING, Any

import pytest

from enrich.config import load_config
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger
from enrich.runs.job import Job, compile_job
from enrich.runs.limits import connections, open_pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

URL = "https://there.example/v1"
OTHERS = "another run on this ledger is at work: each keeps `limits.requests_per_minute` by itself"


@pytest.fixture
def few_files() -> Iterator[int]:
    """Let this process open but few files more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] <= 512:
        pytest.skip("the hard limit is lower already")
    with pytest.MonkeyPatch.context() as patch:  # the hard limit cannot be raised again by everybody
        patch.setattr(resource, "getrlimit", lambda _: (512, 512))
        yield 512


def test_no_more_connections_than_files(few_files: int, caplog: pytest.LogCaptureFixture) -> None:
    """Where a process may open few files, fewer requests are in flight than wanted, and what to type is said."""
    with caplog.at_level(logging.WARNING):
        room = connections(10_000)
    assert 0 < room < few_files
    assert (
        f"only {room} connections open: limits.concurrency is 10,000. Raise it with `ulimit -n`"
        in caplog.text
    )


def test_as_many_as_wanted(caplog: pytest.LogCaptureFixture) -> None:
    """Where there is room nothing is said."""
    assert connections(2) == 2
    assert caplog.text == ""


async def warned(compiled: Job, folder: Path, other: str | None, caplog: pytest.LogCaptureFixture) -> str:
    """Open a pace beside another run that asks this URL; gives what was said."""
    async with contextlib.AsyncExitStack() as stack:
        ledgers = [await open_ledger(str(folder / "ledger.db")) for _ in range(2)]
        for ledger in ledgers:
            stack.push_async_callback(ledger.close)
        if other is not None:
            await ledgers[0].open_run({"base_url": other})
        with caplog.at_level(logging.WARNING):
            async with open_pace(compiled, ledgers[1], learned=None, most=8):
                pass
    return caplog.text


@pytest.mark.parametrize(
    ("limits", "other", "said"),
    [
        ({"requests_per_minute": 60}, URL, True),
        ({"requests_per_minute": 60}, "https://elsewhere.example/v1", False),
        ({"requests_per_minute": 60}, None, False),
        ({"concurrency": 8}, URL, False),
    ],
    ids=["same endpoint", "another endpoint", "alone", "no rate"],
)
async def test_another_run_keeps_the_same_limit(
    tmp_path: Path,
    job: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    limits: dict[str, Any],
    other: str | None,
    *,
    said: bool,
) -> None:
    """Two runs that keep a rate each send twice as much: it is said where a ledger in a file cannot share it."""
    config = load_config(job(endpoint={"base_url": URL}, limits=limits))
    compiled = compile_job(config, open_source(config.input).schema, api_key="sk-0123456789")
    text = await warned(compiled, tmp_path, other, caplog)
    assert (OTHERS in text) is said


async def test_a_pace_begins_with_what_was_learned(tmp_path: Path, job: Callable[..., Path]) -> None:
    """A run does not find out anew how many requests at a time an endpoint is good for."""
    config = load_config(job(endpoint={"base_url": "sandbox"}, limits={"concurrency": 64}))
    compiled = compile_job(config, open_source(config.input).schema)
    ledger = await open_ledger(str(tmp_path / "ledger.db"))
    begun = []
    try:
        for ceiling in (5.0, 9.0):
            learned = {"at": time.time(), "ceiling": ceiling}
            async with open_pace(compiled, ledger, learned=learned, most=64) as pace:
                begun.append(pace.learned()["ceiling"])
    finally:
        await ledger.close()
    assert begun == [5.0, 9.0]
