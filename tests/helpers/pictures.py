"""Pictures for tests, made of nothing, and what an endpoint received of them."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from typing import Any


def png(number: int, size: int = 0) -> bytes:
    """Make a PNG of one pixel of its own colour, with so many bytes of noise in a chunk beside it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0" + number.to_bytes(3, "big")))
    noise = hashlib.shake_128(str(number).encode()).digest(size)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"teXt", noise) + pixel + chunk(b"IEND", b"")


JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01" + b"\0" * 20 + b"\xff\xd9"
GIF = b"GIF89a\x01\0\x01\0\0\0\0;"
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0" + b"\0" * 14
PDF = b"%PDF-1.4\n%%EOF\n"


def received(body: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Give the pictures of a request as an endpoint reads them: type and bytes."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "text":
                continue
            url = part["image_url"]["url"] if part["type"] == "image_url" else part["file"]["file_data"]
            head, _, data = url.partition(";base64,")
            found.append((head.removeprefix("data:"), base64.b64decode(data, validate=True)))
    return found


def seen_in(body: dict[str, Any]) -> str:
    """Answer a request with the digests of its pictures."""
    return " ".join(hashlib.sha256(raw).hexdigest()[:16] for _, raw in received(body)) or "none"


def digest(*raw: bytes) -> str:
    """Give the answer to a request with these pictures."""
    return " ".join(hashlib.sha256(one).hexdigest()[:16] for one in raw)
