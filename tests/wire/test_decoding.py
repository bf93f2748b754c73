"""Bodies that come compressed, though identity was asked for."""

from __future__ import annotations

import gzip
import importlib
import zlib
from typing import TYPE_CHECKING

import pytest
from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD

from enrich.records import Fate
from tests.helpers.byte_server import (
    ANSWER,
    DONE,
    STOP,
    WORD,
    failure_of,
    reply_to,
    response,
    sending,
)

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_declared_bomb() -> None:
    """A body that says it is too large is not read at all."""
    failure = await failure_of(sending(response(b"x", length=10**12), then="hold"))
    assert failure.code == "body_too_large"


async def test_compressed_bomb() -> None:
    """A body that unpacks to more than an answer can have is not unpacked further."""
    bomb = gzip.compress(b"0" * 50_000_000)
    failure = await failure_of(sending(response(bomb, 200, "Content-Encoding: gzip")))
    assert (failure.code, failure.fate, failure.evidence) == ("compressed_answer", Fate.UNKNOWN, b"")
    twice = gzip.compress(gzip.compress(b"0" * 50_000_000))
    failure = await failure_of(sending(response(twice, 200, "Content-Encoding: gzip, gzip")))
    assert failure.code == "compressed_answer"
    refused = await failure_of(sending(response(bomb, 500, "Content-Encoding: gzip")))
    assert refused.code == "http_500"


def bare_deflate(data: bytes) -> bytes:
    """Compress without zlib's own head, as some servers understand `deflate`."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("GZIP, identity", gzip.compress),
        ("gzip", bytes),
        ("UTF-8", bytes),
    ],
    ids=["gzip", "x-gzip", "deflate", "bare", "twice", "case", "header-only", "no-coding"],
)
async def test_compressed_though_identity_was_asked(coding: str, pack: Callable[[bytes], bytes]) -> None:
    """A gateway that compresses whatever is asked is understood: answers, streams and errors."""
    told = f"Content-Encoding: {coding}"
    assert (await reply_to(sending(response(pack(ANSWER), 200, told)))).body == ANSWER
    error = pack(b'{"error": {"code": "context_length_exceeded", "message": "too long"}}')
    assert (await failure_of(sending(response(error, 400, told)))).code == "context_length_exceeded"
    whole = f"{WORD}\n\n{STOP}\n\n{DONE}\n\n".encode()
    packed = pack(whole)
    reply = await reply_to(
        sending(response(packed[:9], 200, told, length=len(packed)), packed[9:]), stream=True
    )
    assert (reply.streamed, reply.body) == (True, whole)


@pytest.mark.parametrize("tail", [b"\0" * 512, b"\r\n", b"\x1f", b"junk"])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bare_deflate], ids=["gzip", "zlib", "bare"])
async def test_what_follows_a_compressed_body(pack: Callable[[bytes], bytes], tail: bytes) -> None:
    """Zeros that fill it up, or a line's end, are passed over: the answer is whole, and it was paid for."""
    told = f"Content-Encoding: {'gzip' if pack is gzip.compress else 'deflate'}"
    packed = pack(ANSWER)
    length = len(packed) + len(tail)
    assert (await reply_to(sending(response(packed + tail, 200, told)))).body == ANSWER
    assert (await reply_to(sending(response(packed, 200, told, length=length), tail))).body == ANSWER


@pytest.mark.parametrize("cut", [1, 30, 33])
async def test_gzip_in_several_members(cut: int) -> None:
    """A body of several members is one text, wherever its bytes are cut."""
    first, second = gzip.compress(ANSWER[:40], 9), gzip.compress(ANSWER[40:])
    packed = first + second
    head = response(packed[: len(first) + cut - 30], 200, "Content-Encoding: gzip", length=len(packed))
    reply = await reply_to(sending(head, packed[len(first) + cut - 30 :]))
    assert reply.body == ANSWER


@pytest.mark.parametrize("stream", [True, False])
async def test_compressed_without_a_word(stream: bool) -> None:
    """What begins as gzip is unpacked, though no header says it: a proxy may have lost that."""
    whole = f"{WORD}\n\n{STOP}\n\n{DONE}\n\n".encode() if stream else ANSWER
    assert (await reply_to(sending(response(gzip.compress(whole))), stream=stream)).body == whole
    error = gzip.compress(b'{"error": {"code": "context_length_exceeded", "message": "too long"}}')
    assert (await failure_of(sending(response(error, 400)))).code == "context_length_exceeded"
    bomb = gzip.compress(b"0" * 50_000_000)
    assert (await failure_of(sending(response(bomb)))).code == "compressed_answer"


@pytest.mark.parametrize(
    ("coding", "library", "package"),
    [("br", "brotli", "Brotli"), ("zstd", "backports.zstd", "backports.zstd")],
)
async def test_codings_that_need_a_package(coding: str, library: str, package: str) -> None:
    """Brotli and Zstandard are unpacked up to the bound where their package is installed; else it is named."""
    told = f"Content-Encoding: {coding}"
    if not (HAS_BROTLI if coding == "br" else HAS_ZSTD):
        packed = b"\x28\xb5\x2f\xfd?"
        failure = await failure_of(sending(response(packed, 200, told)))
        assert (failure.code, failure.fate) == ("compressed_answer", Fate.UNKNOWN)
        assert f"without the package {package}" in failure.message
        return
    pack = importlib.import_module(library).compress
    assert (await reply_to(sending(response(pack(ANSWER), 200, told)))).body == ANSWER
    failure = await failure_of(sending(response(pack(b"0" * 50_000_000), 200, told)))
    assert (failure.code, failure.evidence) == ("compressed_answer", b"")
    failure = await failure_of(sending(response(pack(ANSWER)[:6] + b"nonsense", 200, told)))
    assert (failure.code, failure.fate) == ("compressed_answer", Fate.UNKNOWN)


@pytest.mark.parametrize(
    ("coding", "body"), [("wavelet", b"?"), ("gzip", b"\x1f\x8bnonsense"), ("gzip, gzip, gzip", b"?")]
)
async def test_coding_that_cannot_be_read(coding: str, body: bytes) -> None:
    """An answer in a coding that is not known, or broken, came but is no use."""
    failure = await failure_of(sending(response(body, 200, f"Content-Encoding: {coding}")))
    assert (failure.code, failure.fate) == ("compressed_answer", Fate.UNKNOWN)
    assert (await failure_of(sending(response(body, 503, f"Content-Encoding: {coding}")))).code == "http_503"
