"""What the output cannot hold is told before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.config import InputConfig, OutputConfig
from enrich.errors import InputError, OutputError, RunInterrupted
from enrich.files.rehearsal import rehearse
from enrich.files.source import open_source

DATA = Path(__file__).parent.parent / "data"
FORMATS = ("parquet", "arrow", "csv", "tsv", "jsonl")
NO_UTF8 = pa.array([b"\xff\xfe"]).view(pa.string())


def trial(path: Path, suffix: str, columns: list[str] | None = None, **options: Any) -> None:
    """Rehearse the output of a file."""
    source = open_source(InputConfig(path=str(path), columns=columns), **options)
    rehearse(source, source.schema, OutputConfig(path=f"out.{suffix}"))


def store(path: Path, column: pa.Array[Any], *, nullable: bool = True) -> Path:
    """Write an Arrow file of one column `c` beside a sound one."""
    schema = pa.schema([pa.field("id", pa.int64()), pa.field("c", column.type, nullable=nullable)])
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_table(pa.Table.from_arrays([pa.array(range(len(column))), column], schema=schema))
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("name", "column", "place"),
    [
        ("damaged", "note", "row group 1"),
        ("duckdb_array", "v", "row group 0"),
        ("encrypted", "secret", "row group 0"),
    ],
)
def test_what_opens_and_does_not_decode(name: str, column: str, place: str, suffix: str) -> None:
    """A damaged page, an array of DuckDB's that Arrow does not take, a column without its key: named, with the way out."""
    with pytest.raises(InputError) as caught:
        trial(DATA / f"{name}.parquet", suffix)
    assert f"{name}.parquet, {place}: the column `{column}` cannot be read" in caught.value.message
    assert "input.columns" in caught.value.hint
    trial(DATA / f"{name}.parquet", suffix, ["id", "review"])


def test_only_rows_under_the_limit_are_read() -> None:
    """A run of the first rows is not kept from them by what comes later."""
    trial(DATA / "damaged.parquet", "parquet", limit=500)


def test_columns_that_the_output_lacks_are_left_alone() -> None:
    """What nobody needs may be unreadable."""
    source = open_source(InputConfig(path=str(DATA / "damaged.parquet")))
    kept = pa.schema([source.schema.field("id")])
    rehearse(source, kept, OutputConfig(path="out.parquet"))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_bytes_that_are_no_text(tmp_path: Path, suffix: str) -> None:
    """Text files are UTF-8: a text that is not is told, with the column; other formats hand it on as it is."""
    trial(store(tmp_path / "in.arrow", pa.array(["ÿþ"])), suffix)
    path = store(tmp_path / "in.arrow", NO_UTF8)
    with pytest.raises(OutputError, match="column `c` holds bytes that are no UTF-8"):
        trial(path, suffix)
    trial(path, "parquet")
    trial(path, "arrow")


def test_what_parquet_refuses(tmp_path: Path) -> None:
    """Seconds beyond what milliseconds count, and nulls where none may be: told with the column."""
    far = store(tmp_path / "far.arrow", pa.array([1, 2**60], pa.timestamp("s")))
    with pytest.raises(OutputError, match="column `c` cannot be written as parquet: Integer overflow"):
        trial(far, "parquet")
    trial(far, "arrow")
    lie = store(tmp_path / "lie.arrow", pa.array([1, None]), nullable=False)
    with pytest.raises(OutputError, match=r"column `c` cannot be written as parquet: .*non-nullable"):
        trial(lie, "parquet")


def test_a_damaged_arrow_file_is_no_danger(tmp_path: Path) -> None:
    """Offsets that reach beyond their buffer are found as they are read."""
    data = bytearray(store(tmp_path / "in.arrow", pa.array(["a" * 50, "b" * 50])).read_bytes())
    at = data.index((50).to_bytes(4, "little") + (100).to_bytes(4, "little"))
    data[at : at + 8] = (2**30).to_bytes(4, "little") + (2**30 + 50).to_bytes(4, "little")
    (tmp_path / "bad.arrow").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.arrow: the column `c` cannot be read"):
        trial(tmp_path / "bad.arrow", "parquet")


def test_values_that_are_odd_are_no_damage(tmp_path: Path) -> None:
    """24:00:00, and bytes that are no text beside it, are read from an Arrow file as they are; midnight has a text too."""
    midnight = pa.array([86_400_000_000, 1]).view(pa.time64("us"))
    pair = pa.StructArray.from_arrays([pa.concat_arrays([NO_UTF8, NO_UTF8]), midnight], ["a", "b"])
    for column in (midnight, pair):
        path = store(tmp_path / "in.arrow", column)
        trial(path, "parquet")
        assert open_source(InputConfig(path=str(path))).num_rows == 2
    sound = pa.StructArray.from_arrays([midnight, pa.array(["a", "b"])], ["a", "b"])
    for suffix in ("csv", "jsonl"):
        trial(store(tmp_path / "midnight.arrow", midnight), suffix)
        trial(store(tmp_path / "sound.arrow", sound), suffix)
        with pytest.raises(OutputError, match="no UTF-8"):
            trial(path, suffix)


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    """Whoever waits may leave."""
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "in.parquet")
    source = open_source(InputConfig(path=str(tmp_path / "in.parquet")))

    def leave() -> None:
        raise RunInterrupted

    with pytest.raises(RunInterrupted):
        rehearse(source, source.schema, OutputConfig(path="out.parquet"), check=leave)
