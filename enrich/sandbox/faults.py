"""Faults on demand: what they are called, how they are asked for, and which request each one strikes."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_FAULT = "ok"  # in a script: this request is served as it should be

FAULTS: dict[str, str] = {
    # Beatra refuses; nothing is executed or charged.
    "rate_limited": "429 rate_limited without Retry-After",
    "rate_limited_retry_after": "429 rate_limited with `Retry-After: 1`",
    "retry_after_date": "429 rate_limited with an HTTP-date in Retry-After, one to two seconds ahead",
    "retry_after_garbage": "429 rate_limited with `Retry-After: nan`",
    "unauthorized": "401 unauthorized",
    "forbidden": "403 forbidden",
    "tenant_disabled": "403 tenant_disabled",
    "region_mismatch": "400 api_key_region_mismatch",
    "insufficient_balance": "402 insufficient_balance",
    "invalid_request": "422 invalid_request with details.errors",
    "unsupported_model": "400 unsupported_model",
    "unsupported_capability": "400 unsupported_capability",
    "unsupported_option": "422 unsupported_option with details.unsupported_fields",
    "in_flight_409": "409 idempotency_in_progress, retryable",
    "billing_failed": "500 billing_failed, retryable",
    "model_unavailable": "503 model_unavailable, retryable",
    "internal_error": "500 internal_error, retryable",
    "internal_error_final": "500 internal_error with retryable false",
    "retryable_400": "400 invalid_request that claims to be retryable",
    "error_in_200": "200 whose body is an error envelope; not charged",
    # Something on the way answers or gives up; nothing is executed or charged.
    "bad_gateway_html": "502 with a proxy's HTML page",
    "gateway_timeout": "504 with a proxy's HTML page; not executed",
    "empty_500": "500 with an empty body",
    "plain_500": "500 with plain text",
    "redirect": "302 to another path",
    "reset": "connection reset before the request is executed",
    "disconnect_keepalive": "connection closed without an answer, as an idle kept-alive one is; not executed",
    "stall": "no answer until the client gives up; not executed",
    # Charged; the answer itself is what is wrong, also when it is asked for again.
    "null_content": "charged; content is null",
    "tool_calls": "charged; tool calls instead of content",
    "truncated": "charged; half the text, finish_reason length",
    "content_filter": "charged; a part of the text, finish_reason content_filter",
    "refusal": "charged; content is null and the message holds a refusal",
    "missing_usage": "charged; the answer has no usage",
    "broken_schema": "charged; the answer is JSON that breaks the schema asked for",
    "fenced_json": "charged; the answer stands in a Markdown fence with a sentence before it",
    # Charged; only its delivery goes wrong: the same key gets the whole answer for nothing.
    "reset_after_charge": "charged, then the connection is reset",
    "gateway_timeout_after_charge": "charged, then 504 with a proxy's HTML page",
    "cut_body": "charged; half the body without a length, then a clean close",
    "cut_chunked": "charged; half the body in a chunk, then a close without the last chunk",
    "cut_json": "charged; half the body with a Content-Length that fits it",
    "empty_body": "charged; 200 with an empty body",
    "no_choices": "charged; 200 without choices",
    "invalid_utf8": "charged; bytes in the text that are no UTF-8",
    "wrong_content_type": "charged; the right body as text/html",
    "missing_request_id": "charged; no X-Request-Id",
    "duplicate_request_id": "charged; X-Request-Id stands there twice, with different values",
    "same_request_id": "charged; the X-Request-Id is the same on every answer struck",
    "huge_body": "charged; 64 MiB of padding in the body",
    "gzip_bomb": "charged; 64 MiB of padding in the body, compressed though nobody asked for it",
    "slow_loris": "charged; the body drips, a byte at a time",
    # Charged; strikes streams only.
    "stream_cut": "charged; a stream that breaks off half-way, without the last chunk",
    "stream_early_end": "charged; a stream that ends cleanly half-way",
    "stream_error_event": "charged; a stream with an error event half-way",
    "stream_stall": "charged; a stream that falls silent half-way until the client gives up",
    "stream_no_done": "charged; a whole stream but for `[DONE]`",
}


MOST_TIMES = 1_000_000  # that one request suffers a fault


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Only requests that would have been answered are struck: valid, authorised and within the limits.

    Attributes:
        kind: a key of `FAULTS`.
        probability: share of requests that suffer it, 0 to 1.
        times: how often it strikes at most; None: no end of it.
        match: only requests whose body holds this text.
        after: how many matching requests are let pass first.
        per_key: count `times` for each idempotency key (without one: each body), not overall.

    Raises:
        ConfigError: the kind is unknown, or a number is out of range.
    """

    kind: str
    probability: float = 1.0
    times: int | None = None
    match: str | None = None
    after: int = 0
    per_key: bool = False

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if not 0 <= self.probability <= 1:
            raise ConfigError(
                f"fault {self.kind}: the probability is {self.probability}; it must be 0 to 1",
                hint=f"for example {self.kind}=0.05",
            )
        if (self.times is not None and not 1 <= self.times <= MOST_TIMES) or self.after < 0:
            raise ConfigError(
                f"fault {self.kind}: `times` must be 1 to {MOST_TIMES:,}, `after` 0 or more",
                hint=f"for always, {self.kind}=1.",
            )


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of fault.

    Raises:
        ConfigError: with the nearest kind there is.
    """
    if kind not in FAULTS:
        raise ConfigError(f"there is no fault `{kind}`", hint=did_you_mean(kind, FAULTS))


def parse_fault(text: str) -> Fault:
    """Read a fault as the command line gives it: ``kind``, ``kind=probability`` or ``kind=probability:times``.

    With ``times`` each idempotency key suffers it that often at most; without, each request draws anew.

    Raises:
        ConfigError: it is not of that form, or the kind is unknown.
    """
    kind, _, numbers = text.strip().partition("=")
    check_kind(kind)
    probability, colon, times = numbers.partition(":")
    try:
        return Fault(
            kind,
            float(probability) if numbers else 1.0,
            times=int(times) if colon else None,
            per_key=bool(colon),
        )
    except ValueError:
        raise ConfigError(
            f"fault `{text}` is not of the form kind=probability:times",
            hint=f"for example {kind}=0.05, or {kind}=1:2 for twice per request.",
        ) from None


class FaultPlan:
    """Decides which request is struck by what. The same seed strikes the same keys, in whatever order they come.

    Args:
        faults: the faults; of several that strike one request the first one counts.
        script: kinds that befall the first requests, one each (`ok`: none), before the faults count.
        seed: of the draws.

    Raises:
        ConfigError: a kind in the script is unknown.
    """

    def __init__(self, faults: Iterable[Fault], *, script: Iterable[str] = (), seed: int = 0) -> None:
        self._faults = tuple(faults)
        self._script = deque(script)
        self._seed = seed
        self._seen: Counter[int] = Counter()
        self._turns: Counter[bytes] = Counter()
        self._struck: Counter[tuple[int, bytes]] = Counter()
        for kind in self._script:
            if kind != NO_FAULT:
                check_kind(kind)

    def draw(self, identity: bytes, body: bytes, *, stream: bool) -> str | None:
        """Say which fault the next request suffers, or None.

        Args:
            identity: the idempotency key (without one: the body's digest) whose retries belong together.
            body: the request's bytes.
            stream: whether it asks for a stream.
        """
        if self._script:
            kind = self._script.popleft()
            return None if kind == NO_FAULT else kind
        if not self._faults:
            return None
        self._turns[identity] += 1
        strikes = (
            fault.kind
            for index, fault in enumerate(self._faults)
            if self._strikes(index, fault, identity, body=body, stream=stream)
        )
        return next(strikes, None)

    def _strikes(self, index: int, fault: Fault, identity: bytes, *, body: bytes, stream: bool) -> bool:
        if fault.kind.startswith("stream_") and not stream:
            return False
        if fault.match is not None and fault.match.encode() not in body:
            return False
        self._seen[index] += 1
        scope = (index, identity if fault.per_key else b"")
        if self._seen[index] <= fault.after or (
            fault.times is not None and self._struck[scope] >= fault.times
        ):
            return False
        if self._chance(index, identity) >= fault.probability:
            return False
        self._struck[scope] += 1
        return True

    def _chance(self, index: int, identity: bytes) -> float:
        """Draw a number from 0 to below 1 for this fault and this turn of this key."""
        material = b"%d|%d|%d|%b" % (self._seed, index, self._turns[identity], identity)
        return int.from_bytes(hashlib.blake2b(material, digest_size=6).digest()) / (1 << 48)
