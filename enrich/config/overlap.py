"""Every file that a job reads and every file that it writes: what is written must be none of the others.

Files are told apart by device and inode, so that dots, symbolic and hard links hide nothing; those that are not there
yet by their real paths, objects by their place in the store.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.base.location import ObjectUrl, is_url
from enrich.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from enrich.config.job import JobConfig

TEXT_OUTPUTS = re.compile(
    r"\.(csv|tsv|jsonl|ndjson|xlsx)(\.\w+)?$", re.IGNORECASE
)  # outputs with a manifest beside them
MANIFEST_SUFFIX = ".manifest.json"
BESIDE_LEDGER = ("-wal", "-shm", "-journal", ".whole", ".reserve")  # SQLite's own files, and the ledger's
STEP_FILES = ("prompt_file", "messages_file", "examples_file")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something lies.

    Attributes:
        what: it is, as messages call it.
        location: a path or URL.
    """

    what: str
    location: str

    @property
    def spot(self) -> object:
        """Give what tells it from every other place."""
        if is_url(self.location):
            try:
                url = ObjectUrl.parse(self.location)
            except ValueError:  # no place at all, which who reads or writes it says
                return self.location
            return ("az" if url.is_azure else url.scheme, url.bucket, url.key)
        real = os.path.realpath(self.location)  # also of `new/../a`, before there is a folder `new`
        try:
            info = os.stat(real)  # noqa: PTH116  # of very many files, and a Path for each takes its time
        except OSError:
            return real
        return (info.st_dev, info.st_ino)


def read_by(config: JobConfig) -> Iterator[Place]:
    """Give the files that a configuration names to be read; of the input those that it names one by one."""
    if config.file is not None:
        yield Place("the configuration file", str(config.file))
    for path in _inputs(config):
        if is_url(path) or not (Path(path).is_dir() or _is_pattern(path)):
            yield Place("a file of the input", path)
    further = [(f"endpoint.{key}", getattr(config.endpoint, key)) for key in ("api_key_file", "ca_file")]
    further.append(("gold.file", config.gold and config.gold.file))
    yield from (Place(f"`{key}`", str(file)) for key, file in further if file is not None)
    for step in config.steps:
        for key in STEP_FILES:
            if (file := getattr(step, key)) is not None:
                yield Place(f"`steps.{step.name}.{key}`", str(file))
        if isinstance(step.answer_schema, str):
            yield Place(f"`steps.{step.name}.schema`", step.answer_schema)


def written_by(config: JobConfig) -> Iterator[Place]:
    """Give the files that a run of a configuration writes, those beside them included."""
    if config.output is not None and not config.output.partitioned:
        yield from output_places("the output", config.output.path)
    if config.report is not None:
        yield Place("the report", config.report)
    if config.metrics_file is not None:
        yield Place("`metrics_file`", str(config.metrics_file))
    if config.input is not None and config.input.csv.reject_file is not None:
        yield Place("`input.csv.reject_file`", str(config.input.csv.reject_file))
    yield from ledger_places(config.ledger_location())


def output_places(what: str, location: str) -> Iterator[Place]:
    """Give an output and what lies beside it."""
    yield Place(what, location)
    if TEXT_OUTPUTS.search(location):
        if is_url(location):
            url = ObjectUrl.parse(location)
            yield Place(f"the manifest beside {what}", str(url.beside(url.name + MANIFEST_SUFFIX)))
        else:
            yield Place(f"the manifest beside {what}", location + MANIFEST_SUFFIX)
    if not is_url(location):
        path = Path(os.path.realpath(location))
        yield Place(f"the lock file beside {what}", str(path.with_name(f".{path.name}.lock")))


def ledger_places(location: str) -> Iterator[Place]:
    """Give a ledger's file and those beside it; nothing of one on a server."""
    if is_url(location):
        return
    yield Place("the ledger", location)
    real = os.path.realpath(location)
    runs = glob.glob(f"{glob.escape(real)}.run-*")  # noqa: PTH207  # the path is absolute
    for path in (*(real + suffix for suffix in BESIDE_LEDGER), *runs):
        yield Place("a file beside the ledger", path)


def refuse_overlaps(config: JobConfig, *others: Place) -> None:
    """Hold everything that a configuration's run writes against all that it reads, and against each other.

    Args:
        config: the job.
        others: further places that it reads, such as the input's files once these are known.

    Raises:
        OutputError: two are one file, or what is written is a device, or would be read as input by the next run.
    """
    written = list(written_by(config))
    for place in written:
        _refuse_special(place)
    refuse(written, [*read_by(config), *others])
    for place in written:
        _refuse_as_input(place, config)


def refuse_target(target: Place, config: JobConfig | None, ledger: str) -> None:
    """Hold the file that a command is told to write against all that belongs to a job.

    Args:
        target: what is to be written; it stands for the configuration's own place of the same kind.
        config: the job; None when only its ledger is known.
        ledger: where that is.

    Raises:
        OutputError: they are one file.
    """
    _refuse_special(target)
    others = list(ledger_places(ledger))
    if config is not None:
        others += [place for place in (*read_by(config), *written_by(config)) if place.what != target.what]
    refuse([target], others)


def refuse(written: Iterable[Place], others: Iterable[Place]) -> None:
    """Refuse what is written where it is the file of another place.

    Raises:
        OutputError: it is.
    """
    spots: dict[object, Place] = {}
    for place in written:
        if (known := spots.setdefault(place.spot, place)) is not place:
            raise _one_file(place, known)
    for place in others:
        if (known_there := spots.get(place.spot)) is not None:
            raise _one_file(known_there, place)


def _one_file(place: Place, other: Place) -> OutputError:
    return OutputError(
        f"{place.what} {place.location} is {other.what}", hint=f"give {place.what} a path of its own."
    )


def _refuse_special(place: Place) -> None:
    if is_url(place.location):
        return
    try:
        mode = os.stat(place.location).st_mode  # noqa: PTH116  # follows links, as writing does
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(
            f"{place.what} {place.location} is a device or pipe, not a file", hint="name a file."
        )


# --- what the next run would read as its input ---------------------------------------------------------


def _refuse_as_input(place: Place, config: JobConfig) -> None:
    """Keep what is written out of the folders and patterns of the input: the next run would read it."""
    if is_url(place.location) or "beside" in place.what:
        return
    path = Path(os.path.realpath(place.location))
    for given in _inputs(config):
        if is_url(given):
            continue
        folder = Path(os.path.realpath(given))
        if folder.is_dir() and folder in path.parents:
            hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
            if not hidden or place.what == "the output":
                raise OutputError(
                    f"{place.what} {place.location} lies in the input's folder {given}: the next run would read it",
                    hint=f"put {place.what} into another folder.",
                )
        elif _is_pattern(given) and _matches(given, place.location):
            raise OutputError(
                f"{place.what} {place.location} matches the input {given}: the next run would read it",
                hint=f"put {place.what} into another folder.",
            )


def _inputs(config: JobConfig) -> list[str]:
    if config.input is None:
        return []
    return [config.input.path] if isinstance(config.input.path, str) else config.input.path


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not Path(path).exists()


def _matches(pattern: str, path: str) -> bool:
    """Tell whether a glob finds a path, or a folder above it."""
    wanted, parts = Path(pattern).parts, Path(path).parts
    return any(_fits(wanted, parts[:count]) for count in range(1, len(parts) + 1))


def _fits(wanted: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits(wanted[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(wanted[1:], parts[1:])
