#!/usr/bin/env bash
# Polars 2.1.0 -> Arrow file -> PyArrow 26.0.1: the table can be grouped and counted, but none of its rows taken.
#
# Guess beforehand: string_view has been in the format for years; what a table can always do (`filter`, `take`, `sort_by`,
# compare with a text) works, perhaps slowly.
# Seen: Polars writes its texts as string_view, PyArrow opens the file, hashes it (`group_by`, `unique`) and hands it to
# pandas, but `filter`, `take` and `sort_by` of the table and `equal` of the column raise. Polars' own `to_arrow()` gives
# large_string, with which all of it works; so does a cast to that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import polars
import pyarrow
import pyarrow.compute
import pyarrow.ipc

polars.DataFrame({"a": ["x", "y" * 30]}).write_ipc("a.arrow")
table = pyarrow.ipc.open_file("a.arrow").read_all()
assert table.schema.field("a").type == pyarrow.string_view(), table.schema
whole = table.cast(pyarrow.schema([("a", pyarrow.large_string())]))
ways = {
    "group_by": lambda t: t.group_by("a").aggregate([]),
    "unique": lambda t: t["a"].unique(),
    "filter": lambda t: t.filter(pyarrow.array([True, False])),
    "take": lambda t: t.take([0]),
    "sort_by": lambda t: t.sort_by("a"),
    "equal": lambda t: pyarrow.compute.equal(t["a"], "x"),
}
refused = []
for name, way in ways.items():
    way(whole)
    try:
        way(table)
        print(f"{name:9} works")
    except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError) as error:
        refused.append(name)
        print(f"{name:9} {type(error).__name__}: {error}")
assert refused == ["filter", "take", "sort_by", "equal"], refused
PYTHON
