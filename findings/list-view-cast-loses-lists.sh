#!/usr/bin/env bash
# PyArrow 26.0.1: a cast from list_view to list gives other lists, and no error.
#
# Guess beforehand: the two layouts hold the same lists, so the cast gives the same lists; what is not built raises
# ArrowNotImplementedError.
# Seen: the cast "works", but the list behind a null comes out empty, and only `validate()` on the result says that its
# offsets are none. Building the array anew from Python values with the wanted type gives the right lists.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import pyarrow

lists = [[1, 2], [3], None, [4, 5, 6]]
views = pyarrow.array(lists, pyarrow.list_view(pyarrow.int64()))
views.validate(full=True)
assert views.to_pylist() == lists
cast = views.cast(pyarrow.list_(pyarrow.int64()))
print("as views:", views.to_pylist())
print("cast:    ", cast.to_pylist())
assert cast.to_pylist() == [[1, 2], [3], None, []], cast.to_pylist()
assert pyarrow.array(lists, pyarrow.list_(pyarrow.int64())).to_pylist() == lists
try:
    cast.validate()
except pyarrow.ArrowInvalid as error:
    print("validate:", error)
else:
    raise AssertionError("the cast array is valid now")
PYTHON
