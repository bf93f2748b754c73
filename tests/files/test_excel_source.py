"""Sheets of workbooks become columns of one type each, with what is stored in their cells."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xlsxwriter

from enrich.errors import ConfigError, InputError
from tests.helpers.inputs import source

DATA = Path(__file__).parent.parent / "data"
ROWS = [
    {
        "id": 1,
        "zip": "00501",
        "price": 1.5,
        "paid": True,
        "day": dt.date(2026, 1, 2),
        "seen": dt.datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001  # as sheets have them
        "review": "good",
    },
    {
        "id": 2,
        "zip": "10001",
        "price": 2.0,
        "paid": False,
        "day": dt.date(2025, 12, 31),
        "seen": dt.datetime(2026, 1, 3),  # noqa: DTZ001
        "review": "bad",
    },
]


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    """Write a workbook; a cell that is a text beginning with `=` is a formula without a result."""
    with xlsxwriter.Workbook(str(path), {"default_date_format": "yyyy-mm-dd hh:mm:ss"}) as book:
        span = book.add_format({"num_format": "[h]:mm:ss"})
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for i, row in enumerate(rows):
                for j, cell in enumerate(row):
                    if isinstance(cell, dt.timedelta):
                        sheet.write_datetime(i, j, cell, span)
                    else:
                        sheet.write(i, j, cell)
    return path


def rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    """Read a workbook's rows."""
    found = source(path, **options)
    return pa.Table.from_batches(found.batches(), found.schema).to_pylist()


def kinds(path: Path, **options: Any) -> dict[str, str]:
    """Name the types of a workbook's columns."""
    return {field.name: str(field.type) for field in source(path, **options).schema}


@pytest.mark.parametrize("suffix", ["xlsx", "xls", "ods"])
@pytest.mark.parametrize("place", [{"range": "B3"}, {"range": "B:H", "header_row": 3}, {"range": "B3:H5"}])
def test_what_three_programs_wrote(suffix: str, place: dict[str, Any]) -> None:
    """Texts such as `00501`, dates, moments, booleans and numbers are what was stored, in each format."""
    found = source(DATA / f"workbook.{suffix}", sheet="Data", **place)
    assert [str(kind) for kind in found.schema.types] == [
        "int64",
        "string",
        "double",
        "bool",
        "date32[day]",
        "timestamp[us]",
        "string",
    ]
    assert pa.Table.from_batches(found.batches()).to_pylist() == ROWS


def test_columns_of_one_kind_are_typed(tmp_path: Path) -> None:
    """Durations, integers and numbers have their type; whatever stands beside a text is text, as it is written."""
    head = ["span", "whole", "number", "mixed", "flag", "empty", "dated"]
    first = [dt.timedelta(hours=30), 3, 3, 501, True, None, dt.date(2026, 1, 2)]
    second = [dt.timedelta(minutes=90), 2**53, 0.25, "00501", "maybe", None, "unknown"]
    path = workbook(tmp_path / "x.xlsx", one=[head, first, second])
    assert kinds(path) == {
        "span": "duration[us]",
        "whole": "int64",
        "number": "double",
        "mixed": "string",
        "flag": "string",
        "empty": "string",
        "dated": "string",
    }
    one, two = rows(path)
    assert (one["mixed"], one["flag"], one["empty"], one["dated"]) == ("501", "TRUE", None, "2026-01-02")
    assert (two["mixed"], two["flag"], two["span"]) == ("00501", "maybe", dt.timedelta(minutes=90))


def test_rows_and_columns_that_are_empty(tmp_path: Path) -> None:
    """Empty rows between others are rows of nulls, at the end they are none; a column without name and value is none."""
    path = workbook(tmp_path / "x.xlsx", one=[["a", None, "c", None], [1, None, None, 5], [], [2], ["", ""]])
    assert rows(path) == [
        {"a": 1, "c": None, "column_4": 5},
        {"a": None, "c": None, "column_4": None},
        {"a": 2, "c": None, "column_4": None},
    ]


def test_no_header(tmp_path: Path) -> None:
    """Without a header the columns are numbered, and the first row is one."""
    path = workbook(tmp_path / "x.xlsx", one=[["a", 1], ["b", 2]])
    assert rows(path, header_row=0) == [{"column_1": "a", "column_2": 1}, {"column_1": "b", "column_2": 2}]


def test_a_header_far_above_its_range(tmp_path: Path) -> None:
    """The names may stand in another row than right above the values, and may be numbers."""
    path = workbook(tmp_path / "x.xlsx", one=[["unit", 2026], ["kg", "t"], ["a", 1], ["b", 2], ["sum", 3]])
    assert rows(path, header_row=1, range="A3:B4") == [{"unit": "a", "2026": 1}, {"unit": "b", "2026": 2}]


def test_a_title_above_the_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One text above several columns is told of, with the row that may be their header."""
    path = workbook(tmp_path / "x.xlsx", one=[["Sales 2026"], [], ["id", "review"], [1, "good"]])
    source(path)
    assert "row 1 has one cell, and the table below it 2 columns" in caplog.text
    assert "set input.header_row: 3" in caplog.text
    caplog.clear()
    assert rows(path, header_row=3) == [{"id": 1, "review": "good"}]
    assert not caplog.text


def test_the_sheet(tmp_path: Path) -> None:
    """The first sheet that is not hidden is read, or the one that is named or numbered from 1."""
    path = tmp_path / "x.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        for name in ("hidden", "shown", "2026"):
            book.add_worksheet(name).write_column(0, 0, ["name", name])
        book.get_worksheet_by_name("hidden").hide()
        book.get_worksheet_by_name("shown").activate()
    assert rows(path) == [{"name": "shown"}]
    assert rows(path, sheet=1) == [{"name": "hidden"}]
    assert rows(path, sheet="2026") == [{"name": "2026"}]
    with pytest.raises(InputError, match="no sheet `Shown`") as caught:
        source(path, sheet="Shown")
    assert "shown" in caught.value.hint
    with pytest.raises(InputError, match="no sheet 4"):
        source(path, sheet=4)


def test_several_workbooks_are_one_table(tmp_path: Path) -> None:
    """A column has one type over all of them."""
    workbook(tmp_path / "1.xlsx", one=[["a", "b"], [1, "x"]])
    workbook(tmp_path / "2.xlsx", one=[["a", "b"], [1.5, 7]])
    assert kinds(tmp_path) == {"a": "double", "b": "string"}
    assert rows(tmp_path) == [{"a": 1.0, "b": "x"}, {"a": 1.5, "b": "7"}]


@pytest.mark.parametrize(
    ("sheet", "said"),
    [([], "is empty"), ([["a", "a"], [1, 2]], "two columns `a`")],
)
def test_a_sheet_that_is_no_table(tmp_path: Path, sheet: list[list[Any]], said: str) -> None:
    """An empty sheet and names that stand twice are refused, with the file."""
    with pytest.raises(InputError, match=said) as caught:
        source(workbook(tmp_path / "x.xlsx", one=sheet))
    assert "x.xlsx" in caught.value.message


def test_a_range_beyond_the_table(tmp_path: Path) -> None:
    """A range without a cell in it is refused, with what sets it."""
    with pytest.raises(InputError, match="no table there") as caught:
        source(workbook(tmp_path / "x.xlsx", one=[["a"], [1]]), range="C9:D12")
    assert "input.range" in caught.value.hint


def test_a_file_that_is_no_workbook(tmp_path: Path) -> None:
    """What cannot be read is told with the file."""
    (tmp_path / "x.xlsx").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"x\.xlsx cannot be read as a workbook"):
        source(tmp_path / "x.xlsx")


def test_keys_of_workbooks_elsewhere(tmp_path: Path) -> None:
    """A sheet of a CSV file is refused, not passed over; a range must be one."""
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"input\.sheet is for workbooks"):
        source(tmp_path / "x.csv", sheet=1)
    with pytest.raises(ValueError, match="'3:7' is no range of cells"):
        source(tmp_path / "x.xlsx", range="3:7")
    with pytest.raises(ValueError, match="'ZZZZ1' names the column ZZZZ; a sheet ends at XFD"):
        source(tmp_path / "x.xlsx", range="ZZZZ1")


def test_a_missing_library_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the message is the command that brings it."""
    path = workbook(tmp_path / "x.xlsx", one=[["a"], [1]])
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(ConfigError, match="python_calamine") as caught:
        source(path)
    assert caught.value.hint == "pip install 'beatra-enrich[excel]'"


def test_a_part_that_unpacks_to_far_more_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by the sizes that the file tells, before anything is unpacked; a sheet of the same size with values is read."""
    rows: list[list[Any]] = [["t"], *[["a"] for _ in range(3_000)]]
    path = workbook(tmp_path / "x.xlsx", s=rows)
    assert source(path).num_rows == 3_000
    monkeypatch.setattr("enrich.files.excel_source.MOST_PLAIN", 20_000)
    assert source(path).num_rows == 3_000
    monkeypatch.setattr("enrich.files.excel_source.MOST_TIMES", 5)
    with pytest.raises(
        InputError,
        match=r"x\.xlsx cannot be read as a workbook: xl/worksheets/sheet1\.xml takes .* unpacks to",
    ):
        source(path)
