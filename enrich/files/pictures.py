"""The pictures that rows name: found by path or URL, told by their bytes, and read again when they are sent.

What a picture is stands in its bytes, never in its name: a request is keyed by their digest, and bytes that are other
ones by the time they are sent are refused.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from contextlib import closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from enrich.base.location import is_url, native, plain
from enrich.base.system import BYTES, NO_WAIT
from enrich.errors import EnrichError
from enrich.files import storage
from enrich.records import Picture

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from urllib.request import OpenerDirector

CHUNK_BYTES = 1 << 20  # bytes read at once
FETCH_SECONDS = 20.0  # seconds in which a server must have sent a whole picture
FETCH_TRIES = 2  # of a server that is busy or cannot be reached
KEPT_BYTES = 64 << 20  # bytes of pictures from elsewhere that wait in memory for their request
SHOWN = 200  # characters of a path or URL that a message shows
_BEGINNINGS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"%PDF-"), "application/pdf"),
)
BEGINNING = 16  # bytes that tell what a picture is
KINDS = "PNG, JPEG, GIF, WebP or PDF"


class PictureError(Exception):
    """A picture cannot be had.

    Attributes:
        code: ``image_missing``, ``image_unreadable``, ``image_too_large``, ``image_kind`` or ``image_changed``.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


class Stream(Protocol):
    """Bytes that come one part after the other."""

    def read(self, size: int, /) -> bytes:
        """Give the next bytes; none at the end."""


def look(source: str | bytes, most: int) -> Picture:
    """Tell what a picture is; of a file nothing stays in memory.

    Args:
        source: its path, its URL (of a store, ``http``, ``https`` or ``data``), or its bytes.
        most: bytes that it may have.

    Raises:
        PictureError: it cannot be had, is too large, or is no picture.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        source = _from_data_url(source, most)
    digest, begin, size, parts = hashlib.sha256(), b"", 0, []
    kept = isinstance(source, str) and is_url(source)
    for part in _parts(source, most):
        digest.update(part)
        begin = begin or part[:BEGINNING]
        size += len(part)
        if kept:
            parts.append(part)
    kind = next((kind for begins, kind in _BEGINNINGS if begins.match(begin)), None)
    if kind is None:
        what = "is empty" if not size else f"is no {KINDS}"
        raise PictureError("image_kind", f"{shown(source)} {what}")
    picture = Picture(kind, digest.hexdigest(), size, source)
    if kept:
        _KEPT.put(picture.digest, b"".join(parts))
    return picture


def content(picture: Picture) -> bytes:
    """Read a picture that was looked at.

    Raises:
        PictureError: it cannot be had any more, or its bytes are other ones by now.
    """
    if isinstance(picture.source, bytes):
        return picture.source
    known = _KEPT.take(picture.digest)
    if known is not None:
        return known
    try:
        found = b"".join(_parts(picture.source, picture.size))
    except PictureError as error:
        if error.code != "image_too_large":
            raise
        found = b""
    if hashlib.sha256(found).hexdigest() != picture.digest:
        raise PictureError(
            "image_changed", f"{shown(picture.source)} is another picture than when its row was read"
        )
    return found


def shown(source: str | bytes) -> str:
    """Name a picture for people: of a URL without what may be secret in it."""
    if isinstance(source, bytes):
        return f"the picture of {len(source):,} bytes"
    if "://" in source:
        scheme, _, rest = source.partition("://")
        host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
        source = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    text = " ".join(source.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


# --- where the bytes come from ----------------------------------------------------------------------------


def _parts(source: str | bytes, most: int) -> Iterator[bytes]:
    """Give the bytes of a picture, some at a time; no more than it may have."""
    if isinstance(source, bytes):
        _hold(len(source), source, most)
        yield source
        return
    size = 0
    with closing(_opened(source)) as parts:
        for part in parts:
            size += len(part)
            _hold(size, source, most)
            yield part


def _hold(size: int, source: str | bytes, most: int) -> None:
    if size > most:
        raise PictureError("image_too_large", f"{shown(source)} has more than {most:,} bytes")


def _opened(source: str) -> Generator[bytes]:
    scheme = source.partition("://")[0].lower() if is_url(source) else ""
    if scheme in ("http", "https"):
        return _fetched(source)
    return _local(source) if scheme in ("", "file") else _stored(source)


def _local(source: str) -> Generator[bytes]:
    """Read a regular file; anything else could keep who opens it waiting."""
    try:
        descriptor = os.open(native(plain(source)), os.O_RDONLY | NO_WAIT | BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise PictureError("image_missing", f"there is no file {shown(source)}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PictureError("image_unreadable", f"{shown(source)} is no file")
    with os.fdopen(descriptor, "rb", buffering=0) as file, _reading(source):
        yield from _read(file)


def _stored(source: str) -> Generator[bytes]:
    """Read an object of a store such as S3."""
    try:
        with storage.open_stream(plain(source)) as stream:
            yield from _read(stream)
    except FileNotFoundError:
        raise PictureError("image_missing", f"there is no object {shown(source)}") from None
    except OSError as error:
        problem, _, _ = storage.explain(error, plain(source))
        raise PictureError("image_unreadable", f"{shown(source)}: {problem}") from None
    except (EnrichError, ValueError) as error:
        raise _unreadable(source, error) from None


def _fetched(source: str) -> Generator[bytes]:
    """Read what a server gives; one that is busy is asked once more."""
    from http.client import HTTPException
    from urllib.error import HTTPError

    for left in reversed(range(FETCH_TRIES)):
        try:
            response = _opener().open(source, timeout=FETCH_SECONDS)
        except HTTPError as error:
            with error:
                if error.code < 500 and error.code != 429:
                    raise PictureError(
                        "image_missing", f"{shown(source)}: the server answers {error.code}"
                    ) from None
                if not left:
                    raise PictureError(
                        "image_unreadable", f"{shown(source)}: the server answers {error.code}"
                    ) from None
        except (OSError, HTTPException, ValueError) as error:
            if not left or isinstance(error, ValueError):
                raise _unreadable(source, error) from None
        else:
            with response, _reading(source, (OSError, HTTPException)):
                yield from _read(response, until=time.monotonic() + FETCH_SECONDS)
            return


@cache
def _opener() -> OpenerDirector:
    """Make what fetches pictures: by `http` and `https` alone, redirects too; the environment's proxies are not used."""
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _read(stream: Stream, until: float | None = None) -> Iterator[bytes]:
    while part := stream.read(CHUNK_BYTES):
        yield bytes(part)
        if until is not None and time.monotonic() > until:
            raise TimeoutError(errno.ETIMEDOUT, "it takes too long")


@contextmanager
def _reading(source: str, kinds: type[Exception] | tuple[type[Exception], ...] = OSError) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise _unreadable(source, error) from None


def _unreadable(source: str, error: Exception) -> PictureError:
    found: Any = getattr(error, "reason", None) or error
    said = (getattr(found, "strerror", None) or str(found) or type(found).__name__).lower()
    return PictureError("image_unreadable", f"{shown(source)} cannot be read: {' '.join(said.split())[:200]}")


def _from_data_url(source: str, most: int) -> bytes:
    head, _, data = source.partition(",")
    if len(data) > 4 * most:
        raise PictureError("image_too_large", f"a data URL has more than {most:,} bytes")
    try:
        return base64.b64decode(data, validate=True) if head.endswith(";base64") else unquote_to_bytes(data)
    except (binascii.Error, ValueError):
        raise PictureError("image_unreadable", f"{head[:40]},… is no base64") from None


class _Kept:
    """Pictures from elsewhere that were looked at, until they are sent; the oldest make room."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def put(self, digest: str, found: bytes) -> None:
        with self._lock:
            if digest in self._found:
                return
            self._found[digest] = found
            self._size += len(found)
            while self._size > KEPT_BYTES:
                self._size -= len(self._found.popitem(last=False)[1])

    def take(self, digest: str) -> bytes | None:
        with self._lock:
            found = self._found.get(digest)
            if found is not None:
                self._found.move_to_end(digest)
            return found


_KEPT = _Kept()
