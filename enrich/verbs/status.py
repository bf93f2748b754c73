"""What the ledger of a job knows, and how a run stands that goes on elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted, duration
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.records import STATES, STATUSES, Completion
from enrich.runs.partition_todo import survey
from enrich.show.pulse import Pulse, pulse_name
from enrich.wire.completion import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from enrich.config import Config
    from enrich.ledger.protocol import Ledger
    from enrich.show.snapshot import Snapshot


CAUSES_MOST = 5  # causes told
TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
LATE_AFTER = 10.0  # seconds without a note of a run, which makes one every other second
LOST_AFTER = 60.0  # seconds after which it counts as gone


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What a ledger holds.

    Attributes:
        requests: per state: answered, failed, sent (no answer yet), in_doubt, skipped.
        credits: charged for the answers it holds, all runs together.
        damaged: requests with a count, a time or a name that is not of the type that was written.
        partitions: of an output that is a folder, its files by how they stand; None of one that is a file.
    """

    ledger: str
    requests: dict[str, int]
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    credits: float
    last_run: dict[str, Any] | None
    partitions: dict[str, int] | None = None
    damaged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return asdict(self)

    def text(self) -> str:
        """Write it for people."""
        lines = [f"ledger      {self.ledger}"]
        lines += [f"{state:11} {count:,}" for state, count in self.requests.items()]
        lines.append(f"attempts    {self.attempts:,}")
        lines.append(
            f"tokens      {self.total_tokens:,} ({self.prompt_tokens:,} prompt, {self.completion_tokens:,} completion)"
        )
        lines.append(f"credits     {self.credits:,.6g}")
        if self.partitions is not None:
            told = ", ".join(f"{count:,} {state}" for state, count in self.partitions.items() if count)
            lines.append(f"partitions  {told}")
        if self.damaged:
            lines.append(f"damaged     {self.damaged:,}: `beatra-enrich ledger verify CONFIG` says which")
        if self.last_run is not None:
            lines += _last_run(self.last_run)
        if self.requests.get("in_doubt"):
            lines.append(
                "Hint: `beatra-enrich retry CONFIG --in-doubt resend` or `--in-doubt skip` settles what is in doubt."
            )
        return "\n".join(lines)


def _last_run(summary: dict[str, Any]) -> Iterator[str]:
    """Tell how the last run ended: its rows by status, why some failed, and whether its answers are made up."""
    yield f"last run    {summary.get('reason', '')}"
    rows = summary.get("rows", 0)
    counts = [(status, summary.get(status, 0)) for status in STATUSES]
    told = ", ".join(f"{count:,} {status} ({count / rows:.1%})" for status, count in counts if count)
    if told:
        yield f"rows        {rows:,}: {told}"
    for cause in summary.get("causes", [])[:CAUSES_MOST]:
        example = f"first in row {cause['row']:,}"
        yield f"            {counted(cause['rows'], 'row')} {cause['code']} at step {cause['step']}, {example}"
    if summary.get("sandbox"):
        yield "sandbox     the last run's answers are made up, and nothing was charged for them"


async def status_job(config: Config) -> LedgerStatus:
    """Read what the ledger of a job knows; sends nothing.

    Raises:
        LedgerError: there is no ledger yet.
    """
    location = config.ledger_location()
    require_ledger(location)
    ledger = await open_ledger(location, read_only=True, make=False)
    try:
        totals = await ledger.totals()
        tally = Counter(dict(zip(TOKENS, totals.tokens, strict=True)))
        credits_ = totals.credits
        async for replies in ledger.replies(totals.unread):  # streams, and what the database cannot read
            for usage in (
                result.usage for result in map(read, replies.values()) if isinstance(result, Completion)
            ):
                tally.update({name: getattr(usage, name) or 0 for name in TOKENS})
                credits_ += usage.credits or 0.0
        last = await ledger.last_run()
    finally:
        await ledger.close()
    return LedgerStatus(
        config.ledger_shown(),
        {state: getattr(totals, state) for state in STATES},
        totals.attempts,
        tally["prompt_tokens"],
        tally["completion_tokens"],
        tally["total_tokens"],
        round(credits_, 9),
        last.summary if last else None,
        await survey(config) if config.output.partitioned else None,
        totals.damaged,
    )


async def watch_job(config: Config, show: Callable[[Snapshot], None], *, every: float) -> str:
    """Follow a run of this job from outside until it ends; reads notes in the ledger, writes nothing.

    Args:
        config: the job.
        show: told where the run stands.
        every: seconds between looks.

    Returns:
        How it ended, for people.

    Raises:
        LedgerError: there is no ledger yet.
    """
    location = config.ledger_location()
    require_ledger(location)
    ledger = await open_ledger(location, read_only=True)
    try:
        while True:
            note = await ledger.recall(pulse_name(config.output.path))
            if note is None:
                return "no run of this job has begun yet"
            pulse = Pulse.from_dict(note)
            if pulse.ended:
                return await _ending(ledger, pulse.run)
            age = time.time() - pulse.at
            if age > LOST_AFTER:
                return (
                    f"nothing was heard of the run for {duration(age)}: it was killed, or its machine sleeps\n"
                    "Hint: beatra-enrich run CONFIG goes on from there."
                )
            late = f"nothing was heard of the run for {duration(age)}" if age > LATE_AFTER else ""
            show(replace(pulse.snapshot, waiting_for=late or pulse.snapshot.waiting_for))
            await asyncio.sleep(every)
    finally:
        await ledger.close()


async def _ending(ledger: Ledger, run: int) -> str:
    last = await ledger.last_run()
    if last is None or last.number < run or last.summary is None:
        return "the last run of this job has ended"
    return f"the last run has ended: {last.summary.get('reason', '')}"
