"""Batches become one file, put in place whole or not at all.

The file is written beside its target under a hidden name, then renamed over it, so nobody ever sees half of
one. An object in a store is written to a file of this machine and uploaded once that is complete. Text formats have
no room for the manifest: theirs lies beside them as ``<output>.manifest.json``, hidden in a folder of outputs.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from enrich.base.descriptors import NONE_LEFT, RAISE_IT
from enrich.base.location import ObjectUrl, is_url, plain
from enrich.base.texts import json_bytes
from enrich.config.database_url import is_delta_url, is_iceberg_url
from enrich.errors import DiskFull, EnrichError, OutputError, RunStopped
from enrich.files import storage
from enrich.files.access import OutputPlace, access_errors, folders, make_folder
from enrich.files.delta_table import rehearse_delta
from enrich.files.iceberg_table import rehearse_iceberg
from enrich.files.placing import Temporary, replace_with_sidecar, sidecar_of, sweep, temporary_path
from enrich.files.table_output import rehearse_table
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

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Sink:
    """One output file being written; `open_sink` makes it.

    Attributes:
        rows: written so far.
    """

    def __init__(
        self, config: OutputConfig, schema: pa.Schema, temporary: Temporary, given: Collection[str]
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
            manifest: what the file says of its run; plain JSON. Of an empty one nothing lies beside the file.

        Raises:
            DiskFull: there is no room for the rest; the target is as it was.
        """
        text = json_bytes(manifest)
        with self._busy, _write_errors(self._target):
            self._writer.finish(text)
            self._close_streams()
            self._writer.settle(self._temporary.path)
            if self._writer.keeps_manifest or not manifest:
                self._temporary.replace(self._target)
            else:
                sidecar = sidecar_of(self._target, hidden=self._config.partitioned)
                replace_with_sidecar(self._temporary, self._target, sidecar, text)

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
        make_folder(near.parent)
        sweep(near)
        temporary = Temporary(near, private=private)
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
    if is_delta_url(config.url):
        rehearse_delta(config, schema)
    elif is_iceberg_url(config.url):
        rehearse_iceberg(config, schema)
    elif config.table is not None:
        rehearse_table(config, schema)
    if isinstance(target, ObjectUrl):
        with access_errors(target):
            storage.probe(str(target))
        return
    with access_errors(target), folders(target):
        probe = Temporary(target)
        renamed = temporary_path(target)
        try:
            probe.path.write_bytes(b"probe")
            probe.replace(renamed)
        finally:
            renamed.unlink(missing_ok=True)
            probe.discard()


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
                text = storage.read(str(sidecar_of(place))) or storage.read(
                    str(sidecar_of(place, hidden=True))
                )
        manifest = orjson.loads(text) if text else None
    except (OSError, pa.ArrowException, orjson.JSONDecodeError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _near(target: OutputPlace, scratch: Path | None) -> Path:
    """Give the path beside which the file is made: the target's own, or the object's name in the scratch folder."""
    if isinstance(target, Path):
        return target
    return (scratch or Path(tempfile.gettempdir())) / target.name


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


def _target(config: OutputConfig) -> OutputPlace:
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
def _write_errors(target: OutputPlace) -> Iterator[None]:
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
        mended = RAISE_IT if error.errno in NONE_LEFT else "run again; nothing is asked anew."
        raise RunStopped(f"{target} cannot be written: {problem}", hint=mended) from None
    except OutputError:
        raise
    except VALUE_ERRORS as error:
        raise OutputError(
            f"{target} cannot hold a value: {error}",
            hint="choose another output format; nothing is asked anew.",
        ) from None
