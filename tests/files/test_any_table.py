"""Any column of any type: what the rehearsal lets through is written, and what cannot be written it does not let through."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import InputConfig, OutputConfig
from enrich.errors import UsageError
from enrich.files.rehearsal import rehearse
from enrich.files.sink import open_sink, preflight
from enrich.files.source import Source, open_source
from tests.helpers.arrow import arrays

FORMATS = ("parquet", "arrow", "csv", "jsonl")


def store(folder: Path, columns: list[pa.Array[Any]], suffix: str) -> Path | None:
    """Write a column's pieces, each into a file of its own; None where the format or Arrow itself cannot."""
    for number, column in enumerate(columns):
        table = pa.table({"id": range(len(column)), "c": column})
        path = folder / f"{number}.{suffix}"
        try:
            if suffix == "parquet":
                pq.write_table(table, path)
            else:
                with pa.ipc.new_file(str(path), table.schema) as writer:
                    writer.write_table(table)
        except (pa.ArrowException, OSError):
            return None
    return folder


def written(source: Source, output: OutputConfig) -> int:
    """Write an output as a run does, and count the rows that are in it."""
    with open_sink(output, source.schema) as sink:
        for batch in source.batches():
            sink.write(batch)
        sink.commit({})
    path = Path(output.path)
    if path.suffix == ".parquet":
        return pq.read_metadata(path).num_rows
    if path.suffix == ".arrow":
        with pa.ipc.open_file(path.read_bytes()) as reader:
            return reader.read_all().num_rows
    text = path.read_bytes().decode()  # which it is
    return text.count("\n") - (path.suffix == ".csv")


def hold(column: pa.Array[Any], stored: str, suffix: str) -> None:
    """Try a column as an output, and where that is not refused, write it."""
    with tempfile.TemporaryDirectory() as folder:
        given_ = Path(folder, "in")
        given_.mkdir()
        if store(given_, [column, column.slice(1)], stored) is None:
            return
        output = OutputConfig(path=str(Path(folder, f"out.{suffix}")))
        source = refused = None
        try:
            source = open_source(InputConfig(path=str(given_)))
            preflight(output, source.schema)
            rehearse(source, source.schema, output)
        except UsageError as error:
            refused = error.message
        if refused is not None:
            assert "`c`" in refused or f"{given_}/0" in refused
            return
        assert source is not None
        rows = written(source, output)
        assert rows == source.num_rows or (suffix == "csv" and rows > source.num_rows)  # line ends in texts


@settings(max_examples=250, deadline=None)
@given(column=arrays(), stored=st.sampled_from(["parquet", "arrow"]), suffix=st.sampled_from(FORMATS))
def test_what_is_let_through_is_written(column: pa.Array[Any], stored: str, suffix: str) -> None:
    """Nothing that the rehearsal lets through fails when it is written, and every refusal names the column or file."""
    hold(column, stored, suffix)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=3000, deadline=None)
@given(column=arrays(depth=3), stored=st.sampled_from(["parquet", "arrow"]), suffix=st.sampled_from(FORMATS))
def test_what_is_let_through_is_written_at_length(column: pa.Array[Any], stored: str, suffix: str) -> None:
    """The same, over many more columns."""
    hold(column, stored, suffix)
