"""What runs learn of an endpoint and leave in the ledger to the next: what it lets through, takes, and how its streams end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enrich.wire.stream_end import StreamEnds

if TYPE_CHECKING:
    from enrich.config.endpoint import Endpoint
    from enrich.ledger.protocol import Ledger
    from enrich.pace.pace import Pace
    from enrich.runs.job import Job


@dataclass(frozen=True, slots=True)
class Learned:
    """What earlier runs learned, and this one goes on learning.

    Attributes:
        pace: what the endpoint lets through, as `Pace.learned` gives it; None before the first run.
        ends: how it ends its streams.
    """

    pace: dict[str, Any] | None
    ends: StreamEnds

    async def keep(self, job: Job, ledger: Ledger, pace: Pace) -> None:
        """Leave it to the next run."""
        await ledger.remember(_pace_name(job), pace.learned())
        await ledger.remember(_formats_name(job), job.formats.learned())
        await ledger.remember(_ends_name(job), {"says_done": self.ends.says_done})


async def recall_learned(job: Job, ledger: Ledger, endpoint: Endpoint) -> Learned:
    """Give what earlier runs learned of an endpoint's pace and streams."""
    ends = StreamEnds.of(endpoint)
    told = await ledger.recall(_ends_name(job))
    if told is not None and ends.says_done is None:
        ends.says_done = told.get("says_done")
    return Learned(await ledger.recall(_pace_name(job)), ends)


async def recall_formats(job: Job, ledger: Ledger) -> None:
    """Tell a job what the endpoint's models do not take."""
    job.formats.know(await ledger.recall(_formats_name(job)))


async def recall_rate(job: Job, ledger: Ledger) -> float | None:
    """Give the requests per second that the endpoint lets through, of its models the slowest; None where unknown."""
    learned = await ledger.recall(_pace_name(job)) or {}
    rates = [model.get("rate") for model in learned.get("models", {}).values()]
    return min((rate for rate in rates if rate), default=None)


def _pace_name(job: Job) -> str:
    """Name the note on what an endpoint lets through: it is another for each account, which the key stands for.

    Of the key it holds 32 bits of a hash, of which nothing can be guessed.
    """
    account = job.endpoint.account if job.endpoint is not None else ""
    if not account:
        return f"pace:{job.base_url}"
    digest = hashlib.blake2b(account.encode(), digest_size=4, person=b"beatra-pace")
    return f"pace:{job.base_url}:{digest.hexdigest()}"


def _formats_name(job: Job) -> str:
    return f"formats:{job.base_url}"


def _ends_name(job: Job) -> str:
    return f"stream_end:{job.base_url}"
