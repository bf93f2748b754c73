"""What the tests of the wire share: a job on disk against an endpoint, run and read back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.base.interrupt import Interrupt
from enrich.base.loops import run_sync
from enrich.config import Config, validate_config
from enrich.ledger.sqlite import open_ledger
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from tests.helpers.endpoint import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from enrich.ledger.protocol import Entry
    from enrich.records import Summary


@dataclass(frozen=True)
class Ran:
    """A run and what it left.

    Attributes:
        summary: how it ended.
        rows: the output's rows; empty when there is none.
        entries: what the ledger holds.
        logged: what was logged meanwhile.
    """

    summary: Summary
    rows: list[dict[str, Any]]
    entries: list[Entry]
    logged: list[logging.LogRecord]

    @property
    def waits(self) -> list[float]:
        """The seconds that were decided on before each further attempt."""
        waits = [getattr(record, "wait_seconds", None) for record in self.logged]
        return [wait for wait in waits if wait is not None]

    def entry(self, key: bytes | str) -> Entry:
        """What the ledger holds of one request."""
        raw = bytes.fromhex(key.replace("-", "")) if isinstance(key, str) else key
        return next(entry for entry in self.entries if entry.ask.key == raw)


class _Log(logging.Handler):
    def __init__(self, tell: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._tell(record)


@contextlib.contextmanager
def logs(tell: Callable[[logging.LogRecord], None] = lambda _: None) -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged meanwhile, telling of each record as it comes."""
    logger, handler = logging.getLogger("enrich"), _Log(tell)
    level, before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = before


def config_of(
    folder: Path, texts: Sequence[str], base_url: str, *, step: dict[str, Any] | None = None, **sections: Any
) -> Config:
    """Write the texts as an input and make a job of one step `s` over them, with waits of milliseconds."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"t": pa.array(texts, pa.string())}), folder / "in.parquet")
    key = folder / "key"
    key.touch(0o600)
    key.write_text(KEY, encoding="ascii")
    endpoint = {"base_url": base_url, "timeout": 30, "api_key_file": key, **sections.pop("endpoint", {})}
    document = {
        "input": str(folder / "in.parquet"),
        "output": str(folder / "out.parquet"),
        "endpoint": endpoint,
        "steps": [{"name": "s", "prompt": "{{ t }}", **(step or {})}],
        "retry": {"attempts": 4, "max_wait": 0.05, **sections.pop("retry", {})},
        **sections,
    }
    return validate_config(document)


def run(config: Config, *, first_wait: bool = False, options: RunOptions | None = None) -> Ran:
    """Run a job; ``first_wait`` interrupts it as soon as one wait was decided on."""
    interrupt = Interrupt()
    options = options or RunOptions(interrupt=interrupt)

    def tell(record: logging.LogRecord) -> None:
        if first_wait and getattr(record, "wait_seconds", None) is not None:
            interrupt.fire()

    with logs(tell) as logged:
        summary = run_sync(lambda: run_job(config, options))
    return Ran(summary, read_rows(config), asyncio.run(read_ledger(config)), logged)


def read_rows(config: Config) -> list[dict[str, Any]]:
    """Give the output's rows; none when there is no output."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(config.output.path).to_pylist()
    except FileNotFoundError:
        return []
    return rows


async def read_ledger(config: Config) -> list[Entry]:
    """Give everything the ledger holds."""
    ledger = await open_ledger(config.ledger_location())
    try:
        return [entry async for batch in ledger.scan() for entry in batch]
    finally:
        await ledger.close()
