"""Which ledger a location means, and when one is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from enrich.config import load_config
from enrich.errors import LedgerError
from enrich.ledger.opening import open_ledger, require_ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_a_ledger_opened_for_reading(job: Callable[..., Path], tmp_path: Path) -> None:
    """A ledger opened for reading can be read and not written; one that is not there is not made."""
    config = load_config(job())
    location = config.ledger_location()
    writer = await open_ledger(location)
    await writer.remember("a", {"b": 1})
    reader = await open_ledger(location, read_only=True)
    assert await reader.recall("a") == {"b": 1}
    with pytest.raises(LedgerError, match="readonly"):
        await reader.remember("a", {"b": 2})
    await reader.close()
    await writer.close()
    with pytest.raises(LedgerError):
        await open_ledger(str(tmp_path / "none.db"), read_only=True)
    assert not (tmp_path / "none.db").exists()


async def test_a_ledger_cannot_lie_in_a_store() -> None:
    """Of a URL only a database's is taken; the scheme is named, and nothing of what may be a password."""
    with pytest.raises(LedgerError, match="cannot lie at a s3:// URL") as caught:
        await open_ledger("s3://me:hush@bucket/ledger.db")
    assert "hush" not in str(caught.value)


def test_a_ledger_must_be_there(tmp_path: Path) -> None:
    """A file that is none is told with its path; of a database nothing is said before it is opened."""
    location = str(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="there is no ledger at ") as caught:
        require_ledger(location)
    assert location in caught.value.message
    asyncio.run(_make(location))
    require_ledger(location)
    require_ledger("postgresql://h/d")


async def _make(location: str) -> None:
    await (await open_ledger(location)).close()
