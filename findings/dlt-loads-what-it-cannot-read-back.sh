#!/usr/bin/env bash
# dlt 1.31.0 with sqlglot 30.30.0 and DuckDB 2.0.1, all of which its `duckdb` extra lets in: it loads a table and cannot read it.
#
# Guess beforehand: what a pipeline has loaded, `pipeline.dataset()` gives back, as its page on reading data says; where a newer
# version of something below it no longer fits, the requirement keeps that out.
# Seen: the load is fine, and the rows are in DuckDB. Reading raises a TypeError, since a keyword of sqlglot's `qualify` is gone
# (the requirement is sqlglot>=26.32.0, with no end). With sqlglot 30.0.0 `fetchall` works, and `arrow` raises an
# AttributeError: the method of DuckDB's connection that it calls is gone in version 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
"$pip" install --quiet --disable-pip-version-check 'dlt[duckdb]==1.31.0' duckdb==2.0.1 pyarrow==26.0.1 sqlglot==30.30.0
cd "$folder"
cat >load.py <<'PYTHON'
import dlt
import duckdb
import pyarrow

pipeline = dlt.pipeline("p", destination=dlt.destinations.duckdb("w.duckdb"), pipelines_dir="state", dataset_name="d")
pipeline.run(pyarrow.table({"id": [1, 2]}), table_name="rows").raise_on_failed_jobs()
with duckdb.connect("w.duckdb") as connection:
    assert connection.sql("select id from d.rows order by id").fetchall() == [(1,), (2,)]


def seen(read):
    try:
        return read()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


relation = pipeline.dataset()["rows"]
print("fetchall:", seen(relation.fetchall))
print("arrow:", seen(lambda: relation.arrow().to_pydict()))
PYTHON
export RUNTIME__DLTHUB_TELEMETRY=false
newest=$(venv/bin/python load.py 2>/dev/null)
"$pip" install --quiet --disable-pip-version-check sqlglot==30.0.0
rm -rf w.duckdb state
older=$(venv/bin/python load.py 2>/dev/null)
printf 'sqlglot 30.30.0\n%s\nsqlglot 30.0.0\n%s\n' "$newest" "$older"
grep -q "fetchall: TypeError: qualify() got an unexpected keyword argument 'infer_schema'" <<<"$newest"
grep -q "arrow: TypeError: qualify() got an unexpected keyword argument 'infer_schema'" <<<"$newest"
grep -Eq 'fetchall: \[\(1,\), \(2,\)\]' <<<"$older"
grep -q "arrow: AttributeError: .*fetch_arrow_table" <<<"$older"
