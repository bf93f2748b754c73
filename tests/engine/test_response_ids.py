from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.engine import response_ids
from enrich.engine.response_ids import ResponseIds
from tests.helpers.wire import logs

if TYPE_CHECKING:
    import pytest

ONE, TWO = bytes(15) + b"\1", bytes(15) + b"\2"


def alarms(*notes: tuple[str | None, bytes]) -> list[str]:
    """Note these ids; gives what was logged."""
    ids = ResponseIds()
    with logs() as logged:
        for request_id, key in notes:
            ids.note(request_id, key)
    return [record.getMessage() for record in logged]


def test_different_ids() -> None:
    """Ids that differ, or are missing, raise no alarm; nor does one request that has its id twice."""
    assert alarms(("r-1", ONE), ("r-2", TWO), ("r-1", ONE), (None, ONE), (None, TWO)) == []


def test_one_id_for_two() -> None:
    """One id for two requests raises an alarm that names all three, once."""
    (alarm,) = alarms(("r-1", ONE), ("r-1", TWO), ("r-1", ONE), ("r-1", TWO))
    assert "r-1" in alarm
    assert "00000000-0000-0000-0000-000000000001" in alarm
    assert "00000000-0000-0000-0000-000000000002" in alarm


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest ids are remembered, and at least as many as promised."""
    monkeypatch.setattr(response_ids, "REMEMBERED", 10)
    many = [(f"r-{n}", ONE) for n in range(100)]
    assert len(alarms(*many, ("r-99", TWO))) == 1
    assert len(alarms(*many, ("r-91", TWO))) == 1
    assert alarms(*many, ("r-0", TWO)) == []
