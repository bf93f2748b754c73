"""What tests of inputs share: they are written, opened, and read or refused."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from pyarrow import ipc

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.source import Source, open_source

if TYPE_CHECKING:
    from pathlib import Path


def source(path: Path | str | list[str], **options: Any) -> Source:
    """Open a path with input options; CSV options go into ``csv``."""
    limit = options.pop("limit", None)
    place = path if isinstance(path, list) else str(path)
    return open_source(InputConfig.model_validate({"path": place, **options}), limit=limit)


def rows(opened: Source, **options: Any) -> list[dict[str, Any]]:
    """Give all rows as mappings."""
    return [row for batch in opened.batches(**options) for row in batch.to_pylist()]


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path | str | list[str], **options: Any) -> InputError:
    """Give the error with which a path is refused."""
    with pytest.raises(InputError) as caught:
        source(path, **options)
    return caught.value


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def write_csv(path: Path, names: list[str], lines: list[list[str]], quoting: Any = csv.QUOTE_ALL) -> Path:
    """Write a table with Python's csv module."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=quoting).writerows([names, *lines])
    return path


def write_jsonl(path: Path, *values: Any) -> Path:
    """Write values as JSON, one a line."""
    return write(path, "".join(json.dumps(value) + "\n" for value in values))


def write_as(table: pa.Table, path: Path, *, stream: bool = False, chunk: int | None = None) -> Path:
    """Write a table as Parquet or Arrow, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=chunk)
    else:
        new = ipc.new_stream if stream else ipc.new_file
        with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=chunk)
    return path
