"""What tests of runs share: a ledger on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.ledger.opening import open_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from enrich.ledger.protocol import Ledger


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger on disk."""
    opened = await open_ledger(str(tmp_path / "ledger.db"))
    try:
        yield opened
    finally:
        await opened.close()
