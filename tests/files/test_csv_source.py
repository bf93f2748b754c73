"""CSV and TSV: every value is the text that stands there, and what is broken is located."""

from __future__ import annotations

import bz2
import csv
import gzip
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from enrich.config import CsvOptions
from enrich.errors import InputError, OutputError
from enrich.files.csv_dialect import Dialect, records
from enrich.files.input_files import find_files
from tests.helpers.inputs import (
    TEXTS,
    refusal,
    rows,
    source,
    write,
    write_csv,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
