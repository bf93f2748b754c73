#!/usr/bin/env bash
# DuckDB 2.0.1 -> pandas 3.1.1, Polars 2.1.0, PyArrow 26.0.1: the same INTERVAL is three things.
#
# Guess beforehand: months have no fixed length, so what has no type for them refuses them, or gives their text.
# Seen: `df()` and `fetchall()` make 30 days of each month without a word, so INTERVAL 1 YEAR is 360 days, and a date plus
# the column is another date in pandas than in SQL; `pl()` raises; only the Arrow table keeps months, days and nanoseconds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    duckdb==2.0.1 pandas==3.1.1 polars==2.1.0 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import datetime

import duckdb
import pandas
import polars

found = duckdb.sql("SELECT DATE '2026-01-31' AS day, INTERVAL 1 YEAR AS wait, DATE '2026-01-31' + INTERVAL 1 YEAR AS due")
frame = found.df()
print(frame)
assert frame["wait"][0] == pandas.Timedelta(days=360)
assert frame["due"][0] == pandas.Timestamp("2027-01-31")
assert frame["day"][0] + frame["wait"][0] == pandas.Timestamp("2027-01-26")
assert found.fetchall()[0][1] == datetime.timedelta(days=360)
(kept,) = found.to_arrow_table()["wait"].to_pylist()
print("Arrow:", kept)
assert (kept.months, kept.days, kept.nanoseconds) == (12, 0, 0)
try:
    found.pl()
except polars.exceptions.ComputeError as error:
    print("Polars:", error)
else:
    raise SystemExit("Polars takes DuckDB's intervals now")
PYTHON
