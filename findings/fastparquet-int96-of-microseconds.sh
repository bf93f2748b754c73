#!/usr/bin/env bash
# pandas 3.1.1 -> fastparquet 2026.9.0: `times="int96"`, the layout for Spark and Impala, with a column of microseconds.
#
# Guess beforehand: the unit is converted, as an INT96 counts nanoseconds of a day; or it is refused.
# Seen: the count of microseconds is written as one of nanoseconds, without a word: 2026 becomes January 1970, for fastparquet
# itself, PyArrow and DuckDB alike. Nanoseconds, which pandas made of every date before its third release, are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pandas==3.1.1 fastparquet==2026.9.0 pyarrow==26.0.1 duckdb==2.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import duckdb
import fastparquet
import pandas
import pyarrow.parquet

day = pandas.Timestamp("2026-01-01")
for unit in ("us", "ns"):
    frame = pandas.DataFrame({"day": pandas.to_datetime(["2026-01-01"]).astype(f"datetime64[{unit}]")})
    name = f"{unit}.parquet"
    fastparquet.write(name, frame, times="int96")
    seen = {
        "fastparquet": fastparquet.ParquetFile(name).to_pandas()["day"][0],
        "PyArrow": pyarrow.parquet.read_table(name).to_pandas()["day"][0],
        "DuckDB": duckdb.sql(f"SELECT day FROM '{name}'").df()["day"][0],
    }
    print(unit, {reader: str(value) for reader, value in seen.items()})
    wanted = day if unit == "ns" else pandas.Timestamp(day.value // 1000)
    assert all(pandas.Timestamp(value) == wanted for value in seen.values()), wanted
PYTHON
