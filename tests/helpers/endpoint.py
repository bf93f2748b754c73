"""An endpoint of our own for tests, plain asyncio, that keeps books. It shares no code with the built-in emulator.

It answers each prompt with a hash of it, charges a completion once per key, gives every response an id of its own,
and can be told to answer in any other shape, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.helpers.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "sk-books-0123456789-SECRET-abcdef"  # the only key it takes


def echo(body: dict[str, Any]) -> str:
    """Give the answer to a request: a hash of its last message."""
    return hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()[:24]


def answer_to(prompt: object) -> str:
    """Give the answer to a request that holds this prompt alone."""
    return echo({"messages": [{"content": str(prompt)}]})


@dataclass(frozen=True)
class Seen:
    """One HTTP request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""
        return self.headers["idempotency-key"]

    @property
    def body(self) -> Any:
        """Its JSON."""
        return json.loads(self.raw)


@dataclass(frozen=True)
class Raw:
    """A response, byte for byte.

    Attributes:
        cut: close the connection after so many bytes of the body, without the rest.
        charge: whether the completion was executed and charged all the same.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    cut: int | None = None
    charge: bool = False


@dataclass(frozen=True)
class Charge:
    """One line of the books: a completion that was executed, and what it cost."""

    key: str
    body: bytes
    request_id: str
    prompt_tokens: int
    completion_tokens: int
    credits: float


def envelope(code: str, status: int, *, retryable: bool = False, message: str = "as told") -> Raw:
    """Make an error as Beatra writes it."""
    error = {"code": code, "message": message, "retryable": retryable, "request_id": f"err-{uuid.uuid4()}"}
    return Raw(json.dumps({"error": error}).encode(), status)


def out_of_service(endpoint: BookedEndpoint, *, after: int, seconds: float) -> None:
    """Let an endpoint answer nothing but 503 for so long, once so many completions were charged."""
    over = threading.Event()

    def outage(seen: Seen) -> Raw | None:
        if seen.method != "POST" or len(endpoint.charges) < after or over.is_set():
            return None
        threading.Timer(seconds, over.set).start()
        return envelope("overloaded", 503, retryable=True)

    endpoint.script = outage


class BookedEndpoint(LoopbackServer):
    """The endpoint in a thread of its own, as a context manager.

    Args:
        answer: gives the text of the answer to a request's body.
        script: may give another response to a request; None takes the usual course.
        further: gives what else a request's usage says.

    Attributes:
        beside: gives what a completion says beside its choices, such as another ``model``.
        seen: every request, in order of arrival.
        charges: the books.
        arrived: set when the first request for a completion has come.
    """

    def __init__(
        self,
        *,
        answer: Callable[[dict[str, Any]], str] = echo,
        script: Callable[[Seen], Raw | None] | None = None,
        further: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {},
    ) -> None:
        super().__init__()
        self.answer = answer
        self.script = script
        self.further = further
        self.beside: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {}
        self.seen: list[Seen] = []
        self.charges: list[Charge] = []
        self.conflicts = 0
        self.accepts: Callable[[Seen], bool] = lambda seen: (
            seen.headers.get("authorization") == f"Bearer {KEY}"
        )
        self._by_key: dict[str, tuple[bytes, bytes]] = {}
        self._ids = itertools.count(1)
        self.arrived = threading.Event()
        self._open = asyncio.Event()
        self._open.set()

    def pause(self) -> None:
        """Let completions wait until `resume`."""
        self.loop.call_soon_threadsafe(self._open.clear)

    def resume(self) -> None:
        """Let completions that wait be answered."""
        self.loop.call_soon_threadsafe(self._open.set)

    # --- the books ------------------------------------------------------------------------------------

    @property
    def posts(self) -> list[Seen]:
        """The requests for a completion."""
        return [seen for seen in self.seen if seen.method == "POST"]

    @property
    def credits(self) -> float:
        """What was charged, all in all."""
        return sum(charge.credits for charge in self.charges)

    @property
    def tokens(self) -> tuple[int, int]:
        """What was charged in tokens: prompt, completion."""
        return sum(c.prompt_tokens for c in self.charges), sum(c.completion_tokens for c in self.charges)

    @property
    def charges_per_body(self) -> Counter[bytes]:
        """How often each body was charged."""
        return Counter(charge.body for charge in self.charges)

    # --- the server -----------------------------------------------------------------------------------

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                seen = await self._read(reader)
                self.seen.append(seen)
                if seen.method == "POST":
                    self.arrived.set()
                    await self._open.wait()
                raw = await self.respond(seen)
                writer.write(self._written(raw))
                await writer.drain()
                if raw.cut is not None:
                    break

    async def respond(self, seen: Seen) -> Raw:
        """Give the response to a request."""
        return self._respond(seen)

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
        return Seen(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))

    def _written(self, raw: Raw) -> bytes:
        head = {"X-Request-Id": f"req-{next(self._ids)}", "Content-Length": str(len(raw.body)), **raw.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items() if value)
        return f"HTTP/1.1 {raw.status} X\r\n{lines}\r\n".encode() + raw.body[: raw.cut]

    def _respond(self, seen: Seen) -> Raw:
        if seen.method == "GET":
            return self._told(seen) or _listing(seen.path)
        if not self.accepts(seen):
            return envelope("invalid_api_key", 401, message="no such key")
        told = self._told(seen)
        if told is not None and not told.charge:
            return told
        usual = self._complete(seen)
        return told or usual

    def _told(self, seen: Seen) -> Raw | None:
        return self.script(seen) if self.script is not None else None

    def _complete(self, seen: Seen) -> Raw:
        """Execute a request and charge for it, unless its key was seen before."""
        key = str(uuid.UUID(seen.key))
        if key in self._by_key:
            body, answer = self._by_key[key]
            if body != seen.raw:
                self.conflicts += 1
                return envelope("idempotency_conflict", 409, message="this key came with another body")
            return Raw(answer)
        assert seen.headers["content-type"].startswith("application/json")
        body = seen.body
        text = self.answer(body)
        prompt = sum(len(_said(message["content"]).split()) for message in body["messages"])
        request_id = f"chg-{next(self._ids)}"
        charge = Charge(key, seen.raw, request_id, prompt, len(text), (prompt + len(text)) / 1024)
        self.charges.append(charge)
        answer = _completion(body, text, charge, self.further(body), self.beside(body))
        self._by_key[key] = (seen.raw, answer)
        return Raw(answer, headers={"Content-Type": "application/json", "X-Request-Id": request_id})


def _said(content: str | list[dict[str, Any]]) -> str:
    """Give the text of a message, of whose parts the others count nothing."""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _completion(
    body: dict[str, Any], text: str, charge: Charge, further: dict[str, Any], beside: dict[str, Any]
) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {
        "prompt_tokens": charge.prompt_tokens,
        "completion_tokens": charge.completion_tokens,
        "total_tokens": charge.prompt_tokens + charge.completion_tokens,
        "credits": charge.credits,
        "credits_usd_reference": charge.credits / 100,
        **further,
    }
    model = "served-1" if body["model"] == "auto" else body["model"]
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps(
        {"id": f"c-{charge.request_id}", "model": model, "choices": choices, "usage": usage, **beside}
    ).encode()


def _listing(path: str) -> Raw:
    if path.endswith("/health"):
        return Raw(b'{"status":"ok"}')
    if path.endswith("/models"):
        return Raw(
            b'{"object":"list","data":[{"id":"served-1","object":"model"},{"id":"fast-1"},{"id":"auto"}]}'
        )
    return envelope("not_found", 404)
