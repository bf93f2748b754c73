"""Record batches become Parquet, Arrow, CSV, TSV or JSON Lines, and come back as they went in."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import OutputConfig
from enrich.errors import OutputError
from enrich.files import writers
from enrich.files.sink import open_sink, read_manifest
from tests.helpers.outputs import (
    FORMATS,
    MANIFEST,
    batch,
    files,
    output,
    texts,
    write,
)

DAY = dt.date(2024, 2, 29)
MOMENT = dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=dt.UTC)
CATEGORY = pa.dictionary(pa.int32(), pa.string())
TYPES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["", None, "ä\n"]),
    (pa.large_string(), ["x", None, "y"]),
    (pa.string_view(), ["x", None, "y"]),
    (pa.binary(), [b"\0\xff", None, b""]),
    (pa.large_binary(), [b"\0", None, b""]),
    (pa.binary(4), [b"abcd", None, b"1234"]),
    (pa.bool_(), [True, None, False]),
    (pa.int8(), [-128, None, 127]),
    (pa.uint64(), [2**64 - 1, None, 0]),
    (pa.float16(), [1.5, None, 0.0]),
    (pa.float64(), [0.1, None, 1e300]),
    (pa.decimal128(10, 2), [Decimal("-1.50"), None, Decimal("2.00")]),
    (pa.decimal256(60, 3), [Decimal("1.500"), None, Decimal("0.000")]),
    (pa.date32(), [DAY, None, dt.date(1, 1, 1)]),
    (pa.time64("ns"), [dt.time(1, 2, 3, 4), None, dt.time(0)]),
    (pa.timestamp("us"), [dt.datetime(2024, 1, 1), None, dt.datetime(1, 1, 1)]),  # noqa: DTZ001  # without a zone
    (pa.timestamp("us", "Europe/Paris"), [MOMENT, None, MOMENT]),
    (pa.timestamp("ns", "UTC"), [MOMENT, None, MOMENT]),
    (pa.duration("us"), [dt.timedelta(1, 2, 3), None, dt.timedelta(-1)]),
    (pa.null(), [None, None, None]),
    (CATEGORY, ["a", None, "b"]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "b"]),
    (pa.dictionary(pa.int32(), pa.string(), ordered=True), ["b", None, "a"]),
    (pa.list_(pa.string()), [["a", None], None, []]),
    (pa.list_(pa.int16(), 2), [[1, 2], None, [3, None]]),
    (pa.large_list(pa.date32()), [[DAY], None, []]),
    (pa.map_(pa.string(), pa.int32()), [[("k", 1)], None, []]),
    (
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.date32()))]),
        [{"a": 1, "b": [DAY]}, None, {"a": None, "b": None}],
    ),
    (pa.list_(CATEGORY), [["a", None], None, ["b"]]),
    (pa.uuid(), [uuid.UUID(int=5).bytes, None, uuid.UUID(int=7).bytes]),
]


def read(path: Path) -> pa.Table:
    """Read a Parquet or Arrow file."""
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(str(path)).read_all()


def rows_of_csv(path: Path, delimiter: str = ",") -> list[list[str]]:
    """Read a CSV file with Python's own reader."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("kind", "values"), TYPES, ids=lambda value: str(value) if isinstance(value, pa.DataType) else ""
)
def test_types_come_back(out: Path, kind: pa.DataType, values: list[Any], suffix: str) -> None:
    """Every Arrow type comes back from the file as it was, over several batches."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    column = pa.array(values, storage)
    whole = batch(column.cast(kind) if storage != kind else column)
    path = out / f"x.{suffix}"
    write(output(path), whole.slice(0, 1), whole.slice(1, 0), whole.slice(1))
    table = read(path)
    table.validate(full=True)
    assert table.schema.field(0).type == kind
    assert table.to_pylist() == whole.to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_metadata_stays_and_the_manifest_is_this_runs(out: Path, suffix: str) -> None:
    """Schema and field metadata are kept; a manifest that the input brought along is replaced."""
    field = pa.field("a", pa.int64(), metadata={"unit": "m"})
    schema = pa.schema([field], metadata={"own": "x", "beatra_enrich": '{"version":"0"}'})
    path = out / f"x.{suffix}"
    write(output(path), pa.record_batch([pa.array([1])], schema=schema))
    found = read(path).schema
    assert (found.metadata or {})[b"own"] == b"x"
    assert (found.field("a").metadata or {})[b"unit"] == b"m"
    assert read_manifest(path) == MANIFEST


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_rows_make_a_valid_file(out: Path, suffix: str) -> None:
    """An output of no rows is a valid file of its format, with its manifest."""
    path = out / f"x.{suffix}"
    write(output(path), texts().slice(0, 0))
    assert read_manifest(path) == MANIFEST
    if suffix in ("parquet", "arrow"):
        assert (read(path).num_rows, read(path).schema.names) == (0, ["text"])
    else:
        assert path.read_text() == ("" if suffix == "jsonl" else '"text"\n')


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_dictionaries_may_differ_between_batches(out: Path, suffix: str) -> None:
    """Batches with dictionaries of their own become one file, nested dictionaries too."""
    kind = pa.struct([("c", pa.list_(CATEGORY)), ("n", pa.dictionary(pa.int8(), pa.string()))])

    def one(*values: str) -> pa.RecordBatch:
        return batch(pa.array(values, CATEGORY), pa.array([{"c": [v], "n": v} for v in values], kind))

    batches = [one("a", "b"), one("c", "a"), one("a")]
    path = out / f"x.{suffix}"
    write(output(path, row_group_rows=3), *batches)
    assert read(path).to_pylist() == pa.Table.from_batches(batches).to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_dictionary_that_outgrows_its_index_is_an_error(out: Path, suffix: str) -> None:
    """More distinct values than an 8-bit index can count stop the sink: such a file could not be read."""
    kind = pa.dictionary(pa.int8(), pa.string())
    batches = [batch(pa.array([f"{i}-{j}" for j in range(100)], kind)) for i in range(2)]
    path = out / f"x.{suffix}"
    with pytest.raises(OutputError, match="larger index type"):
        write(output(path), *batches)
    assert files(out) == {}


CELLS = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8")), st.none() | st.integers(-(2**63), 2**63 - 1), st.booleans()
    ),
    max_size=8,
)


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
@given(rows=CELLS)
def test_csv_comes_back(rows: list[tuple[str, int | None, bool]], suffix: str, delimiter: str) -> None:
    """Python's csv reader finds the very cells that were written, but for the guard before formulas."""
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = [pa.string(), pa.int64(), pa.bool_()]
    one = batch(*(pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x.{suffix}")
        write(output(path), one)
        header, *found = rows_of_csv(path, delimiter)
    guarded = [
        [f"'{t}" if t.startswith(tuple("=+-@\t\0\r")) else t, "" if n is None else str(n), str(b).lower()]
        for t, n, b in rows
    ]
    assert header == ["c0", "c1", "c2"]
    assert found == guarded


@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.text(st.characters(codec="utf-8"))))
)
def test_json_lines_come_back(rows: list[dict[str, str | None]]) -> None:
    """Every line is an object with every column."""
    one = pa.RecordBatch.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in "abc"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        write(output(path), one)
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert found == one.to_pylist()


@pytest.mark.parametrize("start", list("=+-@\t\0\r"))
def test_formulas_are_disarmed(out: Path, start: str) -> None:
    """A text that a spreadsheet would run gets an apostrophe: as a cell, a category, a header; a number does not."""
    formula = f"{start}1+1"
    path = out / "x.csv"
    write(
        output(path),
        batch(pa.array([formula]), pa.array([formula], CATEGORY), pa.array([-5]), names=[formula, "c", "n"]),
    )
    assert rows_of_csv(path) == [["'" + formula, "c", "n"], ["'" + formula, "'" + formula, "-5"]]


def test_formulas_are_left_alone_elsewhere(out: Path) -> None:
    """Parquet and JSON Lines keep a text as it is."""
    write(output(out / "x.parquet"), texts("=1"))
    write(output(out / "x.jsonl"), texts("=1"))
    assert read(out / "x.parquet").to_pylist() == [{"text": "=1"}]
    assert (out / "x.jsonl").read_text() == '{"text":"=1"}\n'


def test_null_and_empty_text_differ_in_csv(out: Path) -> None:
    """A null is an empty cell, an empty text a quoted one."""
    write(output(out / "x.csv"), batch(pa.array(["", None]), pa.array([1, 2])))
    assert (out / "x.csv").read_text() == '"c0","c1"\n"",1\n,2\n'


def test_what_text_cannot_express(out: Path) -> None:
    """Nested values, binary, durations, decimals and moments are written as the module says."""
    one = batch(
        pa.array([[{"d": DAY}]], pa.list_(pa.struct([("d", pa.date32())]))),
        pa.array([b"\0\xff"]),
        pa.array([-dt.timedelta(seconds=90)], pa.duration("ms")),
        pa.array([Decimal("-1.50")]),
        pa.array([MOMENT], pa.timestamp("us", "UTC")),
        pa.array([1577836800123456789], pa.timestamp("ns")),
        pa.array([float("nan")]),
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    )
    write(output(out / "x.jsonl"), one)
    write(output(out / "x.csv"), one)
    assert list(json.loads((out / "x.jsonl").read_text()).values()) == [
        [{"d": "2024-02-29"}],
        "AP8=",
        -90.0,
        "-1.50",
        "2024-02-29T12:30:01.000005+00:00",
        "2020-01-01T00:00:00.123456789",
        None,
        {"k": 1},
        [1, 2, 3],
    ]
    assert rows_of_csv(out / "x.csv")[1] == [
        '[{"d":"2024-02-29"}]',
        "AP8=",
        "-90",
        "-1.50",
        "2024-02-29 12:30:01.000005Z",
        "2020-01-01 00:00:00.123456789",
        "nan",
        '{"k":1}',
        "[1,2,3]",
    ]


def test_moments_that_python_has_no_type_for(out: Path) -> None:
    """Infinity, years past 9999 and the end of a day are texts, in CSV only in their batch and as Arrow writes the others."""
    days = pa.array([2**31 - 1, -(2**31) + 1, 10**7, 0, None], pa.int32()).cast(pa.date32())
    times = pa.array([86_400_000_000, 1, 2, 3, None]).view(pa.time64("us"))
    near: list[pa.Array[Any]] = [
        pa.array([1], pa.int32()).cast(pa.date32()),
        pa.array([1]).view(pa.time64("us")),
    ]
    texts_of_days = ["infinity", "-infinity", "29349-01-26", "1970-01-01", None]
    for name in ("x.jsonl", "x.csv"):
        write(output(out / name), batch(*near), batch(days, times), batch(*near))
    found = [json.loads(line) for line in (out / "x.jsonl").read_text().splitlines()]
    assert [row["c0"] for row in found] == ["1970-01-02", *texts_of_days, "1970-01-02"]
    assert found[1]["c1"] == "24:00:00"
    rows = rows_of_csv(out / "x.csv")
    assert rows[0] == ["c0", "c1"]
    assert [row[0] for row in rows[1:]] == [
        "1970-01-02",
        *(text or "" for text in texts_of_days),
        "1970-01-02",
    ]
    assert (out / "x.csv").read_text().splitlines()[1] == "1970-01-02,00:00:00.000001"


@pytest.mark.parametrize("name", ["x.csv.gz", "x.jsonl.gz", "x.tsv.zst", "X.CSV.GZ"])
def test_text_is_compressed_by_suffix(out: Path, name: str) -> None:
    """A further suffix .gz or .zst compresses a text format."""
    path = out / name
    write(output(path), texts("a"), texts("b"))
    if name.endswith("zst"):
        content = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd").read()
    else:
        content = gzip.decompress(path.read_bytes())
    assert content == (b'{"text":"a"}\n{"text":"b"}\n' if "jsonl" in name else b'"text"\n"a"\n"b"\n')
    assert read_manifest(path) == MANIFEST


def test_row_groups_have_the_configured_rows(out: Path) -> None:
    """Small batches are gathered and large ones split, so that row groups have the configured size."""
    path = out / "x.parquet"
    write(output(path, row_group_rows=4), *(texts(*"abc"), texts(*"defghijkl"), texts("m")))
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 4, 1]
    assert [row["text"] for row in read(path).to_pylist()] == list("abcdefghijklm")


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_stays_flat(out: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches are written, only about one row group of them is held."""
    monkeypatch.setattr(writers, "ROW_GROUP_BYTES", 1 << 20)
    one = texts(*("x" * 1_000 for _ in range(100)))
    held = []
    with open_sink(output(out / f"x.{suffix}"), one.schema) as sink:
        before = pa.total_allocated_bytes()
        for _ in range(200):  # 20 MB
            sink.write(pa.RecordBatch.from_pylist(one.to_pylist(), schema=one.schema))
            held.append(pa.total_allocated_bytes() - before)
        sink.commit(MANIFEST)
    assert max(held) < 4 << 20
    if suffix == "parquet":
        assert pq.read_metadata(out / "x.parquet").num_row_groups >= 15


def test_a_flipped_bit_is_found(out: Path) -> None:
    """Pages carry checksums: damage is noticed by readers that verify them."""
    path = out / "x.parquet"
    write(output(path, compression="none"), texts("needle in a haystack"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"needle in", b"noodle in", 1))
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


@pytest.mark.parametrize(
    ("wanted", "cells"), [("answers", ["=1", "'=1"]), (True, ["'=1", "'=1"]), (False, ["=1", "=1"])]
)
def test_which_columns_are_guarded_before_formulas(out: Path, wanted: Any, cells: list[str]) -> None:
    """By default an input column is written as it was, and answers are disarmed; both can be chosen."""
    path = out / "x.csv"
    config = OutputConfig.model_validate({"path": str(path), "csv": {"guard_formulas": wanted}})
    one = batch(pa.array(["=1"]), pa.array(["=1"]), names=["mine", "s"])
    with open_sink(config, one.schema, given=["mine"]) as sink:
        sink.write(one)
        sink.commit({})
    assert rows_of_csv(path)[1] == cells
