"""A run that resumes reads on where it will look next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.ledger import read_ahead
from enrich.records import Failure, Fate
from tests.helpers.sqlite import (
    fill,
    make_reply,
    opened,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_reading_on_finds_everything_in_little_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes finds its requests in stretches of a few bytes; what was taken back meanwhile is not served."""
    monkeypatch.setattr(read_ahead, "MANY", 8)
    monkeypatch.setattr(read_ahead, "FEW_LINES", 16)
    monkeypatch.setattr(read_ahead, "ANSWER_BYTES", 2_000)
    async with opened(path) as ledger:
        keys = [ask.key for ask in await fill(ledger, range(400), size=100)]
        kept = []
        for start in range(0, 200, 10):
            known = await ledger.lookup(keys[start : start + 10])
            assert [known[key].reply for key in keys[start : start + 10]] == [
                make_reply(number, 100) for number in range(start, start + 10)
            ]
            kept.append(len(ledger._ahead._lines))
        assert 10 < max(kept) < 60
        await ledger.reject(keys[205], Failure("response_cut", "", Fate.UNKNOWN), final=False)
        known = await ledger.lookup(keys[200:210])
        assert known[keys[205]].reply is None
        assert known[keys[206]].reply == make_reply(206, 100)
