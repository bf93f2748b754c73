#!/usr/bin/env bash
# deltalake 1.6.6, pyarrow 26.0.1: columns of unsigned integers, a type that Delta's format does not have.
#
# Guess beforehand: as other writers do, the next wider signed type is taken (uint8 -> int16), so that every value fits; or the
# column is refused by its type.
# Seen: the signed type of the same width is taken, and the table is made or not by the values of the day: 127 in a uint8 is
# written as a byte, 128 ends with "Can't cast value 128 to type Int8". A table that was begun with small values cannot
# take the larger ones later on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check deltalake==1.6.6 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import pyarrow
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

for bits, delta in ((8, "byte"), (16, "short"), (32, "integer"), (64, "long")):
    kind = getattr(pyarrow, f"uint{bits}")()
    half = 2 ** (bits - 1)
    write_deltalake(f"small{bits}", pyarrow.table({"c": pyarrow.array([half - 1], kind)}))
    table = DeltaTable(f"small{bits}")
    assert table.schema().fields[0].type.type == delta, table.schema()
    assert table.to_pyarrow_dataset().to_table()["c"].to_pylist() == [half - 1]
    try:
        write_deltalake(f"large{bits}", pyarrow.table({"c": pyarrow.array([half], kind)}))
    except DeltaError as error:
        said = str(error)
    else:
        raise SystemExit(f"{half} was written as uint{bits}")
    print(f"{kind}: {half - 1} is a {delta}; {said[said.rindex('Can'):]}")
    assert f"Can't cast value {half} to type Int{bits}" in said
PYTHON
