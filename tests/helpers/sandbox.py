"""What the tests of the emulator share: a caller, requests, a clock that can be turned."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import aiohttp
    from multidict import CIMultiDictProxy


LABELS = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg", "neutral"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["label", "score"],
    "additionalProperties": False,
}


@dataclass
class TurnedClock:
    """A clock that stands still until it is turned."""

    now: float = 1_000_000.0

    def wall(self) -> float:
        """Give the time it was turned to."""
        return self.now

    def boottime(self) -> float:
        """Give the time it was turned to."""
        return self.now

    def boot_id(self) -> str:
        """Give a name that stays."""
        return "test"


@dataclass(frozen=True)
class Answer:
    """One HTTP response, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def error(self) -> Any:
        """What the error envelope holds."""
        return self.json["error"]

    @property
    def text(self) -> Any:
        """The text of the first choice."""
        return self.json["choices"][0]["message"]["content"]


class Caller:
    """A plain client of one sandbox."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def chat(
        self, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Post a body (bytes as they are; by default a plain question) to the chat endpoint."""
        data = body if isinstance(body, bytes) else orjson.dumps(ask() if body is None else body)
        sent = {"Authorization": "Bearer sk-secret", "Content-Type": "application/json", **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        target = f"{self.url}/chat/completions"
        async with self.session.post(target, data=data, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        """Get a path of the server."""
        async with self.session.get(self.url.removesuffix("/v1") + path, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())


def ask(text: str = "Is this good?", **fields: Any) -> dict[str, Any]:
    """Make a valid request body."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def with_schema(schema: dict[str, Any], text: str = "Classify this.") -> dict[str, Any]:
    """Make a request body that asks for JSON of a schema."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    return ask(text, response_format=form)


def new_key() -> str:
    """Make an idempotency key."""
    return str(uuid.uuid4())


def chunks(body: bytes) -> list[Any]:
    """Read a whole stream; it must end in `[DONE]`."""
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    return [orjson.loads(line) for line in lines]
