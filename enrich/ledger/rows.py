"""Lines of the ledger's tables into records, each answer checked against its checksum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from enrich.ledger.checks import Moment, answer_holds, request_holds
from enrich.ledger.protocol import Entry, FailedAttempt
from enrich.records import Ask, Failure, Fate, Record, Reply, key_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SENT, FAILED, RELEASED, SKIPPED, DOUBTED = range(5)  # request.state
EVIDENCE_BYTES: Final = 2_048  # bytes of a damaged answer that its failure shows
_FATES: Final = {fate.value.encode(): fate for fate in Fate}


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

    @property
    def first_sent(self) -> Moment:
        """When the first attempt's intent was written down."""
        return Moment(self.sent_at, self.boot, self.boottime)


def to_record(row: tuple[Any, ...], failures: Mapping[int, Failure], now: Moment) -> Record:
    """Turn one line of the query ``known_keys`` into what the ledger knows at this moment.

    Args:
        row: the columns of `Row`; a plain tuple, because a million of them are read on a resume.
        failures: by the id that ``row.failure`` names.
        now: what the key's age is counted to.

    Raises:
        TypeError: damage gave a column another type.
    """
    _, key, state, run, attempts, sent_at, boot, boottime, failure, model, parent, _, crc, *answer = row
    streamed, latency_ms, first_token_ms, request_id, body = answer
    if body is not None and answer_holds(crc, key, request_id, body):
        request_id = None if request_id is None else str(request_id, "utf-8")
        reply = Reply(body, request_id, latency_ms, first_token_ms, bool(streamed))
        return Record(key, "answered", _text(model), parent, sent_at, attempts, run, False, reply)  # noqa: FBT003  # in place, for speed
    if state == FAILED and body is None:
        return Record(
            key, "failed", _text(model), parent, sent_at, attempts, run, failure=failures.get(failure)
        )
    skipped = state == SKIPPED
    in_doubt = skipped or (state != RELEASED and now.outlives(Moment(sent_at, boot, boottime)))
    return Record(
        *(key, "sent", _text(model), parent, sent_at, attempts, run),
        in_doubt=in_doubt,
        failure=failures.get(failure),
        skipped=skipped,
    )


def to_failure(row: tuple[Any, ...]) -> Failure:
    """Turn the columns from ``code`` to ``evidence`` of a failure's line into a `Failure`."""
    code, message, fate, status, retryable, request_id, retry_after, evidence = row
    return Failure(
        code=_text(code),
        message=_text(message),
        fate=_FATES.get(fate, Fate.UNKNOWN),
        status=status,
        retryable=None if retryable is None else bool(retryable),
        request_id=None if request_id is None else _text(request_id),
        retry_after=retry_after,
        evidence=evidence,
    )


def to_logs(lines: Sequence[tuple[Any, ...]]) -> dict[int, list[FailedAttempt]]:
    """Turn lines of the query ``logs`` into the failed attempts of each request, oldest first."""
    attempts: dict[int, list[FailedAttempt]] = {}
    for line in sorted(lines):
        request, attempt, name, at, answer = line[9:]
        attempts.setdefault(request, []).append(
            FailedAttempt(attempt, key_text(name), at, to_failure(line[1:9]), answer)
        )
    return attempts


def to_entry(
    row: Row, record: Record, rest: tuple[int, bytes, float | None], logs: Mapping[int, list[FailedAttempt]]
) -> Entry:
    """Put everything about one request together; ``rest`` is its checksum, its body and the answer's time."""
    crc, body, received_at = rest
    damaged: list[Literal["request", "answer"]] = []
    if not request_holds(crc, row.key, body, row.first_sent):
        damaged.append("request")
    if row.reply is not None and record.state != "answered":
        damaged.append("answer")
    ask = Ask(row.key, body, record.model, row.parent, row.question)
    return Entry(ask, record, received_at, tuple(logs.get(row.id, ())), tuple(damaged))


def damaged_answer(reply: bytes) -> Failure:
    """Say for the log that a stored answer is no longer what came."""
    return Failure(
        "damaged_answer",
        "the stored answer does not match its checksum; it is fetched again under the same key",
        Fate.UNKNOWN,
        evidence=reply[:EVIDENCE_BYTES],
    )


def _text(value: bytes) -> str:
    return str(value, "utf-8", "replace")


def storable(text: str) -> str:
    """Escape what a database's text cannot hold: lone surrogates (a header's stray bytes) and NUL."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")
