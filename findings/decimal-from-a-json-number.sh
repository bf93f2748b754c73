#!/usr/bin/env bash
# pydantic 2.14.4: a Decimal read from a JSON number has gone through a double, an integer of the same digits has not.
#
# Guess beforehand: `Decimal` is there to keep digits, and the JSON parser sees them as text, so they are kept.
# Seen: `9007199254740993` keeps its digits and `"9007199254740993.0"` in quotes too, but the number `9007199254740993.0`
# becomes ...992 and `1234567890.123456789` loses its last two digits. No mode (strict or not) says so. What must be exact has
# to be asked for as a text, or parsed with `json.loads(..., parse_float=Decimal)` before it is validated.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.4
"$folder/venv/bin/python" - <<'PYTHON'
import json
from decimal import Decimal

from pydantic import BaseModel


class Price(BaseModel):
    amount: Decimal


wanted = {
    "9007199254740993": "9007199254740993",
    '"9007199254740993.0"': "9007199254740993.0",
    "9007199254740993.0": "9007199254740992",
    "1234567890.123456789": "1234567890.1234567",
}
for written, seen in wanted.items():
    text = f'{{"amount": {written}}}'
    got = [str(Price.model_validate_json(text, strict=strict).amount) for strict in (False, True)]
    print(f"{written:22} -> {got}")
    assert got == [seen, seen], got
exact = Price.model_validate(json.loads('{"amount": 9007199254740993.0}', parse_float=Decimal))
assert str(exact.amount) == "9007199254740993.0", exact
PYTHON
