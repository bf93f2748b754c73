"""Whether a job is as it was when nothing was left to ask: then its rows need not be gone through to say so.

What was found is kept in the ledger beside everything it rests on: the job, the files of the input, the decisions of
earlier runs, and what the ledger held. If any of it is another, or cannot be told, the long way is taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.base.version import __version__
from enrich.errors import RunStopped
from enrich.prompt.messages import without_files
from enrich.rows.conversation import UNFIT
from enrich.rows.step import strayed_name
from enrich.runs.fresh import under_way

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.records import RowStatus
    from enrich.rows.statuses import Marks
    from enrich.runs.job import Job
    from enrich.runs.prepare import Opened

COARSEST = 2.0  # seconds: of the file systems that tell times least finely
ROWS_AT_ONCE = 262_144  # rows counted in one pass
SETTLED: frozenset[RowStatus] = frozenset({"ok", "skipped"})
NO_MATTER = frozenset(
    {"ledger", "limits", "budget", "report", "metrics_file", "tolerate", "max_reasked", "endpoint"}
)
SECRET = frozenset(
    {
        *("api_key_env", "api_key_file", "api_key_command", "api_key_expires_in", "auth", "headers", "proxy"),
        *("url", "query"),  # they are in the URL that requests are keyed by
    }
)


@dataclass(frozen=True, slots=True)
class Done:
    """One step of which nothing is left to ask.

    Attributes:
        skipped: rows that ask nothing.
        in_ledger: distinct requests that are settled.
        copies: rows with the same request as an earlier one.
    """

    skipped: int
    in_ledger: int
    copies: int


def all_answered(tally: Counter[RowStatus]) -> bool:
    """Say whether every row has an answer, or asks nothing: a failure may pass, and a doubt may be settled."""
    return not any(count for status, count in tally.items() if status not in SETTLED and status not in UNFIT)


def counted_done(marks: Marks, tally: Counter[RowStatus], steps: int) -> list[Done] | None:
    """Count what a run has done, after `Marks.find_copies`; None where a row has no answer that is as it should be."""
    if any(count for status, count in tally.items() if status not in SETTLED):
        return None
    known = [0] * steps
    for start in range(0, marks.rows, ROWS_AT_ONCE):
        firsts = marks.firsts(start, min(ROWS_AT_ONCE, marks.rows - start))
        if firsts.left.any() or firsts.undecided.any():
            return None
        known = [so_far + int(more) for so_far, more in zip(known, firsts.known.sum(axis=0), strict=True)]
    found = []
    for number, in_ledger in enumerate(known):
        skipped = marks.reasons(number)["skipped"]
        found.append(Done(skipped, in_ledger, marks.rows - skipped - in_ledger))
    return found


async def note_done(begun: Opened, steps: Sequence[Done], since: float) -> None:
    """Keep that nothing is left to ask, as far as it can be told when that is so no more.

    Args:
        begun: the job.
        steps: how each stands.
        since: wall seconds since the epoch, before the input was looked at.
    """
    ledger = begun.session.ledger
    version = await ledger.version()
    if version is None or not _can_be_told(begun) or not _told_apart(begun.source, since):
        return
    told = {"of": await _identity(begun), "ledger": version, "steps": [asdict(step) for step in steps]}
    with contextlib.suppress(RunStopped):  # a full disk: it is found out again
        await ledger.remember(_name(begun.config), told)


async def still_done(begun: Opened) -> list[Done] | None:
    """Say how the steps stand if nothing was left to ask, and nothing has changed since; None when that is not known."""
    ledger = begun.session.ledger
    told = await ledger.recall(_name(begun.config))
    if told is None or not _can_be_told(begun):
        return None
    version = await ledger.version()
    if version is None or told["ledger"] != version or told["of"] != await _identity(begun):
        return None
    return [Done(**step) for step in told["steps"]]


def _name(config: Config) -> str:
    return f"done:{config.output.path}"


def _can_be_told(begun: Opened) -> bool:
    """Say whether all that a job rests on can be looked at: files of a folder are made one by one, programs change."""
    return not (rests_on_more(begun.session.job) or begun.config.output.partitioned)


def rests_on_more(job: Job) -> bool:
    """Say whether a job rests on what a digest says nothing of: a program of the user's, or pictures beside the rows."""
    builders = [step.builder for step in job.steps]
    return any((b.schema is not None and b.schema.is_code) or b.images is not None for b in builders)


async def decisions(ledger: Ledger, steps: Iterable[bytes], scope: str) -> list[list[Any]]:
    """Give what earlier runs decided about steps, by their fingerprints: which answers serve, and which are asked anew."""
    decided: list[Any] = []
    for name in steps:
        unfinished = await under_way(ledger, name, scope)
        is_strayed = await ledger.recall(strayed_name(name), vital=True) is not None
        decided.append([name.hex(), await ledger.generation(name), unfinished, is_strayed])
    return decided


def _told_apart(source: Source, since: float) -> bool:
    """Say whether every file would show that it was written to after it was looked at."""
    return all(
        bool(file.version) if not file.inode else file.ctime_ns / 1e9 < since - COARSEST
        for file in source.files
    )


def surroundings(config: Config, limit: int | None) -> list[Any]:
    """Give what any job rests on beside its rows and steps: the versions at work, and what else was told."""
    return [
        __version__,
        platform.python_version(),
        pa.__version__,
        metadata.version("jinja2"),
        limit,
        config.model_dump(mode="json", exclude=set(NO_MATTER)),
        config.endpoint.model_dump(mode="json", exclude=set(SECRET)),
    ]


async def _identity(begun: Opened) -> str:
    """Digest what decides which requests a job makes, and which answers serve."""
    source, session, job = begun.source, begun.session, begun.session.job
    steps = [
        [
            without_files(step.builder.step).model_dump(mode="json"),
            step.builder.schema and step.builder.schema.json,
        ]
        for step in job.steps
    ]
    fingerprints = [step.builder.fingerprint for step in job.steps]
    decided = await decisions(session.ledger, fingerprints, session.scope)
    facts = [
        *surroundings(begun.config, begun.options.limit),
        job.base_url,
        steps,
        decided,
        [str(field) for field in source.schema],
        source.num_rows,
        source.rejected,
        [
            [f.told, f.size, f.mtime_ns, f.version, f.inode, f.ctime_ns, f.rows, f.partition]
            for f in source.files
        ],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
