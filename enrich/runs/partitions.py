"""A folder as output: which input files make which of its files, and which of these are to be made anew.

A unit is one file of the output: a Hive partition (the files in and below its `key=value` folder), or a single file
where the input has no such folders. Its manifest holds what it was made of, so that a unit is left alone for as long as
the same bytes under the same job would make it again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from enrich.base.location import child, is_url
from enrich.errors import InputError, OutputError
from enrich.files import storage
from enrich.files.input_files import COMPRESSIONS, check_unchanged, readable
from enrich.files.sink import read_manifest
from enrich.files.writers import OUTPUT_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from enrich.config import OutputConfig
    from enrich.files.input_files import SourceFile
    from enrich.records import RowStatus

NAME = "part-0"  # of the file in a partition's folder
KNOWN = ".beatra-columns"  # a file of the output folder: the types that columns of text files had so far
COARSE = 2_000_000_000  # nanoseconds; no file system tells modification times more coarsely
MANIFESTS_AT_ONCE = 16  # manifests read under way: in a store, each is a request
DIGEST_BYTES = 1 << 20  # bytes read at once for a digest
UNFINISHED: frozenset[RowStatus] = frozenset(
    {"pending", "error", "in_doubt"}
)  # what a further run may better


@dataclass(frozen=True, slots=True)
class Unit:
    """One file of the output, and what it is made of.

    Attributes:
        name: the folder of its partition, or its input file, below the input; with ``/``.
        files: in the order of their rows.
        output: its path and format.
    """

    name: str
    files: tuple[SourceFile, ...]
    output: OutputConfig


@dataclass(frozen=True, slots=True)
class Made:
    """What beside the input's bytes makes an output what it is.

    Attributes:
        job: a digest of the configuration, as far as it decides what is asked and written.
        fresh: how often everything was asked anew.
    """

    job: str
    fresh: int


@dataclass(frozen=True, slots=True)
class UnitStanding:
    """How a unit stands.

    Attributes:
        state: ``new`` without an output, ``changed`` when its input or the job is not what made it, else ``done``.
        statuses: rows per status in its output.
    """

    unit: Unit
    state: Literal["new", "changed", "done"]
    statuses: Counter[str]

    def has(self, statuses: Iterable[str]) -> bool:
        """Say whether its output has rows of one of these statuses."""
        return any(self.statuses[status] for status in statuses)


# --- which there are -------------------------------------------------------------------------------------


def find_units(files: Sequence[SourceFile], output: OutputConfig) -> list[Unit]:
    """Tell which files of the output these input files make, in the order of their first rows.

    Raises:
        InputError: two would make the same one.
        OutputError: the output's format has no suffix.
    """
    suffix = _suffix(output)
    named: dict[str, list[SourceFile]] = {}
    for file in files:
        named.setdefault(_name(file), []).append(file)
    units: dict[str, Unit] = {}
    for name, members in named.items():
        first = members[0]
        below = f"{name}/{NAME}{suffix}" if first.partition else f"{_stem(name)}{suffix}"
        place = output.model_copy(update={"path": child(output.path, below)})
        twice = members[1:] if not first.partition else []
        if twice or place.path in units:
            other = twice[0] if twice else units[place.path].files[0]
            raise InputError(
                f"{first.path} and {other.path} would make one file, {place.path}", hint="rename one of them."
            )
        units[place.path] = Unit(name, tuple(members), place)
    return list(units.values())


def _name(file: SourceFile) -> str:
    """Give the path of a file's innermost partition folder, or its own."""
    parts = file.below.split("/")
    folders = [number for number, part in enumerate(parts[:-1], 1) if re.match(r"[^=]+=", part)]
    return "/".join(parts[: folders[-1]] if folders else parts)


def _stem(name: str) -> str:
    """Take the suffixes of compression and format off."""
    path = PurePosixPath(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return str(path.with_suffix("")) if path.suffix else str(path)


def _suffix(output: OutputConfig) -> str:
    format_ = output.format or "parquet"
    return next(suffix for suffix, known in OUTPUT_FORMATS.items() if known == format_)


def left_over(units: Sequence[Unit], output: OutputConfig) -> list[str]:
    """Give the output's files that no unit makes, as paths below it: their input has vanished, or they are not ours."""
    made = {unit.output.path for unit in units}
    data = (
        name for name in storage.names(output.path) if PurePosixPath(name).suffix.lower() in OUTPUT_FORMATS
    )
    return [name for name in data if child(output.path, name) not in made]


# --- how they stand --------------------------------------------------------------------------------------


def look(units: Sequence[Unit], made: Made) -> list[UnitStanding]:
    """Say how units stand. Reads their manifests, and of input files only those whose bytes may have changed."""
    if not units:
        return []
    with ThreadPoolExecutor(min(MANIFESTS_AT_ONCE, len(units)), "beatra-look") as threads:
        return list(threads.map(lambda unit: _look(unit, made), units))


def _look(unit: Unit, made: Made) -> UnitStanding:
    manifest = read_manifest(unit.output.path) or {}
    told = manifest.get("unit")
    if not isinstance(told, dict):
        return UnitStanding(unit, "new", Counter())
    try:
        # A higher count of fresh runs than the ledger's: that ledger is lost, the answers are not.
        same = (
            told["job"] == made.job
            and told["fresh"] >= made.fresh
            and told["whole"]
            and _same_files(unit.files, told)
        )
    except (KeyError, TypeError):  # another version's
        same = False
    return UnitStanding(unit, "done" if same else "changed", Counter(manifest.get("statuses", {})))


def _same_files(files: Sequence[SourceFile], told: dict[str, Any]) -> bool:
    if len(files) != len(told["files"]):
        return False
    pairs = list(zip(files, told["files"], strict=True))
    doubtful = [(file, entry) for file, entry in pairs if not _same_identity(file, entry, told["read_at"])]
    if any(file.size != entry["bytes"] for file, entry in doubtful):
        return False
    return all(digest(file) == entry["digest"] for file, entry in doubtful)


def _same_identity(file: SourceFile, entry: dict[str, Any], read_at: int) -> bool:
    """Say whether a file need not be read to know that it is the one that was.

    A file that was younger than its file system's clock is coarse when it was read may have changed since without a
    trace.
    """
    settled = bool(file.version) or file.mtime_ns < read_at - COARSE
    return settled and (file.size, file.mtime_ns, _identity(file)) == (
        entry["bytes"],
        entry["mtime_ns"],
        entry["identity"],
    )


def _identity(file: SourceFile) -> str:
    """Give what changes with every change of a file beside its time: a store's version, or inode and change time."""
    return file.version if is_url(file.path) else f"{file.inode}-{file.ctime_ns}"


def digest(file: SourceFile) -> str:
    """Give what tells a file's bytes from others: their store's version, else a BLAKE2 digest."""
    if file.version:
        return file.version
    summed = hashlib.blake2b(digest_size=16)
    with readable(file.path), storage.open_stream(file.path) as stream:
        while chunk := stream.read(DIGEST_BYTES):
            summed.update(chunk)
    return summed.hexdigest()


def describe(unit: Unit, made: Made, *, whole: bool) -> dict[str, Any]:
    """Give what a unit's manifest says of what it was made of; plain JSON.

    Args:
        unit: whose output is about to be put in place.
        made: the job.
        whole: whether all of its rows are in it.

    Raises:
        InputError: a file is not what it was when the input was opened.
    """
    read_at = time.time_ns()
    return {
        "name": unit.name,
        "job": made.job,
        "fresh": made.fresh,
        "whole": whole,
        "read_at": read_at,
        "files": [_entry(file) for file in unit.files],
    }


def _entry(file: SourceFile) -> dict[str, Any]:
    """Describe a file by what was read of it.

    Other bytes of the same size and time may have come since it was found: then nobody knows which ones were read, and
    the digest that none has makes the unit anew in the next run.
    """
    summed = digest(file)
    check_unchanged(file)
    return {
        "name": file.below,
        "bytes": file.size,
        "mtime_ns": file.mtime_ns,
        "identity": _identity(file),
        "digest": summed if _untouched(file) else "",
    }


def _untouched(file: SourceFile) -> bool:
    if is_url(file.path):
        return True  # its version was held to
    with readable(file.path):
        return os.stat(file.path).st_ctime_ns == file.ctime_ns  # noqa: PTH116  # the path is text


# --- the types that columns of text files have -------------------------------------------------------------


def read_known(output: OutputConfig) -> pa.Schema | None:
    """Give the types that columns had in the runs before; None before the first."""
    try:
        data = storage.read(child(output.path, KNOWN))
        return pa.ipc.read_schema(pa.py_buffer(data)) if data else None
    except (OSError, pa.ArrowException):
        return None


def keep_known(output: OutputConfig, schema: pa.Schema) -> None:
    """Keep the types that columns have now, for the runs to come.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        storage.write(child(output.path, KNOWN), schema.remove_metadata().serialize().to_pybytes())
    except OSError as error:
        raise OutputError(f"the output {output.path} cannot be written: {error}") from None
