#!/usr/bin/env bash
# pandas 3.1.1 with PyArrow 26.0.1: the result of `pd.cut` cannot be written to Parquet, nor be read again from Feather.
#
# Guess beforehand: intervals and categoricals both go through Parquet and Feather and come back, so a categorical of
# intervals does in both, or is refused by both before a file is there.
# Seen: a column of intervals comes back from both as it was. With the result of `pd.cut`, `to_parquet` raises
# ArrowNotImplementedError (a dictionary of structs wants a cast); `to_feather` ends well, and `read_feather` of that file raises a
# TypeError from within pandas' own extension type.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import pandas
import pyarrow

classes = pandas.DataFrame({"size": pandas.cut([1, 5, 9], 3)})
plain = classes.astype({"size": classes["size"].cat.categories.dtype})

plain.to_parquet("plain.parquet")
assert pandas.read_parquet("plain.parquet").equals(plain)
plain.to_feather("plain.feather")
assert pandas.read_feather("plain.feather").equals(plain)
classes.to_feather("classes.feather")
try:
    pandas.read_feather("classes.feather")
except TypeError as error:
    print(f"read_feather: {error}")
else:
    raise SystemExit("the result of pandas.cut can be read from Feather now")
try:
    classes.to_parquet("classes.parquet")
except pyarrow.ArrowNotImplementedError as error:
    print(f"to_parquet: {error}")
else:
    raise SystemExit("the result of pandas.cut can be written to Parquet now")
PYTHON
