"""Batches become one file, put in place whole or not at all.

The file is written beside its target under a hidden name, then renamed over it, so nobody ever sees half of
one. An object in a store is written to a file of this machine and uploaded once that is complete. Text formats have
no room for the manifest: theirs lies beside them as ``<output>.manifest.json``, hidden in a folder of outputs.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from platformdirs import user_state_path

from enrich.base.location import ObjectUrl, is_url, plain
from enrich.errors import DiskFull, EnrichError, OutputError, OutputLocked, RunStopped
from enrich.files import storage
from enrich.files.writers import (
    MANIFEST_KEY,
    VALUE_ERRORS,
    arrow_manifest,
    check_schema,
    open_streams,
    open_writer,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from enrich.config import OutputConfig

Place = Path | ObjectUrl  # where an output belongs

MANIFEST_SUFFIX = ".manifest.json"
FOLDER_TRIES = 100  # times that another run may take an output's folder away before its lock is held
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HINTS = {
    errno.EACCES: "choose a folder that this user may write to.",
    errno.EPERM: "choose a folder that this user may write to.",
    errno.EROFS: "choose a folder that is not read-only.",
    errno.ENOTDIR: "a part of the path is a file; choose another folder.",
    errno.ENAMETOOLONG: "choose a shorter name.",
    errno.ENOSPC: "free some disk space.",
    errno.EDQUOT: "free some of this user's quota.",
}


class Sink:
    """One output file being written; `open_sink` makes it.

    Attributes:
        rows: written so far.
    """

    def __init__(
        self, config: OutputConfig, schema: pa.Schema, temporary: _Temporary, given: Collection[str]
    ) -> None:
        self.rows = 0
        self._busy = threading.Lock()  # a write may still run in its thread when its task was cancelled
        self._config = config
        self._target = _target(config)
        self._schema = schema
        self._temporary = temporary
        self._streams = open_streams(temporary.path, config)
        self._writer = open_writer(self._streams[-1], schema, config, given)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch of the sink's schema.

        Raises:
            DiskFull: there is no room for it.
            OutputError: the format cannot express a value in it.
        """
        if not batch.schema.equals(self._schema):
            raise EnrichError(f"a batch of another schema came to {self._target}:\n{batch.schema}")
        if batch.num_rows:
            with self._busy, _write_errors(self._target):
                self._writer.write(batch)
            self.rows += batch.num_rows

    def commit(self, manifest: dict[str, Any]) -> None:
        """Finish the file and put it in the target's place, durably.

        Args:
            manifest: what the file says of its run; plain JSON.

        Raises:
            DiskFull: there is no room for the rest; the target is as it was.
        """
        text = orjson.dumps(manifest)
        with self._busy, _write_errors(self._target):
            self._writer.finish(text)
            self._close_streams()
            self._writer.settle(self._temporary.path)
            if self._writer.keeps_manifest:
                self._temporary.replace(self._target)
            else:
                sidecar = _sidecar(self._target, hidden=self._config.partitioned)
                _replace_with_sidecar(self._temporary, self._target, sidecar, text)

    def abandon(self) -> None:
        """Let go of what was not committed, whatever state it is in."""
        with self._busy:
            with suppress(OSError, ValueError, pa.ArrowException):
                self._writer.close()
            with suppress(OSError, ValueError, pa.ArrowException):
                self._close_streams()

    def _close_streams(self) -> None:
        while self._streams:
            self._streams.pop().close()


@contextmanager
def open_sink(
    config: OutputConfig,
    schema: pa.Schema,
    *,
    scratch: Path | None = None,
    given: Collection[str] = (),
    private: bool = False,
) -> Iterator[Sink]:
    """Open an output; without a commit its target stays untouched and nothing is left behind.

    Args:
        config: where to and how; the folder is made when missing.
        schema: of every batch; its metadata is kept where the format has room for it.
        scratch: the folder where an object is made ready, as large as it gets; the system's by default.
        given: columns that are the input's own, and are not to be changed.
        private: whether its owner alone may read it.

    Raises:
        OutputError: the format cannot hold a column.
        DiskFull: there is no room for it.
        RunStopped: it cannot be written there; `preflight` says so in time.
    """
    target = _target(config)
    check_schema(schema, config)
    near = _near(target, scratch)
    with _write_errors(target):
        _make_folder(near.parent)
        _sweep(near)
        temporary = _Temporary(near, private=private)
    try:
        with _write_errors(target):
            sink = Sink(config, schema, temporary, given)
        try:
            yield sink
        finally:
            sink.abandon()
    finally:
        temporary.discard()


def preflight(config: OutputConfig, schema: pa.Schema) -> None:
    """Make sure that an output can be written, before anything is spent on it.

    Tries the schema on the format, makes the folder, and writes, syncs and renames a small file in it; or writes and
    removes a small object beside the one that is to be.

    Raises:
        OutputError: it cannot; names the path or the column.
    """
    target = _target(config)
    check_schema(schema, config)
    if isinstance(target, ObjectUrl):
        with _access_errors(target):
            storage.probe(str(target))
        return
    with _access_errors(target), _folders(target):
        probe = _Temporary(target)
        renamed = _temporary_path(target)
        try:
            probe.path.write_bytes(b"probe")
            probe.replace(renamed)
        finally:
            renamed.unlink(missing_ok=True)
            probe.discard()


@contextmanager
def hold_output(path: str | Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold an output against every other run until the block ends, or the process dies.

    An object is held against this user's runs on this machine: no store can tell that a process has died.

    Args:
        path: the output.
        wait: block until it is free.
        shared: only against those who want it for themselves alone.

    Raises:
        OutputLocked: another run holds it.
        OutputError: the folder cannot be written.
    """
    output = str(path) if is_url(str(path)) else os.path.realpath(path)
    lock = _lock_path(output)
    with ExitStack() as stack:
        with _lock_errors(lock, output):
            stack.enter_context(_folders(lock))
            descriptor = _lock(lock, output, wait=wait, shared=shared)
        try:
            yield
        finally:
            if not shared or _try_lock(descriptor):
                with suppress(
                    OSError
                ):  # the folder may have become read-only; an unlocked file holds nobody up
                    lock.unlink(
                        missing_ok=True
                    )  # held alone: nobody can have locked this very file in between
            os.close(descriptor)


def _lock_path(output: str) -> Path:
    if is_url(output):
        name = hashlib.sha256(output.encode()).hexdigest()[:32]
        return user_state_path("beatra-enrich") / "locks" / f"{name}.lock"
    return Path(output).with_name(f".{Path(output).name}.lock")


@contextmanager
def _lock_errors(lock: Path, output: str) -> Iterator[None]:
    if not is_url(output):
        with _access_errors(Path(output)):
            yield
        return
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{output} cannot be held against other runs: {lock} cannot be made: {error.strerror}",
            hint="point XDG_STATE_HOME at a folder that this user may write to.",
        ) from None


@contextmanager
def _folders(target: Path) -> Iterator[None]:
    """Make the folders above a target that are missing; on the way out, remove those that stayed empty."""
    missing = [folder for folder in target.parents if not folder.exists()]
    _make_folder(target.parent)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, also while other runs take theirs away."""
    for _ in range(FOLDER_TRIES):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
        if folder.exists() and not folder.is_dir():
            break
    folder.mkdir(parents=True, exist_ok=True)


def read_manifest(path: str | Path) -> dict[str, Any] | None:
    """Give the manifest of an output; None when there is no such file, or none that tells of a run."""
    place = ObjectUrl.parse(str(path)) if is_url(str(path)) else Path(path)
    try:
        with storage.open_file(str(place)) as file:
            magic = file.read(6)
            if magic.startswith(b"PAR1"):
                text = (pq.read_metadata(file).metadata or {}).get(MANIFEST_KEY)
            elif magic == b"ARROW1":
                text = arrow_manifest(file)
            else:
                text = storage.read(str(_sidecar(place))) or storage.read(str(_sidecar(place, hidden=True)))
        manifest = orjson.loads(text) if text else None
    except (OSError, pa.ArrowException, orjson.JSONDecodeError):
        return None
    return manifest if isinstance(manifest, dict) else None


# --- files and locks -----------------------------------------------------------------------------------


class _Temporary:
    """A hidden file beside its target, or where an object is made ready; locked while this process lives."""

    def __init__(self, target: Path, *, private: bool = False) -> None:
        self._private = private
        mode = 0o600 if private else 0o666
        while True:
            self.path = _temporary_path(target)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            if _try_lock(self._descriptor) and os.fstat(self._descriptor).st_nlink:
                return
            os.close(self._descriptor)  # a sweep came between the two calls

    def sync(self) -> None:
        """Bring what was written to disk."""
        os.fsync(self._descriptor)

    def replace(self, target: Place) -> None:
        """Take the target's place, a file under its permissions; durable when this returns."""
        if isinstance(target, ObjectUrl):
            storage.put(str(target), self.path)
            return
        with suppress(FileNotFoundError):
            if not self._private:
                os.fchmod(self._descriptor, stat.S_IMODE(target.stat().st_mode))
        self.sync()
        self.path.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove the file, unless it took its place; a folder that became read-only keeps it, for a later sweep."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")


def _sweep(target: Path) -> None:
    """Remove what runs that died left of this output: its temporary files that nobody locks any more."""
    name = rf"\.?{re.escape(target.name)}({re.escape(MANIFEST_SUFFIX)})?"
    with os.scandir(target.parent) as entries:
        stale = [
            entry.path for entry in entries if re.fullmatch(rf"\.{name}\.[0-9a-f]{{16}}\.tmp", entry.name)
        ]
    for path in stale:
        with suppress(OSError):  # gone already, or another user's
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            if _try_lock(descriptor):
                Path(path).unlink(missing_ok=True)
            os.close(descriptor)


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(lock: Path, target: str, *, wait: bool, shared: bool) -> int:
    """Lock a lock file that is still in its place, and write this process's id into it."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = _open_lock(lock)
        if wait:
            fcntl.flock(descriptor, kind)
        elif not _try_lock(descriptor, kind):
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise OutputLocked(
                f"another run (process {owner or 'unknown'}) holds {target}",
                hint="wait for it to end, or choose another output.",
            )
        if os.fstat(descriptor).st_nlink:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            return descriptor
        os.close(descriptor)  # its holder removed it between the two calls


def _open_lock(lock: Path) -> int:
    """Open a lock file; where its folder went with a holder that ended and left it empty, make that again."""
    for _ in range(FOLDER_TRIES):
        with suppress(FileNotFoundError):
            return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _make_folder(lock.parent)
    raise FileNotFoundError(
        errno.ENOENT, os.strerror(errno.ENOENT), str(lock)
    )  # as in /proc, which takes no files


def _near(target: Place, scratch: Path | None) -> Path:
    """Give the path beside which the file is made: the target's own, or the object's name in the scratch folder."""
    if isinstance(target, Path):
        return target
    return (scratch or Path(tempfile.gettempdir())) / target.name


def _sidecar(target: Place, *, hidden: bool = False) -> Place:
    name = "." * hidden + target.name + MANIFEST_SUFFIX
    return target.with_name(name) if isinstance(target, Path) else target.beside(name)


def _replace_with_sidecar(temporary: _Temporary, target: Place, place: Place, manifest: bytes) -> None:
    """Put a file and its manifest in place; a crash in between may cost the manifest, never leaves a wrong one."""
    if isinstance(place, ObjectUrl):
        if storage.stat(str(place)) is not None:
            storage.write(str(place), b"")  # who may write need not be allowed to remove
        temporary.replace(target)
        storage.write(str(place), manifest)
        return
    sidecar = _Temporary(place)
    try:
        sidecar.path.write_bytes(manifest)
        sidecar.sync()
        temporary.sync()
        place.unlink(missing_ok=True)
        temporary.replace(target)
        sidecar.replace(place)
    finally:
        sidecar.discard()


# --- what can go wrong ---------------------------------------------------------------------------------


def destination(given: str) -> str:
    """Take a path or URL that a command names as a place to write to.

    Raises:
        OutputError: nothing can be written there.
    """
    try:
        return plain(given)
    except ValueError as error:
        raise OutputError(f"nothing can be written there: {error}") from None


def _target(config: OutputConfig) -> Place:
    """The object, or the file that is replaced: behind symbolic links, and nothing but a file."""
    if is_url(config.path):
        url = ObjectUrl.parse(config.path)
        if not url.name:
            raise OutputError(
                f"the output {url} is a folder", hint="name an object in it, such as out.parquet."
            )
        return url
    target = Path(os.path.realpath(config.path))
    if target.is_dir():
        raise OutputError(
            f"the output {target} is a folder",
            hint="name a file in it, such as out.parquet, or end it with / for one file per partition of the input.",
        )
    if target.exists() and not target.is_file():
        raise OutputError(f"the output {target} is a device or pipe, not a file", hint="name a file.")
    return target


@contextmanager
def _access_errors(target: Place) -> Iterator[None]:
    """What stands in the way before a run is the user's to mend."""
    try:
        yield
    except OSError as error:
        if isinstance(target, ObjectUrl):
            problem, hint, passes = storage.explain(error, str(target))
            what = f"the output {target} cannot be written: {problem}"
            raise OutputError(what, hint=hint, passes=passes) from None
        problem = (error.strerror or str(error)).lower()
        hint = HINTS.get(error.errno or 0, "choose another output.")
        raise OutputError(f"the output {target} cannot be written: {problem}", hint=hint) from None


@contextmanager
def _write_errors(target: Place) -> Iterator[None]:
    """What stands in the way while writing stops a run that can go on later."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(
                f"there is no room left for {target}",
                hint="free some space and run again; nothing is asked anew.",
            ) from None
        problem = storage.explain(error, str(target))[0] if isinstance(target, ObjectUrl) else error
        raise RunStopped(
            f"{target} cannot be written: {problem}", hint="run again; nothing is asked anew."
        ) from None
    except OutputError:
        raise
    except VALUE_ERRORS as error:
        raise OutputError(
            f"{target} cannot hold a value: {error}",
            hint="choose another output format; nothing is asked anew.",
        ) from None
