from __future__ import annotations

import bz2
import csv
import decimal
import gzip
import io
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc
from pydantic import ValidationError

from enrich.config import CsvOptions, InputConfig
from enrich.errors import InputError, OutputError
from enrich.files.common_types import CELLS, width
from enrich.files.csv_dialect import Dialect, records
from enrich.files.input_files import find_files
from enrich.files.source import Source, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@pytest.fixture
def table() -> pa.Table:
    """A table with every kind of type that must come through untouched."""
    return pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int16()),
            "text": pa.array(["a", None, "ü\n"], pa.large_string()),
            "money": pa.array(
                [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")], pa.decimal128(20, 2)
            ),
            "at": pa.array([0, 1, None], pa.timestamp("us", "Europe/Berlin")),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
            "nested": pa.array([{"a": [1, 2], "b": {"c": "x"}}, None, {"a": None, "b": None}]),
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
            "a.b": pa.array([True, None, False]),
        }
    ).replace_schema_metadata({"origin": "a test"})


# --- CSV -----------------------------------------------------------------------------------------------


def test_csv_types_are_lossless(tmp_path: Path) -> None:
    """A column gets a type only if every value writes back to the same text."""
    path = write(
        tmp_path / "a.csv",
        "n,zip,big,price,rough,flag,Flag,day,at,iso,plus,nan,hex\n"
        "1,00501,12345678901234567890123,1.5,1.50,true,True,2024-01-31,2024-01-31 12:00:00,2024-01-31T12:00:00,+1,nan,0x1\n"
        "-7,10001,5,-0.25,2.25,false,False,1999-12-31,1999-12-31 00:00:01,1999-12-31T00:00:01,2,inf,5\n",
    )
    schema = source(path).schema
    assert {f.name: str(f.type) for f in schema} == {
        "n": "int64",
        "zip": "string",
        "big": "string",
        "price": "double",
        "rough": "string",
        "flag": "bool",
        "Flag": "string",
        "day": "date32[day]",
        "at": "timestamp[s]",
        "iso": "string",
        "plus": "string",
        "nan": "string",
        "hex": "string",
    }
    assert rows(source(path))[0]["zip"] == "00501"


def test_one_value_in_the_last_file_makes_the_column_text(tmp_path: Path) -> None:
    """Types hold over all files: a late `007` keeps the whole column text."""
    write(tmp_path / "1.csv", "id\n" + "\n".join(map(str, range(50_000))) + "\n")
    write(tmp_path / "2.csv", "id\n007\n")
    opened = source(tmp_path)
    assert opened.schema == pa.schema([("id", pa.string())])
    assert rows(opened)[-1] == {"id": "007"}
    assert opened.num_rows == 50_001


def test_fractions_of_seconds_choose_the_unit(tmp_path: Path) -> None:
    """A timestamp's unit is the one that writes the same digits."""
    opened = source(write(tmp_path / "a.csv", "at\n2024-01-31 12:00:00.125\n"))
    assert opened.schema.field("at").type == pa.timestamp("ms")


def test_nothing_is_null_and_two_quotes_are_empty(tmp_path: Path) -> None:
    """An unquoted empty field is null, a quoted one an empty text; a column of nulls is text."""
    opened = source(write(tmp_path / "a.csv", 'a,b,c\n1,,\n2,"",\n'))
    assert rows(opened) == [{"a": 1, "b": None, "c": None}, {"a": 2, "b": "", "c": None}]
    assert opened.schema.field("c").type == pa.string()


def test_null_values_are_configured(tmp_path: Path) -> None:
    """Only the configured spellings are null."""
    path = write(tmp_path / "a.csv", "a,b\nNA,\n1,x\n")
    assert rows(source(path, csv={"null_values": ["NA"]})) == [{"a": None, "b": ""}, {"a": 1, "b": "x"}]


def test_long_and_multiline_cells(tmp_path: Path) -> None:
    """A cell of 3 MB and thousands of rows of several lines come through."""
    long = "x" * 3_000_000
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([i, f'line 1\nline 2 of {i}\r\n\nlast, "quoted"'] for i in range(8000))
        writer.writerow([8000, long])
        writer.writerow([8001, "end"])
    found = rows(source(path))
    assert len(found) == 8002
    assert found[5]["text"] == 'line 1\nline 2 of 5\r\n\nlast, "quoted"'
    assert found[8000] == {"id": 8000, "text": long}


def test_long_header(tmp_path: Path) -> None:
    """A header longer than a block is a header."""
    name = "n" * 1_500_000
    assert rows(source(write(tmp_path / "a.csv", f"a,{name}\n1,2\n"))) == [{"a": 1, name: 2}]


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark is no part of the first column's name."""
    assert rows(source(write(tmp_path / "a.csv", b"\xef\xbb\xbfa,b\n1,x\n"))) == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "shift-jis", "gb18030"]
)
def test_declared_encoding(tmp_path: Path, encoding: str) -> None:
    """A file is read in the encoding that is declared."""
    text = (
        "名前,b\nä,x\n"
        if encoding.startswith(("utf", "gb"))
        else "café,b\ny,x\n"
        if "j" not in encoding
        else "名前,b\nカ,x\n"
    )
    opened = source(write(tmp_path / "a.csv", text.encode(encoding)), csv={"encoding": encoding})
    assert [opened.schema.names, *([*row.values()] for row in rows(opened))] == [
        line.split(",") for line in text.splitlines()
    ]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"a,b\n1,2\n1,caf\xe9\n", "line 3, byte 13"),
        (b"a,caf\xe9\n1,2\n", "line 1, byte 5"),
        (b"a,b\n" + b"1,2\n" * 600_000 + b"1,\xe9\n", "line 600002, byte 2400006"),
        (b"a,b\n1,2\n1,2,caf\xe9\n", "line 3, byte 15"),
        (b"a,b\n1,2\n1,caf\xc3", "line 3, byte 13"),
    ],
    ids=["row", "header", "far", "in a ragged row", "cut off"],
)
def test_undecodable_bytes_are_located(tmp_path: Path, content: bytes, place: str) -> None:
    """Bytes that are not of the encoding are an error that names the line, the byte and the setting."""
    error = refusal(write(tmp_path / "a.csv", content))
    assert f"a.csv {place}: b'\\x" in error.message
    assert "input.csv.encoding" in error.hint


def test_undecodable_bytes_of_another_encoding(tmp_path: Path) -> None:
    """A declared encoding is strict too."""
    error = refusal(write(tmp_path / "a.csv", b"a\n1\n\xe9\n"), csv={"encoding": "ascii"})
    assert "a.csv line 3, byte 4: b'\\xe9' is not ascii" in error.message


def test_unknown_encoding(tmp_path: Path) -> None:
    """An encoding that does not exist, or is none of texts, is refused by the configuration."""
    for encoding in ("utf-9", "base64"):
        with pytest.raises(ValidationError, match=encoding):
            source(tmp_path / "a.csv", csv={"encoding": encoding})


def test_ragged_rows_are_reported_by_line(tmp_path: Path) -> None:
    """Rows with too few or too many fields are named by physical line, lines inside quotes counted."""
    path = write(tmp_path / "a.csv", 'a,b\n1,"x\ny\nz"\n\n2\n3,"q\n",5\n4,5\n')
    error = refusal(path)
    assert error.message == (
        f"{path}: 2 rows have another number of fields than the 2 expected:\n  line 6: 1 field\n  line 7: 3 fields"
    )
    assert "input.csv.bad_rows: reject" in error.hint


def test_many_ragged_rows_are_counted(tmp_path: Path) -> None:
    """Only the first few bad rows are listed, the rest are counted."""
    error = refusal(write(tmp_path / "a.csv", "a,b\n" + "1\n" * 100))
    assert error.message.count("line") == 5
    assert error.message.endswith("and 95 more")


def test_rejected_rows_are_written_out(tmp_path: Path) -> None:
    """With `bad_rows: reject` bad rows go to the reject file as they stand, in order, and are left out each time."""
    path = write(tmp_path / "in" / "a.csv", 'a,b\n1,x\n2\n3,"q\n""r",5\n4,y\n')
    write(tmp_path / "in" / "b.csv", "a,b\n9,8,7\n5,z\n")
    reject = tmp_path / "new" / "rejected.csv"
    opened = source(path.parent, csv={"bad_rows": "reject", "reject_file": str(reject)})
    expected = [{"a": 1, "b": "x"}, {"a": 4, "b": "y"}, {"a": 5, "b": "z"}]
    assert rows(opened) == rows(opened) == expected
    assert (opened.num_rows, opened.rejected, [file.rows for file in opened.files]) == (3, 3, [2, 1])
    assert reject.read_bytes() == b'2\n3,"q\n""r",5\n9,8,7\n'


def test_reject_file_is_needed(tmp_path: Path) -> None:
    """Rejecting without a place for the rows, or into the input itself, is refused."""
    path = write(tmp_path / "a.csv", "a\n1\n")
    assert "reject_file" in refusal(path, csv={"bad_rows": "reject"}).hint
    with pytest.raises(OutputError, match="is a file of the input"):
        source(path, csv={"bad_rows": "reject", "reject_file": str(path)})
    assert path.read_text() == "a\n1\n"


@pytest.mark.parametrize("mode", ["error", "reject"])
@pytest.mark.parametrize(
    "content", ['a,b\n1,x\n2,"y\n3,z\n4,w\n', 'a,b\n1,x\n"2,y\n3,z\n4,w', 'a,b\n1,x\n2,"y\n']
)
def test_unclosed_quote(tmp_path: Path, content: str, mode: str) -> None:
    """A quote that is never closed is refused: it would swallow the rest of the file."""
    options = {"bad_rows": mode, "reject_file": str(tmp_path / "bad.csv")}
    assert "a.csv line 3: a quote" in refusal(write(tmp_path / "a.csv", content), csv=options).message


def test_closed_quote_at_the_end(tmp_path: Path) -> None:
    """A last cell that ends in a line break is fine, as are quotes inside a bare field."""
    assert rows(source(write(tmp_path / "a.csv", 'a,b\n5" disk,"y\n"'))) == [{"a": '5" disk', "b": "y\n"}]


def test_duplicate_columns(tmp_path: Path) -> None:
    """Two columns of one name are refused."""
    assert "two columns `a`" in refusal(write(tmp_path / "a.csv", "a,b,a\n1,2,3\n")).message


def test_without_header(tmp_path: Path) -> None:
    """Without a header the columns are numbered and the first row is data."""
    found = rows(source(write(tmp_path / "a.csv", "1,x\n2,y"), csv={"header": False}))
    assert found == [{"column_1": 1, "column_2": "x"}, {"column_1": 2, "column_2": "y"}]


@pytest.mark.parametrize("content", ["a,b", "a,b\n", "\n\na,b\r\n\r\n"])
def test_header_alone(tmp_path: Path, content: str) -> None:
    """A header alone is a valid input of no rows."""
    opened = source(write(tmp_path / "a.csv", content))
    assert (opened.num_rows, opened.schema.names, rows(opened)) == (0, ["a", "b"], [])


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_empty_file(tmp_path: Path, content: bytes, name: str) -> None:
    """A file without anything in it is refused."""
    assert "is empty" in refusal(write(tmp_path / name, content)).message


def test_types_override(tmp_path: Path) -> None:
    """`csv.types` decides a column's type."""
    path = write(tmp_path / "a.csv", "a,b,c,d,e\n01, 5,2024-01-31,x,1.50\n2,,2024-02-01T10:00:00,y,2\n")
    types = {"a": "int64", "b": "float", "c": "timestamp", "d": "string", "e": "text"}
    opened = source(path, csv={"types": types})
    assert [str(f.type) for f in opened.schema] == ["int64", "double", "timestamp[us]", "string", "string"]
    assert [row["b"] for row in rows(opened)] == [5.0, None]
    assert [row["e"] for row in rows(opened)] == ["1.50", "2"]


def test_value_that_does_not_fit_its_type(tmp_path: Path) -> None:
    """A value that cannot become the type it is given is named with its line."""
    path = write(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n2,\n\n' + "3,\n" * 1000 + "four,\n5,\n")
    error = refusal(path, csv={"types": {"a": "int64"}})
    assert error.message == f"{path} line 1006: `a` is 'four', which is no int64"


def test_type_names_and_columns_are_checked(tmp_path: Path) -> None:
    """Overrides with an unknown type or column are refused with the nearest one."""
    path = write(tmp_path / "a.csv", "price\n1\n")
    assert "`int64`" in refusal(path, csv={"types": {"price": "int46"}}).hint
    assert "no type that text can become" in refusal(path, csv={"types": {"price": "time32[s]"}}).message
    assert "`price`" in refusal(path, csv={"types": {"prize": "int64"}}).hint


def test_tsv_and_other_delimiters(tmp_path: Path) -> None:
    """TSV splits at tabs; delimiter and quote are configurable, and quoting can be off."""
    assert rows(source(write(tmp_path / "a.tsv", "a\tb\n1\tx,y\n"))) == [{"a": 1, "b": "x,y"}]
    path = write(tmp_path / "a.csv", "a;b\n1;'x;y'\n")
    assert rows(source(path, csv={"delimiter": ";", "quote": "'"})) == [{"a": 1, "b": "x;y"}]
    path = write(tmp_path / "b.csv", 'a,b\n1,"x\n')
    assert rows(source(path, csv={"quote": ""})) == [{"a": 1, "b": '"x'}]
    with pytest.raises(ValidationError, match="ASCII"):
        source(path, csv={"delimiter": "§"})


def test_csv_files_with_other_columns(tmp_path: Path) -> None:
    """CSV files must have the same columns; their order may differ."""
    write(tmp_path / "1.csv", "a,b\n1,x\n")
    write(tmp_path / "2.csv", "b,a\ny,2\n")
    assert rows(source(tmp_path)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    write(tmp_path / "3.csv", "a,c\n1,x\n")
    error = refusal(tmp_path)
    assert all(part in error.message for part in ("1.csv", "3.csv", "`b`"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst", ".GZ"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_compression(tmp_path: Path, name: str, suffix: str) -> None:
    """Text files are decompressed as their suffix says, also when members are joined."""
    content = b"a,b\n1,x\n" if name == "a.csv" else b'{"a": 1, "b": "x"}\n'
    more = b"2,y\n" if name == "a.csv" else b'{"a": 2, "b": "y"}\n'
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    pack = packers[suffix.lower()]
    path = write(tmp_path / f"{name}{suffix}", pack(content) + pack(more))
    assert rows(source(path)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    write(path, pack(content * 100)[:-5])
    assert "cannot be read" in refusal(path).message


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.one_of(
    TEXTS,
    st.integers().map(str),
    st.floats(allow_nan=True).map(str),
    st.sampled_from(
        ["", "00501", "true", "nan", "-0", "1e5", "2024-01-31", "2024-01-31 00:00:00", "\r\n", '"']
    ),
)


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy[str]) -> tuple[list[str], list[list[str]]]:
    """Draw column names and rows of texts."""
    names = draw(
        st.lists(
            TEXTS.filter(lambda text: not text.startswith("\ufeff")), min_size=2, max_size=4, unique=True
        )
    )
    return names, draw(st.lists(st.lists(values, min_size=len(names), max_size=len(names)), max_size=8))


def write_csv(path: Path, names: list[str], lines: list[list[str]], quoting: Any = csv.QUOTE_ALL) -> Path:
    """Write a table with Python's csv module."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=quoting).writerows([names, *lines])
    return path


@settings(max_examples=100)
@given(drawn=tables(TEXTS))
def test_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[list[str], list[list[str]]]
) -> None:
    """Whatever Python's csv module writes is read back as the same texts."""
    names, lines = drawn
    path = write_csv(tmp_path_factory.mktemp("t") / "a.csv", names, lines)
    opened = source(path, csv={"types": dict.fromkeys(names, "string"), "null_values": []})
    assert [list(row.values()) for row in rows(opened)] == lines


@settings(max_examples=150)
@given(drawn=tables(VALUES))
def test_inferred_values_write_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[list[str], list[list[str]]]
) -> None:
    """Whatever type is inferred, every value writes back to the text in the file."""
    names, lines = drawn
    opened = source(write_csv(tmp_path_factory.mktemp("t") / "a.csv", names, lines))
    found = [batch.columns for batch in opened.batches()]
    texts = [
        [value for batch in found for value in pc.cast(batch[i], pa.string()).to_pylist()]
        for i in range(len(names))
    ]
    assert texts == [[line[i] for line in lines] for i in range(len(names))]


@settings(max_examples=200)
@given(content=st.text(st.sampled_from('ab,"\n\r \N{EURO SIGN}'), max_size=40))
def test_lines_are_counted_as_arrow_splits(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """The rows whose lines errors name are the rows that Arrow reads, for any text."""
    folder = tmp_path_factory.mktemp("t")
    path = write(folder / "a.csv", f"x,y\n{content}\n")
    dialect = Dialect(find_files(str(path))[0], CsvOptions(null_values=[]), ",")
    csv_options = {"bad_rows": "reject", "reject_file": str(folder / "bad"), "null_values": []}
    options = {"csv": {**csv_options, "types": {"x": "text", "y": "text"}}}
    try:
        expected = [fields for _, fields in records(dialect, strict=True)][1:]
    except csv.Error:
        with pytest.raises(InputError):
            source(path, **options)
        return
    if expected and (expected[-1][-1].endswith("\n") or all(len(fields) == 3 for fields in expected)):
        return  # a quote that is never closed, perhaps: refused; or a header as R writes it
    opened = source(path, **options)
    assert [list(row.values()) for row in rows(opened)] == [fields for fields in expected if len(fields) == 2]
    assert opened.rejected == sum(len(fields) != 2 for fields in expected)


# --- JSON Lines ----------------------------------------------------------------------------------------


def write_jsonl(path: Path, *values: Any) -> Path:
    """Write values as JSON, one a line."""
    return write(path, "".join(json.dumps(value) + "\n" for value in values))


def test_jsonl(tmp_path: Path) -> None:
    """Objects become rows: missing keys are null, nested values stay nested, texts stay texts."""
    first = {
        "a": 1,
        "day": "2024-01-31",
        "at": "2024-01-31T10:00:00Z",
        "n": {"x": [1, 2]},
        "t": ["2024-01-31"],
    }
    second = {"a": 2.5, "n": {"x": [], "y": "z"}, "new": True, "null": None}
    opened = source(write_jsonl(tmp_path / "a.jsonl", first, second))
    types = {f.name: str(f.type) for f in opened.schema}
    assert types == {
        "a": "double",
        "day": "string",
        "at": "string",
        "n": "struct<x: list<item: int64>, y: string>",
        "t": "list<item: string>",
        "new": "bool",
        "null": "string",
    }
    one, two = rows(opened)
    assert one == {**first, "n": {"x": [1, 2], "y": None}, "new": None, "null": None}
    assert two["n"] == {"x": [], "y": "z"}


def test_jsonl_schema_spans_blocks_and_files(tmp_path: Path) -> None:
    """One schema holds for all blocks of all files, whatever the first lines look like."""
    write_jsonl(tmp_path / "1.ndjson", *({"id": i, "text": "2024-01-31" * 20} for i in range(30_000)))
    write_jsonl(tmp_path / "2.ndjson", {"id": 0.5, "text": "words", "more": [1]})
    opened = source(tmp_path)
    assert [str(f.type) for f in opened.schema] == ["double", "string", "list<item: int64>"]
    assert opened.num_rows == len(rows(opened)) == 30_001
    assert rows(opened)[12_345] == {"id": 12_345.0, "text": "2024-01-31" * 20, "more": None}


def test_jsonl_long_lines_and_blank_lines(tmp_path: Path) -> None:
    """A line longer than a block is read, blank lines are no rows, a byte order mark is none of the data."""
    content = '\ufeff{"a": 1}\r\n\r\n{"a": 2, "b": "%s"}\n  \n{"a": 3}' % ("x" * 9_000_000)
    opened = source(write(tmp_path / "a.jsonl", content))
    assert [row["a"] for row in rows(opened)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"a": "x"}', "`a`|Field a|Column"),
        ('{"a": 1', "Missing"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1, "b": [-Infinity]}', "Infinity is no JSON"),
        ('{"a": 1} {"a": 2}', "not one whole JSON object"),
        ('{"a":\n1}', "is no JSON object"),
        ('{"a": 1, "b": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested deeper than 64 levels"),
        ('{"a": 1, "b": [' + "[]," * 100 + "x]}", "Invalid value"),
        ("[1]", "Column|object"),
        ("'a'", "is no JSON object: 'a'"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": 123456789012345678901234}', "cannot hold exactly"),
        ('{"a": 1e999}', "too big"),
        ('{"a": 1, "b": {"c": [[9007199254740993, 0.5]]}}', r"b\.c\.\[\]\.\[\]` is 9007199254740993"),
    ],
)
def test_jsonl_problems_are_located(tmp_path: Path, line: str, problem: str) -> None:
    """A line that is no JSON object, mixes types or would lose digits is named by its number."""
    content = '{"a": 1}\n\n' + '{"a": 2}\n' * 5 + line + "\n" + '{"a": 3}\n'
    error = refusal(write(tmp_path / "a.jsonl", content))
    assert "a.jsonl line " in error.message
    assert re.search(problem, error.message)


@pytest.mark.parametrize("shape", ['{{"k{0}": 1, "l{0}": 2}}\n', '{{"o": {{"k{0}": 1, "l{0}": 2}}}}\n'])
def test_rows_of_ever_other_keys_are_read_a_few_at_a_time(tmp_path: Path, shape: str) -> None:
    """Each key is a column for all rows, and 3,000 rows have 6,000: memory stays bounded, also where they lie in objects."""
    path = write(tmp_path / "a.jsonl", "".join(shape.format(number) for number in range(3_000)))
    source = open_source(InputConfig(path=str(path)))
    batches = list(source.batches())
    assert width(source.schema.types) == 6_000
    assert max(batch.num_rows for batch in batches) * 6_000 <= CELLS
    assert sum(batch.num_rows for batch in batches) == 3_000
    last = batches[-1].slice(batches[-1].num_rows - 1).to_pylist()[0]
    assert {name for name, value in last.get("o", last).items() if value is not None} == {"k2999", "l2999"}


def test_jsonl_conflict_in_a_later_block(tmp_path: Path) -> None:
    """A type that changes megabytes later is found at its line."""
    path = write(tmp_path / "a.jsonl", '{"a": "%s"}\n' % ("x" * 1000) * 6000 + '{"a": 5}\n')
    assert "a.jsonl line 6001: " in refusal(path).message


def test_jsonl_integers_are_exact(tmp_path: Path) -> None:
    """Integers of 64 bits are exact in a column of integers; texts that look like numbers are not looked at."""
    first = {"a": 2**63 - 1, "b": "x:12345678901234567890", "c": [-(2**63)]}
    assert rows(source(write_jsonl(tmp_path / "a.jsonl", first))) == [first]


def test_jsonl_must_be_utf8(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are located."""
    error = refusal(write(tmp_path / "a.jsonl", b'{"a": "x"}\n{"a": "\xe9"}\n'))
    assert "a.jsonl line 2: b'\\xe9' is not UTF-8" in error.message


JSON_VALUES: st.SearchStrategy[Any] = st.none() | TEXTS


@settings(max_examples=80)
@given(lines=st.lists(st.fixed_dictionaries({"t": TEXTS, "i": st.integers(-(2**63), 2**63 - 1), "n": JSON_VALUES,
       "l": st.lists(TEXTS, max_size=3), "s": st.fixed_dictionaries({"f": st.floats(allow_nan=False, allow_infinity=False)})}), min_size=1, max_size=6))  # fmt: skip
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    """What Python's json module writes is read back as the same values."""
    path = write_jsonl(tmp_path_factory.mktemp("t") / "a.jsonl", *lines)
    assert rows(source(path)) == lines


# --- Parquet and Arrow ---------------------------------------------------------------------------------


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


# --- batches -------------------------------------------------------------------------------------------


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


# --- files ---------------------------------------------------------------------------------------------


def test_paths_expand_in_order(tmp_path: Path) -> None:
    """A list keeps its order; a folder and a glob are sorted; hidden and underscored names are left out."""
    for name in (
        "b/2.csv",
        "b/1.csv",
        "b/.hidden.csv",
        "b/_SUCCESS",
        "b/_temporary/3.csv",
        "b/.git/4.csv",
        "b/sub/5.csv",
        "a/6.csv",
    ):
        write(tmp_path / name, "a\n1\n")

    def names(path: str | list[str]) -> list[str]:
        return [os.path.relpath(file.path, tmp_path) for file in source(path).files]

    assert names(str(tmp_path)) == ["a/6.csv", "b/1.csv", "b/2.csv", "b/sub/5.csv"]
    assert names(f"{tmp_path}/*/[12].csv") == ["b/1.csv", "b/2.csv"]
    assert names(f"{tmp_path}/**/*.csv") == names(str(tmp_path)) == names(f"{tmp_path}/**")
    assert names([f"{tmp_path}/b/2.csv", f"{tmp_path}/a"]) == ["b/2.csv", "a/6.csv"]


def test_files_are_frozen(tmp_path: Path) -> None:
    """Each file is listed with its size, time and rows."""
    path = write(tmp_path / "a.csv", "a\n1\n")
    (file,) = source(path).files
    assert (file.path, file.size, file.mtime_ns, file.rows) == (str(path), 4, path.stat().st_mtime_ns, 1)


def test_literal_brackets(tmp_path: Path) -> None:
    """A file whose name looks like a glob is that file."""
    assert rows(source(write(tmp_path / "a[1].csv", "a\n1\n"))) == [{"a": 1}]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("revews.csv", r"no file .*revews\.csv\nHint: did you mean `reviews\.csv`\?"),
        ("none/a.csv", r"no file .*none/a\.csv"),
        ("*.parquet", r"no data file at .*\*\.parquet"),
        ("hollow", "no data file at .*hollow"),
        ("notes.txt", r"format of .*notes\.txt .*`\.txt` is not known\n.*input\.format"),
        ("plain", "it has no suffix"),
        ("mixed", r"mixes formats: .*1\.csv is csv, .*2\.jsonl is jsonl"),
        ("odd", r"format of .*README\.md"),
        ("pipe.csv", "not a regular file"),
    ],
)
def test_paths_that_cannot_be_read(tmp_path: Path, path: str, problem: str) -> None:
    """Whatever keeps a path from being read is an error that names it and says what to do."""
    for name in (
        "reviews.csv",
        "notes.txt",
        "plain",
        "mixed/1.csv",
        "mixed/2.jsonl",
        "odd/1.csv",
        "odd/README.md",
    ):
        write(tmp_path / name, "a\n1\n")
    write(tmp_path / "hollow" / "_SUCCESS", "")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=problem):
        source(tmp_path / path)


def test_no_paths() -> None:
    """An empty list is refused plainly."""
    assert "names no file" in refusal([]).message


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user whom permissions bind, also when the tests run as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_permissions(tmp_path: Path) -> None:
    """A file or a folder that may not be read is named, not skipped."""
    path = write(tmp_path / "in" / "sub" / "a.csv", "a\n1\n")
    write(tmp_path / "in" / "b.csv", "a\n1\n")
    for folder in (tmp_path, *(above for above in tmp_path.parents if "pytest-" in str(above))):
        folder.chmod(0o755)
    path.chmod(0)
    with as_nobody():
        assert f"{path} cannot be read: Permission denied" in refusal(path).message
    path.parent.chmod(0)
    with as_nobody():
        assert f"{path.parent} cannot be read: Permission denied" in refusal(tmp_path / "in").message
    path.parent.chmod(0o755)


def test_format_is_given(tmp_path: Path) -> None:
    """A given format overrules the suffix."""
    assert rows(source(write(tmp_path / "a.txt", "a\tb\n1\t2\n"), format="tsv")) == [{"a": 1, "b": 2}]


# --- partitions ----------------------------------------------------------------------------------------


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
