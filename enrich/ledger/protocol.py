"""What the engine and the pipeline ask of a ledger; `sqlite` and `postgres` give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from enrich.records import Ask, Failure, Record, Reply

DOUBT_AFTER = 23 * 3600.0  # seconds; the server remembers a key for 24 h, one hour is the margin


@dataclass(frozen=True, slots=True)
class Claim:
    """The ledger's word on one ask that is about to be sent.

    Attributes:
        verdict: ``mine`` (send it; the intent is durable), ``done`` (``record`` is final: use it), ``held``
            (another live run is sending it: wait for that) or ``in_doubt`` (``record`` is too old to re-send).
        attempt: for ``mine``: the number of the attempt that may now be sent, from 1, over all runs.
        body: for ``mine``: the bytes to send: the stored ones, when the request was sent before.
        record: what is known; None for a new request.
    """

    verdict: Literal["mine", "done", "held", "in_doubt"]
    attempt: int = 1
    body: bytes = b""
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run, as the ledger keeps it."""

    number: int
    started_at: float
    ended_at: float | None
    summary: dict[str, Any] | None


class Ledger(Protocol):
    """A durable memory of requests. Each coroutine returns when what it says is on disk.

    A request's life: `claim` makes it ``sent`` (before the first byte), `answer` makes it ``answered`` (raw,
    before parsing) or `fail` makes it ``failed``. `again` logs a failed attempt and takes the next attempt's number;
    `reject` turns an answer that proved unusable back to ``sent`` or on to ``failed``. A run that dies leaves
    its requests ``sent``: the next run claims them with their stored body.
    """

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run and hold it alive until `close_run`; gives its number."""

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended; claims that were never sent are withdrawn."""

    async def lookup(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Give what is known of these keys; unknown ones are absent. Verifies each answer's checksum."""

    async def lookup_question(self, questions: Sequence[bytes]) -> dict[bytes, list[Record]]:
        """Give the answered requests per question (`Ask.question`), oldest first."""

    async def claim(self, asks: Sequence[Ask], *, resend_failed: bool = False) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it.

        Args:
            asks: the requests, keys distinct.
            resend_failed: claim requests in state ``failed`` again, as another attempt of the same key.
        """

    async def again(self, key: bytes, failure: Failure) -> int:
        """Log that an attempt failed, and that the next is about to be sent; gives its number."""

    async def answer(self, key: bytes, reply: Reply) -> None:
        """Keep a raw answer."""

    async def reject(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Take an answer that proved unusable back: to ``failed`` when ``final``, else to ``sent``."""

    async def fail(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Log the last failure. ``final``: the request is ``failed``; else it stays ``sent`` (unknown outcome)."""

    async def withdraw(self, keys: Iterable[bytes]) -> None:
        """Undo claims of which no byte was sent, in this run or before."""

    async def settle_doubt(self, keys: Sequence[bytes], how: Literal["resend", "skip"]) -> int:
        """Carry out the operator's decision on requests in doubt; gives how many it touched.

        ``resend`` lets the next claim send them as if they were new (under the same key and body); ``skip`` gives
        them up.
        """

    async def generation(self, step: bytes, *, bump: bool = False) -> int:
        """Give how often ``--fresh`` was asked for this step (16-byte fingerprint); ``bump`` counts one more."""

    async def recall(self, name: str) -> dict[str, Any] | None:
        """Give what was remembered under a name, such as an endpoint's learned rate."""

    async def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small value for the next run."""

    async def last_run(self) -> RunInfo | None:
        """Give the newest run that ended, for `status` and `report`."""

    async def close(self) -> None:
        """Write everything that is queued and let go of the file or the connection."""
