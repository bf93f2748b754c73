"""What is to be done in a folder: rows cut into parts, and when each part is decided."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enrich.base.loops import run_sync
from enrich.config import InputConfig, OutputConfig, validate_config
from enrich.errors import ConfigError
from enrich.files.input_files import find_files
from enrich.files.source import open_source
from enrich.runs.partition_todo import LOCKED_APART, Ends, UnitToMake, _wider, cut, places, plan_folder
from enrich.runs.partitions import find_units

if TYPE_CHECKING:
    import random
    from pathlib import Path

sizes = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def plant(root: Path, counts: list[int]) -> None:
    """Write a file of so many rows for each count."""
    for number, count in enumerate(counts):
        path = root / f"day={number:02}" / "x.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = pa.array([f"{number}-{row}" for row in range(count)], pa.string())
        pq.write_table(pa.table({"t": texts}), path)


def parts_of(root: Path, limit: int | None = None) -> tuple[UnitToMake, ...]:
    """Cut what lies in a folder into parts."""
    units = find_units(find_files(str(root)), OutputConfig(path=str(root.parent / "out"), partitioned=True))
    return cut(units, open_source(InputConfig(path=str(root)), limit=limit))


@settings(max_examples=15)
@given(sizes, st.none() | st.integers(0, 30))
@example([2, 0], 1)
def test_the_parts_are_the_rows_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], limit: int | None
) -> None:
    """Each row is in one part, parts follow upon each other, and only the last one may be cut by a limit."""
    root = tmp_path_factory.mktemp("data") / "in"
    plant(root, counts)
    parts = parts_of(root, limit)
    total = sum(counts) if limit is None else min(limit, sum(counts))
    assert sum(part.source.num_rows for part in parts) == total
    row = 0
    for part in parts:
        assert part.first_row == row
        row += part.source.num_rows
        texts = [text for batch in part.source.batches() for text in batch.column("t").to_pylist()]
        day = int(part.unit.name.removeprefix("day="))
        assert texts == [f"{day}-{number}" for number in range(part.source.num_rows)]
        assert part.whole == (part.source.num_rows == counts[day])
    assert all(part.whole for part in parts[:-1])


@given(sizes, st.randoms(use_true_random=False))
def test_a_part_is_whole_with_its_last_row(counts: list[int], order: random.Random) -> None:
    """In whatever order rows are decided, a part is whole once all of its own are, and counts them by status."""
    first, parts = 0, []
    for count in counts:
        parts.append(_Part(first, count))
        first += count
    rows = list(range(first))
    order.shuffle(rows)

    async def main() -> None:
        ends = Ends(parts)  # type: ignore[arg-type]  # only where parts begin, and how many rows they have, counts
        waiting = [asyncio.create_task(ends.whole(number)) for number in range(len(parts))]
        decided: set[int] = set()
        for row in rows:
            await asyncio.sleep(0)
            _check(waiting, parts, decided)
            ends.row(row, "ok" if row % 2 else "error")
            decided.add(row)
        assert await asyncio.gather(*waiting) == [True] * len(parts)
        for part, tally in zip(parts, ends.tallies, strict=True):
            span = range(part.first_row, part.first_row + part.rows)
            odd = sum(row % 2 for row in span)
            assert (tally["ok"], tally["error"]) == (odd, len(span) - odd)

    run_sync(main)


class _Part:
    """Where a part begins, and how many rows it has."""

    def __init__(self, first_row: int, rows: int) -> None:
        self.first_row, self.rows = first_row, rows

    @property
    def source(self) -> Any:
        """What has so many rows."""
        return _Rows(self.rows)


class _Rows:
    def __init__(self, rows: int) -> None:
        self.num_rows = rows


def _check(waiting: list[asyncio.Task[bool]], parts: list[_Part], decided: set[int]) -> None:
    """Nobody is told of a part before its last row."""
    for task, part in zip(waiting, parts, strict=True):
        if task.done():
            assert decided.issuperset(range(part.first_row, part.first_row + part.rows))


async def test_those_who_wait_are_let_go_when_no_row_follows() -> None:
    """A run that stops wakes whoever waits: parts that are whole are made, the others are not."""
    ends = Ends([_Part(0, 1), _Part(1, 2)])  # type: ignore[list-item]  # as above
    ends.row(0, "ok")
    ends.row(1, "ok")
    waiting = asyncio.gather(ends.whole(0), ends.whole(1))
    await asyncio.sleep(0)
    ends.over()
    assert list(await waiting) == [True, False]


def folder(root: Path, *partitions: str, **keys: Any) -> Any:
    """Give a job over a folder."""
    return validate_config(
        {
            "input": {"path": str(root), "partitions": list(partitions)},
            "output": f"{root.parent}/out/",
            "steps": [{"name": "s", "prompt": "{{ t }}"}],
            **keys,
        }
    )


def test_what_a_run_holds_against_others(tmp_path: Path) -> None:
    """All of the folder alone, or of chosen partitions each by itself, beside others; of very many the folder."""
    root, out = tmp_path / "in", str(tmp_path / "out")
    plant(root, [1, 1, 1])
    assert places(folder(root)) == [(out, False)]
    assert places(folder(root, "day=01", "day=00")) == [
        (out, True),
        (f"{out}/day=00/part-0.parquet", False),
        (f"{out}/day=01/part-0.parquet", False),
    ]
    plant(root, [1] * (LOCKED_APART + 1))
    every = [f"day={number:02}" for number in range(LOCKED_APART + 1)]
    assert places(folder(root, *every)) == [(out, False)]
    assert len(places(folder(root, *every[1:]))) == LOCKED_APART + 1


async def test_an_answer_for_each_row_does_not_go_with_a_folder(tmp_path: Path) -> None:
    """It is refused before anything is looked at, with the ways out."""
    with pytest.raises(ConfigError, match="`dedupe: false` does not go with a folder"):
        await plan_folder(folder(tmp_path, dedupe=False), lambda _: True)


kinds = [pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.null(), pa.timestamp("us"), pa.date32()]


@pytest.mark.parametrize("one", kinds, ids=str)
@pytest.mark.parametrize("other", kinds, ids=str)
def test_two_types_have_one_that_holds_both(one: pa.DataType, other: pa.DataType) -> None:
    """Whichever run comes first, the folder's column has the same type; it is text where no other will do."""
    fields = pa.field("c", one), pa.field("c", other)
    wide = _wider(*fields)
    assert wide.type == _wider(*reversed(fields)).type
    assert wide.type == one or one != other
    assert _wider(wide, fields[0]).type == wide.type
    assert "null" in (str(one), str(other)) or wide.type in (one, other, pa.string())
