from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import OutputConfig
from enrich.errors import DiskFull, EnrichError, OutputError, OutputLocked
from enrich.files import writers
from enrich.files.output_lock import hold_output
from enrich.files.sink import open_sink, preflight, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ["parquet", "arrow", "csv", "tsv", "jsonl"]
MANIFEST = {"version": "1", "rows": 3, "counts": {"ok": 3}}
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


def output(path: Path, **options: Any) -> OutputConfig:
    """Configure an output."""
    return OutputConfig(path=str(path), **options)


def batch(*columns: pa.Array[Any], names: list[str] | None = None) -> pa.RecordBatch:
    """Make a batch, of columns c0, c1, … unless named."""
    return pa.record_batch(list(columns), names=names or [f"c{i}" for i in range(len(columns))])


def texts(*values: str | None) -> pa.RecordBatch:
    """Make a batch of one column of text."""
    return batch(pa.array(values, pa.string()), names=["text"])


def write(config: OutputConfig, *batches: pa.RecordBatch) -> None:
    """Write and commit a file."""
    with open_sink(config, batches[0].schema) as sink:
        for one in batches:
            sink.write(one)
        sink.commit(MANIFEST)


def read(path: Path) -> pa.Table:
    """Read a Parquet or Arrow file."""
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(str(path)).read_all()


def rows_of_csv(path: Path, delimiter: str = ",") -> list[list[str]]:
    """Read a CSV file with Python's own reader."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "out"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, with its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that prints a line once it is where the test wants it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


# --- round trips ---------------------------------------------------------------------------------------


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


# --- text formats --------------------------------------------------------------------------------------


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


# --- Parquet -------------------------------------------------------------------------------------------


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


# --- whole or not at all -------------------------------------------------------------------------------


def write_and_fail(path: Path) -> None:
    """Meet an error while a sink is open."""
    with open_sink(output(path), texts().schema) as sink:
        sink.write(texts("new"))
        raise ZeroDivisionError


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_a_commit_the_target_is_untouched(out: Path, suffix: str) -> None:
    """An error inside the block, or none but no commit, leaves the old output and nothing beside it."""
    path = out / f"x.{suffix}"
    write(output(path), texts("old"))
    before = files(out)
    with pytest.raises(ZeroDivisionError):
        write_and_fail(path)
    with open_sink(output(path), texts().schema) as sink:
        sink.write(texts("new"))
    assert files(out) == before


def test_a_batch_of_another_schema_is_refused(out: Path) -> None:
    """A batch that does not fit is a defect, and no part of it is written."""
    with (
        open_sink(output(out / "x.csv"), texts().schema) as sink,
        pytest.raises(EnrichError, match="another schema"),
    ):
        sink.write(batch(pa.array([1])))


WRITE_FOREVER = """
import sys, pyarrow as pa
from enrich.config import OutputConfig
from enrich.files.sink import open_sink
batch = pa.record_batch([pa.array(["x" * 1000] * 1000)], names=["text"])
with open_sink(OutputConfig(path=sys.argv[1], row_group_rows=1000), batch.schema) as sink:
    for _ in range(5):
        sink.write(batch)
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_killed_run_leaves_the_old_output(out: Path, suffix: str) -> None:
    """A run killed while writing leaves the old output; the next one clears up after it, but not after the living."""
    path = out / f"x.{suffix}"
    write(output(path), texts("old"))
    before = files(out)
    dead, living = python(WRITE_FOREVER, str(path)), python(WRITE_FOREVER, str(path))
    for process in (dead, living):
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            if process is dead:
                process.kill()
                process.wait()
                assert {name: (out / name).read_bytes() for name in before} == before
                assert len(list(out.glob(".*.tmp"))) >= 1
                continue
            write(output(path), texts("new"))
            assert len(list(out.glob(".*.tmp"))) == 1
            process.kill()
    write(output(path), texts("newer"))
    assert files(out).keys() == before.keys()


def test_permissions_and_links_are_kept(out: Path) -> None:
    """A replaced output keeps its permissions, and a symbolic link keeps pointing at it."""
    out.mkdir()
    real, link = out / "real.csv", out / "link.csv"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(output(link), texts("new"))
    assert link.is_symlink()
    assert real.read_text() == '"text"\n"new"\n'
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_stops_the_run(small_disk: Path, suffix: str) -> None:
    """No room left while writing is DiskFull; the old output stays and the room is given back."""
    path = small_disk / f"x.{suffix}"
    write(output(path), texts("old"))
    before = files(small_disk)
    noise = batch(pa.array([os.urandom(1_000) for _ in range(100)]))
    with pytest.raises(DiskFull, match="no room left") as caught:
        write(output(path, row_group_rows=100), *[noise] * 100)
    assert caught.value.exit_code == 4
    assert files(small_disk) == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_fills_at_the_commit(small_disk: Path, suffix: str) -> None:
    """What does not fit at the very end is DiskFull too, and the old output stays."""
    path = small_disk / f"x.{suffix}"
    write(output(path), texts("old"))
    before = path.read_bytes()
    (small_disk / "filler").write_bytes(bytes(700_000))
    noise = batch(pa.array([os.urandom(1_000) for _ in range(600)]))
    with pytest.raises(DiskFull):
        write(output(path), noise)
    assert path.read_bytes() == before
    assert not list(small_disk.glob(".*"))


# --- before anything is spent --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_preflight_leaves_nothing_behind(out: Path, suffix: str) -> None:
    """A writable place passes, also one whose folders are missing, and not even an empty folder is left."""
    before = list(out.parent.rglob("*"))
    preflight(output(out / "a" / "b" / f"x.{suffix}"), texts().schema)
    assert list(out.parent.rglob("*")) == before


def test_preflight_finds_a_read_only_file_system(small_disk: Path) -> None:
    """A file system mounted read-only is found before anything is spent."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="read-only") as caught:
        preflight(output(small_disk / "x.csv"), texts().schema)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_preflight_finds_a_full_disk(small_disk: Path) -> None:
    """A disk without room for even a small file is found before anything is spent."""
    with (small_disk / "filler").open("wb") as file, pytest.raises(OSError, match="space"):
        file.write(bytes(2 << 20))
    with pytest.raises(OutputError, match="no space") as caught:
        preflight(output(small_disk / "x.csv"), texts().schema)
    assert caught.value.hint == "free some disk space."


def test_preflight_finds_a_path_through_a_file(tmp_path: Path) -> None:
    """A file where a folder should be is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/x\.csv cannot be written"):
        preflight(output(tmp_path / "file" / "x.csv"), texts().schema)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("", {"format": "csv"}, "is a folder"),
        ("/dev/null", {"format": "csv"}, "device or pipe"),
        ("x.xlsx", {}, "no suffix that tells its format"),
        ("x", {}, "no suffix that tells its format"),
        ("x.parquet", {"compression": "zst"}, "compression is `zst`"),
        ("n" * 250 + ".csv", {}, "name too long"),
    ],
)
def test_preflight_refuses(tmp_path: Path, path: str, options: dict[str, Any], message: str) -> None:
    """A folder, a device, an unknown suffix or codec, or too long a name is refused, with a hint."""
    with pytest.raises(OutputError, match=message) as caught:
        preflight(output(tmp_path / path, **options), texts().schema)
    assert caught.value.hint


def test_preflight_names_the_column_that_a_format_cannot_hold(out: Path) -> None:
    """A type that Parquet does not know is found, by column, before anything is spent."""
    schema = batch(pa.array([1]), pa.array([None], pa.month_day_nano_interval()), names=["a", "when"]).schema
    with pytest.raises(
        OutputError, match=r"`when` of type month_day_nano_interval cannot be written as parquet"
    ):
        preflight(output(out / "x.parquet"), schema)
    preflight(output(out / "x.jsonl"), schema)


def test_the_format_can_be_named(out: Path) -> None:
    """A configured format counts more than the suffix."""
    write(output(out / "x.data", format="parquet"), texts("a"))
    assert pq.read_table(out / "x.data").to_pylist() == [{"text": "a"}]
    assert read_manifest(out / "x.data") == MANIFEST


# --- one run at a time ---------------------------------------------------------------------------------

HOLD = """
import sys
from enrich.files.output_lock import hold_output
with hold_output(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_turned_away(out: Path) -> None:
    """While another process holds an output the second is told which; when that is killed, the way is free."""
    path = out / "x.csv"
    with python(HOLD, str(path)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding\n"
        assert (out / ".x.csv.lock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(OutputLocked, match=f"process {first.pid}") as caught, hold_output(path):
            pass
        assert caught.value.exit_code == 5
        with hold_output(out / "other.csv"):
            pass
        first.send_signal(signal.SIGKILL)
    with hold_output(path):
        pass
    assert files(out) == {}


def test_one_output_under_two_names_is_one(out: Path) -> None:
    """A symbolic link to an output that is held is held as well."""
    out.mkdir()
    (out / "link.csv").symlink_to(out / "x.csv")
    with hold_output(out / "x.csv"), pytest.raises(OutputLocked), hold_output(out / "link.csv"):
        pass


TAKE_TURNS = """
import sys
from enrich.errors import OutputLocked
from enrich.files.output_lock import hold_output
taken = 0
while taken < 200:
    try:
        with hold_output(sys.argv[1]):
            open(sys.argv[1] + ".inside", "x").close()
            __import__("os").unlink(sys.argv[1] + ".inside")
            taken += 1
    except OutputLocked:
        pass
print(taken)
"""


def test_the_lock_never_has_two_holders(out: Path) -> None:
    """Processes that take and release an output as fast as they can are never in it together."""
    processes = [python(TAKE_TURNS, str(out / "x.csv")) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["200\n"] * 3


# --- manifests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 broken PAR1", b"ARROW1", b"a,b\n"])
def test_a_file_without_a_manifest_has_none(tmp_path: Path, content: bytes) -> None:
    """A file that no run made, or a damaged one, has no manifest."""
    (tmp_path / "x").write_bytes(content)
    assert read_manifest(tmp_path / "x") is None
    assert read_manifest(tmp_path / "missing") is None


def test_foreign_files_have_no_manifest(tmp_path: Path) -> None:
    """Parquet and Arrow files of other programs have no manifest."""
    table = pa.table({"a": [1]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    buffer = io.BytesIO()
    pa.ipc.new_file(buffer, table.schema).close()
    (tmp_path / "empty.arrow").write_bytes(buffer.getvalue())
    (tmp_path / "x.csv.manifest.json").write_text("[1]")
    (tmp_path / "x.csv").write_text("a\n")
    assert [read_manifest(path) for path in sorted(tmp_path.iterdir())] == [None] * 5


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
