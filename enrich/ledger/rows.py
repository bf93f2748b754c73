"""Lines of the ledger's tables into records, each answer checked against its checksum."""

from __future__ import annotations

import itertools
from operator import itemgetter, lt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from enrich.ledger.checks import Moment, answer_holds, request_holds, seal_of
from enrich.ledger.protocol import Entry, FailedAttempt, Part, RunInfo
from enrich.records import Ask, Failure, Fate, Record, Reply, key_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SENT, FAILED, RELEASED, SKIPPED, DOUBTED = range(5)  # request.state
KNOWN_STATES: Final = frozenset({SENT, FAILED, RELEASED, SKIPPED, DOUBTED})
FORMS: Final = (None, 0, 1)  # of `streamed`; None without an answer
EVIDENCE_BYTES: Final = 2_048  # bytes of a damaged answer that its failure shows
MOST_ATTEMPTS: Final = 1 << 31  # attempts of a request; more is damage, as are times outside of these:
END_OF_TIME: Final = 2.5e11  # seconds since the epoch, before the year 10000
LONGEST: Final = 1e12  # milliseconds of one attempt
FATES: Final = {fate.value.encode(): fate for fate in Fate}


class Row(NamedTuple):
    """One line of the query ``known_keys``; texts are bytes."""

    id: int
    key: bytes
    state: int
    run: int
    attempts: int
    sent_at: float
    boot: int
    boottime: float
    failure: int | None
    model: bytes
    parent: bytes | None
    question: bytes | None
    crc: int | None
    streamed: int | None
    latency_ms: float | None
    first_token_ms: float | None
    request_id: bytes | None
    reply: bytes | None
    seal: int | None = None

    @property
    def first_sent(self) -> Moment:
        """When the first attempt's intent was written down."""
        return Moment(self.sent_at, self.boot, self.boottime)

    @property
    def sealed(self) -> bool:
        """Whether what decides about it is what was written down; lines of earlier releases have no seal."""
        if self.seal is None:
            return True
        try:
            return self.seal == self.new_seal()
        except (TypeError, OverflowError):  # damage turned a part into another type, or into infinity
            return False

    def new_seal(self) -> int:
        """Give the seal over what the line says now."""
        standing = (self.state, self.run, self.attempts, self.failure)
        return seal_of(self.key, standing, (self.model, self.parent, self.question))

    @property
    def plain(self) -> bool:
        """Whether every value is of the type, and in the range, that it was written in."""
        return self == self.mended()

    def mended(self) -> Row:
        """Give the line with something harmless in the place of each value that damage turned into another type."""
        sent = _within(self.sent_at, END_OF_TIME) and _within(self.boottime, END_OF_TIME)
        return Row(
            self.id,
            key=self.key if _is_name(self.key) else bytes(16),
            state=self.state if self.state in KNOWN_STATES else SENT,
            run=self.run if type(self.run) is int and self.run >= 0 else 0,
            attempts=self.attempts if type(self.attempts) is int and 0 < self.attempts < MOST_ATTEMPTS else 1,
            sent_at=self.sent_at if sent else 0.0,
            boot=self.boot if sent and type(self.boot) is int else 0,
            boottime=self.boottime if sent else 0.0,
            failure=self.failure if type(self.failure) is int else None,
            model=self.model if type(self.model) is bytes else b"",
            parent=self.parent if _is_name(self.parent) else None,
            question=self.question if _is_name(self.question) else None,
            crc=self.crc,
            streamed=self.streamed if self.streamed in FORMS else _looks_streamed(self.reply),
            latency_ms=self.latency_ms if _within(self.latency_ms, LONGEST) else None,
            first_token_ms=self.first_token_ms if _within(self.first_token_ms, LONGEST) else None,
            request_id=self.request_id,
            reply=self.reply,
            seal=self.seal,
        )


def run_info(line: Sequence[Any]) -> RunInfo:
    """Give what a line of the table of runs says (number, begin, end, summary), as far as it is what may be written there."""
    number, started_at, ended_at, summary, info = line
    began = float(started_at) if _is_time(started_at) else 0.0
    ended = began if ended_at is not None and not _is_time(ended_at) else ended_at
    said = told(info) or {}
    output, config = (
        value if isinstance(value, str) else None for value in map(said.get, ("output", "config"))
    )
    tags = said.get("tags")
    named = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    return RunInfo(number, began, ended, told(summary), output, config, named)


def is_run(line: Sequence[Any]) -> bool:
    """Say whether a line of the table of runs can be what was written there."""
    _, started_at, ended_at, summary = line
    times = _is_time(started_at) and (ended_at is None or _is_time(ended_at))
    return times and (summary is None or told(summary) is not None)


def told(text: Any) -> dict[str, Any] | None:
    """Read what a run said of itself; None where damage is no JSON, or there is nothing."""
    try:
        said = orjson.loads(text)
    except (ValueError, TypeError):
        return None
    return said if isinstance(said, dict) else None


class Disorder(TypeError):
    """The lines of a table do not come in the order of their numbers: pages of a damaged file changed places."""


def must_ascend(numbers: Sequence[int], after: int) -> None:
    """Keep who reads a table stretch by stretch from going round in circles.

    Args:
        numbers: of the lines read.
        after: the number that they follow.

    Raises:
        Disorder: they do not.
    """
    if numbers and not (after < numbers[0] and all(map(lt, numbers, itertools.islice(numbers, 1, None)))):
        raise Disorder("the lines of a table are not in the order of their numbers")


def _is_time(value: object) -> bool:
    """Say whether a value is a time; a database may keep a whole one as an integer."""
    return type(value) in (int, float) and _within(float(value), END_OF_TIME)  # type: ignore[arg-type]


def _within(value: object, end: float) -> bool:
    return type(value) is float and 0.0 <= value < end


def _looks_streamed(body: object) -> int:
    """Tell by a body whether it came as a stream: a whole answer begins with a brace."""
    return int(type(body) is bytes and not body.lstrip().startswith(b"{"))


def _is_name(value: object) -> bool:
    return type(value) is bytes and len(value) == 16


def to_record(row: tuple[Any, ...], failures: Mapping[int, Failure], now: Moment) -> Record:
    """Turn one line of the query ``known_keys`` into what the ledger knows at this moment; never fails.

    What decides about a request without an answer is believed only under its seal: else it counts as ``sent``, for
    sending it again gets what it was paid for, and in doubt when it is too old for that.

    Args:
        row: the columns of `Row`; a plain tuple, because a million of them are read on a resume.
        failures: by the id that ``row.failure`` names.
        now: what the key's age is counted to.
    """
    _, key, _, run, attempts, sent_at, _, _, _, model, parent, _, crc, *answer, _ = row
    streamed, latency_ms, first_token_ms, request_id, body = answer
    if body is None or not answer_holds(crc, key, request_id, body):
        return _unanswered(Row._make(row), failures, now)
    usual = (
        type(attempts) is type(run) is int
        and 0 < attempts < MOST_ATTEMPTS
        and type(sent_at) is float
        and 0.0 <= sent_at < END_OF_TIME
        and (latency_ms is None or (type(latency_ms) is float and 0.0 <= latency_ms < LONGEST))
        and (first_token_ms is None or type(first_token_ms) is float)
        and (parent is None or (type(parent) is bytes and len(parent) == 16))
        and type(model) is bytes
        and streamed in FORMS
    )
    if not usual:
        mended = Row._make(row).mended()
        run, attempts, sent_at, model, parent = (
            *(mended.run, mended.attempts, mended.sent_at, mended.model, mended.parent),
        )
        streamed, latency_ms, first_token_ms = mended.streamed, mended.latency_ms, mended.first_token_ms
    request_id = None if request_id is None else str(request_id, "utf-8")
    reply = Reply(body, request_id, latency_ms, first_token_ms, bool(streamed))
    return Record(key, "answered", _text(model), parent, sent_at, attempts, run, False, reply)  # noqa: FBT003  # in place, for speed


def _unanswered(row: Row, failures: Mapping[int, Failure], now: Moment) -> Record:
    """Say what is known of a request without a sound answer."""
    mended = row.mended()
    state = mended.state if row.sealed else SENT
    failure = failures.get(mended.failure) if mended.failure is not None else None
    known = (_text(mended.model), mended.parent, mended.sent_at, mended.attempts, mended.run)
    if state == FAILED and row.reply is None:
        return Record(mended.key, "failed", *known, failure=failure)
    skipped = state == SKIPPED
    in_doubt = skipped or (state != RELEASED and now.outlives(mended.first_sent))
    return Record(mended.key, "sent", *known, in_doubt=in_doubt, failure=failure, skipped=skipped)


def to_failure(row: tuple[Any, ...]) -> Failure:
    """Turn the columns from ``code`` to ``evidence`` of a failure's line into a `Failure`."""
    code, message, fate, status, retryable, request_id, retry_after, evidence = row
    return Failure(
        code=_text(code),
        message=_text(message),
        fate=FATES.get(fate, Fate.UNKNOWN),
        status=status if type(status) is int else None,
        retryable=None if retryable is None else bool(retryable),
        request_id=None if request_id is None else _text(request_id),
        retry_after=retry_after if _within(retry_after, END_OF_TIME) else None,
        evidence=evidence if type(evidence) is bytes else b"",
    )


def to_logs(lines: Sequence[tuple[Any, ...]]) -> dict[int, list[FailedAttempt]]:
    """Turn lines of the query ``logs`` into the failed attempts of each request, oldest first."""
    attempts: dict[int, list[FailedAttempt]] = {}
    for line in sorted(lines, key=itemgetter(0)):
        request, attempt, name, at, answer = line[9:]
        number = attempt if type(attempt) is int and 0 < attempt < MOST_ATTEMPTS else 1
        attempt_id = key_text(name) if _is_name(name) else ""
        moment = at if _within(at, END_OF_TIME) else 0.0
        taken_back = answer if type(answer) is bytes else None
        attempts.setdefault(request, []).append(
            FailedAttempt(number, attempt_id, moment, to_failure(line[1:9]), taken_back)
        )
    return attempts


def to_entry(
    row: Row, record: Record, rest: tuple[Any, ...], logs: Mapping[int, list[FailedAttempt]]
) -> Entry:
    """Put everything about one request together; ``rest`` is its checksum and body, the answer's time, its step and the answer's run."""
    crc, body, received_at, step, answered_by = rest
    damaged: list[Part] = []
    if not request_holds(crc, row.key, body, row.first_sent):
        damaged.append("request")
    if row.reply is not None and record.state != "answered":
        damaged.append("answer")
    timed = _within(received_at, END_OF_TIME) or row.reply is None
    if not (row.sealed and row.plain and timed):
        damaged.append("facts")
    mended = row.mended()
    asked = body if type(body) is bytes else b""
    name = step if isinstance(step, str) else _text(step)
    return Entry(
        Ask(mended.key, asked, record.model, mended.parent, mended.question, step=name),
        record,
        received_at if timed else None,
        tuple(logs.get(row.id, ())),
        tuple(damaged),
        row.id,
        answered_by if type(answered_by) is int else 0,
    )


def damaged_answer(reply: bytes) -> Failure:
    """Say for the log that a stored answer is no longer what came."""
    return Failure(
        "damaged_answer",
        "the stored answer does not match its checksum; it is fetched again under the same key",
        Fate.UNKNOWN,
        evidence=reply[:EVIDENCE_BYTES],
    )


def _text(value: Any) -> str:
    return str(value, "utf-8", "replace") if type(value) is bytes else ""


def storable(text: str) -> str:
    """Escape what a database's text cannot hold: lone surrogates (a header's stray bytes) and NUL."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")
