"""Lock files say who is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.ledger.locks import RunLocks
from tests.helpers.sqlite import (
    fill,
    opened,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_lock_files_of_dead_runs_are_cleared_away(path: Path) -> None:
    """Whoever opens a ledger removes what a killed run left beside it."""
    async with opened(path) as ledger:
        await fill(ledger, [1])
    lock = path.with_name("ledger.db.run-1")
    lock.touch()
    async with opened(path, run=False):
        assert not lock.exists()


async def test_a_lock_file_in_the_way_costs_a_number_only(path: Path) -> None:
    """Lock files of a ledger that was deleted do not confuse a new one."""
    async with opened(path) as ledger:
        stranger = RunLocks(path)
        assert stranger.hold(2)
        async with opened(path, run=False) as other:
            assert await other.open_run({}) == 3
        stranger.release()
        with pytest.raises(RuntimeError, match="still open"):
            await ledger.open_run({})
