"""Files that store a column in several types are one input where nothing is lost."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.common_types import as_schema, common_type
from enrich.files.source import Source, open_source

DAYS = Path(__file__).parent.parent / "data" / "pandas_days"
TEXT = pa.string()
CATEGORY = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.null(), TEXT, TEXT),
        (pa.null(), pa.struct([("a", TEXT)]), pa.struct([("a", TEXT)])),
        (TEXT, pa.string_view(), TEXT),
        (pa.string_view(), pa.large_string(), pa.large_string()),
        (pa.binary(), pa.binary_view(), pa.binary()),
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint64(), pa.int64(), None),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.int64(), TEXT, None),
        (pa.date32(), pa.date64(), pa.date32()),
        (pa.date32(), pa.timestamp("s"), None),
        (pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("ms"), pa.timestamp("ms", "UTC"), None),
        (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
        (pa.duration("s"), pa.duration("ms"), pa.duration("ms")),
        (pa.decimal128(5, 2), pa.decimal128(9, 2), pa.decimal128(9, 2)),
        (pa.decimal128(5, 2), pa.decimal128(5, 3), None),
        (pa.list_(TEXT), pa.large_list(pa.large_string()), pa.large_list(pa.large_string())),
        (pa.list_(TEXT), pa.list_(pa.null()), pa.list_(TEXT)),
        (pa.list_(TEXT), TEXT, None),
        (pa.map_(TEXT, pa.int8()), pa.map_(TEXT, pa.int64()), pa.map_(TEXT, pa.int64())),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int16())]), pa.struct([("a", pa.int16())])),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), None),
        (pa.dictionary(pa.int8(), TEXT), TEXT, TEXT),
        (pa.dictionary(pa.int8(), TEXT), pa.dictionary(pa.int8(), TEXT), CATEGORY),
    ],
    ids=str,
)
def test_common_type(one: pa.DataType, other: pa.DataType, common: pa.DataType | None) -> None:
    """Equal storage, null, wider numbers and finer units win, whichever comes first; kinds are never mixed."""
    assert common_type(one, other) == common
    assert common_type(other, one) == common
    if common is None:
        return
    for kind in (one, other):
        batch = pa.RecordBatch.from_arrays([pa.nulls(2, kind)], ["c"])  # type: ignore[call-overload]
        assert as_schema(batch, pa.schema([("c", common)])).column(0).to_pylist() == [None, None]


def write(folder: Path, **columns: pa.Array[Any]) -> Source:
    """Write a Parquet file for each column given, all of one name, and open the folder."""
    for name, column in columns.items():
        pq.write_table(pa.table({"c": column}), folder / f"{name}.parquet")
    return open_source(InputConfig(path=str(folder)))


def rows(source: Source) -> list[Any]:
    """Give the column's values."""
    return [value for batch in source.batches() for value in batch.column("c").to_pylist()]


def test_files_of_one_folder(tmp_path: Path) -> None:
    """What several writers store differently is read as one column."""
    source = write(
        tmp_path,
        a=pa.array(["x"]),
        b=pa.array(["y"], pa.large_string()),
        c=pa.nulls(1),
        d=pa.array(["z"]).dictionary_encode(),
    )
    assert source.schema.field("c").type == pa.large_string()
    assert rows(source) == ["x", "y", None, "z"]


def test_a_file_without_rows_says_nothing(tmp_path: Path) -> None:
    """Writers guess the types of an empty frame: they count only where no file has rows."""
    source = write(tmp_path, a=pa.array([], pa.float64()), b=pa.array(["x"]))
    assert (source.schema.field("c").type, rows(source)) == (TEXT, ["x"])


def test_a_value_beyond_the_finer_unit(tmp_path: Path) -> None:
    """A moment that the common unit cannot hold is an error that names file and column."""
    far = pa.array([dt.datetime(9999, 1, 1)], pa.timestamp("s"))  # noqa: DTZ001
    source = write(tmp_path, a=far, b=pa.array([1], pa.timestamp("ns")))
    with pytest.raises(InputError, match=r"a\.parquet, row group 0: the column `c` cannot be read"):
        rows(source)


@pytest.mark.parametrize("suffix", ["feather", "parquet"])
def test_categories_of_several_files(suffix: str) -> None:
    """Daily files with a categorical each: together they have more categories than 8 bits count."""
    source = open_source(InputConfig(path=str(DAYS / f"*.{suffix}")))
    assert source.schema.field("product").type.index_type == pa.int32()
    found = [v for batch in source.batches(columns=["product"]) for v in batch.column(0).to_pylist()]
    assert found == [f"product {day} {number}" for day in range(3) for number in range(100)]
