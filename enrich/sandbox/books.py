"""The emulator's books: what was asked, answered and charged, in counters that cost next to nothing."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

ATTEMPTS_KEPT = 100_000  # newest attempts that stay on the list
CREDIT_DIGITS = 6  # decimal places of a sum of credits


@dataclass(slots=True)
class Tally:
    """Counts for one idempotency key, one body, or all requests.

    Attributes:
        requests: HTTP requests received.
        charges: completions charged: more than 1 for a body or a key is work paid for twice.
        credits: what they cost.
        tokens: what they used.
    """

    requests: int = 0
    charges: int = 0
    credits: float = 0.0
    tokens: int = 0

    def charge(self, credits_: float, tokens: int) -> None:
        """Book one completion."""
        self.charges += 1
        self.credits += credits_
        self.tokens += tokens

    def to_dict(self) -> dict[str, Any]:
        """Give the counts as a JSON-ready mapping."""
        return {
            "requests": self.requests,
            "charges": self.charges,
            "credits": round(self.credits, CREDIT_DIGITS),
            "tokens": self.tokens,
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to the chat endpoint.

    Attributes:
        key: the `Idempotency-Key` as sent, or None.
        body: SHA-256 of the body, 32 bytes.
        time: wall-clock seconds since the epoch when it came in.
        status: the HTTP status it was answered with; None when no answer was sent.
        request_id: the `X-Request-Id` of the answer.
        client_id: the `X-Request-Id` that the client sent, or None.
    """

    key: str | None
    body: bytes
    time: float
    status: int | None
    request_id: str
    client_id: str | None

    def to_dict(self) -> dict[str, Any]:
        """Give the attempt as a JSON-ready mapping."""
        return {
            "key": self.key,
            "body": self.body.hex(),
            "time": self.time,
            "status": self.status,
            "request_id": self.request_id,
            "x_request_id": self.client_id,
        }


@dataclass(slots=True)
class Books:
    """Everything an emulator counted since it was made.

    Attributes:
        balance: credits put on the account, or None for no end of them; may be raised at any time.
        total: all requests to the chat endpoint.
        keys: per `Idempotency-Key`.
        bodies: per SHA-256 of the body (32 bytes).
        replays: answers given again for nothing.
        cached_tokens: of prompts that were read from the cache.
        statuses: answers per HTTP status; None counts requests that got no answer.
        faults: faults played, per kind.
        in_flight: requests being handled now.
        max_in_flight: the most there ever were.
        busiest_second: the most requests within one second of the clock.
        attempts: the newest `ATTEMPTS_KEPT` requests, in the order in which they ended.
    """

    balance: float | None = None
    total: Tally = field(default_factory=Tally)
    keys: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    bodies: defaultdict[bytes, Tally] = field(default_factory=lambda: defaultdict(Tally))
    replays: int = 0
    cached_tokens: int = 0
    statuses: Counter[int | None] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    max_in_flight: int = 0
    busiest_second: int = 0
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=ATTEMPTS_KEPT))
    _second: int = -1
    _in_second: int = 0
    _arrivals: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    @property
    def spent(self) -> bool:
        """Whether the balance is used up."""
        return self.balance is not None and self.total.credits >= self.balance

    async def received(self, requests: int) -> None:
        """Wait until so many requests have come in, in all. Only from the emulator's own event loop."""
        if self.total.requests < requests:
            future = asyncio.get_running_loop().create_future()
            self._arrivals.append((requests, future))
            await future

    def arrive(self, key: str | None, body: bytes, now: float) -> None:
        """Book a request that came in; ``body`` is its digest, ``now`` seconds."""
        self.total.requests += 1
        self.bodies[body].requests += 1
        if key is not None:
            self.keys[key].requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self._in_second = self._in_second + 1 if int(now) == self._second else 1
        self._second = int(now)
        self.busiest_second = max(self.busiest_second, self._in_second)
        if self._arrivals:
            self._announce()

    def leave(self, attempt: Attempt) -> None:
        """Book the end of a request."""
        self.in_flight -= 1
        self.statuses[attempt.status] += 1
        self.attempts.append(attempt)

    def charge(self, key: str | None, body: bytes, credits_: float, tokens: int) -> None:
        """Book a completion."""
        self.total.charge(credits_, tokens)
        self.bodies[body].charge(credits_, tokens)
        if key is not None:
            self.keys[key].charge(credits_, tokens)

    def to_dict(self, *, attempts: bool = False) -> dict[str, Any]:
        """Give the books as a JSON-ready mapping; ``attempts`` adds the list of requests."""
        books: dict[str, Any] = {
            "totals": {
                **self.total.to_dict(),
                "replays": self.replays,
                "cached_tokens": self.cached_tokens,
                "rejected_429": self.statuses[429],
                "in_flight": self.in_flight,
                "max_in_flight": self.max_in_flight,
                "busiest_second": self.busiest_second,
                "statuses": {"none" if s is None else str(s): n for s, n in self.statuses.items()},
                "faults": dict(self.faults),
                "balance": self.balance,
            },
            "keys": {key: tally.to_dict() for key, tally in self.keys.items()},
            "bodies": {body.hex(): tally.to_dict() for body, tally in self.bodies.items()},
        }
        if attempts:
            books["attempts"] = [attempt.to_dict() for attempt in self.attempts]
        return books

    def _announce(self) -> None:
        due = [future for requests, future in self._arrivals if requests <= self.total.requests]
        self._arrivals = [(n, future) for n, future in self._arrivals if n > self.total.requests]
        for future in due:
            if not future.done():
                future.set_result(None)
