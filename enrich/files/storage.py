"""Objects in a store such as S3, as if they were files: found, identified, read, and put in place whole or not at all.

They go through Arrow's own file systems, which find credentials where the store's other tools do. A new object is
written from a local file that is complete, because a stream that Arrow opened on a store cannot be abandoned: whatever
ends it publishes what it holds so far. A store shows an object only when its last part has arrived, so a process that
dies while it uploads leaves the object that was there, or none. The parts it sent are invisible; a lifecycle rule of
the bucket (`AbortIncompleteMultipartUpload`) removes them. Azure is written to through its own library: there Arrow
begins with an empty object in the place of the old one, which everybody sees grow.
"""

from __future__ import annotations

import errno
import fnmatch
import glob as local_glob
import mimetypes
import mmap
import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pyarrow as pa
from pyarrow import fs

from enrich.base.location import AZURE, CREDENTIALS, ObjectUrl, is_url, native
from enrich.errors import ConfigError, did_you_mean
from enrich.files import azure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

READ_BYTES = 8 << 20  # bytes of one request for what is read from its start to its end
PUT_BYTES = 64 << 20  # bytes of an upload that may be under way: Arrow sends them in six parts at once
S3_SWITCHES = ("anonymous", "force_virtual_addressing", "allow_bucket_creation")  # `true` or `false`
S3_OPTIONS = ("region", "endpoint_override", "scheme", "tls_ca_file_path", *S3_SWITCHES)
CONNECT_SECONDS = 10.0  # until S3 takes a connection
SILENT_SECONDS = 30.0  # without a byte from S3, after which a request is tried again
S3_ATTEMPTS = 5  # of a request to S3, with growing pauses between them
CHARACTERS_SHOWN = 300  # characters of what a store says
IDENTITIES_AT_ONCE = 16  # requests for the identity of objects under way
MISSING = re.compile(
    r"container does not exist|NO_SUCH_BUCKET|NoSuchBucket|Bucket '.*' not found|ContainerNotFound|bucket does not exist"
)
DENIED = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|ExpiredToken|"
    r"INVALID_CLIENT_TOKEN|InvalidToken|Authenticat|Authoriz|PERMISSION_DENIED|[Cc]redential|\b40[13]\b|Forbidden"
)
UNREACHED = re.compile(
    r"NETWORK_CONNECTION|curlCode|Could not (?:connect|resolve)|Fail to get a new connection"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file or an object as it stands.

    Attributes:
        location: its path or URL, ready to be opened.
        size: in bytes.
        mtime_ns: when it was last modified, in nanoseconds since the epoch; stores tell whole seconds.
        version: what tells two contents apart, as the store has it (S3's ETag); of a file its inode and when anything
            about it was last changed, which no program can set.
    """

    location: str
    size: int
    mtime_ns: int
    version: str = ""


# --- looking and reading: what fails raises OSError, which `explain` puts into words ---------------------


def stat(location: str) -> Stored | None:
    """Identify a file or an object; None when there is none, or a folder."""
    if is_url(location):
        url = ObjectUrl.parse(location)
        found = _store(url).get_file_info(url.path)
        return _identified(url, [found])[0] if found.type == fs.FileType.File else None
    path = Path(location)
    if not path.is_file():
        return None
    info = path.stat()
    return Stored(location, info.st_size, info.st_mtime_ns, f"{info.st_ino}-{info.st_ctime_ns}")


def walk(location: str) -> list[Stored]:
    """Give every object below a folder, sorted; names that begin with ``.`` or ``_`` are left out."""
    url = ObjectUrl.parse(location)
    return _identified(url, _below(_store(url), url.path))


def names(folder: str) -> list[str]:
    """Give what lies below a folder, as sorted paths below it with ``/``; hidden names are left out."""
    if is_url(folder):
        url = ObjectUrl.parse(folder)
        cut = len(url.path) + 1
        return sorted(info.path[cut:] for info in _below(_store(url), url.path))
    found = []
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(above, name).relative_to(folder).as_posix() for name in files if not is_hidden(name)]
    return sorted(found)


def has_file(folder: str, pattern: str) -> bool:
    """Say whether a folder holds a file whose name matches, hidden ones included; False where there is no such folder."""
    if is_url(folder):
        url = ObjectUrl.parse(folder)
        found = _listed(_store(url), url.path, recursive=False)
        return any(fnmatch.fnmatchcase(info.base_name, pattern) for info in found)
    return os.path.isdir(folder) and any(fnmatch.fnmatchcase(name, pattern) for name in os.listdir(folder))  # noqa: PTH112, PTH208  # unlike a Path's, False where a folder may not be seen


def glob(pattern: str) -> list[Stored]:
    """Give the objects that a URL with wildcards matches, and those in folders that it matches: sorted, each once.

    ``*`` and ``?`` stay within a name, ``**`` stands for any number of folders. Names that begin with ``.`` or ``_``
    are left out, unless the pattern's last part begins with ``_``.
    """
    url = ObjectUrl.parse(pattern)
    root, parts = split_pattern(url.key)
    found = _matches(_store(url), url.at(root).path, parts, hidden=parts[-1].startswith("_"))
    return _identified(url, list({info.path: info for info in found}.values()))


def has_magic(location: str) -> bool:
    """Tell whether a URL holds wildcards; its options do not count."""
    return local_glob.has_magic(ObjectUrl.parse(location).key)


def split_pattern(key: str) -> tuple[str, list[str]]:
    """Cut a pattern before its first part with a wildcard: the folder to start from, and the parts left."""
    parts = key.split("/")
    first = next((number for number, part in enumerate(parts) if local_glob.has_magic(part)), len(parts) - 1)
    return "/".join(parts[:first]), parts[first:]


def is_hidden(name: str) -> bool:
    """Tell whether a name is left out of a folder: it begins with ``.``, or with ``_`` and is no partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def open_file(location: str) -> pa.NativeFile:
    """Open a file or an object for reading at any position."""
    if is_url(location):
        url = ObjectUrl.parse(location)
        return _store(url).open_input_file(url.path)
    return fs.LocalFileSystem().open_input_file(native(location))


def open_stream(location: str) -> pa.NativeFile:
    """Open a file or an object for reading from its start to its end; of an object, much is read at once."""
    if is_url(location):
        url = ObjectUrl.parse(location)
        return _store(url).open_input_stream(url.path, compression=None, buffer_size=READ_BYTES)
    return open_file(location)


def read(location: str) -> bytes | None:
    """Read a small file or object; None when there is none."""
    try:
        with open_file(location) as file:
            return file.read()
    except FileNotFoundError:
        return None


# --- writing ---------------------------------------------------------------------------------------------


def write(location: str, data: bytes) -> None:
    """Put a small file or object in its place: whole or not at all."""
    if is_url(location):
        _upload(ObjectUrl.parse(location), data)
        return
    path = Path(location)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def put(location: str, file: Path) -> None:
    """Copy a finished file of this machine to an object: whole or not at all."""
    url = ObjectUrl.parse(location)
    if not file.stat().st_size:  # which cannot be mapped
        _upload(url, b"")
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _upload(url, data)


def probe(location: str) -> None:
    """Find out whether an object can be written: write a small hidden one beside it, and remove it where that is allowed."""
    url = ObjectUrl.parse(location)
    near = url.beside(f".{url.name}.probe")
    _upload(near, b"probe")
    with suppress(OSError):
        remove(str(near))


def remove(location: str) -> None:
    """Remove a file or an object; that there is none is no error."""
    with suppress(FileNotFoundError):
        if is_url(location):
            url = ObjectUrl.parse(location)
            _store(url).delete_file(url.path)
        else:
            Path(location).unlink()


def _upload(url: ObjectUrl, data: bytes | mmap.mmap) -> None:
    """Write an object in a thread of its own, which no signal interrupts: it ends with the whole object or none.

    A part that fails spoils the stream, so that closing it publishes nothing.
    """
    kind = mimetypes.guess_type(url.name)[0] or "application/octet-stream"

    def work() -> None:
        if url.is_azure:
            azure.upload(url, data, kind)
            return
        stream = _store(url).open_output_stream(url.path, compression=None, metadata={"Content-Type": kind})
        with memoryview(data) as view, stream:
            for start in range(0, len(view), PUT_BYTES):
                stream.write(view[start : start + PUT_BYTES])
                stream.flush()

    with ThreadPoolExecutor(1, f"upload {url.name}") as thread:
        try:
            thread.submit(work).result()
        except FileNotFoundError:  # an object cannot be missing where it is written
            raise FileNotFoundError(errno.ENOENT, "NoSuchBucket", url.bucket) from None


# --- file systems ----------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _open_store(scheme: str, bucket: str, options: str) -> fs.FileSystem:
    if scheme in AZURE:
        return azure.open_store(ObjectUrl(scheme, bucket, "", options))
    if scheme == "s3":
        return _open_s3(bucket, options)
    try:
        return fs.FileSystem.from_uri(f"{scheme}://{bucket}?{options}".rstrip("?"))[0]
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{scheme}://{bucket}?{options} cannot be opened: {error}",
            hint="docs/how-to/object-storage.md has the options of each store.",
        ) from None


def _open_s3(bucket: str, options: str) -> fs.FileSystem:
    """Open S3 with time limits: Arrow has none for a server that is silent."""
    given: dict[str, Any] = dict(parse_qsl(options))
    unknown = [name for name in given if name not in S3_OPTIONS]
    if unknown:
        raise ConfigError(
            f"s3://{bucket} has an option `{unknown[0]}` that is not known",
            hint=did_you_mean(unknown[0], S3_OPTIONS),
        )
    given |= {name: given[name] == "true" for name in S3_SWITCHES if name in given}
    if "region" not in given and "endpoint_override" not in given:
        given["region"] = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
        **given,
    )


def _store(url: ObjectUrl) -> fs.FileSystem:
    return _open_store(url.scheme, url.bucket, url.options)


def _below(store: fs.FileSystem, folder: str) -> Iterator[fs.FileInfo]:
    """Give the files below a folder, hidden ones left out."""
    for info in store.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True)):
        names = info.path[len(folder) :].strip("/").split("/")
        if info.type == fs.FileType.File and not any(map(is_hidden, names)):
            yield info


def _listed(store: fs.FileSystem, folder: str, *, recursive: bool) -> list[fs.FileInfo]:
    """Give the files and folders in a folder. Of GCS Arrow tells the objects alone: there their names tell the rest."""
    if store.type_name != "gcs":
        return store.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=recursive))
    found = store.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
    names = [PurePosixPath(info.path).relative_to(folder) for info in found]
    above = sorted({parent for name in names for parent in name.parents if parent.name})
    folders = [fs.FileInfo(f"{folder}/{name}", fs.FileType.Directory) for name in above]
    return [
        info for info in (*folders, *found) if recursive or "/" not in info.path[len(folder) :].strip("/")
    ]


def _matches(
    store: fs.FileSystem, folder: str, parts: Sequence[str], *, hidden: bool
) -> Iterator[fs.FileInfo]:
    """Follow a pattern, part by part, down from a folder."""
    part, *rest = parts
    every = part == "**"
    if every and rest:
        yield from _matches(store, folder, rest, hidden=hidden)
    for info in _listed(store, folder, recursive=every):
        names = info.path[len(folder) :].strip("/").split("/")
        if any(map(is_hidden, names)) and not hidden:
            continue
        is_folder = info.type == fs.FileType.Directory
        if not (every or fnmatch.fnmatchcase(names[-1], part)):
            continue
        if rest and is_folder:
            yield from _matches(store, info.path, rest, hidden=hidden)
        elif not rest:
            yield from _below(store, info.path) if is_folder else [info]


def _identified(url: ObjectUrl, found: Sequence[fs.FileInfo] | Iterator[fs.FileInfo]) -> list[Stored]:
    """Ask for the version of each object, several at once: listings do not tell it."""
    store = _store(url)
    bucket = len(url.at("").path) + 1

    def identify(info: fs.FileInfo) -> Stored:
        with store.open_input_file(info.path) as file:
            told = dict(file.metadata() or {})
        version = next((text.decode() for name, text in told.items() if name.lower() == "etag"), "")
        return Stored(str(url.at(info.path[bucket:])), info.size, info.mtime_ns or 0, version)

    ordered = sorted(found, key=lambda info: info.path)
    if not ordered and store.get_file_info(url.at("").path).type == fs.FileType.NotFound:
        raise FileNotFoundError(errno.ENOENT, "NoSuchBucket", url.bucket)
    with ThreadPoolExecutor(min(IDENTITIES_AT_ONCE, len(ordered)) or 1) as threads:
        return list(threads.map(identify, ordered))


def explain(error: OSError, location: str) -> tuple[str, str, bool]:
    """Say what a store refused, and what to do about it.

    Returns:
        The problem, to stand behind "cannot be read: ", and a hint, both without any credential; and whether it may be
        over by itself.
    """
    url = ObjectUrl.parse(location)
    text = re.sub(r"\s*(?:\(Request ID.*|Detail: \[errno.*|\n.*)", "", str(error), flags=re.DOTALL)
    text = text if len(text) <= CHARACTERS_SHOWN else f"{text[:CHARACTERS_SHOWN]}…"
    if MISSING.search(text):
        return f"there is no bucket {url.at('').path}", "make it, or correct the name.", False
    if isinstance(error, FileNotFoundError):
        return "there is no such object", "look at what is there, and at the spelling.", False
    if DENIED.search(text):
        return (
            f"access denied ({text})",
            f"{CREDENTIALS[url.scheme]}; the account needs to read, list and write there.",
            False,
        )
    if UNREACHED.search(text):
        hint = "check the network, and endpoint_override in the URL."
        return f"the store cannot be reached ({text})", hint, True
    return text, "run again when the store is well.", True
