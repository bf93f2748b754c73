"""When a stream is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from enrich.config.endpoint import Endpoint
from enrich.records import Fate, Reply
from enrich.wire.client import Client
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


ROLE = 'data: {"choices":[{"delta":{"role":"assistant"}}]}'


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


async def test_deadline_after_done() -> None:
    """What is whole stays whole, though the time is over while its connection is let go."""
    handler = sending(EVENTS, part(WORD, STOP, DONE), then="hold")
    assert (await reply_to(handler, stream=True, timeout=0.15)).streamed


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (sending(EVENTS, part(WORD), END), "response_cut"),
        (sending(EVENTS, part(WORD, DONE), END), "response_cut"),
        (sending(EVENTS, part(WORD), b"d\r\ndata: [DONE]\n\r\n", END), "response_cut"),
        (sending(EVENTS, part(WORD), then="close"), "response_cut"),
        (sending(EVENTS, part(WORD), then="reset"), "response_cut"),
        (sending(EVENTS, part(WORD), then="hold"), "timeout"),
        (dripping(EVENTS + part(WORD), part(": ping")), "timeout"),
    ],
    ids=["clean end", "done alone", "undispatched tail", "closed", "reset", "stalled", "endless pings"],
)
async def test_cut_streams(handler: Handler, code: str) -> None:
    """A stream without a finish reason was cut, [DONE] or not; what came is kept as evidence."""
    failure = await failure_of(handler, stream=True, timeout=0.6 if code == "timeout" else 20.0)
    assert (failure.code, failure.fate, failure.request_id) == (code, Fate.UNKNOWN, "r-5")
    assert failure.evidence.startswith(WORD.encode())


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
