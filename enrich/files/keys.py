"""The key of an output, held to what it is for before anything is paid: it tells each row of the input from every other."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from enrich.files.source import Source

PARTS = 64  # that the digests are looked at in: of ten million rows each has a megabyte and a quarter
SHIFT = np.uint64(58)  # leaves the bits of a digest that name its part


def check_key(source: Source, key: Sequence[str]) -> None:
    """Read the columns of a key, and refuse one that is null somewhere or stands in several rows.

    Digests of 64 bits lie on disk, a part of them in memory at a time; what two digests have in common is looked up.

    Raises:
        OutputError: it does not tell rows apart; names a value.
    """
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(PARTS)]
        for digests in _digests(source, key):
            places = (digests >> SHIFT).astype(np.intp)
            order = np.argsort(places, kind="stable")
            ends = np.searchsorted(places[order], np.arange(PARTS + 1))
            for part, first, end in zip(parts, ends, ends[1:], strict=False):
                part.write(digests[order[first:end]].tobytes())
        twice = np.concatenate([_twice(part) for part in parts])
    if len(twice):
        _refuse(source, key, twice)


def _twice(part: Any) -> np.ndarray[Any, Any]:
    """Give the digests that stand more than once in a part."""
    part.seek(0)
    found = np.sort(np.frombuffer(part.read(), np.uint64))
    return np.unique(found[1:][found[1:] == found[:-1]])


def _digests(source: Source, key: Sequence[str]) -> Iterator[np.ndarray[Any, Any]]:
    for batch in source.batches(columns=key):
        for name, column in zip(key, batch.columns, strict=True):
            if column.null_count:
                raise _wrong(key, f"`{name}` is null in some rows")
        yield _digest(batch)


def _digest(batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
    import pandas as pd

    frame = batch.to_pandas()
    nested = [name for name in frame.columns if frame[name].map(type).isin([list, dict, np.ndarray]).any()]
    frame = frame.assign(**{name: frame[name].map(repr) for name in nested})
    return pd.util.hash_pandas_object(frame, index=False, categorize=False).to_numpy()


def _refuse(source: Source, key: Sequence[str], twice: np.ndarray[Any, Any]) -> None:
    """Name a key that stands twice, if it is not two digests alone that are the same."""
    seen: set[str] = set()
    for batch in source.batches(columns=key):
        for row in batch.filter(np.isin(_digest(batch), twice)).to_pylist():
            told = ", ".join(f"{value!r:.60}" for value in row.values())
            if repr(row) in seen:
                raise _wrong(key, f"{told} stands in several rows")
            seen.add(repr(row))


def _wrong(key: Sequence[str], what: str) -> OutputError:
    names = ", ".join(f"`{name}`" for name in key)
    return OutputError(
        f"the key {names} does not tell rows apart: {what}",
        hint="name columns in output.key that together tell each row from every other; nothing was sent.",
    )
