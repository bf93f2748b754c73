"""Tables of Delta, Iceberg, Hudi and Lance are more than their files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

MARKS = {
    "Delta": "_delta_log/00000000000000000000.json",
    "Iceberg": "metadata/00000-3f2a.metadata.json",
    "Hudi": ".hoodie/hoodie.properties",
    "Lance": "_versions/1.manifest",
}


def put(path: Path, text: str | None = None) -> Path:
    """Write a small Parquet file, or a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("given", ["t", "t/day=1", "t/day=1/part-0.parquet", "t/**/*.parquet", "."])
@pytest.mark.parametrize("kind", MARKS)
def test_a_table_is_refused(tmp_path: Path, kind: str, given: str) -> None:
    """However its files are named: the folder, one below it, one above it, a file, a glob."""
    if (kind, given) == ("Delta", "t"):
        return  # that one is read: see test_delta_table.py
    put(tmp_path / "t" / MARKS[kind], "{}")
    put(tmp_path / "t" / "day=1" / "part-0.parquet")
    with pytest.raises(InputError, match=f"is part of a {kind} table, {tmp_path}/t:") as caught:
        open_source(InputConfig(path=os.path.normpath(tmp_path / given)))
    assert f"{tmp_path}/t" in caught.value.hint


def test_lance_files(tmp_path: Path) -> None:
    """A folder of Lance is told as what it is, not by the suffix of its files."""
    put(tmp_path / MARKS["Lance"], "")
    put(tmp_path / "data" / "1.lance", "x")
    with pytest.raises(InputError, match="Lance table"):
        open_source(InputConfig(path=str(tmp_path)))


def test_folders_of_such_names(tmp_path: Path) -> None:
    """A folder `metadata` or `_versions` alone makes no table."""
    put(tmp_path / "metadata" / "notes.txt", "x")
    put(tmp_path / "_versions" / "notes.txt", "x")
    path = put(tmp_path / "data" / "1.parquet")
    assert open_source(InputConfig(path=str(path.parent))).num_rows == 1
