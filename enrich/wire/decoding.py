"""Bodies that come compressed, though identity was asked for: unpacked up to a cap, so that a bomb stays harmless."""

from __future__ import annotations

import zlib
from typing import Protocol

from aiohttp.compression_utils import (
    HAS_BROTLI,
    HAS_ZSTD,
    BrotliDecompressor,
    ZSTDDecompressor,
)

MAX_CODINGS = 2  # one over the other; more is an attack
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}  # what a body of that coding begins with

GZIP = _MAGIC["gzip"]  # with which no JSON and no stream begins
GZIP_WBITS = 16 + zlib.MAX_WBITS  # tells zlib to read gzip's frame
_PACKAGES = {
    "br": "Brotli",
    "zstd": "backports.zstd",
}  # which aiohttp unpacks these with, where they are installed
_PLAIN = (
    b"{",
    b"[",
    b"data:",
    b"event:",
    b"<html",
    b"<!DOCTYPE",
)  # what one begins with that is not compressed


class _Unpacker(Protocol):
    def decompress_sync(self, data: bytes, max_length: int = ...) -> bytes:
        """Unpack the next bytes, up to so many."""


class _Inflater:
    """Unpacks gzip's members or zlib's data; what follows their end is passed over, as every reader of gzip does.

    Some servers fill a body up with zeros, or end it with a line: the answer is whole, and paid for.
    """

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._member = zlib.decompressobj(wbits)
        self._rest = b""

    def decompress_sync(self, data: bytes, max_length: int = 0) -> bytes:
        """Unpack the next bytes, up to so many."""
        rest, found = self._rest + data, b""
        while rest and len(found) < max_length:
            if self._member.eof:
                if self._wbits != GZIP_WBITS or not rest.startswith(GZIP[: len(rest)]):
                    rest = b""
                    break
                if len(rest) < len(GZIP):
                    break
                self._member = zlib.decompressobj(self._wbits)
            found += self._member.decompress(rest, max_length - len(found))
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        self._rest = rest
        return found


class UndecodableError(Exception):
    """The body is in a coding that is not known here, or it is broken."""


class Decoder:
    """Unpacks a body, chunk by chunk, in the order of its ``Content-Encoding``.

    A body that does not begin as its coding does is taken as it is: proxies unpack one and leave the header, and some
    servers name there what is no coding at all (``UTF-8``).

    Args:
        codings: the header's value.

    Raises:
        UndecodableError: there are too many.
    """

    def __init__(self, codings: str) -> None:
        names = [name.strip().lower().removeprefix("x-") for name in codings.split(",")]
        self._names = [name for name in names if name not in ("", "identity")]
        if len(self._names) > MAX_CODINGS:
            raise UndecodableError("more than two codings")
        self._unpackers: list[_Unpacker] | None = None

    def __bool__(self) -> bool:
        return bool(self._names)

    def feed(self, chunk: bytes, room: int) -> bytes:
        """Unpack the next bytes; gives at most a byte more than there is ``room`` for.

        Raises:
            UndecodableError: they are no such coding, or one that is not known here.
        """
        if self._unpackers is None:
            self._unpackers = self._begin(chunk)
        try:
            for unpacker in self._unpackers:
                chunk = unpacker.decompress_sync(chunk, max(room, 0) + 1) if chunk else b""
        except Exception as error:  # noqa: BLE001  # each library has errors of its own
            raise UndecodableError(f"broken: {error}") from None
        return chunk

    def _begin(self, chunk: bytes) -> list[_Unpacker]:
        outermost = self._names[-1]
        magic = _MAGIC.get(outermost, b"")
        if chunk.lstrip().startswith(_PLAIN) or not chunk.startswith(magic[: len(chunk)]):
            return []
        for name in self._names:
            if not _is_known(name):
                needs = _PACKAGES.get(name)
                raise UndecodableError(f"not known here{f' without the package {needs}' if needs else ''}")
        return [_unpacker(name, chunk) for name in reversed(self._names)]


def _is_known(name: str) -> bool:
    return name in ("gzip", "deflate") or (name == "br" and HAS_BROTLI) or (name == "zstd" and HAS_ZSTD)


def _unpacker(name: str, chunk: bytes) -> _Unpacker:
    if name == "br":
        return BrotliDecompressor()
    if name == "zstd":
        return ZSTDDecompressor()
    if name == "gzip":
        return _Inflater(GZIP_WBITS)
    bare = chunk[0] & 0x0F != 8  # no zlib header, as some servers send it (RFC 9110, 8.4.1.2)
    return _Inflater(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
