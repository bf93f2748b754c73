"""CSV as Spark, MySQL, R and Excel write it."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.csv_escapes import EscapedText, _Escapes
from enrich.files.csv_quotes import quotes_are_sound
from enrich.files.source import open_source

DATA = Path(__file__).parent.parent / "data"
ESCAPED = {"escape": "\\"}


def read(path: Path, content: str | bytes | None = None, **options: Any) -> list[dict[str, Any]]:
    """Give the rows of a file, written first where its content is given."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    opened = open_source(InputConfig.model_validate({"path": str(path), "csv": options}))
    return [row for batch in opened.batches() for row in batch.to_pylist()]


def refusal(path: Path, content: str | bytes | None = None, **options: Any) -> InputError:
    """Give the error with which a file is refused."""
    with pytest.raises(InputError) as caught:
        read(path, content, **options)
    return caught.value


def test_what_spark_writes() -> None:
    """Spark escapes quotes within quotes, and leaves backslashes elsewhere as they are."""
    texts = [row["text"] for row in read(DATA / "spark.csv", **ESCAPED)]
    assert texts == [
        'say "hi"',
        "C:\\temp\\new",
        "ends in \\",
        'a\\"b',
        "two, parts",
        "two\nlines",
        None,
        "",
        "x",
    ]


def test_without_the_option_it_is_refused_with_it() -> None:
    """A quote that closes a field with text behind it is not guessed at: the message names the option."""
    error = refusal(DATA / "spark.csv")
    assert "behind line 1 a quote" in error.message
    assert "input.csv.escape" in error.hint


@pytest.mark.parametrize("quote", ['"', ""])
def test_what_mysql_writes(tmp_path: Path, quote: str) -> None:
    """`INTO OUTFILE`: escaped line ends and quotes (or delimiters, where nothing is quoted), and an escaped N for null."""
    text = '"a\\"b\\\\c\\\nd"' if quote else 'a"b\\\\c\\\nd\\\te'
    rows = read(tmp_path / "a.tsv", f"id\ttext\n1\t{text}\n2\t\\N\n", **ESCAPED, quote=quote)
    assert rows == [{"id": 1, "text": 'a"b\\c\nd' + ("" if quote else "\te")}, {"id": 2, "text": None}]


def test_what_r_writes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`write.table(sep=",")`: the header does not name the row names, quotes have a backslash."""
    with caplog.at_level(logging.INFO, "enrich"):
        rows = read(tmp_path / "a.csv", '"x","text"\n"1",1.5,"say \\"hi\\""\n"2",2.5,"no"\n', **ESCAPED)
    assert rows == [
        {"row_names": 1, "x": 1.5, "text": 'say "hi"'},
        {"row_names": 2, "x": 2.5, "text": "no"},
    ]
    assert "row_names" in caplog.text


def test_a_row_too_long_is_no_header_of_r(tmp_path: Path) -> None:
    """Only where every row has one field more does the header lack a name."""
    assert "line 2: 3 fields" in refusal(tmp_path / "a.csv", "x,y\n1,2,3\n4,5\n").message


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "\ufeffsep=;\r\n"])
def test_what_excel_declares(tmp_path: Path, first: str) -> None:
    """A first line `sep=;` tells the delimiter and is no row; lines are counted with it."""
    assert read(tmp_path / "a.csv", f"{first}x;y\n1;a,b\n") == [{"x": 1, "y": "a,b"}]
    assert "line 4: 1 field" in refusal(tmp_path / "a.csv", f"{first}x;y\n1;2\n3\n").message


def test_german_excel(tmp_path: Path) -> None:
    """Semicolons, a byte order mark and decimal commas: read with two options, which the refusal names."""
    content = "\ufeffpreis;ort;code\r\n1,5;Köln;1.000\r\n-20,25;Bonn;2.500\r\n"
    error = refusal(tmp_path / "a.csv", content)
    assert "`input.csv.delimiter: ';'`" in error.hint
    assert '`input.csv.decimal: ","`' in error.hint
    rows = read(tmp_path / "a.csv", content, delimiter=";", decimal=",")
    assert rows == [
        {"preis": 1.5, "ort": "Köln", "code": "1.000"},
        {"preis": -20.25, "ort": "Bonn", "code": "2.500"},
    ]
    typed = read(tmp_path / "a.csv", content, delimiter=";", decimal=",", types={"preis": "float64"})
    assert typed[1]["preis"] == -20.25
    wrong = refusal(tmp_path / "a.csv", content, delimiter=";", decimal=",", types={"code": "float64"})
    assert "'1.000', which is no double" in wrong.message


@pytest.mark.parametrize(
    ("content", "sign"),
    [
        ('"x"\t"y"\n"a, b"\t"c"\n', '"\\t"'),
        ('x\ty\n"a"\tb\n', '"\\t"'),
        ('"x";"y"\n"a";"b"\n', "';'"),
        ('x|y\n1|"a|b"\n"c"|2\n', "'|'"),
        ('x\ty\n1,5\t"a\n', '"\\t"'),
    ],
)
def test_quotes_around_another_delimiter(tmp_path: Path, content: str, sign: str) -> None:
    """Where the quotes seem wrong because another delimiter stands beside them, the refusal names that, as YAML has it."""
    error = refusal(tmp_path / "a.csv", content)
    assert f"`input.csv.delimiter: {sign}`" in error.hint


@pytest.mark.parametrize(
    "content",
    ['x,y\n"a"b,1\n', 'x,y\n1,"a" \n', 'x,y\n"a\\"b",1\n', 'x,y\n1,"a""b"c\n', 'x,y\n"a"\n"b"c,2\n'],
)
def test_text_behind_a_closing_quote(tmp_path: Path, content: str) -> None:
    """What such a field holds can only be guessed, and is not."""
    assert "closes a field" in refusal(tmp_path / "a.csv", content).message


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ('x,y\n1,5" pipe\n', '5" pipe'),
        ('x,y\n1, "a" b\n', ' "a" b'),
        ('x,y\n1,"a""b"""\n', 'a"b"'),
        ('x,y\n1,"¿"\n', "¿"),
    ],
)
def test_quotes_that_are_text(tmp_path: Path, content: str, value: str) -> None:
    """A quote within a bare field is text, a doubled one within quotes is one."""
    assert read(tmp_path / "a.csv", content) == [{"x": 1, "y": value}]


def test_escape_is_a_character_of_its_own(tmp_path: Path) -> None:
    """A quote that escapes itself is what a doubled quote is: no option is needed."""
    assert "`input.csv.escape`" in refusal(tmp_path / "a.csv", "x,y\n1,2\n", escape='"').message


@settings(max_examples=300)
@given(
    content=st.text(st.sampled_from('ab,"\n\r\\\ufeffé¿'), max_size=30), escape=st.sampled_from([None, "\\"])
)
def test_unsound_quotes_are_found(content: str, escape: str | None) -> None:
    """Whenever Python's strict reader refuses quotes, the quick look does not find them sound."""
    text: Any = io.StringIO(content, newline="")
    if escape:
        text = io.StringIO(escaped(content, 7), newline="")
    try:
        list(csv.reader(text, strict=True, escapechar=escape))
    except csv.Error as error:
        if "expected after" in str(error):
            stream: Any = io.BytesIO(content.encode())
            assert not quotes_are_sound(stream, quote='"', delimiter=",", escape=escape)


def escaped(content: str, size: int, quote: str = '"') -> str:
    """Give a text with every escape character before what it escapes, or doubled."""
    text = io.TextIOWrapper(io.BytesIO(content.encode()), encoding="utf-8", newline="")
    read = EscapedText(text, escape="\\", quote=quote, delimiter=",", chunk=size)
    return io.BufferedReader(read).read().decode()


@settings(max_examples=400)
@given(
    content=st.text(st.sampled_from('a,"\n\r\\\ufeffé'), max_size=30)
    | st.lists(
        st.sampled_from(['"a"', '"\\""', '"\\\\"', "\\", ",", "\n", "\r\n", '"\n"', '""', "é"]), max_size=20
    ).map("".join),
    size=st.integers(1, 12),
)
def test_rows_are_escaped_as_fields_are(content: str, size: int) -> None:
    """The quick way and the thorough one give the same, wherever the text is cut and whatever its quotes are."""
    thorough = _Escapes("\\", '"', ",")
    text = io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8", newline="")
    assert escaped(content, size) == "".join(thorough._doubled_fields(content, text, size))


@settings(max_examples=300)
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.sampled_from('ab,"\n\\é'), max_size=6)] * 2), min_size=1, max_size=5
    ),
    size=st.integers(1, 9),
)
def test_escaped_texts_come_back(rows: list[tuple[str, str]], size: int) -> None:
    """Whatever is written with every quote and backslash escaped is read as it was, however the text is cut."""

    def field(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    content = "".join(f"{field(a)},{field(b)}\n" for a, b in rows)
    lines = io.StringIO(escaped(content, size), newline="")
    assert [tuple(row) for row in csv.reader(lines, escapechar="\\")] == rows
