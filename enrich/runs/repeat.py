"""A run that has nothing to do: job, input, ledger and output are those of the last finished run, so all stays as it is.

What they were is kept in the ledger when a run has ended well. If anything is another, or cannot be told, the run goes
its way: it costs time, and no money.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich.base.location import is_url
from enrich.base.words import counted
from enrich.errors import LedgerError, RunStopped
from enrich.files import storage
from enrich.files.source import find_input
from enrich.ledger.opening import open_ledger
from enrich.runs.fresh import scope_of
from enrich.runs.job import fingerprint
from enrich.runs.summary import idle
from enrich.runs.unchanged import SETTLED, decisions, rests_on_more, surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import Config
    from enrich.files.input_files import SourceFile
    from enrich.records import Summary
    from enrich.runs.options import RunOptions
    from enrich.runs.prepare import Opened

GRAIN = 0.1  # seconds: of clocks that tell less than whole seconds; the kernel's own tick is 0.01 s at most
COARSE_GRAIN = 2.0  # seconds: of the file systems that tell times least finely
BLOCK = 4_096  # bytes read at one place of a file
BLOCKS = 512  # places of all files of the input, and of the output


async def note_finished(begun: Opened, summary: Summary, since: float) -> None:
    """Keep what a finished run rested on and wrote, where every row has an answer or asks nothing.

    Args:
        begun: the job.
        summary: of the run.
        since: wall seconds since the epoch, before the input was looked at.
    """
    config, source, session = begun.config, begun.source, begun.session
    ledger = session.ledger
    version = await ledger.version()
    settled = not summary.exit_code and SETTLED.issuperset(
        s for s, count in summary.statuses.items() if count
    )
    told_apart = all(_shows_writing(file, since) for file in source.files)
    can_be_told = not (source.rejected or rests_on_more(session.job) or config.output.partitioned)
    if version is None or not (settled and told_apart and can_be_told):
        return
    facts = await asyncio.to_thread(_facts, config, source.files, begun.options.limit)
    if facts is None:
        return
    of, steps = facts
    told = {
        "of": of,
        "ledger": version,
        "decided": await decisions(ledger, steps, session.scope),
        "statuses": {status: count for status, count in summary.statuses.items() if count},
        "steps": [list(stands) for stands in summary.by_step],
        "keeps_keys": summary.perhaps_paid_twice is None,
        "sandbox": summary.sandbox,
        "reused": summary.reused,
        "unknown_finish": summary.unknown_finish,
    }
    with contextlib.suppress(RunStopped):  # a full disk: the next run goes its way
        await ledger.remember(_name(config), told)


async def repeated(config: Config, options: RunOptions) -> Summary | None:
    """Sum up the run of a job that is as the last finished run left it; None where it is not, or that is not known.

    Raises:
        UsageError: the input is gone, or the configuration cannot work.
    """
    begun = time.monotonic()
    location = config.ledger_location()
    asked = options.force or options.fresh or options.retry or options.anew or options.prepared is not None
    if asked or config.output.partitioned or is_url(location):
        return None
    if config.output.table is not None:  # others may have written there
        return None
    told = await _told(location, config)
    if told is None:
        return None
    files = (await asyncio.to_thread(find_input, config.input)).files
    facts = await asyncio.to_thread(
        _facts, config, files, options.limit, api_key=options.api_key, key_needed=True
    )
    if facts is None or facts[0] != told["of"]:
        return None
    ledger = await open_ledger(location, clock=options.clock)
    try:
        decided = await decisions(ledger, facts[1], scope_of(config.input, options.limit))
        if (await ledger.version(), decided) != (told["ledger"], told["decided"]):
            return None
    finally:
        await ledger.close()
    return _summed_up(config, told, time.monotonic() - begun)


def _summed_up(config: Config, told: dict[str, Any], seconds: float) -> Summary:
    rows = sum(told["statuses"].values())
    summary = idle(config, f"{counted(rows, 'row')} done before, and nothing has changed since", seconds)
    return replace(
        summary,
        rows=rows,
        statuses={**summary.statuses, **told["statuses"]},
        rows_per_second=rows / seconds if seconds > 0 else 0.0,
        perhaps_paid_twice=None if told["keeps_keys"] else 0,
        sandbox=told["sandbox"],
        reused=told["reused"],
        unknown_finish=told.get("unknown_finish", {}),
        by_step=tuple(map(tuple, told.get("steps", ()))),
    )


async def _told(location: str, config: Config) -> dict[str, Any] | None:
    """Give what the last finished run left; whoever works with the ledger is left alone."""
    try:
        ledger = await open_ledger(location, read_only=True)
    except (
        LedgerError
    ):  # there is none, or one that a killed run did not finish making: who opens it says more
        return None
    try:
        return await ledger.recall(_name(config))
    finally:
        await ledger.close()


def _name(config: Config) -> str:
    return f"finished:{config.output.path}"


def _shows_writing(file: SourceFile, since: float) -> bool:
    """Say whether a file would show that it was written to after it was looked at."""
    if not file.inode:
        return bool(file.version)
    grain = GRAIN if file.ctime_ns % 1_000_000_000 else COARSE_GRAIN
    return file.ctime_ns / 1e9 < since - grain


def _facts(
    config: Config, files: Sequence[SourceFile], limit: int | None, **key: Any
) -> tuple[str, list[bytes]] | None:
    """Digest all that a run rests on and leaves, and give the steps' fingerprints; None where a file is gone."""
    written = [config.output.path, *([str(config.report)] if config.report is not None else [])]
    stand = [storage.stat(path) for path in written]
    if any(one is None or not one.version for one in stand):
        return None
    digest, steps = fingerprint(config, **key)
    per_file = max(1, BLOCKS // len(files))
    facts = [
        *surroundings(config, limit),
        digest,
        [[f.told, f.size, f.mtime_ns, f.version, f.inode, f.ctime_ns, f.partition] for f in files],
        [_sampled(f.path, f.size, per_file) for f in files],
        [
            [one.size, one.mtime_ns, one.version, _sampled(one.location, one.size, BLOCKS)]
            for one in stand
            if one
        ],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest(), steps


def _sampled(path: str, size: int, places: int) -> str:
    """Digest blocks of a file, its first and its last among them; of a small one every byte, of an object nothing."""
    if is_url(path):  # its version tells
        return ""
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb", buffering=0) as file:
        if size <= places * BLOCK:
            digest.update(file.read())
        for number in range(places) if size > places * BLOCK else ():
            file.seek((size - BLOCK) * number // max(1, places - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()
