"""What may happen to a request, and when: the same rules in every SQL ledger, inside one transaction each."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from enrich.errors import EnrichError
from enrich.ledger import notes, rows
from enrich.ledger.checks import (
    CLOCK_TOLERANCE,
    LONG_AGO,
    Moment,
    answer_crc,
    request_crc,
    request_holds,
    seal_of,
)
from enrich.ledger.protocol import DOUBT_AFTER, Claim, Entry, attempt_uuid
from enrich.ledger.rows import DOUBTED, FAILED, RELEASED, SENT, Row
from enrich.records import key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from enrich.base.clock import Clock
    from enrich.ledger.transaction import Transaction
    from enrich.records import Ask, Failure, Record, Reply

    Find = Callable[[Transaction, Sequence[bytes]], list[tuple[Any, ...]]]

WIDTH = len(Row._fields)
KEY_PLACE = 4  # the key's place in a new request's line


def by_key(tx: Transaction, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """Find each key in the index."""
    return tx.select("known_keys", keys)


class Rules:
    """Decides on requests. Everything takes the transaction it happens in.

    Args:
        clock: tells the time.
        boot: which start of the machine this is.
        find: gives the lines of the keys that are known.

    Attributes:
        run: the number of the open run; 0 without one.
    """

    def __init__(self, clock: Clock, boot: int, find: Find = by_key) -> None:
        self._clock = clock
        self._find = find
        self._boot = boot
        self.run = 0

    def now(self) -> Moment:
        """Read the clocks."""
        return Moment(self._clock.wall(), self._boot, self._clock.boottime())

    # --- claims --------------------------------------------------------------------------------------------

    def claim(self, tx: Transaction, asks: Sequence[Ask], *, resend_failed: bool) -> list[Claim]:
        """Write down the intents that are new, and decide on those that are not.

        Raises:
            EnrichError: a key stands twice; nothing was written.
        """
        return self.decide(tx, asks, tx.insert_requests(self.new_lines(asks)), resend_failed=resend_failed)

    def new_lines(self, asks: Sequence[Ask]) -> list[tuple[Any, ...]]:
        """Give the lines of requests as if all were new.

        Raises:
            EnrichError: a key stands twice.
        """
        if len({ask.key for ask in asks}) != len(asks):
            raise EnrichError("a key stands twice in one claim")
        now = self.now()
        stamp = (self.run, now.wall, now.boot, now.boottime)
        return [(*stamp, *_columns(ask, now, self.run)) for ask in asks]

    def decide(
        self, tx: Transaction, asks: Sequence[Ask], new: set[bytes], *, resend_failed: bool
    ) -> list[Claim]:
        """Decide on requests that are written down, of which these are new."""
        old = [ask.key for ask in asks if ask.key not in new]
        known = {row.key: (row, record) for row, record in self.known(tx, "known_keys", old)}
        is_alive = functools.cache(tx.is_alive)
        return [
            self._reclaim(tx, ask, *known[ask.key], is_alive, resend_failed=resend_failed)
            if ask.key in known
            else Claim("mine", 1, ask.body)
            for ask in asks
        ]

    def _reclaim(
        self,
        tx: Transaction,
        ask: Ask,
        row: Row,
        record: Record,
        is_alive: Callable[[int], bool],
        *,
        resend_failed: bool,
    ) -> Claim:
        """Decide on an ask that the ledger knows."""
        if record.state == "answered":
            return Claim("done", record=record)
        row = _believed(row)
        if record.state == "failed":
            if row.run == self.run or not resend_failed:
                return Claim("done", record=record)
            return self._retry(tx, ask, row, record)
        if self._is_held(row, is_alive):
            return Claim("held", record=record)
        if record.in_doubt or (row.state == DOUBTED and row.run == self.run):
            return Claim("in_doubt", record=record)
        return self._take(tx, ask, row, record, as_new=row.state == RELEASED)

    def _is_held(self, row: Row, is_alive: Callable[[int], bool]) -> bool:
        """Say whether another live run is at work on a request; one that it gave up it holds no longer."""
        return row.run != self.run and row.state != DOUBTED and is_alive(row.run)

    def _retry(self, tx: Transaction, ask: Ask, row: Row, record: Record) -> Claim:
        """Ask a failed request again, unless it may have been paid for and the server has forgotten the key."""
        too_old = self.now().outlives(row.first_sent)
        if too_old and self._harmless(tx, row) < row.attempts:
            self._put(tx, row._replace(state=SENT))
            return _in_doubt(record)
        return self._take(tx, ask, row, record, as_new=too_old)

    def _harmless(self, tx: Transaction, row: Row) -> int:
        """Count the attempts that were refused or never left this machine."""
        return int(tx.run("harmless_failures", (row.id, row.id)).fetchone()[0])

    def _harmful(self, tx: Transaction, row: Row) -> bool:
        """Say whether any attempt may have been executed."""
        return bool(tx.run("harmful_failures", (row.id,)).fetchone()[0])

    def _take(self, tx: Transaction, ask: Ask, row: Row, record: Record, *, as_new: bool) -> Claim:
        """Take a request over, with the body it was first sent with, unless damage leaves open when that was."""
        crc, body = tx.run("stored_body", (row.id,)).fetchone()
        sound = request_holds(crc, row.key, body, row.first_sent)
        if not (sound and body):  # a line that was mended has none
            body = ask.body  # the same: the key is a function of it
        if not (as_new or sound or request_holds(crc, row.key, body, row.first_sent)):
            self._date(tx, row, body, LONG_AGO)
            self._put(tx, _asked_by(row, ask)._replace(state=SENT))
            return _in_doubt(record)
        attempt = row.attempts + 1
        first = self.now() if as_new else row.first_sent
        taken = row
        if row.reply is not None:
            taken = self._log(tx, row, rows.damaged_answer(row.reply), answer=row.reply)
            tx.run("delete_answer", (row.id,))
        if as_new or not sound or body is ask.body:
            self._date(tx, row, body, first)
        self._put(tx, _asked_by(taken, ask)._replace(state=SENT, run=self.run, attempts=attempt))
        unknowns = 0 if as_new else max(0, row.attempts - self._harmless(tx, row))
        return Claim("mine", attempt, body, record, unknowns)

    def _put(self, tx: Transaction, row: Row) -> None:
        """Write down how a request stands, under its seal."""
        named = (row.model.decode("utf-8", "replace"), row.parent, row.question)
        counts = (row.state, row.run, row.attempts, attempt_uuid(row.key, row.attempts), row.failure)
        tx.run("put_request", (*counts, *named, row.new_seal(), row.id))

    def _date(self, tx: Transaction, row: Row, body: bytes, first: Moment) -> None:
        """Write down a request's body, and when it was first sent."""
        crc = request_crc(row.key, body, first)
        tx.run("date", (first.wall, first.boot, first.boottime, crc, body, row.id))

    # --- attempts and answers ------------------------------------------------------------------------------

    def answer_line(self, key: bytes, reply: Reply, at: float) -> tuple[Any, ...]:
        """Give an answer's line, its key last."""
        request_id = None if reply.request_id is None else rows.storable(reply.request_id)
        crc = answer_crc(key, None if request_id is None else request_id.encode(), reply.body)
        measured = (int(reply.streamed), reply.latency_ms, reply.first_token_ms)
        return (self.run, at, *measured, request_id, crc, reply.body, key)

    def again(self, tx: Transaction, key: bytes, failure: Failure) -> int | None:
        """Log a failed attempt and number the next one; None when the key is too old for another."""
        row = self._log(tx, self.row(tx, key), failure)
        too_old = self.now().outlives(row.first_sent)
        attempt = row.attempts + (not too_old)
        self._put(tx, row._replace(attempts=attempt))
        return None if too_old else attempt

    def reject(
        self, tx: Transaction, key: bytes, failure: Failure, *, final: bool, answer: bytes | None
    ) -> None:
        """Take an answer back, unless another than the one that is meant stands there by now."""
        row = self.row(tx, key)
        if answer is not None and answer != row.reply:
            return
        logged = self._log(tx, row, failure, answer=row.reply)
        tx.run("delete_answer", (row.id,))
        self._put(tx, logged._replace(state=FAILED if final else SENT))

    def fail(self, tx: Transaction, key: bytes, failure: Failure, *, final: bool) -> None:
        """Log the last failure of a request that is given up."""
        row = self._log(tx, self.row(tx, key), failure)
        self._put(tx, row._replace(state=FAILED if final else DOUBTED))

    def withdraw(self, tx: Transaction, keys: Sequence[bytes]) -> None:
        """Undo claims of this run that cannot have been paid for."""
        tx.many("withdraw", [(key, self.run) for key in keys])
        for row, record in self.known(tx, "known_keys", keys):
            believed = _believed(row)
            mine = believed.run == self.run and believed.state in (SENT, DOUBTED)
            logged = mine and row.reply is None and record.state == "sent" and row.failure is not None
            # The latest attempt is not in the log: it never left this machine.
            if logged and row.attempts <= 1 + self._harmless(tx, row) and not self._harmful(tx, row):
                self._put(tx, believed._replace(state=RELEASED))

    def settle_doubt(self, tx: Transaction, keys: Sequence[bytes], state: int, *, young: bool) -> int:
        """Carry out the operator's word on requests in doubt; gives how many these were."""
        is_alive = functools.cache(tx.is_alive)
        settled = [
            _believed(row)
            for row, record in self.known(tx, "known_keys", keys)
            if (record.in_doubt or (young and record.state == "sent"))
            and not self._is_held(_believed(row), is_alive)
        ]
        for row in settled:
            self._put(tx, row._replace(state=state))
        return len(settled)

    def _log(self, tx: Transaction, row: Row, failure: Failure, *, answer: bytes | None = None) -> Row:
        """Put a failure of a request's latest attempt into the log; gives the line that `_put` then writes."""
        row = _believed(row)
        request_id = failure.request_id and rows.storable(failure.request_id)
        retryable = None if failure.retryable is None else int(failure.retryable)
        attempt = (row.id, row.attempts, attempt_uuid(row.key, row.attempts), self._clock.wall())
        what = (rows.storable(failure.code), rows.storable(failure.message), failure.fate.value)
        response = (failure.status, retryable, request_id, failure.retry_after, failure.evidence)
        (logged,) = tx.run("insert_failure", (*attempt, *what, *response, answer)).fetchone()
        return row._replace(failure=logged)

    def age_values(self) -> dict[str, Any]:
        """Give what a query needs to tell how old a request is: the same rule as `Moment.outlives`."""
        now = self.now()
        clocks = {"wall": now.wall, "boot": now.boot, "boottime": now.boottime}
        return {**clocks, "tolerance": CLOCK_TOLERANCE, "doubt": DOUBT_AFTER}

    # --- what is known -------------------------------------------------------------------------------------

    def row(self, tx: Transaction, key: bytes) -> Row:
        """Give the line of a request that was claimed."""
        known = self.known(tx, "known_keys", [key])
        return known[0][0] if known else unknown(key)

    def lookup(self, tx: Transaction, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Give what is known of these keys."""
        return {record.key: record for record in self.records(tx, self._find(tx, keys))}

    def lookup_question(self, tx: Transaction, questions: Sequence[bytes]) -> dict[bytes, list[Record]]:
        """Give the answered requests per question, oldest first."""
        records: dict[bytes, list[Record]] = {}
        for row, record in sorted(self.known(tx, "known_questions", questions), key=lambda pair: pair[0].id):
            if row.question is not None and record.state == "answered":
                records.setdefault(row.question, []).append(record)
        return records

    def known(self, tx: Transaction, name: str, values: Sequence[bytes]) -> list[tuple[Row, Record]]:
        """Give lines with what they amount to."""
        lines = tx.select(name, values)
        return [
            (Row._make(line), record) for line, record in zip(lines, self.records(tx, lines), strict=True)
        ]

    def records(self, tx: Transaction, lines: Sequence[tuple[Any, ...]]) -> Iterator[Record]:
        """Turn lines of the query ``known_keys`` into records."""
        failed = [line[8] for line in lines if line[8] is not None and line[17] is None]
        failures = {line[0]: rows.to_failure(line[1:]) for line in tx.select("failures", failed)}
        now = self.now()
        for line in lines:
            yield rows.to_record(line, failures, now)

    def page(self, tx: Transaction, *, after: int, limit: int) -> tuple[int, list[Entry]]:
        """Read everything about the requests that follow an id; gives the last id as well."""
        lines = tx.run("page", (after, limit)).fetchall()
        rows.must_ascend([line[0] for line in lines], after)
        logs = rows.to_logs(tx.select("logs", [line[0] for line in lines]))
        records = self.records(tx, [line[:WIDTH] for line in lines])
        entries = [
            rows.to_entry(Row._make(line[:WIDTH]), record, line[WIDTH:], logs)
            for line, record in zip(lines, records, strict=True)
        ]
        return (lines[-1][0] if lines else after), entries

    def contradictions(self, tx: Transaction) -> list[str]:
        """Give what is wrong between the tables."""
        problems = []
        requests, _ = tx.run("count").fetchone()
        (distinct,) = tx.run("distinct_keys").fetchone()
        if distinct != requests:
            problems.append(f"{requests} requests have only {distinct} distinct keys")
        (orphans,) = tx.run("orphans").fetchone()
        if orphans:
            problems.append(f"{orphans} answers or failures belong to no request")
        problems += [
            f"what is kept of run {line[0]} is not what was written"
            for line in tx.run("runs").fetchall()
            if not rows.is_run(line)
        ]
        return problems + notes.contradictions(tx)


def _believed(row: Row) -> Row:
    """Give a request's line as far as it may be believed: without its seal it counts as sent, its outcome unknown."""
    if row.sealed and row.plain:
        return row
    mended = row.mended()
    return mended if row.sealed else mended._replace(state=SENT)


def _asked_by(row: Row, ask: Ask) -> Row:
    """Give a request's line with what its ask says of it, where the line cannot be believed."""
    if row.sealed and row.model:
        return row
    return row._replace(model=ask.model.encode(), parent=ask.parent, question=ask.question)


def _in_doubt(record: Record) -> Claim:
    """Say that a request may not be sent again."""
    return Claim("in_doubt", record=replace(record, state="sent", in_doubt=True))


def _columns(ask: Ask, first: Moment, run: int) -> tuple[Any, ...]:
    """Give the part of a new request's line that follows its stamp."""
    crc = request_crc(ask.key, ask.body, first)
    seal = seal_of(ask.key, (SENT, run, 1, None), (ask.model.encode(), ask.parent, ask.question))
    named = (ask.model, ask.parent, ask.question)
    return ask.key, attempt_uuid(ask.key, 1), *named, crc, ask.body, seal, ask.step or None


def unknown(key: bytes) -> NoReturn:
    """Raise for a request that was never claimed.

    Raises:
        EnrichError: always.
    """
    raise EnrichError(f"the ledger holds no request {key_text(key)}: it was never claimed")
