"""Makes a sound ledger of what is left of a damaged one: each line by its checksum, wherever in the file it stands."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from enrich.errors import LedgerError
from enrich.ledger import sqlite_file
from enrich.ledger.checks import LONG_AGO, Moment, answer_holds, request_crc, request_holds
from enrich.ledger.locks import RunLocks
from enrich.ledger.notes import is_count, is_note
from enrich.ledger.pages import Pages
from enrich.ledger.protocol import attempt_uuid
from enrich.ledger.rows import END_OF_TIME, FATES, LONGEST, MOST_ATTEMPTS, SENT, Row, is_run
from enrich.ledger.soundness import Voucher
from enrich.ledger.sqlite_transaction import SqliteTransaction
from enrich.pace.purse import NOBODY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from enrich.base.clock import Clock
    from enrich.ledger.pages import Line, LineValues

RUN, ANSWER, FAILURE = 6, 9, 14  # columns of these tables' lines
REQUEST: Final = (15, 16, 17)  # without seals, with them, and with the step's name as well
SPENDING, HELD = 6, 7  # columns of the lines of budgets, which stand in indexes
KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was given back.

    Attributes:
        requests: whole ones.
        by_key: requests of which only the key is left: they are asked again under it while it is young, and in
            doubt after that.
        answers: every one matches its checksum.
        failures: of the log.
        runs: of the list of runs.
        damaged: lines that are there and do not match their checksum.
        missing: numbers of requests of which nothing is left: lost, or withdrawn long ago.
    """

    requests: int
    by_key: int
    answers: int
    failures: int
    runs: int
    damaged: int
    missing: int


def repair(ledger: Path, new: Path, clock: Clock) -> Salvage:
    """Write what is left of a ledger's file into a new one; the old one stays as it is.

    Raises:
        LedgerError: the new file is there already, a run is using the old one, or nothing of a ledger is left in it.
    """
    if new.exists():
        raise LedgerError(f"{new} is there already", hint="give another name with -o.")
    _must_be_idle(ledger)
    try:
        pages = Pages(ledger)
    except OSError as error:
        raise LedgerError(f"the ledger {ledger} cannot be read: {error.strerror}") from None
    with contextlib.ExitStack() as opened:
        writer, reader = sqlite_file.open_file(new, Voucher(new, 0), clock.wall())
        opened.callback(writer.close)
        opened.callback(reader.close)
        with writer:
            writer.execute("BEGIN IMMEDIATE")
            mender = _Mender(pages, SqliteTransaction(writer, RunLocks(new)))
            salvage = mender.mend()
        if not (salvage.requests or salvage.by_key):
            opened.close()
            for path in new.parent.glob(f"{new.name}*"):
                path.unlink(missing_ok=True)
            raise LedgerError(f"nothing of a ledger is left in {ledger}", hint="run the job anew.")
    return salvage


def _must_be_idle(ledger: Path) -> None:
    locks = RunLocks(ledger)
    for path in ledger.parent.glob(f"{ledger.name}.run-*"):
        number = path.name.rpartition("-")[2]
        if number.isdecimal() and locks.is_alive(int(number)):
            raise LedgerError(
                f"run {number} is using the ledger {ledger}", hint="repair it when the run has ended."
            )


class _Mender:
    """Carries lines over into a new ledger, inside one transaction."""

    def __init__(self, pages: Pages, tx: SqliteTransaction) -> None:
        self._pages = pages
        self._tx = tx
        self._damaged = 0
        self._unsure: dict[int, bytes] = {}  # keys of requests whose line does not match its checksum

    def mend(self) -> Salvage:
        """Carry everything over, first what the rest belongs to."""
        for line in self._pages.lines():
            if len(line.values) in REQUEST:
                self._request(line)
            elif len(line.values) == RUN:
                self._run(line)
        self._indexes()
        for line in self._pages.lines():
            if len(line.values) == ANSWER:
                self._answer(line)
            elif len(line.values) == FAILURE:
                self._failure(line)
        requests, by_key, answers, failures, runs, last = self._tx.run("restored_counts").fetchone()
        missing = last - requests - by_key
        return Salvage(requests, by_key, answers, failures, runs, self._damaged, missing)

    def _request(self, line: Line) -> None:
        _, key, state, run, attempts, sent_at, boot, boottime, failure, attempt, *rest = line.values
        model, parent, question, crc, body, seal, step = (*rest, None, None)[:7]
        sent_at, boottime = _real(sent_at), _real(boottime)
        try:
            sound = request_holds(crc, key, body, Moment(sent_at, boot, boottime)) and len(key) == KEY_BYTES
        except (TypeError, AttributeError):
            sound = False
        if not sound:
            self._damaged += 1
            if isinstance(key, bytes) and len(key) == KEY_BYTES:
                self._unsure[line.number] = key
            return
        counts = (line.number, key, state, run, attempts, sent_at, boot, boottime, failure)
        row = Row(*counts, model, parent, question, None, None, None, None, None, None, seal)
        believed = row.mended()._replace(seal=None)
        if not (row.sealed and row.plain):
            self._damaged += 1
            believed = believed._replace(state=SENT)
        attempt = attempt if isinstance(attempt, bytes) else attempt_uuid(key, believed.attempts)
        self._restore(believed, attempt, crc, body, step)

    def _restore(self, row: Row, attempt: bytes, crc: int, body: bytes, step: Any = None) -> None:
        standing = (row.state, row.run, row.attempts, row.sent_at, row.boot, row.boottime, row.failure)
        names = (row.model.decode("utf-8", "replace"), row.parent, row.question)
        row = row._replace(model=names[0].encode())
        name = step.decode("utf-8", "replace") if isinstance(step, bytes) else None
        values = (row.id, row.key, *standing, attempt, *names, crc, body, row.new_seal(), name)
        self._tx.run("restore_request", values)

    def _run(self, line: Line) -> None:
        _, started_at, ended_at, boot, info, summary = line.values
        started_at, ended_at = _real(started_at), None if ended_at is None else _real(ended_at)
        kinds = isinstance(boot, int) and _is_json(info)
        if kinds and is_run((line.number, started_at, ended_at, summary)):
            ended_at = ended_at if ended_at is not None else started_at  # it is over, however it ended
            texts = (info.decode(), summary.decode() if summary is not None else None)
            self._tx.run("restore_run", (line.number, started_at, ended_at, boot, *texts))

    # --- requests of which the key alone is left -----------------------------------------------------------

    def _indexes(self) -> None:
        """Find the keys of requests that are lost, and the small things that are remembered."""
        lost: dict[int, bytes] = {}
        steps: set[bytes] = set()
        for lines in self._pages.index_pages():
            entries = [(v[0], v[1]) for _, v in lines if len(v) == 2 and _is_entry(v)]
            lost |= self._lost_keys(entries)
            for _, values in lines:
                if len(values) == 3:
                    self._note(values, steps)
                elif len(values) in (SPENDING, HELD):
                    self._budget(values)
        for number, key in self._unsure.items():
            lost.setdefault(number, key)
        for number, key in sorted(lost.items()):
            moment = self._sent_about(number)
            believed = Row(number, key, SENT, 0, 1, moment.wall, 0, 0.0, None, b"", *[None] * 9)
            self._restore(believed, attempt_uuid(key, 1), request_crc(key, b"", moment), b"")

    def _lost_keys(self, entries: Sequence[tuple[bytes, int]]) -> dict[int, bytes]:
        """Give the keys on a page of the index of keys whose requests are not there; the index of questions looks alike."""
        found = {line[0]: line[1:] for line in self._tx.select("restored", [number for _, number in entries])}
        keys = sum(found[number][0] == name for name, number in entries if number in found)
        questions = sum(found[number][1] == name for name, number in entries if number in found)
        if keys <= questions:
            return {}
        return {number: name for name, number in entries if number not in found and number > 0}

    def _sent_about(self, number: int) -> Moment:
        """Say when a lost request was sent at the earliest: after the one before it, or as its run began."""
        for query in ("sent_before", "run_before"):
            (at,) = self._tx.run(query, (number,)).fetchone()
            if at is not None:
                return Moment(at, 0, 0.0)
        return LONG_AGO

    def _note(self, values: LineValues, steps: set[bytes]) -> None:
        if is_count(*values) and values[0] not in steps:
            steps.add(values[0])
            self._tx.run("hold_generation", (values[0], values[1], values[2]))
        elif is_note(*values):
            name, value, crc = values
            self._tx.run("remember", (name.decode(), value.decode(), crc))

    def _budget(self, values: LineValues) -> None:
        """Carry over what is spent and reserved; a page that is out of date tells less, and the most that is told counts."""
        amounts = [_real(value) for value in values[-4:]]
        if not all(isinstance(amount, float) and 0 <= amount < END_OF_TIME for amount in amounts):
            return
        if len(values) == SPENDING and isinstance(values[0], bytes) and isinstance(values[1], int):
            tag, slot = values[0].decode("utf-8", "replace"), values[1]
            self._tx.run("restore_spending", (tag, slot, *amounts))
        elif len(values) == HELD and isinstance(values[0], bytes) and isinstance(values[1], bytes):
            tag = values[1].decode("utf-8", "replace")
            self._tx.run("hold", (values[0], tag, NOBODY, *amounts))

    # --- what belongs to requests --------------------------------------------------------------------------

    def _answer(self, line: Line) -> None:
        _, run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body = line.values
        known = self._tx.run("key_of", (line.number,)).fetchone()
        if known is None or not answer_holds(crc, known[0], request_id, body):
            self._damaged += 1
            return
        facts = (
            run if isinstance(run, int) else 0,
            _within(received_at, END_OF_TIME) or 0.0,
            int(streamed is not None and bool(streamed)),
            _within(latency_ms, LONGEST),
            _within(first_token_ms, LONGEST),
            request_id.decode() if request_id is not None else None,
        )
        self._tx.run("restore_answer", (line.number, *facts, crc, body))

    def _failure(self, line: Line) -> None:
        _, request, attempt, attempt_id, at, code, message, fate, *rest = line.values
        status, retryable, request_id, retry_after, evidence, answer = rest
        texts = (code, message, fate)
        if not (
            isinstance(request, int) and isinstance(attempt, int) and all(isinstance(t, bytes) for t in texts)
        ):
            self._damaged += 1
            return
        values = (
            line.number,
            attempt if 0 < attempt < MOST_ATTEMPTS else 1,
            attempt_id if isinstance(attempt_id, bytes) else b"",
            _within(at, END_OF_TIME) or 0.0,
            code.decode("utf-8", "replace"),
            message.decode("utf-8", "replace"),
            fate.decode() if fate in FATES else "unknown",
            status if isinstance(status, int) else None,
            retryable if isinstance(retryable, int) else None,
            request_id.decode("utf-8", "replace") if isinstance(request_id, bytes) else None,
            _within(retry_after, END_OF_TIME),
            evidence if isinstance(evidence, bytes) else b"",
            answer if isinstance(answer, bytes) else None,
        )
        self._tx.run("restore_failure", (*values, request))


def _real(value: Any) -> Any:
    """Give a number as SQLite gives a REAL: whole ones are stored as integers."""
    return float(value) if isinstance(value, int) else value


def _within(value: Any, end: float) -> float | None:
    value = _real(value)
    return value if isinstance(value, float) and 0.0 <= value < end else None


def _is_entry(values: LineValues) -> bool:
    name, number = values
    return isinstance(name, bytes) and len(name) == KEY_BYTES and isinstance(number, int)


def _is_json(text: Any) -> bool:
    try:
        return isinstance(text, bytes) and isinstance(orjson.loads(text), dict)
    except ValueError:
        return False
