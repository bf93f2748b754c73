#!/usr/bin/env bash
# DuckDB 2.0.1 -> Parquet -> PyArrow 26.0.1 and Polars 2.1.0: the time 24:00:00 has three readings.
#
# Guess beforehand: the readers refuse a time that they cannot hold, or show it as DuckDB does.
# Seen: SQL's last moment of a day is a value of its own in DuckDB (it is not 00:00:00), and its Parquet file is read by
# all three without a word. PyArrow gives 00:00, the first moment of the day instead of the last; Polars gives null; only
# DuckDB gives 24:00:00 back, as a text where the other rows are `datetime.time`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import datetime

import duckdb
import polars
import pyarrow.parquet

duckdb.sql("COPY (SELECT * FROM (VALUES (TIME '24:00:00'), (TIME '23:59:59')) AS v(t)) TO 't.parquet' (FORMAT parquet)")
seen = {
    "duckdb": [t for (t,) in duckdb.sql("SELECT t FROM 't.parquet'").fetchall()],
    "pyarrow": pyarrow.parquet.read_table("t.parquet")["t"].to_pylist(),
    "polars": polars.read_parquet("t.parquet")["t"].to_list(),
}
equal = duckdb.sql("SELECT count(*) FROM 't.parquet' WHERE t = TIME '00:00:00'").fetchall()
last = datetime.time(23, 59, 59)
for reader, times in seen.items():
    print(f"{reader:8} {times}")
print("rows that equal 00:00:00 in DuckDB:", equal[0][0])
assert seen == {
    "duckdb": ["24:00:00", last],
    "pyarrow": [datetime.time(0, 0), last],
    "polars": [None, last],
}, seen
assert equal == [(0,)], equal
PYTHON
