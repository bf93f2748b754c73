"""Rows in the order of their prompts (`order: prefix`): those that begin alike are asked one after another.

An endpoint that caches prompts then reads what they have in common from its cache. Rows are sorted in runs on disk, so that
memory holds a part of them at a time. The output's order is its own.
"""

from __future__ import annotations

import heapq
import tempfile
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa

from enrich.prompt.cells import spellings
from enrich.prompt.prefix import same_begin
from enrich.prompt.template import RowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import BufferedRandom
    from pathlib import Path

    from enrich.prompt.request import RequestBuilder

RUN_BYTES = 64 << 20  # bytes of rows and prompts that are sorted at once
MOST_KEY = 16 << 10  # bytes of a prompt that rows are sorted by
READ_ROWS = 64  # rows of each run in memory as they are merged
PORTION = 2_048  # rows among which the first of each prefix goes ahead
MOST_FIRST = 16  # that go ahead together: the prefix of each is to be in the cache still when the others come
KEY, ROW = "key", "row"  # the first two columns of a run's file: what a row is sorted by, and its index


class Portion(NamedTuple):
    """Rows that are asked together.

    Attributes:
        batch: their values.
        rows: their indexes in the input.
        first: whether they are to be answered before any others are asked: each is the first with its prefix.
    """

    batch: pa.RecordBatch
    rows: Sequence[int]
    first: bool = False


class _Line(NamedTuple):
    """One row on its way from a run; ``batch`` holds its values in line ``place``."""

    key: bytes
    row: int
    batch: pa.RecordBatch
    place: int


def by_prefix(
    batches: Iterable[pa.RecordBatch], builder: RequestBuilder, *, least: int, folder: Path
) -> Iterator[Portion]:
    """Give rows in the order of their prompts.

    Args:
        batches: the rows, in the input's order.
        builder: of the step that they are asked first.
        least: bytes of a prefix from which on it is cached.
        folder: where runs of sorted rows go; the files have no name and are gone with the process.
    """
    files = [_sorted(run, folder) for run in _runs(batches, builder)]
    try:
        lines = heapq.merge(*map(_lines, files), key=lambda line: line[:2])
        first: list[_Line] = []
        others: list[_Line] = []
        for line, leads in _leading(lines, builder.constant_bytes, least):
            if len(first) + len(others) >= PORTION or (leads and len(first) >= MOST_FIRST):
                yield from _portions(first, others)
                first, others = [], []
            (first if leads else others).append(line)
        yield from _portions(first, others)
    finally:
        for file in files:
            file.close()


def _leading(lines: Iterable[_Line], constant: int, least: int) -> Iterator[tuple[_Line, bool]]:
    """Say of each row whether it is the first with its prefix, and others follow it that find it in the cache then."""
    shared = 0  # with the row before
    for line, following in pairwise(chain(lines, [None])):
        assert line is not None  # noqa: S101  # the last one is never the first of a pair
        ahead = constant + same_begin(line.key, following.key) if following is not None else 0
        yield line, shared < least <= ahead
        shared = ahead


def _portions(first: list[_Line], others: list[_Line]) -> Iterator[Portion]:
    for lines, ahead in ((first, True), (others, False)):
        if lines:
            yield Portion(_gathered(lines), [line.row for line in lines], ahead)


def _gathered(lines: list[_Line]) -> pa.RecordBatch:
    """Put rows of several batches into one, in this order."""
    begins: dict[int, int] = {}
    parts: list[pa.RecordBatch] = []
    size = 0
    for line in lines:
        if id(line.batch) not in begins:
            begins[id(line.batch)] = size
            parts.append(line.batch)
            size += line.batch.num_rows
    places = pa.array([begins[id(line.batch)] + line.place for line in lines], pa.int64())
    return pa.Table.from_batches(parts).take(places).combine_chunks().to_batches()[0]


# --- on disk -----------------------------------------------------------------------------------------------


def _runs(batches: Iterable[pa.RecordBatch], builder: RequestBuilder) -> Iterator[pa.Table]:
    """Give the rows with their keys and indexes before their columns, as many at once as are sorted together."""
    held: list[pa.RecordBatch] = []
    size = begin = 0
    for batch in batches:
        keys = pa.array(list(_keys(batch, builder)), pa.large_binary())
        rows = pa.array(range(begin, begin + batch.num_rows), pa.int64())
        fields = [pa.field(KEY, keys.type), pa.field(ROW, rows.type), *batch.schema]
        held.append(pa.RecordBatch.from_arrays([keys, rows, *batch.columns], schema=pa.schema(fields)))
        size += held[-1].nbytes
        begin += batch.num_rows
        if size >= RUN_BYTES:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _keys(batch: pa.RecordBatch, builder: RequestBuilder) -> Iterator[bytes]:
    """Give what rows are sorted by: model and prompt; nothing for those that are not asked."""
    spelling = builder.step.prompt_text
    for spelled in spellings(batch, {spelling}):
        values = spelled[spelling]
        try:
            if builder.wanted(values):
                messages = orjson.dumps(builder.messages_of(values))
                yield b"%b\0%b" % (builder.models_of(values)[0].encode(), messages[:MOST_KEY])
                continue
        except (RowError, TypeError, UnicodeEncodeError):  # it is told of when it is its turn
            pass
        yield b""


def _sorted(run: pa.Table, folder: Path) -> BufferedRandom:
    """Write a run's rows into a file of no name, in the order of their keys."""
    import pyarrow.compute as pc  # which a run in the order of the input does without

    places = pc.sort_indices(run.column(0))  # it is stable: equal keys stay in the order of the rows
    file: BufferedRandom = tempfile.TemporaryFile(  # noqa: SIM115  # it is read as runs are merged
        prefix=".beatra-order-", dir=folder
    )
    with pa.ipc.new_stream(file, run.schema) as sink:
        for start in range(0, run.num_rows, READ_ROWS):
            sink.write_table(run.take(places.slice(start, READ_ROWS)).combine_chunks())
    file.seek(0)
    return file


def _lines(file: BufferedRandom) -> Iterator[_Line]:
    """Read a run's rows, some at a time."""
    with pa.ipc.open_stream(file) as stream:
        for batch in stream:
            fields = list(batch.schema)[2:]
            values = pa.RecordBatch.from_arrays(batch.columns[2:], schema=pa.schema(fields))
            keys: list[Any] = batch.column(0).to_pylist()
            rows: list[Any] = batch.column(1).to_pylist()
            for place, (key, row) in enumerate(zip(keys, rows, strict=True)):
                yield _Line(key, row, values, place)
