"""Content parts, as endpoints take them that see pictures; the contract has none, so they are taken only when asked for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PICTURE_TOKENS = 256  # made up: of one picture
CHARS_PER_TOKEN = 4  # characters that stand for a token of it
_DATA_URL = re.compile(r"data:(?P<kind>[a-z]+/[a-z0-9.+-]+);base64,(?P<data>.*)", re.DOTALL)
_PLACES = {"text": ("text",), "image_url": ("image_url", "url"), "file": ("file", "file_data")}


def part_problems(content: Sequence[Any], where: str) -> Iterator[tuple[str, str]]:
    """Say what is wrong with a message's parts, each with its place."""
    for index, part in enumerate(content):
        place = f"{where}/{index}"
        path = _PLACES.get(str(part.get("type"))) if isinstance(part, dict) else None
        if path is None:
            yield place, f"must be a part of type {', '.join(_PLACES)}"
            continue
        value = _at(part, path)
        if not isinstance(value, str):
            yield f"{place}/{'/'.join(path)}", "must be a string"
        elif path[0] != "text" and _picture(value) is None:
            yield f"{place}/{'/'.join(path)}", "must be a data URL in base64"


def flatten(body: dict[str, Any]) -> None:
    """Put a text in the place of each list of parts, with a line for every picture that tells its type, size and digest."""
    for message in body["messages"]:
        if isinstance(message["content"], list):
            message["content"] = "\n".join(map(_as_text, message["content"]))


def _as_text(part: dict[str, Any]) -> str:
    value: str = _at(part, _PLACES[part["type"]])
    found = None if part["type"] == "text" else _picture(value)
    if found is None:
        return value
    kind, raw = found
    told = f"[{kind}, {len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}]"
    return told.ljust(PICTURE_TOKENS * CHARS_PER_TOKEN)


def _picture(url: str) -> tuple[str, bytes] | None:
    """Read a data URL: the type it names, and its bytes; None where it is none."""
    match = _DATA_URL.fullmatch(url)
    if match is None:
        return None
    try:
        return match["kind"], base64.b64decode(match["data"], validate=True)
    except binascii.Error:
        return None


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
