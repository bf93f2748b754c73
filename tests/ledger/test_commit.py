"""Group commit: one carries everything that is queued."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from enrich.errors import EnrichError
from enrich.ledger.commit import GroupCommit
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
