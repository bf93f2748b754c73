"""When a stream is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from enrich.config.endpoint import Endpoint
from enrich.records import Completion, Fate, Reply
from enrich.wire.client import Client
from enrich.wire.completion import read
from tests.helpers.byte_server import (
    DONE,
    END,
    EVENTS,
    STOP,
    WORD,
    Handler,
    Request,
    Server,
    dripping,
    failure_of,
    part,
    reply_to,
    send,
    sending,
)

if TYPE_CHECKING:
    import asyncio


INDEXED = 'data: {"choices":[{"index":0,"delta":{"content":"hé"}}]}'
OTHERS = 'data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}'
ROLE = 'data: {"choices":[{"delta":{"role":"assistant"}}]}'


def last(row: str, end: str = "\n") -> bytes:
    """Write the last chunk of a body, which no empty line follows."""
    data = f"{row}{end}".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def test_stream() -> None:
    """A stream is kept as it came up to [DONE], and the time of its first text is taken."""
    reply = await reply_to(
        sending(EVENTS, part(ROLE), part(": ping", WORD), part(STOP, DONE), END), stream=True
    )
    assert reply.body == "".join(f"{row}\n\n" for row in (ROLE, ": ping", WORD, STOP, DONE)).encode()
    assert reply.streamed
    assert reply.request_id == "r-5"
    assert reply.first_token_ms is not None
    assert 0 < reply.first_token_ms <= reply.latency_ms


async def test_stream_with_lines_above_512_kib() -> None:
    """A chunk of a stream may be longer than aiohttp's own lines."""
    long = f'data: {{"choices":[{{"delta":{{"content":"{"x" * 600_000}"}}}}]}}'
    reply = await reply_to(sending(EVENTS, part(long, STOP, DONE), END), stream=True)
    assert len(reply.body) > 600_000


@pytest.mark.parametrize("ending", [END, b""], ids=["ended", "left open"])
async def test_done_ends_a_stream(ending: bytes) -> None:
    """[DONE] ends a stream even where the server holds the connection; where it does not, that is used again."""
    handler = sending(EVENTS, part(WORD, STOP, DONE) + ending, then="keep" if ending else "hold")
    async with Server(handler) as server, Client(Endpoint(server.url), concurrency=1) as client:
        for _ in range(2):
            assert isinstance(await send(client, stream=True), Reply)
    assert server.connections == (1 if ending else 2)


@pytest.mark.parametrize("row", [DONE, STOP, f"{STOP}\n\n: bye"], ids=["done", "finish reason", "comment"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""], ids=["LF", "CRLF", "CR", "nothing"])
async def test_no_empty_line_after_the_last_event(row: str, end: str) -> None:
    """The last event of a stream counts where it is whole, though no empty line follows; what it says is read again."""
    reply = await reply_to(sending(EVENTS, part(WORD, STOP), last(row, end), END), stream=True)
    read_as = read(reply)
    assert isinstance(read_as, Completion)
    assert (read_as.text, read_as.finish_reason) == ("hé", "stop")


async def test_finish_reason_without_an_empty_line() -> None:
    """The finish reason counts though it stands in the last event, which no empty line follows."""
    completion = read(await reply_to(sending(EVENTS, part(WORD), last(STOP, ""), END), stream=True))
    assert isinstance(completion, Completion)
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("then", ["hold", "close", "reset"])
async def test_done_without_an_empty_line_ends_a_stream(then: str) -> None:
    """Such a [DONE] is the end at once, whatever becomes of the connection."""
    assert (await reply_to(sending(EVENTS, part(WORD, STOP), last(DONE), then=then), stream=True)).streamed


async def test_error_without_an_empty_line() -> None:
    """An error in the last event is told, though no empty line follows."""
    error = 'data: {"error":{"message":"the engine died","code":"engine_error"}}'
    failure = await failure_of(sending(EVENTS, part(WORD), last(error), END), stream=True)
    assert (failure.code, failure.fate) == ("engine_error", Fate.UNKNOWN)


async def test_deadline_after_done() -> None:
    """What is whole stays whole, though the time is over while its connection is let go."""
    handler = sending(EVENTS, part(WORD, STOP, DONE), then="hold")
    assert (await reply_to(handler, stream=True, timeout=0.15)).streamed


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (sending(EVENTS, part(WORD), END), "response_cut"),
        (sending(EVENTS, part(WORD, DONE), END), "response_cut"),
        (sending(EVENTS, part(WORD), last(DONE), END), "response_cut"),
        (sending(EVENTS, part(INDEXED, OTHERS, DONE), END), "response_cut"),
        (sending(EVENTS, part(WORD, STOP), last(WORD[:-3]), END), "response_cut"),
        (sending(EVENTS, part(WORD), then="close"), "response_cut"),
        (sending(EVENTS, part(WORD), then="reset"), "response_cut"),
        (sending(EVENTS, part(WORD), then="hold"), "timeout"),
        (dripping(EVENTS + part(WORD), part(": ping")), "timeout"),
    ],
    ids=[
        "clean end",
        "done alone",
        "done without an empty line",
        "another choice ends",
        "cut within a chunk",
        "closed",
        "reset",
        "stalled",
        "endless pings",
    ],
)
async def test_cut_streams(handler: Handler, code: str) -> None:
    """A stream without a finish reason was cut, [DONE] or not; what came is kept as evidence."""
    failure = await failure_of(handler, stream=True, timeout=0.6 if code == "timeout" else 20.0)
    assert (failure.code, failure.fate, failure.request_id) == (code, Fate.UNKNOWN, "r-5")
    assert failure.evidence.startswith(b"data: {")


@pytest.mark.parametrize("end", ["auto", "finish_reason"])
async def test_stream_that_never_says_done(end: str) -> None:
    """The finish reason and a clean end are enough; either alone is not."""
    options: dict[str, Any] = {"stream": True, "stream_end": end}
    assert (await reply_to(sending(EVENTS, part(WORD, STOP), END), **options)).streamed
    assert (await reply_to(sending(EVENTS, part(WORD, STOP, DONE), then="hold"), **options)).streamed
    assert (await failure_of(sending(EVENTS, part(WORD), END), **options)).code == "response_cut"
    assert (
        await failure_of(sending(EVENTS, part(WORD, STOP), then="close"), **options)
    ).code == "response_cut"
    assert (
        await failure_of(sending(EVENTS, part(STOP), b"5\r\ndata:\r\n", END), **options)
    ).code == "response_cut"


async def test_stream_end_set_to_done() -> None:
    """Who says that a stream ends with [DONE] alone gets no other."""
    whole = sending(EVENTS, part(WORD, STOP), END)
    assert (
        await failure_of(whole, stream=True, stream_end="done")
    ).message == "the stream ended before [DONE]"


async def test_stream_without_a_finish_reason_by_setting() -> None:
    """A server that never gives a finish reason is taken at its [DONE], when so set."""
    options: dict[str, Any] = {"stream": True, "finish_reason": "optional"}
    assert (await reply_to(sending(EVENTS, part(WORD, DONE), END), **options)).streamed
    assert (await failure_of(sending(EVENTS, part(WORD), END), **options)).code == "response_cut"


async def test_stream_end_is_learned(caplog: pytest.LogCaptureFixture) -> None:
    """The first whole stream without [DONE] is kept, and said once; where [DONE] is known, only one with its usage is."""
    usage = 'data: {"choices":[],"usage":{"total_tokens":3}}'
    turns = [part(WORD, STOP), part(WORD, STOP), part(WORD, STOP, DONE), part(WORD, STOP), part(STOP, usage)]

    async def handler(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS + turns.pop(0) + END)

    async with Server(handler) as server, Client(Endpoint(server.url), concurrency=4) as client:
        outcomes = [await send(client, stream=True) for _ in range(len(turns))]
    assert [isinstance(outcome, Reply) for outcome in outcomes] == [True, True, True, False, True]
    assert caplog.text.count("without [DONE]") == 1
