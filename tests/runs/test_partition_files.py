from __future__ import annotations

import asyncio

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import StepConfig
from enrich.runs import partition_files
from enrich.runs.partition_files import TOTALS, UNIT_ROWS_AT_ONCE, UNITS_AT_ONCE, _room, usage_of

counts = st.integers(0, 1_000) | st.none()


@given(st.lists(st.lists(counts, min_size=2 * len(TOTALS), max_size=2 * len(TOTALS)), max_size=5))
def test_what_a_batch_cost_is_added_up_over_rows_and_steps(rows: list[list[int | None]]) -> None:
    """Each figure of each step counts; what is not known counts as nothing."""
    names = [f"{step}_{total}" for step in ("a", "b") for total in TOTALS]
    columns = [pa.array([row[at] for row in rows], pa.int64()) for at in range(len(names))]
    batch = pa.RecordBatch.from_arrays(columns, names=names)
    steps = [StepConfig(name=name, prompt="x") for name in ("a", "b")]
    expected = {
        total: sum(row[at] or 0 for row in rows for at, name in enumerate(names) if name.endswith(total))
        for total in TOTALS
    }
    expected["total_tokens"] = sum(
        row[at] or 0 for row in rows for at, name in enumerate(names) if name.endswith("_total_tokens")
    )
    assert usage_of(batch, steps) == expected


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
