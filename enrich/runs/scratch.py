"""What a run keeps on disk until it ends, and where."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich.base.location import is_url
from enrich.rows.occurrences import Occurrences

if TYPE_CHECKING:
    from enrich.config import JobConfig


@contextlib.contextmanager
def occurrences_of(config: JobConfig) -> Any:
    """Count equal requests while the block runs, where each is to have an answer of its own; else give None."""
    if config.dedupe:
        yield None
        return
    with Occurrences(scratch_of(config)) as occurrences:
        yield occurrences


def scratch_of(config: JobConfig) -> Path:
    """Give the folder for what a run keeps on disk until it ends: the output's, which is known to take files.

    Of an object, without an output, or before a first run has made the output's folder, it is the ledger's, or the
    system's where the ledger is a server.
    """
    if config.output is not None and not is_url(config.output.path):
        beside = Path(config.output.path).parent
        if beside.is_dir():
            return beside
    ledger = config.ledger_location()
    folder = Path(tempfile.gettempdir()) if is_url(ledger) else Path(ledger).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder
