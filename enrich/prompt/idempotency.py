"""The idempotency key: a function of a request's body alone, so that who asks again is known, and nobody pays twice."""

from __future__ import annotations

import hashlib
import uuid

NAMESPACE = uuid.UUID("7e0b0c5e-6d0c-5d5c-9d5b-1f6a3c2b8e44")  # of every key this program makes
_NAMESPACE = NAMESPACE.bytes
_VERSION_5 = [bytes([byte & 0x0F | 0x50]) for byte in range(256)]
_VARIANT = [bytes([byte & 0x3F | 0x80]) for byte in range(256)]
GENERATION_STRIDE = 1 << 32  # between the ordinals of `--fresh` generations; above any count of duplicates
VOTE_STRIDE = 1 << 44  # between ordinals of the answers that are voted on; above 4,000 generations
ROUND_STRIDE = 1 << 48  # between ordinals of the rounds that `retry` adds; far above any count of duplicates


def idempotency_key(base_url: str, body: bytes, ordinal: int = 0) -> bytes:
    """Derive a request's key: uuid5 over base URL, body and ordinal, as 16 bytes.

    The same request has the same key in every run, process and machine, so the server can recognise a repeat.

    Args:
        base_url: where the request goes.
        body: the exact bytes.
        ordinal: 0, unless the user asked for a separate answer to the same body.
    """
    name = b"%b%b\0%b\0%d" % (_NAMESPACE, base_url.encode(), body, ordinal)
    digest = hashlib.sha1(name, usedforsecurity=False).digest()
    version, variant = _VERSION_5[digest[6]], _VARIANT[digest[8]]  # the fields of RFC 9562, 5.5
    return b"%b%b%c%b%b" % (digest[:6], version, digest[7], variant, digest[9:16])
