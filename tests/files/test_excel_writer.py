"""Record batches become workbooks, and come back as they went in."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import python_calamine
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import InputConfig, OutputConfig
from enrich.errors import ConfigError, OutputError
from enrich.files.rehearsal import rehearse
from enrich.files.sink import open_sink, preflight, read_manifest
from enrich.files.source import open_source
from enrich.files.writers import open_writer
from tests.helpers.outputs import MANIFEST, batch, output, texts, write

if TYPE_CHECKING:
    from pathlib import Path

CATEGORY = pa.dictionary(pa.int32(), pa.string())
MOMENTS = st.datetimes(dt.datetime(1900, 3, 1), dt.datetime(9999, 12, 31))  # noqa: DTZ001  # as sheets have them
# Texts that XML can hold: of others Excel's own escapes are read back; no text is empty there.
LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"), min_size=1)
COLUMNS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), LETTERS),
    (pa.bool_(), st.booleans()),
    (pa.int64(), st.integers(-(10**15) + 1, 10**15 - 1)),
    (pa.float64(), st.integers(-(10**12), 10**12).map(lambda n: n / 100).filter(lambda x: bool(x % 1))),
    (pa.date32(), MOMENTS.map(dt.datetime.date)),
    (pa.timestamp("us"), MOMENTS.map(lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000))),
]


def read(path: Path) -> pa.Table:
    """Read a workbook back."""
    found = open_source(InputConfig(path=str(path)))
    return pa.Table.from_batches(found.batches(), found.schema)


def cells(path: Path) -> list[list[Any]]:
    """Give the cells of a workbook's sheet, as a reader of workbooks has them."""
    return python_calamine.load_workbook(str(path)).get_sheet_by_index(0).to_python()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), column=st.sampled_from(COLUMNS))
def test_typed_cells_come_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, column: tuple[pa.DataType, Any]
) -> None:
    """Texts, booleans, numbers of 15 digits, dates and moments to the millisecond are what they were."""
    kind, values = column
    some = data.draw(st.lists(st.none() | values, min_size=1, max_size=5).filter(lambda v: v[-1] is not None))
    path = tmp_path_factory.mktemp("excel") / "x.xlsx"
    write(output(path), batch(pa.array(some, kind), pa.array(["end"] * len(some)), names=["v", "e"]))
    found = read(path).column("v").to_pylist()
    if pa.types.is_timestamp(kind):  # midnights alone are days
        found = [dt.datetime.combine(v, dt.time()) if type(v) is dt.date else v for v in found]
    assert found == some


def test_what_has_no_cell_of_its_own_is_text(tmp_path: Path) -> None:
    """Nothing is rounded, moved to another zone or cut: it is text then."""
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    columns: list[tuple[pa.Array[Any], Any]] = [
        (pa.array([2**60]), str(2**60)),
        (pa.array([Decimal("12345678901234567.89")]), "12345678901234567.89"),
        (pa.array([Decimal("1.50")]), 1.5),
        (pa.array([float("nan")]), "nan"),
        (pa.array([float("-inf")]), "-inf"),
        (pa.array([dt.date(1899, 12, 31)]), "1899-12-31"),
        (pa.array([moment], pa.timestamp("us", "UTC")), "2026-01-02 03:04:05.000000Z"),
        (pa.array([dt.timedelta(hours=30)]), dt.timedelta(hours=30)),
        (pa.array([dt.time(1, 2, 3)]), dt.time(1, 2, 3)),
        (pa.array([{"a": [1]}]), '{"a":[1]}'),
        (pa.array([b"\0"]), "AA=="),
        (pa.array(["x"], CATEGORY), "x"),
        (pa.array(["=1+1"]), "=1+1"),
        (pa.array(["https://example.com"]), "https://example.com"),
    ]
    write(output(tmp_path / "x.xlsx"), batch(*(column for column, _ in columns)))
    _, row = cells(tmp_path / "x.xlsx")
    for cell, (column, expected) in zip(row, columns, strict=True):
        assert cell == expected, column.type


def test_header_and_statuses_are_made_to_be_read(tmp_path: Path) -> None:
    """The header is bold and stays in sight; statuses are coloured, a column of the input of the same name is not."""
    statuses = pa.array(["ok", "error", "in_doubt"], CATEGORY)
    one = batch(statuses, statuses, names=["own_status", "s_status"])
    with open_sink(output(tmp_path / "x.xlsx"), one.schema, given=["own_status"]) as sink:
        sink.write(one)
        sink.commit(MANIFEST)
    sheet = openpyxl.load_workbook(tmp_path / "x.xlsx").active
    assert sheet.freeze_panes == "A2"
    assert sheet["A1"].font.bold
    colours = [sheet[f"B{row}"].fill.start_color.rgb for row in (2, 3, 4)]
    assert len(set(colours)) == 3
    assert {sheet[f"A{row}"].fill.fill_type for row in (2, 3, 4)} == {None}


def test_no_rows_and_the_manifest(tmp_path: Path) -> None:
    """An output without rows has its header; the manifest lies beside the file."""
    path = tmp_path / "x.xlsx"
    write(output(path), texts().slice(0, 0))
    assert cells(path) == [["text"]]
    assert read_manifest(path) == MANIFEST


def test_a_text_too_long_for_a_cell_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    """Texts are never cut: who has longer ones is told the column and what to do."""
    pq.write_table(pa.table({"id": [1], "t": ["x" * 32_768]}), tmp_path / "in.parquet")
    source = open_source(InputConfig(path=str(tmp_path / "in.parquet")))
    with pytest.raises(OutputError, match="`t` holds a text of 32,768 characters") as caught:
        rehearse(source, source.schema, OutputConfig(path="out.xlsx"))
    assert ".parquet" in caught.value.hint


def test_too_many_rows_or_columns(tmp_path: Path) -> None:
    """What a sheet has no room for is told before anything is sent."""
    pq.write_table(pa.table({"id": range(1_048_576)}), tmp_path / "in.parquet")
    source = open_source(InputConfig(path=str(tmp_path / "in.parquet")))
    with pytest.raises(OutputError, match="1,048,576 rows"):
        rehearse(source, source.schema, OutputConfig(path="out.xlsx"))
    wide = pa.schema([(f"c{number}", pa.int8()) for number in range(16_385)])
    with pytest.raises(OutputError, match="16,385 columns"):
        open_writer(pa.BufferOutputStream(), wide, OutputConfig(path="out.xlsx"))


def test_a_missing_library_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the message is the command that brings it, before anything is sent."""
    monkeypatch.setitem(__import__("sys").modules, "xlsxwriter", None)
    with pytest.raises(ConfigError, match="xlsxwriter") as caught:
        preflight(output(tmp_path / "x.xlsx"), texts().schema)
    assert caught.value.hint == "pip install 'beatra-enrich[excel]'"


def test_other_suffixes_are_refused() -> None:
    """The formats of old workbooks are read, not written."""
    with pytest.raises(OutputError, match="no suffix that tells"):
        open_writer(pa.BufferOutputStream(), texts().schema, OutputConfig(path="out.xls"))
