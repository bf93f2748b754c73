#!/usr/bin/env bash
# uvloop 0.23.0: `call_later` of less than half a millisecond gives a handle that does not know when it is due.
#
# Guess beforehand: `loop.call_later` gives an asyncio.TimerHandle, whatever the delay and the loop; its `when()` says when
# it is due, so that a timer can be kept where it is due sooner than a new one would be.
# Seen: asyncio's own loop does so for every delay. uvloop gives a plain Handle, without `when`, for delays that round to no
# whole millisecond, and a TimerHandle from there on: code that asks works for weeks and fails with the first short wait.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import asyncio

import uvloop

DELAYS = (0.0, 0.0001, 0.0004, 0.001, 0.01)


async def handles():
    loop = asyncio.get_running_loop()
    kinds = {delay: hasattr(loop.call_later(delay, lambda: None), "when") for delay in DELAYS}
    print(f"{type(loop).__module__:20}", {delay: "when" if knows else "-" for delay, knows in kinds.items()})
    return kinds


assert all(asyncio.run(handles()).values())
assert uvloop.run(handles()) == {0.0: False, 0.0001: False, 0.0004: False, 0.001: True, 0.01: True}
PYTHON
