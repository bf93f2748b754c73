"""Group commit: one carries everything that is queued."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from enrich.errors import EnrichError
from enrich.ledger.commit import ENOUGH, GroupCommit
from enrich.ledger.sqlite import SqliteLedger
from tests.helpers.sqlite import (
    fill,
    make_ask,
    make_reply,
    opened,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from enrich.ledger import sqlite


LONG = 60.0  # seconds; whatever waits for this timer fails its test
FAIL = 10.0  # seconds after which it has


class Disk:
    """Carries tasks out and keeps the groups in which they came."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def commit(self, tasks: Sequence[int]) -> list[int]:
        """Give back what came."""
        self.groups.append(list(tasks))
        return list(tasks)


async def test_one_commit_carries_everything_that_is_queued(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand answers that come at once cost a handful of commits."""
    sizes: list[int] = []
    transact = SqliteLedger._transact

    def counted(self: SqliteLedger, works: Sequence[sqlite.Work]) -> list[object]:
        sizes.append(len(works))
        return transact(self, works)

    monkeypatch.setattr(SqliteLedger, "_transact", counted)
    async with opened(path) as ledger:
        await fill(ledger, range(1_000))
    assert sum(sizes) == 1_002
    assert len(sizes) < 100


async def test_work_that_cannot_be_done_fails_alone(path: Path) -> None:
    """One impossible write does not take the others of its commit with it."""
    async with opened(path) as ledger:
        twice = [make_ask(7), make_ask(7)]
        writes = [ledger.claim([make_ask(1)]), ledger.claim(twice), ledger.claim([make_ask(2)])]
        results = await asyncio.gather(
            *writes, ledger.answer(b"?" * 16, make_reply(1)), return_exceptions=True
        )
        assert isinstance(results[1], EnrichError)
        assert "twice" in str(results[1])
        assert isinstance(results[3], EnrichError)
        assert "never claimed" in str(results[3])
        assert len(await ledger.lookup([make_ask(n).key for n in (1, 2, 7)])) == 2


async def test_an_unexpected_error_reaches_everybody_who_waits() -> None:
    """A defect in the writer's thread leaves nobody hanging, and the next jobs are carried out."""

    def commit(jobs: Sequence[int]) -> list[float]:
        return [1 / job for job in jobs]

    group: GroupCommit[int] = GroupCommit(commit, "test")
    with pytest.raises(ZeroDivisionError):
        await group.submit(0)
    assert await group.submit(2) == 0.5
    await group.close()
    with pytest.raises(RuntimeError, match="closed"):
        group.submit(1)


# --- what may wait -----------------------------------------------------------------------------------------


async def test_what_may_wait_is_committed_with_what_may_not() -> None:
    """Tasks that have time stay queued until one comes that has none; then all of them are one commit."""
    disk = Disk()
    group: GroupCommit[int] = GroupCommit(disk.commit, "test")
    patient = [group.submit(n, within=LONG) for n in range(3)]
    await asyncio.sleep(0.05)
    assert disk.groups == []
    async with asyncio.timeout(FAIL):
        assert await group.submit(3) == 3
        assert await asyncio.gather(*patient) == [0, 1, 2]
    assert disk.groups == [[0, 1, 2, 3]]
    await group.close()


async def test_the_shortest_time_counts() -> None:
    """A task with little time takes those along that have more; a time shorter than a timer's tick is none."""
    disk = Disk()
    group: GroupCommit[int] = GroupCommit(disk.commit, "test")
    async with asyncio.timeout(FAIL):
        for little in (0.02, 1e-9):
            patient = group.submit(0, within=LONG)
            await asyncio.gather(group.submit(1, within=little), patient)
    assert disk.groups == [[0, 1], [0, 1]]
    await group.close()


async def test_many_wait_no_longer() -> None:
    """A group that is large enough is committed at once."""
    disk = Disk()
    group: GroupCommit[int] = GroupCommit(disk.commit, "test")
    async with asyncio.timeout(FAIL):
        await asyncio.gather(*(group.submit(n, within=LONG) for n in range(ENOUGH)))
    assert disk.groups == [list(range(ENOUGH))]
    await group.close()


async def test_closing_carries_out_what_waits() -> None:
    """Nothing that was queued is lost, whatever time it had."""
    disk = Disk()
    group: GroupCommit[int] = GroupCommit(disk.commit, "test")
    patient = group.submit(1, within=LONG)
    async with asyncio.timeout(FAIL):
        await group.close()
        assert await patient == 1


async def test_those_that_come_during_a_commit_keep_their_time() -> None:
    """The thread does not take at once what came while it was at work and may wait."""
    began, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    groups: list[list[int]] = []

    def commit(tasks: Sequence[int]) -> list[int]:
        groups.append(list(tasks))
        loop.call_soon_threadsafe(began.set)
        if len(groups) == 1:
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return list(tasks)

    group: GroupCommit[int] = GroupCommit(commit, "test")
    async with asyncio.timeout(FAIL):
        first = group.submit(1)
        await began.wait()
        patient = group.submit(2, within=LONG)
        go.set()
        await first
        await asyncio.sleep(0.05)
        assert groups == [[1]]
        await group.submit(3)
        await patient
    assert groups == [[1], [2, 3]]
    await group.close()
