"""The frozen records that pass between modules; all in one place, since each is another's part and most modules know several.

It is long because it is a list: each record is short, and holds no behaviour.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, dataclass_transform, get_args

_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_Class]) -> type[_Class]:
    """Make a slotted dataclass that the type checker keeps frozen: made in a quarter of the time of a frozen one."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


RowStatus = Literal[
    "ok", "error", "invalid_output", "unsupported", "truncated", "filtered", "in_doubt", "skipped", "pending"
]
STATUSES: tuple[RowStatus, ...] = get_args(RowStatus)
FAILED: tuple[RowStatus, ...] = tuple(
    status for status in STATUSES if status not in ("ok", "skipped", "pending")
)


def key_text(key: bytes) -> str:
    """Write 16 bytes as a uuid, as it goes into ``Idempotency-Key``; in a quarter of the time of `uuid.UUID`."""
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@frozen
class Picture:
    """A picture that a request carries, by what its bytes are.

    Attributes:
        kind: its type, such as ``image/png``.
        digest: SHA-256 of its bytes, in hexadecimal.
        size: how many there are.
        source: where they are, or they themselves.
    """

    kind: str
    digest: str
    size: int
    source: str | bytes = field(repr=False, compare=False, hash=False)

    @property
    def mark(self) -> str:
        """Give what stands for it in a body as it is kept and keyed."""
        return f"sha256:{self.digest};{self.kind};{self.size}"


# A picture counts as so many bytes of text: a thousand tokens, nearly, is what models make of one; some make four times as many.
PICTURE_WEIGHT = 4_096


@frozen
class Ask:
    """One request, ready to be sent.

    Attributes:
        key: the Idempotency-Key as 16 bytes; a function of base URL, body and ordinal alone.
        body: the request's JSON, exactly as it is sent on every attempt; a picture in it is told by its mark, in whose place
            its bytes are sent.
        model: the model that is asked (the request field, not the model that will serve it).
        parent: the key of the request that this one follows (a re-ask, a fallback), or None.
        question: 16 bytes that identify the request apart from its answer schema, or None without one.
        pictures: whose marks stand in the body.
        step: the name of the step that asks it; empty where that is not known.
    """

    key: bytes
    body: bytes
    model: str
    parent: bytes | None = None
    question: bytes | None = None
    pictures: tuple[Picture, ...] = ()
    step: str = ""

    @property
    def weight(self) -> int:
        """Give the bytes of text that it counts as, where tokens are estimated."""
        return len(self.body) + PICTURE_WEIGHT * len(self.pictures)


@frozen
class Usage:
    """What one completion cost. Tokens are counts; None where the server sent none.

    Attributes:
        credits: Beatra's charge.
        cached_tokens: those of the prompt that were read from a cache.
        reasoning_tokens: those of the completion that were thought and not said.
        credits_usd: what the charge is in US dollars, for show.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    credits: float | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    credits_usd: float | None = None

    @property
    def tokens(self) -> int | None:
        """Give the tokens of prompt and answer together, where the server said anything of them."""
        if self.total_tokens is not None or self.prompt_tokens is None:
            return self.total_tokens
        return self.prompt_tokens + (self.completion_tokens or 0)


# What a completion costs, as columns, sums and reports name it.
AMOUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "credits",
    "credits_usd",
)


@dataclass(slots=True)
class UsageSum:
    """What completions cost together; what none of them names is 0."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    credits: float = 0.0
    credits_usd: float = 0.0

    def add(self, usage: Usage | Outcome) -> None:
        """Add what one more cost."""
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        self.total_tokens += usage.total_tokens or 0
        self.cached_tokens += usage.cached_tokens or 0
        self.reasoning_tokens += usage.reasoning_tokens or 0
        self.credits += usage.credits or 0.0
        self.credits_usd += usage.credits_usd or 0.0

    def amounts(self) -> dict[str, Any]:
        """Give the sums by name; charges without the noise that adding floats up makes."""
        sums = {name: getattr(self, name) for name in AMOUNTS}
        return {**sums, "credits": round(self.credits, 9), "credits_usd": round(self.credits_usd, 12)}


@frozen
class Reply:
    """A 200 as it came over the wire; its body has not been looked at.

    Attributes:
        body: the raw bytes: JSON, or the whole event stream up to ``[DONE]`` when ``streamed``.
        request_id: the response's ``X-Request-Id``, or None.
        latency_ms: milliseconds from the first byte sent to the last byte read, of this attempt.
        first_token_ms: milliseconds to the first event that carried content, for a stream.
        streamed: whether ``body`` is an event stream.
    """

    body: bytes
    request_id: str | None
    latency_ms: float
    first_token_ms: float | None = None
    streamed: bool = False


TOO_MANY_FILES = (
    "too_many_open_files"  # the code of an attempt that found no file descriptor left on this machine
)


KEY_CHANGED = "key_changed"  # the code of an attempt whose key was refused, where there is another one by now


class Fate(enum.Enum):
    """What is known of a failed attempt's effect on the server."""

    UNSENT = "unsent"
    """Proved not sent (DNS, TCP, TLS)."""
    REFUSED = "refused"
    """Answered with an error: not executed, not charged."""
    UNKNOWN = "unknown"
    """It may have been executed and charged."""


@frozen
class Failure:
    """One attempt that gave no usable answer.

    Attributes:
        code: the envelope's ``error.code``, else one of ours (``connection_reset``, ``timeout``, ``http_502`` …).
        message: one line for people; never holds the key.
        fate: what may have happened on the server.
        status: the HTTP status, if a response came.
        retryable: the envelope's flag; None where no envelope came.
        request_id: ``X-Request-Id`` (or the envelope's ``request_id``) of the failing response.
        retry_after: seconds the server asks to wait, already read from whatever form it took; None without.
        model: the model that was asked.
        evidence: up to 2,048 bytes of the body, or the partial stream, for the ledger.
    """

    code: str
    message: str
    fate: Fate
    status: int | None = None
    retryable: bool | None = None
    request_id: str | None = None
    retry_after: float | None = None
    evidence: bytes = b""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


RequestState = Literal["sent", "answered", "failed"]
STATES = ("answered", "failed", "sent", "in_doubt", "skipped")  # how a request may stand, for people


@frozen
class Record:
    """What the ledger knows of one request.

    Attributes:
        key: as in `Ask`.
        state: ``sent`` (the intent is durable, no answer yet), ``answered`` (``reply`` is set) or ``failed``
            (``failure`` is set: a final refusal).
        model: the model that was asked.
        parent: as in `Ask`.
        sent_at: wall-clock seconds since the epoch of the first intent.
        attempts: attempts made so far, over all runs.
        run: the number of the run that sent it last.
        in_doubt: whether it is ``sent`` and older than the server remembers the key.
        reply: the raw answer.
        failure: the last failure.
        skipped: whether the operator gave it up (``retry --in-doubt skip``).
    """

    key: bytes
    state: RequestState
    model: str
    parent: bytes | None
    sent_at: float
    attempts: int
    run: int
    in_doubt: bool = False
    reply: Reply | None = None
    failure: Failure | None = None
    skipped: bool = False

    @property
    def standing(self) -> str:
        """Give one word for how the request stands; see `STATES`."""
        if self.skipped:
            return "skipped"
        return "in_doubt" if self.in_doubt else self.state


@frozen
class ToolCall:
    """A call of a tool, as the model made it.

    Attributes:
        arguments: as JSON text, however the server sent them.
    """

    id: str | None
    name: str | None
    arguments: str | None


@frozen
class Completion:
    """A reply that was read: whole JSON (or a whole stream) with a choice in it.

    Attributes:
        text: ``choices[0].message.content``; None when the model sent none (tool calls, a refusal).
        model: the model that served it.
        finish_reason: ``stop``, ``length``, ``content_filter``, ``tool_calls`` …, as sent.
        refusal: ``choices[0].message.refusal``, when the model refused.
        tool_calls: whether tools were called, in whatever shape.
        cut: whether it is a stream that ended without any finish reason, where one is due.
        calls: the tool calls.
        reasoning: what the model thought, where the server gives that apart from the text.
        system_fingerprint: of the server's configuration, as sent.
        logprobs: ``choices[0].logprobs``, not looked at; of a stream its pieces put together.
    """

    text: str | None
    model: str | None
    finish_reason: str | None
    usage: Usage
    refusal: str | None = None
    tool_calls: bool = False
    cut: bool = False
    calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    system_fingerprint: str | None = None
    logprobs: Any = field(default=None, hash=False)


@frozen
class Settled:
    """How one request ended.

    Attributes:
        key: the request's key.
        result: the answer, or the last failure.
        in_doubt: whether it may have been paid for without an answer.
        skipped: whether the operator gave it up.
        fresh: whether it was sent in this run.
        began: monotonic seconds when its first attempt of this run began, or that of the request it followed.
        open: whether it was sent and has no answer yet: sending it again gets the one that is paid for.
        attempts: how often it was sent, over all runs.
        request_id: the answering response's ``X-Request-Id``.
        latency_ms: of the answering attempt.
        parent: as in `Ask`.
        asked: the model that was asked.
    """

    key: bytes
    result: Completion | Failure
    in_doubt: bool = False
    skipped: bool = False
    fresh: bool = False
    began: float | None = None
    open: bool = False
    attempts: int = 0
    request_id: str | None = None
    latency_ms: float | None = None
    parent: bytes | None = None
    asked: str = ""


class Outcome(NamedTuple):
    """How one row stands at one step, and what it has to show for it.

    Attributes:
        error: ``code: message``, or None.
        key: the request whose answer (or failure) decides; None when nothing was asked.
        text: the answer's text.
        values: the parsed answer (schema property → value), or None.
        model: that served it.
        source: None without an answer.
        follows: the key of the request before that one, whose cost is the row's too, or None.
        reasoning, tool_calls, refusal, logprob, confidence, system_fingerprint: what the model said beside its text, as far
            as the step writes it.
        votes: how many answers were counted, where several were asked for; then the outcome is the row's own.
        agreement: the share of them that say what counts; with several fields that of the one most in dispute.
        firsts: what the first of them said, by the short names of its columns.
        spared: answers that need not be asked for.
        evidence: by the short names of its columns, where the values stand in the row's texts; None where nothing is to be
            proved. Such an outcome is the row's own: another row with the same request may have another one.
        besides: the keys of the row's other answers, of models that were asked before or after the one that counts: what they
            cost is the row's too. Then the outcome is the row's own.
        stages: what each model said, as long as it is not found which answers are to be trusted.
        lasting: whether it failed in a way that comes again.
        served: of each answer that counts, the model that was asked, the one that answered and its fingerprint, where the step
            is pinned.
        model_changed: whether one of those is not the one that answered first; told where outcomes become columns.
    """

    status: RowStatus
    error: str | None = None
    key: bytes | None = None
    text: str | None = None
    values: dict[str, Any] | None = None
    model: str | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    credits: float | None = None
    attempts: int = 0
    latency_ms: float | None = None
    source: Literal["api", "ledger", "copy"] | None = None
    follows: bytes | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    credits_usd: float | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, str | None]] | None = None
    refusal: str | None = None
    logprob: float | None = None
    confidence: float | None = None
    system_fingerprint: str | None = None
    evidence: dict[str, Any] | None = None
    votes: int | None = None
    agreement: float | None = None
    firsts: dict[str, Any] | None = None
    spared: int = 0
    besides: tuple[bytes, ...] | None = None
    stages: tuple[Outcome, ...] | None = None
    lasting: bool = False
    served: tuple[tuple[str, str | None, str | None], ...] | None = None
    model_changed: bool | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the row's own: the answer of its request alone does not tell it."""
        return self.evidence is not None or self.votes is not None or self.besides is not None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why some rows have no usable answer at one step.

    Attributes:
        code: of the error, such as ``null_value``.
        rows: how many.
        row: the first of them that was decided, counted from 1.
        message: of that one.
        asked: whether a request was made of it; without one there is nothing that could be asked again.
        again: whether it was asked in this run.
    """

    step: str
    status: RowStatus
    code: str
    rows: int
    row: int
    message: str
    asked: bool
    again: bool

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {name: getattr(self, name) for name in ("step", "status", "code", "rows", "row", "message")}


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: the ``--json`` line of the command line, and what `enrich.run` returns.

    Attributes:
        statuses: rows per status; they sum to ``rows``. With several steps a row counts once, under its worst.
        requests: distinct requests sent in this run.
        attempts: HTTP requests sent in this run, retries included.
        cached_tokens: those of the prompts' tokens that were read from a cache, as far as the endpoint tells.
        reasoning_tokens: those of the completions' tokens that were thought and not said, likewise.
        credits: spent in this run.
        credits_usd: what they are in US dollars, as far as the endpoint tells.
        seconds: wall time.
        retries: attempts that failed and were followed by another one, per cause.
        reason: one sentence on how it ended.
        perhaps_paid_twice: requests that were sent again after an unknown outcome to an endpoint that keeps no keys; None
            where it keeps them.
        partitions: of an output that is a folder, how many of its files were selected, processed, unchanged, are still
            pending, have failed rows, or are left over from input that vanished; None of one that is a file.
        bound_by: what held the run up longest: ``by`` (endpoint, queueing, limits, source, cpu, ledger, budget,
            outage), the ``share`` of the time, a ``text`` with the figure, what to ``change``; None where nothing did.
        found: what was found out of the endpoint's limits, one phrase each.
        resumable: whether the same run, started again, may go further by itself: after an outage or an interrupt,
            not after a refused key or a spent budget.
        causes: why rows have no usable answer, the most frequent first.
        sandbox: whether the answers are the sandbox's: made up, and charged to nobody.
        reused: rows that keep an answer which was given under an earlier schema.
        unknown_finish: rows that are ok although nobody knows what their finish reason means, by that reason.
        waste: what became of the answers that were paid for, and what was not paid for, as plain JSON; None of a run that did
            nothing.
        model_changed: who answers in place of the model that a step is pinned to, where the run stopped for that.
        by_step: rows per step and status, in any order; not printed with ``--json``.
        guarantee: by step, which answers of the cheap model stay, and what is promised of all, as plain JSON; None without one.
        gold: by column, how its answers agree with the values given by hand, as plain JSON; None where there are none.
    """

    rows: int
    statuses: dict[RowStatus, int]
    requests: int
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    credits: float
    seconds: float
    rows_per_second: float
    output: str | None
    ledger: str | None
    exit_code: int
    reason: str
    retries: dict[str, int] = field(default_factory=dict)
    resumable: bool = False
    partitions: dict[str, int] | None = None
    causes: tuple[Trouble, ...] = ()
    sandbox: bool = False
    reused: int = 0
    unknown_finish: dict[str, int] = field(default_factory=dict)
    perhaps_paid_twice: int | None = None
    bound_by: dict[str, Any] | None = None
    found: tuple[str, ...] = ()
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    credits_usd: float = 0.0
    gold: dict[str, Any] | None = None
    waste: dict[str, Any] | None = None
    model_changed: dict[str, Any] | None = None
    by_step: tuple[tuple[str, RowStatus, int], ...] = ()
    guarantee: dict[str, Any] | None = None

    def amounts(self) -> dict[str, Any]:
        """Give what was used and spent, by name."""
        return {name: getattr(self, name) for name in AMOUNTS}

    def to_dict(self) -> dict[str, Any]:
        """Give the summary as one flat mapping, statuses beside the rest, as ``--json`` prints it."""
        partitions = {} if self.partitions is None else {"partitions": self.partitions}
        return {
            "rows": self.rows,
            **{status: self.statuses.get(status, 0) for status in STATUSES},
            "requests": self.requests,
            "attempts": self.attempts,
            **self.amounts(),
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second, 1),
            "retries": self.retries,
            **({} if self.perhaps_paid_twice is None else {"perhaps_paid_twice": self.perhaps_paid_twice}),
            **partitions,
            "output": self.output,
            "ledger": self.ledger,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "resumable": self.resumable,
            "causes": [cause.to_dict() for cause in self.causes],
            "sandbox": self.sandbox,
            "reused": self.reused,
            "unknown_finish": self.unknown_finish,
            "bound_by": self.bound_by,
            "found": list(self.found),
            "waste": self.waste,
            **({} if self.gold is None else {"gold": self.gold}),
            **({} if self.guarantee is None else {"guarantee": self.guarantee}),
            **({} if self.model_changed is None else {"model_changed": self.model_changed}),
        }
