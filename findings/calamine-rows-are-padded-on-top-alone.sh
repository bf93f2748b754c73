#!/usr/bin/env bash
# python-calamine 0.9.1: a sheet whose table begins at C3, read at once and row by row.
#
# Guess beforehand: `iter_rows()` gives what `to_python()` gives, a row at a time; by default without the empty rows and columns
# around the table.
# Seen: it gives the empty rows above the table and not the empty columns beside it, so its rows are neither those of
# `to_python()` nor those of `to_python(skip_empty_area=False)`: counted from the top a row's number is the sheet's, counted
# from the left a column's is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-calamine==0.9.1 openpyxl==3.1.5
cd "$folder"
venv/bin/python - <<'PYTHON'
import openpyxl
import python_calamine

book = openpyxl.Workbook()
for cell, value in (("C3", "a"), ("D3", "b"), ("C4", 1), ("D4", 2)):
    book.active[cell] = value
book.save("book.xlsx")
sheet = python_calamine.CalamineWorkbook.from_path("book.xlsx").get_sheet_by_index(0)
whole = sheet.to_python(skip_empty_area=False)
table, rows = sheet.to_python(), list(sheet.iter_rows())
print(f"whole {whole}\ntable {table}\nrows  {rows}")
assert whole == [[""] * 4, [""] * 4, ["", "", "a", "b"], ["", "", 1.0, 2.0]]
assert table == [["a", "b"], [1.0, 2.0]]
assert rows == [["", ""], ["", ""], *table]
PYTHON
