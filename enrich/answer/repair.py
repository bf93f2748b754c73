"""Mends what is nearly JSON, where that takes nothing away and makes nothing up."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_REPAIR_CHARS = 32_768  # characters; the repair library takes quadratic time
MAX_REPAIR_DEPTH = 64  # levels; deeper, it takes seconds

_QUOTED = re.compile(r"""\"(?:\\["'\\/nrt]|[^"\\])*\"|'(?:\\["'\\/nrt]|[^'\\])*'""")
_TOKEN = re.compile(
    r"""""|[\s{}\[\]:,]|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\b(?:[tT]rue|[fF]alse|null|None|[A-Za-z_]\w*(?=\s*:))\b"""
)
_LINE_ESCAPES = re.compile(r"\\[nrt]")
_TRAILING_COMMA = re.compile(r",(?=[}\]])")
_TRAILING_ZEROS = re.compile(r"\.(\d*?)0+(?!\d)")
_BARE_KEY = re.compile(r"([{,])([a-z_]\w*):")
_DRESS = str.maketrans("'", '"', " \t\r\n\\")


def mended(source: str) -> dict[str, Any] | None:
    """Have the library mend an object; None where it made something up, dropped or moved it: that is no answer."""
    from json_repair import repair_json

    if not _is_whole(source):
        return None
    try:
        value = repair_json(source, return_objects=True, skip_json_loads=True)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _undressed(text) == _undressed(source) else None


def _is_whole(source: str) -> bool:
    """Say whether a text may be an object to mend: nothing cut off, no word without quotes but a key or a literal."""
    if not 0 < len(source) <= MAX_REPAIR_CHARS:
        return False
    bare = _QUOTED.sub('""', source)
    if _TOKEN.sub("", bare):
        return False
    depth = deepest = 0
    for sign in bare:
        depth += (sign in "{[") - (sign in "}]")
        deepest = max(deepest, depth)
    return depth == 0 and deepest <= MAX_REPAIR_DEPTH


def _undressed(text: str) -> str:
    """Leave out of JSON, or nearly JSON, what a repair may change: blanks, the kind of quotes, trailing commas."""
    bare = _LINE_ESCAPES.sub("", text).translate(_DRESS).lower().replace("none", "null")
    bare = _TRAILING_ZEROS.sub(r".\1", _TRAILING_COMMA.sub("", bare))
    return _BARE_KEY.sub(r'\1"\2":', bare)
