"""How the problems of an answer, and of its schema, are worded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

MAX_PROBLEM = 200  # characters of one problem; the middle of a longer one is left out


def pointer(path: list[str | int]) -> str:
    """Write a place as a JSON Pointer."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def shorten(text: str) -> str:
    """Leave out the middle: the place stands at the start, the reason at the end."""
    if len(text) <= MAX_PROBLEM:
        return text
    half = MAX_PROBLEM // 2
    return f"{text[:half]} … {text[-half:]}"


def show(value: Any) -> str:
    """Write a value into a message, on one line and not at length."""
    return shorten(
        str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=True, default=str)
    )
