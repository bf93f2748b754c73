from __future__ import annotations

import asyncio

import pytest

from enrich.runs import partition_files
from enrich.runs.partition_files import UNIT_ROWS_AT_ONCE, UNITS_AT_ONCE, _room


@pytest.mark.parametrize(
    ("under_way", "rows", "room"),
    [
        ([], 10 * UNIT_ROWS_AT_ONCE, True),
        ([1], UNIT_ROWS_AT_ONCE - 1, True),
        ([1], UNIT_ROWS_AT_ONCE, False),
        ([1] * (UNITS_AT_ONCE - 1), 1, True),
        ([1] * UNITS_AT_ONCE, 1, False),
        ([UNIT_ROWS_AT_ONCE], 0, True),
    ],
)
async def test_units_are_written_side_by_side_as_long_as_they_are_small(
    under_way: list[int], rows: int, *, room: bool
) -> None:
    """So many of them, and so many rows, at most; a large one alone goes at once."""
    ends = [asyncio.Event() for _ in under_way]

    async def put(end: asyncio.Event) -> None:
        await end.wait()

    writing = {asyncio.create_task(put(end)): size for end, size in zip(ends, under_way, strict=True)}
    waiting = asyncio.create_task(_room(writing, rows))
    for _ in range(3):
        await asyncio.sleep(0)
    assert waiting.done() == room
    for end in ends:
        end.set()
    await waiting
    await asyncio.gather(*writing)


async def test_a_unit_that_failed_stops_the_waiting() -> None:
    """Its error is raised where the next unit would begin."""

    async def fails() -> None:
        raise OSError("no room")

    writing = {asyncio.create_task(fails()): partition_files.UNIT_ROWS_AT_ONCE}
    with pytest.raises(OSError, match="no room"):
        await _room(writing, 1)
