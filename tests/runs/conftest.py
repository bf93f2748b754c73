"""What tests of runs share: a ledger on disk, and days of data with a job over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.ledger.opening import open_ledger
from tests.helpers.days import write_config, write_day
from tests.helpers.endpoint import KEY, BookedEndpoint

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


@pytest.fixture
def our_key(endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run goes to the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


@pytest.fixture
def month(tmp_path: Path) -> Path:
    """Five days of data, and a job over them."""
    for number in range(1, 6):
        write_day(tmp_path, number)
    return write_config(tmp_path)
