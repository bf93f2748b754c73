"""The story of a ledger, told once for every database: what its methods do, short of how work is committed and read."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import orjson

from enrich.base.texts import json_bytes
from enrich.ledger import notes, spending
from enrich.ledger.commit import Commits, GroupCommit
from enrich.ledger.protocol import Claim, Entry, Listed, Part, RunInfo, Totals, VerifyReport
from enrich.ledger.rows import RELEASED, SKIPPED, run_info
from enrich.ledger.rules import Rules, by_key
from enrich.ledger.sizes import Sizes
from enrich.ledger.totals import count, listed
from enrich.ledger.transaction import Transaction
from enrich.records import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence

    from enrich.base.clock import Clock
    from enrich.ledger.rules import Find
    from enrich.pace.purse import Hold, Reserving, Settlement
    from enrich.records import Ask, Failure, Record

SCAN_BATCH: Final = 256  # requests per step of a scan

T = TypeVar("T")
Tx = TypeVar("Tx", bound=Transaction)


class SqlLedger(ABC, Generic[Tx]):
    """A `Ledger` over the named queries of one database. It belongs to the event loop that opened it.

    A database of its own kind says how queued work is committed (`_commit`), how something is read (`_reading`), how
    a run is held alive, and what a claim and an answer are as work.
    """

    _broken: tuple[
        type[Exception], ...
    ] = ()  # what reading raises where the tables' own structure is damaged

    def __init__(self, clock: Clock, boot: int, find: Find = by_key) -> None:
        self._clock = clock
        self._boot = boot
        self._rules = Rules(clock, boot, find)
        self._sizes = Sizes()
        self._commits: GroupCommit[Any] = GroupCommit(self._commit, "ledger-writer")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")

    @property
    def commits(self) -> Commits:
        """Give how many commits there were, and how long they took."""
        return self._commits.done

    # --- what differs --------------------------------------------------------------------------------------

    @abstractmethod
    def _commit(self, works: Sequence[Any]) -> list[Any]:
        """Carry out all the work in one transaction, in the writer's thread; gives a result or an error for each."""

    @abstractmethod
    def _reading(self, work: Callable[[Tx], T]) -> T:
        """Read something, in the reader's thread; raises errors of ours alone."""

    def _structure(self, tx: Tx) -> list[str]:  # noqa: ARG002  # a server looks after its own files
        """Say what is wrong with the structures below the tables."""
        return []

    def _found(self, problems: Sequence[str]) -> None:
        """Hear what a check found."""

    # --- runs ----------------------------------------------------------------------------------------------

    async def last_run(self) -> RunInfo | None:
        """Give the newest run that ended."""
        row = await self._read(lambda tx: tx.run("last_run").fetchone())
        return run_info(row) if row else None

    async def runs(self) -> list[RunInfo]:
        """Give all runs, the oldest first."""
        return [run_info(row) for row in await self._read(lambda tx: tx.run("all_runs").fetchall())]

    def _must_be_closed(self) -> None:
        if self._rules.run:
            raise RuntimeError(f"run {self._rules.run} is still open")

    def _must_be_open(self) -> None:
        if not self._rules.run:
            raise RuntimeError("claims need an open run")

    # --- requests ------------------------------------------------------------------------------------------

    async def lookup(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Give what is known of these keys; unknown ones are absent."""
        return await self._read(lambda tx: self._rules.lookup(tx, keys))

    async def lookup_some(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Record], list[bytes]]:
        """Do the same for as many of these keys as memory allows at once; gives the keys that are left as well."""
        some = self._sizes.share_of(len(keys))
        known = await self.lookup(keys[:some])
        records = map(known.get, keys[:some])  # a key that is not known has no answer to take room
        self._sizes.learn(len(r.reply.body) if r is not None and r.reply is not None else 0 for r in records)
        return known, list(keys[some:])

    async def lookup_question(self, questions: Sequence[bytes]) -> dict[bytes, list[Record]]:
        """Give the answered requests per question, oldest first."""
        return await self._read(lambda tx: self._rules.lookup_question(tx, questions))

    @abstractmethod
    async def claim(
        self, asks: Sequence[Ask], *, resend_failed: bool = False, reserving: Reserving | None = None
    ) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it."""

    async def again(self, key: bytes, failure: Failure) -> int | None:
        """Log that an attempt failed, and that the next is about to be sent; gives its number, None if too old."""
        return await self._submit(lambda tx: self._rules.again(tx, key, failure))

    @abstractmethod
    async def answer(self, key: bytes, reply: Reply, *, within: float = 0.0) -> None:
        """Keep a raw answer. A second one to the same request changes nothing."""

    async def reject(self, key: bytes, failure: Failure, *, final: bool, answer: bytes | None = None) -> None:
        """Move an unusable answer into the log: the request is ``failed`` when ``final``, else ``sent``."""
        await self._submit(lambda tx: self._rules.reject(tx, key, failure, final=final, answer=answer))

    async def fail(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Log the last failure. ``final``: the request is ``failed``; else it stays ``sent`` (unknown outcome)."""
        await self._submit(lambda tx: self._rules.fail(tx, key, failure, final=final))

    async def withdraw(self, keys: Iterable[bytes]) -> None:
        """Undo claims of this run whose latest attempt never left this machine, or was refused."""
        withdrawn = list(keys)
        await self._submit(lambda tx: self._rules.withdraw(tx, withdrawn))

    async def settle_doubt(
        self, keys: Sequence[bytes], how: Literal["resend", "skip"], *, young: bool = False
    ) -> int:
        """Carry out the operator's decision on requests in doubt; gives how many it touched."""
        state = RELEASED if how == "resend" else SKIPPED
        return await self._submit(lambda tx: self._rules.settle_doubt(tx, keys, state, young=young))

    # --- budgets that outlive a run ------------------------------------------------------------------------

    async def settle_spending(self, settlements: Sequence[Settlement]) -> None:
        """Replace what was reserved for requests by what was spent; what is settled already changes nothing."""
        now = self._rules.now().wall
        await self._submit(lambda tx: spending.settle(tx, settlements, now))

    async def abandon_spending(self, keys: Sequence[bytes]) -> None:
        """Note that this run works at these requests no more: what is reserved for them stays so, for nobody."""
        await self._submit(lambda tx: spending.abandon(tx, keys))

    async def stale_holds(self, tags: Sequence[str]) -> list[Hold]:
        """Give what is reserved under these tags by runs that are not at work any more."""
        return await self._read(lambda tx: spending.stale_holds(tx, self._rules, tags))

    # --- small things remembered ---------------------------------------------------------------------------

    async def generation(self, step: bytes, *, bump: bool = False) -> int:
        """Give how often ``--fresh`` was asked for this step; ``bump`` counts one more."""
        if bump:
            await self._submit(lambda tx: notes.bump(tx, step))
        return await self._read(lambda tx: notes.generation(tx, step))

    async def recall(self, name: str, *, vital: bool = False) -> dict[str, Any] | None:
        """Give what was remembered under a name; what is damaged is forgotten, unless it is vital."""
        text = await self._read(lambda tx: notes.recall(tx, name, vital=vital))
        try:
            value = orjson.loads(text) if text is not None else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    async def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small value for the next run."""
        text = json_bytes(value).decode()
        await self._submit(lambda tx: notes.remember(tx, name, text))

    async def enlist(self, name: str, item: Any, *, further: bool = False) -> list[Any]:
        """Give the list that is kept under a name, with this item where it is the first, or may join."""
        return await self._submit(lambda tx: notes.enlist(tx, name, item, further=further))

    # --- looking after it ----------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Count the requests per state, and add up what the answers cost."""
        return await self._read(functools.partial(count, values=self._rules.age_values()))

    async def listing(self, states: Iterable[str]) -> AsyncIterator[tuple[list[Listed], list[int]]]:
        """Give every request that stands in one of these ways in a few words, oldest first, some at a time."""
        last = 0
        values, wanted = self._rules.age_values(), " ".join(states)
        while True:
            lines, unread = await self._read(
                functools.partial(listed, values=values, after=last, states=wanted)
            )
            if not lines:
                return
            last = lines[-1].number
            yield lines, unread

    async def replies(self, numbers: Sequence[int]) -> AsyncIterator[dict[int, Reply]]:
        """Give answers by their numbers, some at a time; only body and form of each."""
        left = list(numbers)
        while left:
            some = left[: self._sizes.share_of(SCAN_BATCH)]
            left = left[len(some) :]
            lines = await self._read(functools.partial(_replies, numbers=some))
            replies = {
                number: Reply(body, None, 0.0, None, bool(streamed)) for number, body, streamed in lines
            }
            self._sizes.learn(len(reply.body) for reply in replies.values())
            yield replies

    async def scan(self, batch: int = SCAN_BATCH) -> AsyncIterator[list[Entry]]:
        """Give everything the ledger holds, oldest first, so many requests at a time."""
        last = 0
        while True:
            limit = self._sizes.share_of(batch)
            last, entries = await self._read(functools.partial(self._rules.page, after=last, limit=limit))
            if not entries:
                return
            self._sizes.learn(_size(entry) for entry in entries)
            yield entries

    async def newest(self, most: int, *, failed: bool = False, known: Collection[int] = ()) -> list[Entry]:
        """Give the newest requests that have an answer, or that failed, the newest first."""
        name = "newest_failed" if failed else "newest_answers"

        def work(tx: Tx) -> list[Entry]:
            numbers = [n for (n,) in tx.run(name, (most,)).fetchall() if n not in known]
            some = numbers[: self._sizes.share_of(len(numbers))]
            return [entry for n in some for entry in self._rules.page(tx, after=n - 1, limit=1)[1]]

        entries = await self._read(work)
        self._sizes.learn(_size(entry) for entry in entries)
        return entries

    async def verify(self) -> VerifyReport:
        """Check the whole ledger: its structure, every checksum, every key there once."""
        return await self._read(self._verify)

    def _verify(self, tx: Tx) -> VerifyReport:
        problems: list[str] = []
        damaged: dict[Part, list[bytes]] = {"request": [], "answer": [], "facts": []}
        requests = answers = 0
        try:
            problems += self._structure(tx)
            requests, answers = tx.run("count").fetchone()
            problems += self._rules.contradictions(tx)
            for entry in self._entries(tx):
                for part in entry.damaged:
                    damaged[part].append(entry.ask.key)
        except self._broken as error:
            problems.append(str(error).partition("\n")[0])
        self._found(problems)
        lists = (tuple(damaged["request"]), tuple(damaged["answer"]), tuple(damaged["facts"]))
        return VerifyReport(requests, answers, tuple(problems), *lists)

    def _entries(self, tx: Tx) -> Iterator[Entry]:
        last, entries = self._rules.page(tx, after=0, limit=SCAN_BATCH)
        while entries:
            yield from entries
            last, entries = self._rules.page(tx, after=last, limit=SCAN_BATCH)

    # --- to the threads ------------------------------------------------------------------------------------

    async def _submit(self, work: Callable[[Tx], T], *, within: float = 0.0) -> T:
        result: T = await self._commits.submit(work, within=within)
        return result

    async def _write(self, name: str, *values: Any) -> None:
        def work(tx: Tx) -> None:
            tx.run(name, values)

        await self._submit(work)

    async def _read(self, work: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._reading, work)


def _size(entry: Entry) -> int:
    reply = entry.record.reply
    log = sum(len(failure.answer or b"") for failure in entry.failures)
    return len(entry.ask.body) + (len(reply.body) if reply is not None else 0) + log


def _replies(tx: Transaction, numbers: list[int]) -> list[tuple[Any, ...]]:
    return [line for line in tx.select("replies", numbers) if type(line[1]) is bytes]
