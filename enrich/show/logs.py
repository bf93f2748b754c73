"""Logs on stderr, as text or as one JSON object a line; the key and the prompts are in none of them."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

# What a record may carry beside its message.
FIELDS = ("key", "model", "code", "request_id", "wait_seconds", "progress", "hint")
PROGRESS = logging.getLogger("enrich.progress")  # heard at any verbosity where progress goes into the log


class _StderrHandler(logging.Handler):
    """Writes to whatever is stderr at the moment: a bar on a terminal takes its place and lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry.update(
            {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        )
        return json.dumps(entry, ensure_ascii=False)


def as_json() -> bool:
    """Say whether stderr is written as JSON."""
    return any(
        isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger("enrich").handlers
    )


def tell(message: str, *, failed: bool = False, hint: str = "") -> None:
    """Write what a person is to read on stderr, at any verbosity: as text, or as an object where all else is.

    Args:
        message: lines of text.
        failed: whether something went wrong.
        hint: what to type next.
    """
    if as_json():
        log = logging.getLogger("enrich")
        record = log.makeRecord(
            "enrich",
            logging.ERROR if failed else logging.INFO,
            "",
            0,
            message,
            (),
            None,
            extra={"hint": hint or None},
        )
        for handler in log.handlers:
            handler.emit(record)
        return
    sys.stderr.write(f"{message}\nHint: {hint}\n" if hint else f"{message}\n")
    sys.stderr.flush()


def set_up_logs(verbose: int, form: Literal["text", "json"], *, quiet: bool) -> None:
    """Send our log to stderr.

    Args:
        verbose: 1 tells of retries, 2 of everything.
        form: how a record is written.
        quiet: only errors.
    """
    handler = _StderrHandler()
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    )
    logger = logging.getLogger("enrich")
    logger.handlers = [handler]
    logger.propagate = False
    levels = {0: logging.WARNING, 1: logging.INFO}
    logger.setLevel(logging.ERROR if quiet else levels.get(verbose, logging.DEBUG))
    PROGRESS.setLevel(logging.ERROR if quiet else logging.INFO)
