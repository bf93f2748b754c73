"""Whatever the format: batches are bounded, repeatable and chosen; partitions become columns."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.source import open_source
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


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_batches_are_bounded_and_repeatable(tmp_path: Path, name: str) -> None:
    """No batch is longer than asked, none is empty, and each pass gives the same rows in the same order."""
    table = pa.table({"i": list(range(2500))})
    if name == "a.csv":
        write_csv(tmp_path / name, ["i"], [[str(i)] for i in range(2500)])
    elif name == "a.jsonl":
        write_jsonl(tmp_path / name, *table.to_pylist())
    else:
        write_as(table, tmp_path / name, chunk=1000)
    opened = source(tmp_path / name)
    sizes = [batch.num_rows for batch in opened.batches(max_rows=400)]
    assert 0 < min(sizes) <= max(sizes) <= 400
    assert rows(opened, max_rows=400) == rows(opened) == table.to_pylist()


@pytest.mark.parametrize("limit", [0, 3, 4, 5, 99])
def test_limit(tmp_path: Path, limit: int) -> None:
    """A limit gives the first rows over all files, typed as without it."""
    write(tmp_path / "1.csv", "a\n1\n2\n3\n4\n")
    write(tmp_path / "2.csv", "a\n5\nx\n")
    opened = source(tmp_path, limit=limit)
    expected = [{"a": text} for text in "12345x"][:limit]
    assert (rows(opened, max_rows=3), opened.num_rows) == (expected, len(expected))


def test_changed_file(tmp_path: Path) -> None:
    """A file that changes or vanishes after the source was opened stops the pass."""
    path = write(tmp_path / "a.csv", "a\n1\n")
    opened = source(path)
    write(path, "a\n1\n2\n")
    with pytest.raises(InputError, match=r"a\.csv changed"):
        rows(opened)
    opened = source(path)
    stream = opened.batches(max_rows=1)
    next(stream)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=r"a\.csv changed"):
        list(stream)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        rows(opened)


def test_unknown_columns(tmp_path: Path) -> None:
    """A column that is not there, or chosen twice, is refused with the nearest name."""
    path = write(tmp_path / "a.csv", "review,stars\nx,1\n")
    assert "did you mean `review`?" in refusal(path, columns=["reviews"]).hint
    assert "twice" in refusal(path, columns=["stars", "stars"]).message
    with pytest.raises(InputError, match="no column `star`"):
        rows(source(path), columns=["star"])


PEAK = """
import re, sys
from enrich.config import InputConfig
from enrich.files.source import open_source
opened = open_source(InputConfig(path=sys.argv[1]))
count = sum(batch.num_rows for batch in opened.batches())
assert count == opened.num_rows == int(sys.argv[2]), count
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


def peak_megabytes(path: Path, count: int) -> int:
    """Read a file in a process of its own and give the most memory that it held."""
    command = [sys.executable, "-c", PEAK, str(path), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_memory_is_flat(tmp_path: Path, name: str) -> None:
    """Ten times the rows need no more memory: files are never held whole."""
    peaks = []
    for count in (50_000, 500_000):
        path = tmp_path / str(count) / name
        path.parent.mkdir()
        text = "words " * 20
        if name == "a.csv":
            path.write_text("id,text\n" + f'1,"{text}"\n' * count)
        elif name == "a.jsonl":
            path.write_text(f'{{"id": 1, "text": "{text}"}}\n' * count)
        else:
            table = pa.table({"id": pa.array(range(count)), "text": pa.repeat(text, count)})
            write_as(table, path, chunk=None if name == "a.parquet" else 65_536)
        peaks.append(peak_megabytes(path, count))
    assert peaks[1] - peaks[0] < 30, peaks


def test_hive_partitions_become_columns(tmp_path: Path) -> None:
    """Folders `key=value` become columns, URL-decoded, integers only where they write back to the same text."""
    for folder, value in (
        ("year=2023/zip=00501/city=S%C3%A3o%20Paulo", 1),
        ("year=2024/zip=10001/city=__HIVE_DEFAULT_PARTITION__", 2),
    ):
        write_as(pa.table({"v": [value] * 2}), tmp_path / "t" / folder / "part-0.parquet")
    opened = source(tmp_path / "t")
    types = {f.name: str(f.type) for f in opened.schema}
    assert types == {"v": "int64", "year": "int64", "zip": "string", "city": "string"}
    first = {"v": 1, "year": 2023, "zip": "00501", "city": "São Paulo"}
    second = {"v": 2, "year": 2024, "zip": "10001", "city": None}
    assert rows(opened) == [first, first, second, second]
    assert rows(opened, columns=["year", "v"])[2] == {"year": 2024, "v": 2}
    assert rows(source(tmp_path / "t", columns=["year"])) == [{"year": 2023}] * 2 + [{"year": 2024}] * 2
    assert [row["year"] for row in rows(source(f"{tmp_path}/t/year=*/*/*/*.parquet"))] == [
        2023,
        2023,
        2024,
        2024,
    ]
    assert source(tmp_path / "t" / "year=2023" / "zip=00501").schema.names == ["v", "city"]


def test_partitions_must_agree(tmp_path: Path) -> None:
    """Files in other partition folders, or with a column of a partition's name, are refused."""
    write(tmp_path / "year=2024" / "a.csv", "a,year\n1,2\n")
    assert "`year` is both" in refusal(tmp_path).message
    write(tmp_path / "month=1" / "a.csv", "a\n1\n")
    assert refusal(tmp_path).message.endswith("year=2024/a.csv in year=…")
    (tmp_path / "month=1" / "a.csv").rename(tmp_path / "a.csv")
    assert "a.csv lies in no partition folder, " in refusal(tmp_path).message


def test_output_of_python_csv_is_a_source(tmp_path: Path) -> None:
    """Windows line ends, as the csv module writes them, are no part of the values."""
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b"], ["1", "x"]])
    assert rows(source(write(tmp_path / "a.csv", text.getvalue()))) == [{"a": 1, "b": "x"}]


def test_large_values_that_a_dictionary_holds_once_are_read_in_few_rows(tmp_path: Path) -> None:
    """The same long text in every row takes next to nothing in the file: batches are no larger than its groups, or nearly."""
    table = pa.table({"t": pa.array(["x" * 100_000] * 400)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=10)
    source = open_source(InputConfig(path=str(tmp_path / "in.parquet")))
    batches = list(source.batches())
    assert sum(batch.num_rows for batch in batches) == 400
    assert max(batch.nbytes for batch in batches) < 10_000_000
