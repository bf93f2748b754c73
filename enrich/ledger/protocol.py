"""What the engine and the pipeline ask of a ledger; `sqlite` and `postgres` give it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from enrich.records import frozen, key_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence

    from enrich.ledger.commit import Commits
    from enrich.pace.purse import Hold, Refusal, Reserving, Settlement
    from enrich.records import Ask, Failure, Record, Reply

ATTEMPTS = bytes.fromhex("6f0c1f4e5b7a5d0e9c3b8a2d4e6f7081")  # the uuid5 namespace of attempt ids
DOUBT_AFTER = 23 * 3600.0  # seconds; the server remembers a key for 24 h, one hour is the margin


def attempt_uuid(key: bytes, attempt: int) -> bytes:
    """Give the 16 bytes of an attempt's ``X-Request-Id``: a uuid5 over the key and the attempt's number (from 1).

    Support can find an attempt by it even when no response ever came.
    """
    digest = bytearray(
        hashlib.sha1(ATTEMPTS + key + attempt.to_bytes(4, "big"), usedforsecurity=False).digest()
    )
    digest[6] = digest[6] & 0x0F | 0x50  # version 5
    digest[8] = digest[8] & 0x3F | 0x80  # the variant of RFC 9562
    return bytes(digest[:16])


def attempt_id(key: bytes, attempt: int) -> str:
    """Give an attempt's ``X-Request-Id`` as text."""
    return key_text(attempt_uuid(key, attempt))


Part = Literal["request", "answer", "facts"]


@frozen
class Claim:
    """The ledger's word on one ask that is about to be sent.

    Attributes:
        verdict: ``mine`` (send it; the intent is durable), ``done`` (``record`` is final: use it), ``held``
            (another live run is sending it: wait for that), ``in_doubt`` (``record`` is too old to re-send, or
            the operator gave it up: ``record.skipped``) or ``refused`` (by a budget: nothing was written).
        attempt: for ``mine``: the number of the attempt that may now be sent, from 1, over all runs.
        body: for ``mine``: the bytes to send: the stored ones, when the request was sent before.
        record: what is known; None for a new request.
        unknowns: for ``mine``: earlier attempts that may have been executed; none where the operator said `resend`.
        refusal: for ``refused``: why.
    """

    verdict: Literal["mine", "done", "held", "in_doubt", "refused"]
    attempt: int = 1
    body: bytes = b""
    record: Record | None = None
    unknowns: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run, as the ledger keeps it.

    Attributes:
        ended_at: None where it is still at work, or died.
        summary: as ``--json`` prints it.
        output: where it meant to write, or what was asked of a data frame; None where nobody can tell.
        config: the file that it was told by; None where it was told by none, or by an earlier release.
        tags: of the budgets that it spent of.
    """

    number: int
    started_at: float
    ended_at: float | None
    summary: dict[str, Any] | None
    output: str | None = None
    config: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One line of a request's log.

    Attributes:
        attempt: its number, from 1.
        attempt_id: the ``X-Request-Id`` it was sent with, as a uuid's text.
        at: wall-clock seconds since the epoch.
        answer: the raw answer that was taken back, when there was one.
    """

    attempt: int
    attempt_id: str
    at: float
    failure: Failure
    answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything the ledger holds of one request.

    Attributes:
        ask: as it was sent.
        record: as `Ledger.lookup` gives it.
        received_at: wall-clock seconds since the epoch, of the answer.
        failures: the failed attempts, oldest first.
        damaged: which parts are not what was written: the ``request``'s body and time, the ``answer``, or the
            ``facts`` beside them: counts, times and names.
        line: the number of its line.
        answered_by: the number of the run that got the answer; 0 without one.
    """

    ask: Ask
    record: Record
    received_at: float | None
    failures: tuple[FailedAttempt, ...]
    damaged: tuple[Part, ...] = ()
    line: int = 0
    answered_by: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """How many requests the ledger holds in each state; the states sum to ``requests``.

    Attributes:
        attempts: of all of them.
        tokens: that the answers name, as far as the database can read them: of prompts, of completions, in total.
        credits: likewise.
        unread: the numbers of the answers that it cannot read: streams, and what is no plain JSON; see
            `Ledger.replies`.
        damaged: requests with a count, a time or a name that is of another type than was written.
    """

    requests: int
    answered: int
    failed: int
    sent: int
    in_doubt: int
    skipped: int
    attempts: int = 0
    tokens: tuple[int, int, int] = (0, 0, 0)
    credits: float = 0.0
    unread: tuple[int, ...] = ()
    damaged: int = 0


class Listed(NamedTuple):
    """One request in a few words; a plain tuple, because a million of them are listed.

    Attributes:
        number: of its line.
        key: 16 bytes.
        standing: as `Record.standing`.
        model: as in `Record`.
        attempts: as in `Record`.
        sent_at: as in `Record`.
        tokens: that the answer names.
        credits: that the answer names.
        error: ``code: message`` of the last failure, where there is no answer.
        damaged: which parts are not what was written.
    """

    number: int
    key: bytes
    standing: str
    model: str
    attempts: int
    sent_at: float
    tokens: int | None
    credits: float | None
    error: str | None
    damaged: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a full check of the ledger found.

    Attributes:
        requests: how many it holds.
        answers: how many it holds.
        problems: what is wrong with the file, a sentence each.
        damaged_requests: keys whose body does not match its checksum; the input still holds what was asked.
        damaged_answers: keys whose answer does not match its checksum; the next run fetches them again.
        damaged_facts: keys with a count, a time or a name beside them that is not what was written.
    """

    requests: int
    answers: int
    problems: tuple[str, ...]
    damaged_requests: tuple[bytes, ...]
    damaged_answers: tuple[bytes, ...]
    damaged_facts: tuple[bytes, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.problems or self.damaged_requests or self.damaged_answers or self.damaged_facts)


class Ledger(Protocol):
    """A durable memory of requests. Each coroutine returns when what it says is on disk.

    A request's life: `claim` makes it ``sent`` (before the first byte), `answer` makes it ``answered`` (raw,
    before parsing) or `fail` makes it ``failed``. `again` logs a failed attempt and takes the next attempt's number;
    `reject` turns an answer that proved unusable back to ``sent`` or on to ``failed``. A run that dies leaves
    its requests ``sent``: the next run claims them with their stored body.

    Attributes:
        ahead: how many requests may be claimed before it is their turn, so that one commit carries many.
    """

    ahead: int

    @property
    def commits(self) -> Commits:
        """Give how many commits there were, and how long they took."""

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run and hold it alive until `close_run`; gives its number."""

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended: what it left ``sent`` may be claimed by the next. `withdraw` what was not sent first."""

    async def lookup(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Give what is known of these keys; unknown ones are absent.

        Verifies each answer's checksum: a damaged answer is as good as none, its record is ``sent``.
        """

    async def lookup_some(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Record], list[bytes]]:
        """Do the same for as many of these keys as memory allows at once; gives the keys that are left as well."""

    async def lookup_question(self, questions: Sequence[bytes]) -> dict[bytes, list[Record]]:
        """Give the answered requests per question (`Ask.question`), oldest first."""

    async def claim(
        self, asks: Sequence[Ask], *, resend_failed: bool = False, reserving: Reserving | None = None
    ) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it.

        Args:
            asks: the requests, keys distinct.
            reserving: what is reserved for them, together with the claim; those that do not fit are ``refused``.
            resend_failed: claim requests that ``failed`` in an earlier run again, as another attempt of the same
                key. One that may have been paid for and is too old to replay becomes ``in_doubt`` instead.

        Raises:
            DiskFull: there is no room for the answers; nothing was claimed.
        """

    async def again(self, key: bytes, failure: Failure) -> int | None:
        """Log that an attempt failed, and that the next is about to be sent; gives its number.

        None when the key has grown too old to be sent again: the failure is logged, the request is in doubt.

        Raises:
            DiskFull: there is no room for an answer; the failure was not logged.
        """

    async def answer(self, key: bytes, reply: Reply, *, within: float = 0.0) -> None:
        """Keep a raw answer; it may wait so many seconds to be made durable together with others."""

    async def reject(self, key: bytes, failure: Failure, *, final: bool, answer: bytes | None = None) -> None:
        """Take an answer that proved unusable back: to ``failed`` when ``final``, else to ``sent``.

        Its raw bytes stay in the log. With ``answer``, only those bytes are taken back: where another run has got
        another answer meanwhile, that one stays.
        """

    async def fail(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Give a request up and log its last failure. ``final``: it is ``failed``.

        Else its outcome is unknown: it stays ``sent``, this run claims it no more, and any other run may.
        """

    async def withdraw(self, keys: Iterable[bytes]) -> None:
        """Undo claims of this run whose latest attempt never left this machine, or was refused.

        A request of which nothing else is known is forgotten; one whose earlier attempts were all refused or
        unsent as well keeps its log and can never come to be in doubt; any other is left as it is.
        """

    async def settle_doubt(
        self, keys: Sequence[bytes], how: Literal["resend", "skip"], *, young: bool = False
    ) -> int:
        """Carry out the operator's decision on requests in doubt; gives how many it touched.

        ``resend`` lets the next claim send them as if they were new (under the same key and body); ``skip`` gives
        them up. Requests that are not in doubt, or that a live run holds, are left alone.

        Args:
            keys: of the requests.
            how: the decision.
            young: whether requests without an answer are meant as well that the endpoint may still remember.
        """

    async def generation(self, step: bytes, *, bump: bool = False) -> int:
        """Give how often ``--fresh`` was asked for this step (16-byte fingerprint); ``bump`` counts one more.

        Raises:
            LedgerError: it is not what was written; it decides about which answers are paid for.
        """

    async def recall(self, name: str, *, vital: bool = False) -> dict[str, Any] | None:
        """Give what was remembered under a name, such as an endpoint's learned rate; what is damaged is forgotten.

        Args:
            name: what it is called.
            vital: whether it decides about money: then damage is no reason to go on without.

        Raises:
            LedgerError: it is vital, and damaged.
        """

    async def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small value for the next run."""

    async def enlist(self, name: str, item: Any, *, further: bool = False) -> list[Any]:
        """Give the list that is kept under a name, under ``items`` for `recall`, once this item is in it if it may be.

        Whoever comes first writes its item; all others, in other processes too, are given that one.

        Args:
            name: what it is called.
            item: plain JSON.
            further: whether it joins those that are there.

        Raises:
            LedgerError: the list is not what was written.
        """

    async def settle_spending(self, settlements: Sequence[Settlement]) -> None:
        """Replace what was reserved for requests by what was spent; what is settled already changes nothing."""

    async def abandon_spending(self, keys: Sequence[bytes]) -> None:
        """Note that this run works at these requests no more: what is reserved for them stays so, for nobody."""

    async def stale_holds(self, tags: Sequence[str]) -> list[Hold]:
        """Give what is reserved under these tags by runs that are not at work any more."""

    async def beside(self) -> list[dict[str, Any]]:
        """Give what the other runs that are at work said of themselves as they were opened."""

    async def last_run(self) -> RunInfo | None:
        """Give the newest run that ended, for `status` and `report`."""

    async def runs(self) -> list[RunInfo]:
        """Give all runs, the oldest first; also those that did not end."""

    async def version(self) -> str | None:
        """Name what the ledger holds: it has another name once a run was opened, or an answer or a request is gone.

        None where nobody can say that no stranger has touched it meanwhile.
        """

    async def totals(self) -> Totals:
        """Count the requests per state, and add up what the answers cost."""

    def listing(self, states: Iterable[str]) -> AsyncIterator[tuple[list[Listed], list[int]]]:
        """Give every request that stands in one of these ways in a few words, oldest first; checks no checksum of a body.

        With them come the places in the list of those whose answer the database cannot read: they name no tokens.
        """

    def replies(self, numbers: Sequence[int]) -> AsyncIterator[dict[int, Reply]]:
        """Give answers by their numbers, some at a time; only body and form of each."""

    def scan(self) -> AsyncIterator[list[Entry]]:
        """Give everything the ledger holds, oldest first, some hundred requests at a time."""

    async def newest(self, most: int, *, failed: bool = False, known: Collection[int] = ()) -> list[Entry]:
        """Give the newest requests that have an answer, or that failed, the newest first, by their numbers.

        Args:
            most: how many are looked at.
            failed: those that failed for good, instead of those with an answer.
            known: the numbers of lines that are left out.
        """

    async def verify(self) -> VerifyReport:
        """Check every checksum, and that every key is there once."""

    async def prune(self, older_than_s: float) -> int:
        """Forget requests that were answered or failed so many seconds ago; gives how many. What is ``sent`` stays.

        Raises:
            LedgerError: a run is using the ledger.
        """

    async def close(self) -> None:
        """Write everything that is queued and let go of the file or the connection."""
