"""Parquet and Arrow: every type passes untouched, and files must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.inputs import (
    refusal,
    rows,
    source,
    write,
    write_as,
    write_csv,
    write_jsonl,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.feather", "t.stream.arrow"])
@pytest.mark.parametrize("chunk", [1, None])
def test_every_type_passes_untouched(tmp_path: Path, table: pa.Table, name: str, chunk: int | None) -> None:
    """Parquet and Arrow pass every type and the schema's metadata through."""
    opened = source(write_as(table, tmp_path / name, stream="stream" in name, chunk=chunk))
    written = pq.read_schema(tmp_path / name) if name == "t.parquet" else table.schema
    assert opened.schema.equals(written, check_metadata=True)
    assert opened.schema.equals(table.schema)
    batches = list(opened.batches())
    assert all(batch.schema.equals(written, check_metadata=True) for batch in batches)
    assert pa.Table.from_batches(batches).to_pylist() == table.to_pylist()
    assert opened.num_rows == 3


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.stream.arrow", "t.jsonl", "t.csv"])
@pytest.mark.parametrize("columns", [["nested"], ["kind", "id"], ["a.b"], []])
def test_projection(tmp_path: Path, table: pa.Table, name: str, columns: list[str]) -> None:
    """Columns are narrowed in the configuration or per pass, in the order asked for; none leaves the rows."""
    path = tmp_path / name
    if name == "t.jsonl":
        table = pa.table(
            {"id": [1, 2, 3], "kind": ["x", "y", "x"], "nested": [{"a": 1}] * 3, "a.b": [True] * 3}
        )
        write_jsonl(path, *table.to_pylist())
    elif name == "t.csv":
        table = pa.table(
            {"id": [1, 2, 3], "kind": ["x", "y", "x"], "nested": ["p", "", "q"], "a.b": [True] * 3}
        )
        write_csv(
            path,
            table.column_names,
            [["1", "x", "p", "true"], ["2", "y", "", "true"], ["3", "x", "q", "true"]],
        )
    else:
        write_as(table, path, stream="stream" in name)
    expected = table.select(columns).to_pylist() if columns else [{}] * 3
    for opened in (source(path), source(path, columns=columns)):
        assert rows(opened, columns=columns) == expected
        assert sum(batch.num_rows for batch in opened.batches(2, columns=columns)) == opened.num_rows == 3
    assert source(path, columns=columns).schema.names == columns


def test_pandas_metadata_survives(tmp_path: Path) -> None:
    """A frame written by pandas, read here, is the same frame again, index and categories included."""
    index = pd.Index([10, 20], name="key")
    frame = pd.DataFrame({"a": [1.5, None], "c": pd.Categorical(["x", "y"])}, index=index)
    frame.to_parquet(tmp_path / "a.parquet")
    opened = source(tmp_path / "a.parquet")
    back = pa.Table.from_batches(list(opened.batches()), schema=opened.schema).to_pandas()
    pd.testing.assert_frame_equal(back, frame)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.stream.arrow"])
def test_no_rows(tmp_path: Path, table: pa.Table, name: str) -> None:
    """A file of no rows is a valid input that keeps its schema."""
    opened = source(write_as(table.slice(0, 0), tmp_path / name, stream="stream" in name))
    assert (opened.num_rows, rows(opened)) == (0, [])
    assert opened.schema == table.schema


def test_row_groups_without_rows(tmp_path: Path, table: pa.Table) -> None:
    """Empty row groups between full ones are passed over."""
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 1), table.slice(0, 0), table.slice(1)):
            writer.write_table(part)
    assert rows(source(tmp_path / "a.parquet")) == table.to_pylist()


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_corrupt_files(tmp_path: Path, table: pa.Table, name: str) -> None:
    """A file that is not what it claims, or is cut off, is an input error that names it."""
    path = write(tmp_path / name, b"these are no rows at all")
    assert f"{path} cannot be read" in refusal(path).message
    content = write_as(table, tmp_path / name).read_bytes()
    write(path, content[: len(content) // 2])
    assert f"{path} cannot be read" in refusal(path).message


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_files_must_agree(tmp_path: Path, name: str) -> None:
    """Files whose columns differ in name or type are refused with both files and the column."""
    write_as(pa.table({"a": [1], "b": ["x"]}), tmp_path / f"1.{name}")
    write_as(pa.table({"b": ["y"], "a": [2]}), tmp_path / f"2.{name}")
    assert rows(source(tmp_path)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    write_as(pa.table({"a": [1.5], "b": ["x"]}), tmp_path / f"3.{name}")
    error = refusal(tmp_path)
    assert all(part in error.message for part in (f"1.{name}", f"3.{name}", "`a`", "int64", "double"))
    write_as(pa.table({"a": [1]}), tmp_path / f"3.{name}")
    assert "`b`: string in" in refusal(tmp_path).message


def test_nullable_if_any_file_says_so(tmp_path: Path) -> None:
    """A column that may be null in one file may be null in the whole."""
    for number, nullable in enumerate((False, True)):
        schema = pa.schema([pa.field("a", pa.int64(), nullable=nullable)])
        write_as(pa.table({"a": [None if nullable else 1]}, schema=schema), tmp_path / f"{number}.parquet")
    assert rows(source(tmp_path)) == [{"a": 1}, {"a": None}]
    assert source(tmp_path).schema.field("a").nullable


def test_duplicate_parquet_columns(tmp_path: Path) -> None:
    """Two Parquet columns of one name are refused."""
    pq.write_table(
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet"
    )
    assert "two columns `a`" in refusal(tmp_path / "a.parquet").message
