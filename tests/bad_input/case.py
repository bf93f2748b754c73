"""One input that people or machines get wrong, what becomes of it on the real command line, and what is held against it."""

from __future__ import annotations

import copy
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from tests.helpers.endpoint import KEY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended, Warm

SECONDS = 240  # a command that takes longer hangs, on a machine however busy
MOST_RSS = 500 * 2**20  # bytes of memory
MOST_SAID = 2_600  # characters on stderr: a message has some 2,000, a hint stands behind it
CSV = b"id,review,stars\n1,good,5\n2,bad,1\n"
BASE: dict[str, Any] = {
    "input": "in.csv",
    "output": "out/out.parquet",
    "steps": [{"name": "s", "prompt": "Classify: {{ review }}"}],
}
STEP: tuple[str | int, ...] = ("steps", 0)
RUN = ("run", "config.yaml", "--no-progress")
REFUSED = frozenset({2})
LEGAL = frozenset({0, 2, 3})  # may be refused; what is taken is carried out


@dataclass(frozen=True)
class Fifo:
    """A named pipe that nobody writes to."""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    to: str


@dataclass(frozen=True)
class Sparse:
    """A file of so many bytes, all zero, that takes no room."""

    size: int


@dataclass(frozen=True)
class Folder:
    """A folder."""


Content = bytes | Fifo | Link | Sparse | Folder


@dataclass(frozen=True)
class Case:
    """A job folder and a command.

    Attributes:
        config: of ``config.yaml``: its bytes, or the keys to be written.
        files: further files by name, beside ``in.csv``.
        args: the command line.
        env: added to the environment.
        codes: the exit codes that are right.
        replaced: names of files that the command may replace, since it was told to write there.
    """

    config: Mapping[str, Any] | bytes = field(default_factory=lambda: BASE)
    files: Mapping[str, Content] = field(default_factory=dict)
    args: tuple[str, ...] = RUN
    env: Mapping[str, str] = field(default_factory=dict)
    codes: frozenset[int] = REFUSED
    replaced: frozenset[str] = frozenset()


Named = tuple[str, Case]


@dataclass(frozen=True)
class Came:
    """What came of a case."""

    ended: Ended
    faults: list[str]


def config(*path: str | int, value: Any, **top: Any) -> dict[str, Any]:
    """Give the configuration with the key at a path set; ``steps`` may be given as ``s`` for its one step."""
    document: Any = {**copy.deepcopy(BASE), **copy.deepcopy(top)}
    target = document
    for part in path[:-1]:
        if isinstance(target, dict):
            if isinstance(target.get(part), str):
                target[part] = {"path": target[part]}
            target = target.setdefault(part, {})
        else:
            target = target[part]
    target[path[-1]] = value
    return document  # type: ignore[no-any-return]  # what it was


class _NoAliases(yaml.SafeDumper):
    """Writes equal objects out."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say that nothing is an alias."""
        return True


def written(document: Mapping[str, Any]) -> bytes:
    """Write a configuration."""
    return yaml.dump(dict(document), Dumper=_NoAliases, sort_keys=False, allow_unicode=True).encode()


def put(folder: Path, case: Case) -> None:
    """Write a case's files."""
    document = case.config
    if not isinstance(document, bytes):
        document = written(document)
    for name, content in {"config.yaml": document, "in.csv": CSV, **case.files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case Fifo():
                os.mkfifo(path)
            case Link(to):
                path.symlink_to(to)
            case Folder():
                path.mkdir(exist_ok=True)
            case Sparse(size):
                path.touch()
                os.truncate(path, size)
            case _:
                path.write_bytes(content)


def kept(folder: Path) -> dict[Path, bytes]:
    """Give what stands in the regular files of a job folder now; the harness's own left out."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.name not in ("stdout", "stderr") and path.is_file() and path.stat().st_size < 2**24
    }


def come(case: Case, folder: Path, warm: Warm, endpoint: BookedEndpoint) -> Came:
    """Run a case and say what is wrong with what came of it."""
    put(folder, case)
    before = kept(folder)
    endpoint.seen.clear()
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY, "BEATRA_TRACEBACK": "1", **case.env}
    running = warm.start(folder, *case.args, env=env)
    hung = threading.Event()

    def kill() -> None:
        hung.set()
        running.signal(9)

    timer = threading.Timer(SECONDS, kill)
    timer.start()
    ended = running.wait()
    timer.cancel()
    after = kept(folder)
    faults = []
    if hung.is_set():
        faults.append(f"hangs for {SECONDS} s")
    elif ended.code not in case.codes:
        faults.append(f"exit code {ended.code}, not {sorted(case.codes)}")
    if "Traceback" in ended.err:
        faults.append("a traceback")
    if ended.code == 2 and endpoint.posts:
        faults.append(f"{len(endpoint.posts)} requests were sent")
    if ended.rss > MOST_RSS:
        faults.append(f"{ended.rss / 2**20:,.0f} MB")
    if len(ended.err) > MOST_SAID and "Traceback" not in ended.err:
        faults.append(f"{len(ended.err):,} characters said")
    if KEY in ended.err + ended.out:
        faults.append("the key is shown")
    faults += [
        f"{path} was changed"
        for path in before
        if after.get(path) != before[path] and path.name not in case.replaced
    ]
    if ended.code == 2 and case.args[0] == "run" and (made := after.keys() - before.keys()):
        faults.append(f"left behind {sorted(made)}")
    return Came(ended, faults)
