"""Looking after a ledger: list what it holds, export it, check every checksum, forget what is old."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from enrich.base.clock import SystemClock
from enrich.base.system import BYTES, NO_WAIT
from enrich.base.texts import json_bytes
from enrich.base.version import __version__
from enrich.base.words import counted
from enrich.config import OutputConfig, Place, load_config, refuse_target, without_password
from enrich.errors import ConfigError, LedgerDamaged
from enrich.files.sink import destination, open_sink
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.ledger.repair import Salvage, repair
from enrich.records import AMOUNTS, Completion, Usage, key_text
from enrich.wire.completion import completion_of, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from enrich.config import Config
    from enrich.ledger.protocol import Entry, Ledger, Listed, VerifyReport

SQLITE_MAGIC: Final = b"SQLite format 3\0"
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}  # seconds
_TIME: Final = pa.timestamp("us", tz="UTC")
EXPORT: Final = pa.schema(
    [
        ("key", pa.string()),
        ("state", pa.dictionary(pa.int32(), pa.string())),
        ("model", pa.string()),
        ("parent", pa.string()),
        ("run", pa.int64()),
        ("attempts", pa.int32()),
        ("sent_at", _TIME),
        ("received_at", _TIME),
        ("request", pa.binary()),  # the body as it was sent
        ("answer", pa.binary()),  # the body as it came, null without a sound one
        ("streamed", pa.bool_()),
        ("request_id", pa.string()),
        ("latency_ms", pa.float64()),
        ("text", pa.string()),
        ("served_by", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("total_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("credits", pa.float64()),
        ("credits_usd", pa.float64()),
        ("error", pa.string()),
        ("damaged", pa.list_(pa.string())),
    ]
)


HEADER: Final = f"{'sent (UTC)':19}  {'state':8}  {'model':20}  {'try':>3}  {'tokens':>8}  {'credits':>10}  {'key':36}  note"


def ledger_location(given: str) -> str:
    """Tell where the ledger is: ``given`` is a URL, a ledger's file, or a configuration that names one.

    Raises:
        LedgerError: there is no ledger yet.
        ConfigError: the configuration is not valid.
    """
    return find_ledger(given)[0]


def find_ledger(given: str) -> tuple[str, Config | None]:
    """Do what `ledger_location` does, and give the configuration too where there is one."""
    config = None if "://" in given or _is_ledger(Path(given)) else load_config(given)
    location = config.ledger_location() if config is not None else given
    require_ledger(location)
    return location, config


def _is_ledger(path: Path) -> bool:
    if path.suffix in (".db", ".sqlite"):
        return True
    try:
        with os.fdopen(
            os.open(path, os.O_RDONLY | NO_WAIT | BYTES), "rb"
        ) as file:  # a pipe is not waited for
            return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except (OSError, ValueError):
        return False  # then it is a configuration, and what is wrong with it is said there


def parse_age(text: str) -> float:
    """Read an age such as ``30d``, ``12h`` or ``2w`` as seconds.

    Raises:
        ConfigError: it is no such age.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*([smhdw])", text.strip())
    if not match:
        raise ConfigError(
            f"--older-than {text}: not an age", hint="a number and s, m, h, d or w, such as 30d."
        )
    return float(match[1]) * _UNITS[match[2]]


async def list_requests(
    location: str, show: Callable[[str], None], *, states: frozenset[str], as_json: bool = False
) -> int:
    """Show every request in one of these states, oldest first, a line each, many at once; gives how many there were."""
    shown = 0
    written = _json_line if as_json else _line
    async with _opened(location) as ledger:
        async for lines, unread in ledger.listing(states):
            await _read_costs(ledger, lines, unread)
            shown += len(lines)
            show("\n".join(map(written, lines)))
    return shown


async def _read_costs(ledger: Ledger, lines: list[Listed], unread: list[int]) -> None:
    """Put in what answers cost that the database cannot read."""
    places = {lines[place].number: place for place in unread}
    async for replies in ledger.replies(list(places)):
        for number, reply in replies.items():
            result = read(reply)
            if isinstance(result, Completion):
                usage = result.usage
                line = lines[places[number]]
                lines[places[number]] = line._replace(tokens=usage.total_tokens, credits=usage.credits)


def _line(listed: Listed) -> str:
    """Write a request for people, in columns."""
    _, key, standing, model, attempts, sent_at, tokens, credits_, error, damaged = listed
    line = f"{_second(int(sent_at))}  {_told(standing, model, attempts)}  {_cost(tokens, credits_)}  {key_text(key)}"
    if damaged:
        return f"{line}  damaged: {', '.join(damaged)}"
    return f"{line}  {error[:60]}".rstrip() if error else line


@functools.lru_cache(maxsize=1_024)
def _told(standing: str, model: str, attempts: int) -> str:
    return f"{standing:8}  {model[:20]:20}  {attempts:>3}"


@functools.lru_cache(maxsize=8_192)
def _cost(tokens: int | None, credits_: float | None) -> str:
    cost = "" if credits_ is None else f"{credits_:,.6g}"
    count = "" if tokens is None else f"{tokens:,}"
    return f"{count:>8}  {cost:>10}"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return f"{_moment(seconds):%Y-%m-%d %H:%M:%S}"


@functools.lru_cache(maxsize=64)
def _iso_second(seconds: int) -> str:
    return _moment(seconds).isoformat(timespec="seconds")


def _json_line(listed: Listed) -> str:
    _, key, standing, model, attempts, sent_at, tokens, credits_, error, damaged = listed
    said = {
        "key": key_text(key),
        "model": model,
        "attempts": attempts,
        "sent_at": _iso_second(int(sent_at)),
        "tokens": tokens,
        "credits": credits_,
        "error": error,
        "damaged": damaged,
        "state": standing,
    }
    return json_bytes(said).decode()


class Exported(NamedTuple):
    """What an export wrote: how many requests, and, of a damaged ledger, what is left of it."""

    requests: int
    salvage: Salvage | None = None


async def export_ledger(location: str, out: str, config: Config | None = None) -> Exported:
    """Write everything the ledger holds, raw requests and answers included, to a file that its owner alone may read.

    Of a damaged one, all that is left is written.

    Args:
        location: of the ledger.
        out: the file, or the URL of an object; its suffix says the format. It is replaced whole, or not at all.
        config: of the job, where it is known: none of its files is written over.

    Raises:
        OutputError: it cannot be written there.
        DiskFull: there is no room for it.
    """
    output = OutputConfig(path=destination(out))
    refuse_target(Place("the export", output.path), config, location)
    try:
        return Exported(await _export(location, output))
    except LedgerDamaged:
        if "://" in location:
            raise
    with tempfile.TemporaryDirectory(prefix="beatra-salvage-") as folder:  # readable by its owner only
        whole = Path(folder, "ledger.db")
        salvage = await asyncio.to_thread(repair, Path(location), whole, SystemClock())
        return Exported(await _export(str(whole), output), salvage)


async def _export(location: str, output: OutputConfig) -> int:
    count = 0
    async with _opened(location) as ledger:
        with open_sink(output, EXPORT, private=True) as sink:
            async for entries in ledger.scan():
                rows = [_exported(entry) for entry in entries]
                await asyncio.to_thread(sink.write, pa.RecordBatch.from_pylist(rows, schema=EXPORT))
                count += len(rows)
            manifest = {"version": __version__, "ledger": without_password(location), "requests": count}
            await asyncio.to_thread(sink.commit, manifest)
    return count


async def repair_ledger(location: str, out: str) -> Salvage:
    """Make a sound ledger of what is left of a damaged one, which stays as it is.

    Raises:
        LedgerError: the new file is there already, a run is using the old one, or nothing is left.
        ConfigError: the ledger is in a database.
    """
    if "://" in location or "://" in out:
        raise ConfigError(
            "a database's ledger is mended by the database's own tools", hint="restore it from a backup."
        )
    return await asyncio.to_thread(repair, Path(location), Path(out), SystemClock())


def given_back(salvage: Salvage) -> Iterator[str]:
    """Say for people what is left of a damaged ledger."""
    yield (
        f"{counted(salvage.requests, 'request')} and {counted(salvage.answers, 'answer')} given back, "
        f"{counted(salvage.failures, 'failure')} of the log, {counted(salvage.runs, 'run')}"
    )
    if salvage.by_key:
        yield (
            f"{counted(salvage.by_key, 'request')} known by key alone: asked again under it, at no second charge,"
            " for 23 h after it was sent, then in doubt"
        )
    if salvage.damaged:
        yield f"{counted(salvage.damaged, 'line')} did not match the checksum"
    if salvage.missing:
        yield (
            f"{counted(salvage.missing, 'request')} left no trace (lost, or withdrawn): asked again under the same key"
            " when the row turns up, at no second charge for 24 h after it was sent"
        )


async def verify_ledger(location: str) -> VerifyReport:
    """Check the whole ledger, every checksum included.

    Raises:
        LedgerError: it cannot even be opened.
    """
    async with _opened(location) as ledger:
        return await ledger.verify()


async def prune_ledger(location: str, older_than: float) -> int:
    """Forget what was answered or failed so many seconds ago, never what is still ``sent``; gives how many.

    Raises:
        LedgerError: a run is using the ledger.
    """
    async with _opened(location, read_only=False) as ledger:
        return await ledger.prune(older_than)


def findings(report: VerifyReport) -> Iterator[str]:
    """Say for people what a check found and what becomes of it."""
    yield f"{report.requests:,} requests, {report.answers:,} answers"
    yield from (f"problem: {problem}" for problem in report.problems)
    for key in report.damaged_requests:
        yield f"damaged request {key_text(key)}: the next run mends it from the input, or holds it in doubt"
    for key in report.damaged_answers:
        yield f"damaged answer {key_text(key)}: fetched again under its key for 23 h, then in doubt"
    for key in report.damaged_facts:
        yield f"damaged request {key_text(key)}: a count, a time or a name beside it; no answer is lost"
    yield "sound: every checksum holds" if report.sound else "NOT sound"


@contextlib.asynccontextmanager
async def _opened(location: str, *, read_only: bool = True) -> AsyncIterator[Ledger]:
    ledger = await open_ledger(location, read_only=read_only, make=False)
    try:
        yield ledger
    finally:
        await ledger.close()


def _error(entry: Entry) -> str | None:
    record = entry.record
    if record.reply is not None:
        return None
    failure = record.failure or (entry.failures[-1].failure if entry.failures else None)
    return str(failure) if failure is not None else None


def _exported(entry: Entry) -> dict[str, Any]:
    record, reply = entry.record, entry.record.reply
    completion = completion_of(record)
    usage = completion.usage if completion else Usage()
    return {
        "key": key_text(record.key),
        "state": record.standing,
        "model": record.model,
        "parent": key_text(record.parent) if record.parent is not None else None,
        "run": record.run,
        "attempts": record.attempts,
        "sent_at": _moment(record.sent_at),
        "received_at": _moment(entry.received_at) if entry.received_at is not None else None,
        "request": entry.ask.body,
        "answer": reply.body if reply else None,
        "streamed": reply.streamed if reply else None,
        "request_id": reply.request_id if reply else None,
        "latency_ms": reply.latency_ms if reply else None,
        "text": completion.text if completion else None,
        "served_by": completion.model if completion else None,
        "finish_reason": completion.finish_reason if completion else None,
        **{name: getattr(usage, name) for name in AMOUNTS},
        "error": _error(entry),
        "damaged": list(entry.damaged),
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
