#!/usr/bin/env bash
# Spark 4.3.0 -> CSV -> pandas 3.1.0, PyArrow 26.0.1, Python's csv, DuckDB 2.0.1: one file, two meanings of a backslash.
#
# Guess beforehand: Spark escapes with a backslash (its default), so a reader that is told so, `escapechar="\\"` and its
# like, gets every text back.
# Seen: Spark doubles a backslash only in values that it puts between quotes. A text that ends in one and needs no quotes,
# such as a Windows folder, is written bare, and a reader that knows the escape takes the delimiter behind it for text:
# pandas and Python's csv move the rest of the row into the field without a word, PyArrow refuses the row. Without the
# option the quoted values are wrong instead. Spark itself and DuckDB, which look at escapes between quotes only, read it.
# Needs a Java that Spark runs on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pyspark==4.3.0 pandas==3.1.0 pyarrow==26.0.1 duckdb==2.0.1
cd "$folder"
venv/bin/python - 2>spark.log <<'PYTHON' || { cat spark.log; exit 1; }
import csv
import pathlib

import duckdb
import pandas
import pyarrow
import pyarrow.csv
from pyspark.sql import SparkSession

texts = ["C:\\dir\\", 'say "hi"\\', "a,b\\"]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
rows = [(number, text, "end") for number, text in enumerate(texts)]
spark.createDataFrame(rows, "id int, t string, u string").coalesce(1).write.csv("out", header=True)
again = sorted((row.id, row.t) for row in spark.read.csv("out", header=True, inferSchema=True).collect())
spark.stop()
(path,) = map(str, pathlib.Path("out").glob("*.csv"))
print(pathlib.Path(path).read_text())


def arrow(escape: str) -> object:
    options = pyarrow.csv.ParseOptions(escape_char=escape)
    try:
        return pyarrow.csv.read_csv(path, parse_options=options)["t"].to_pylist()
    except pyarrow.ArrowInvalid:
        return "refused"


with open(path, newline="") as file:
    stdlib = [row[1] for row in csv.reader(file, escapechar="\\", doublequote=False)][1:]
seen = {
    "spark": [text for _, text in again],
    "duckdb": [t for (t,) in duckdb.sql(f"SELECT t FROM read_csv('{path}', escape = '\\', quote = '\"')").fetchall()],
    "pandas": pandas.read_csv(path, escapechar="\\")["t"].tolist(),
    "csv": stdlib,
    "pyarrow": arrow("\\"),
    "pandas, no escape": pandas.read_csv(path)["t"].tolist(),
}
for reader, got in seen.items():
    print(f"{reader:18} {'right' if got == texts else got}")
moved = ["C:dir,end", *texts[1:]]
assert seen["spark"] == seen["duckdb"] == texts, seen
assert seen["pandas"] == seen["csv"] == moved, seen
assert seen["pyarrow"] == "refused", seen
assert seen["pandas, no escape"][0] == texts[0] and seen["pandas, no escape"][2] != texts[2], seen
PYTHON
