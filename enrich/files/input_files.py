"""Which files are the input, in which order, of which format, and how their bytes are opened."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

import pyarrow as pa

from enrich.base.descriptors import NONE_LEFT, RAISE_IT
from enrich.base.location import ObjectUrl, is_url, suffixes
from enrich.errors import InputError, did_you_mean
from enrich.files import storage
from enrich.files.storage import is_hidden
from enrich.files.table_formats import refuse_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from enrich.config import Format

INPUT_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}
COMPRESSIONS: dict[str, Literal["gzip", "bz2", "zstd"]] = {
    ".gz": "gzip",
    ".bz2": "bz2",
    ".zst": "zstd",
    ".zstd": "zstd",
}
WIDE_HINT = (
    "it has integers of 128 bits, as Polars writes them: cast that column to text first, "
    "pl.col('…').cast(pl.String)."
)
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # how Hive, Spark and Arrow write a null into a folder's name

Partition = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file or object as it stood when the source was opened.

    Attributes:
        path: where it is: a path, or the URL of an object.
        size: in bytes.
        mtime_ns: when it was last modified, in nanoseconds since the epoch.
        partition: the ``key=value`` folders above it, outermost first, URL-decoded; None is Hive's null.
        rows: how many rows it gives.
        version: what tells two contents of an object apart (S3's ETag); empty for a file.
        below: its path, with ``/``, below the folder (or the part of a glob without wildcards) that named it.
        inode: of a file; 0 for an object.
        ctime_ns: when anything about a file was last changed, in nanoseconds since the epoch; 0 for an object.
        copy: keeps a copy of a query's rows on disk; ``version`` is its digest then.
        copy_of: the query, with the database's URL.
        version_of_table: of a table of Delta or Iceberg: which version or snapshot the copy is of.
    """

    path: str
    size: int
    mtime_ns: int
    partition: Partition = ()
    rows: int = 0
    version: str = ""
    below: str = ""
    inode: int = 0
    ctime_ns: int = 0
    copy: object = field(default=None, compare=False, repr=False)
    copy_of: str = ""
    version_of_table: int | None = None

    @property
    def told(self) -> str:
        """What it is called wherever it is to be known again: a copy lies at another place each time."""
        return self.copy_of or self.path


def find_files(paths: str | Sequence[str]) -> list[SourceFile]:
    """Find the files that paths name: the paths in the order given, each folder's or glob's files sorted.

    Args:
        paths: a file, a glob, a folder (searched through; names starting with ``.`` or ``_`` are left out),
            the URL of such in an object store, or several of these.

    Raises:
        InputError: nothing is there, it cannot be read, it is empty or part of a table of Delta or its like, or partition
            folders do not agree.
    """
    found = [file for path in ([paths] if isinstance(paths, str) else paths) for file in _expand(path)]
    if not found:
        raise InputError("`input` names no file", hint="give `input` a file, a folder or a glob.")
    with readable(found[0].path):
        refuse_tables(file.path for file in found)
    for file in found:
        keys, first = [key for key, _ in file.partition], [key for key, _ in found[0].partition]
        if keys != first:
            raise InputError(
                f"{found[0].path} lies in {_told(first)}, {file.path} in {_told(keys)}",
                hint="give all files the same partition folders, or choose those that have them by a glob.",
            )
    return found


def _told(keys: Sequence[str]) -> str:
    """Name partition folders by their keys."""
    return "/".join(f"{key}=…" for key in keys) or "no partition folder"


def _expand(path: str) -> list[SourceFile]:
    if is_url(path):
        return _expand_url(path)
    pattern = Path(path)
    with readable(path):
        if has_wildcards(path):
            files = _visit_matches(pattern)
            hint = "quote the glob, and look at what is there with ls."
        else:
            files = _visit(pattern, pattern)
            hint = "names starting with . or _ are left out."
    if not files:
        raise InputError(f"no data file at {path}", hint=hint)
    return files


def has_wildcards(path: str) -> bool:
    """Tell a glob from the path or URL of a file or folder."""
    return storage.has_magic(path) if is_url(path) else glob.has_magic(path) and not Path(path).exists()


def _expand_url(url: str) -> list[SourceFile]:
    """Find the objects that a URL names: one, those that match, or those below it as a folder."""
    with readable(url):
        alone = storage.stat(url)
        if alone is not None:
            return [_take(alone, url)]
        if storage.has_magic(url):
            parsed = ObjectUrl.parse(url)
            root = str(parsed.at(storage.split_pattern(parsed.key)[0]))
            found, hint = storage.glob(url), "quote the URL, and look at what is there."
        else:
            root, found, hint = (
                url,
                storage.walk(url),
                "look at the spelling; names starting with . or _ are left out.",
            )
    if not found:
        raise InputError(f"no data file at {url}", hint=hint)
    return [_take(object_, root) for object_ in found]


def _take(found: storage.Stored, root: str) -> SourceFile:
    """Take an object as input; what lies between ``root`` and it may be partitions."""
    if found.size == 0:
        raise _empty(found.location)
    above, key = ObjectUrl.parse(root).key.rstrip("/"), ObjectUrl.parse(found.location).key
    parts = key[len(above) :].strip("/").split("/") if key != above else [key.rpartition("/")[2]]
    return SourceFile(
        found.location,
        found.size,
        found.mtime_ns,
        _partition(parts[:-1]),
        version=found.version,
        below="/".join(parts),
    )


def _empty(path: object) -> InputError:
    return InputError(f"{path} is empty (0 bytes)", hint="give it a header, or leave it out.")


def _visit_matches(pattern: Path) -> list[SourceFile]:
    """Give the data files that a glob matches, and those in folders that it matches, each once."""
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    found = (Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    meant = sorted(
        path
        for path in found
        if pattern.name.startswith("_") or not any(map(is_hidden, path.relative_to(root).parts))
    )
    return list({file.path: file for path in meant for file in _visit(path, root)}.values())


def _visit(path: Path, root: Path) -> list[SourceFile]:
    """Give the file, or the data files of a folder; what lies between ``root`` and a file may be partitions."""
    if not path.is_dir():
        return [_freeze(path, root)]
    return [_freeze(file, root) for file in sorted(_walk(path))]


def _walk(folder: Path) -> Iterator[Path]:
    """Give the files under a folder that are not hidden; a folder that cannot be read is an error."""
    for above, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(above, name) for name in names if not is_hidden(name))


def _raise(error: OSError) -> None:
    raise error


def _freeze(path: Path, root: Path) -> SourceFile:
    try:
        info = path.stat()
    except FileNotFoundError:
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        siblings = sorted(other.name for other in beside if not is_hidden(other.name))
        raise InputError(f"there is no file {path}", hint=did_you_mean(path.name, siblings)) from None
    if not stat.S_ISREG(info.st_mode):
        raise InputError(
            f"{path} is not a regular file; it is read more than once", hint="save it to a file first."
        )
    if info.st_size == 0:
        raise _empty(path)
    parts = path.relative_to(root).parts if path.is_relative_to(root) and path != root else (path.name,)
    return SourceFile(
        str(path),
        info.st_size,
        info.st_mtime_ns,
        _partition(parts[:-1]),
        below="/".join(parts),
        inode=info.st_ino,
        ctime_ns=info.st_ctime_ns,
    )


def _partition(folders: Sequence[str]) -> Partition:
    pairs = (folder.split("=", 1) for folder in folders if re.match(r"[^=]+=", folder))
    return tuple((unquote(key), None if value == HIVE_NULL else unquote(value)) for key, value in pairs)


def choose_partitions(files: Sequence[SourceFile], wanted: Sequence[str]) -> list[SourceFile]:
    """Keep the files of these partitions: of one key any value, of several keys all.

    Args:
        files: with the same partition keys.
        wanted: ``key=value`` each, the value as it is or as the folder spells it; all files when there is none.

    Raises:
        InputError: there is no such partition, key or value.
    """
    chosen: dict[str, set[str]] = {}
    for text in wanted:
        key, _, value = text.partition("=")
        chosen.setdefault(key, set()).add(value)
    keys = [key for key, _ in files[0].partition]
    for key, values in chosen.items():
        if key not in keys:
            hint = did_you_mean(key, keys) if keys else "its files lie in no folder named key=value."
            raise InputError(f"the input has no partitions `{key}`", hint=hint)
        there = {spelling for file in files for spelling in _spellings(file, key)}
        for value in sorted(values - there):
            known = sorted({dict(file.partition)[key] or HIVE_NULL for file in files})
            raise InputError(f"the input has no partition {key}={value}", hint=did_you_mean(value, known))
    kept = [f for f in files if all(values & _spellings(f, key) for key, values in chosen.items())]
    if not kept:
        raise InputError(
            f"the input has no partition with {' and '.join(wanted)}", hint="look at its folders with ls."
        )
    return kept


def _spellings(file: SourceFile, key: str) -> set[str]:
    """Give how a file's partition value may be written: as it is, and as its folder has it."""
    value = dict(file.partition)[key]
    folders = (part.partition("=") for part in file.below.split("/")[:-1])
    raw = {folder[2] for folder in folders if unquote(folder[0]) == key}
    return raw if value is None else raw | {value}


def check_unchanged(file: SourceFile) -> None:
    """Hold a file to what it was when the source was opened.

    Raises:
        InputError: its size, modification time or version differ, or it is gone. A file's version is its inode and
            when anything about it was last changed: who rewrites it may set its times, but not that one.
    """
    if file.copy is not None:
        return  # nobody else knows it
    with readable(file.path):
        now = storage.stat(file.path)
        if now is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.path)
    version = file.version if is_url(file.path) else f"{file.inode}-{file.ctime_ns}"
    if (now.size, now.mtime_ns, now.version) != (file.size, file.mtime_ns, version):
        raise InputError(
            f"{file.path} changed while it was being used", hint="run again when it stays as it is."
        )


def common_format(files: Iterable[SourceFile], given: Format | None) -> Format:
    """Tell the files' format from their suffixes, unless it is given.

    Raises:
        InputError: a suffix is not known, or files differ in their format.
    """
    files = list(files)
    if any(file.copy is not None for file in files):
        return "arrow"
    if given is not None:
        return given
    formats = {_format_of(file.path): file.path for file in files}
    if len(formats) > 1:
        (one, first), (other, second) = list(formats.items())[:2]
        raise InputError(
            f"the input mixes formats: {first} is {one}, {second} is {other}",
            hint="take one format with a glob, for example input: data/*.csv",
        )
    return next(iter(formats))


def _format_of(path: str) -> Format:
    found = suffixes(path)
    if found and found[-1] in COMPRESSIONS:
        found.pop()
    suffix = found[-1] if found else ""
    if suffix not in INPUT_FORMATS:
        told = f"its suffix `{suffix}` is not known" if suffix else "it has no suffix"
        raise InputError(
            f"the format of {path} cannot be told: {told}",
            hint="give it a suffix that tells: .csv, .tsv, .jsonl, .parquet, .arrow or .xlsx; or, where a configuration reads it, "
            "set `input.format` to csv, tsv, jsonl, parquet, arrow or excel.",
        )
    return INPUT_FORMATS[suffix]


def first_duplicate(names: Iterable[str]) -> str | None:
    """Give the first name that stands there for the second time, or None."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]  # add gives None


def open_bytes(file: SourceFile) -> pa.NativeFile:
    """Open a file for reading at any position: with `open_text` the places where input is opened."""
    return storage.open_file(file.path)


def open_text(file: SourceFile) -> pa.NativeFile:
    """Open the bytes of a text file from its start, decompressed as its suffix says."""
    stream = storage.open_stream(file.path)
    compression = COMPRESSIONS.get("".join(suffixes(file.path)[-1:]))
    return pa.CompressedInputStream(stream, compression) if compression else stream


@contextmanager
def readable(path: str, but: type[BaseException] | tuple[()] = ()) -> Iterator[None]:
    """Turn what the system or Arrow says of a file that cannot be read into an `InputError` that names it.

    Args:
        path: the file.
        but: an error that is let through as it is.
    """
    try:
        yield
    except but:
        raise
    except OSError as error:
        if is_url(path):
            problem, hint, passes = storage.explain(error, path)
            raise InputError(f"{path} cannot be read: {problem}", hint=hint, passes=passes) from None
        raise InputError(
            f"{error.filename or path} cannot be read: {os.strerror(error.errno) if error.errno else error}",
            hint=RAISE_IT if error.errno in NONE_LEFT else "",
        ) from None
    except pa.ArrowException as error:
        hint = WIDE_HINT if "more than 64 bits" in str(error) else "is it whole, and of the format it claims?"
        raise InputError(f"{path} cannot be read: {error}", hint=hint) from None
