"""How faults go over the wire: refusals, proxy pages, and deliveries that go wrong."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from enrich.sandbox.answers import DONE_EVENT, data, events
from enrich.sandbox.error_bodies import ProxyPage, Refusal, html_page
from enrich.sandbox.memory import IN_PROGRESS
from enrich.sandbox.validate import unsupported_option

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from multidict import CIMultiDict

REQUEST_ID = "X-Request-Id"
JSON, EVENT_STREAM = "application/json", "text/event-stream"
DRIP_SECONDS = 0.2  # between two bytes of a body that drips
PADDING = 64 * 1024 * 1024  # bytes of a body that is too large
BLOCK = 1024 * 1024  # bytes of padding written at once

RATE_LIMITED = Refusal(429, "rate_limited", "Too many requests.", retryable=True)
BALANCE_SPENT = Refusal(402, "insufficient_balance", "The account's balance is spent.")
UNAUTHORIZED = Refusal(401, "unauthorized", "No API key was sent: Authorization: Bearer <key>.")
OVERLOADED = Refusal(500, "internal_error", "Something went wrong on our side.", retryable=True)


def _refusals() -> dict[str, Refusal]:
    """Give the refusal for each kind of fault that is one."""
    bad = {"errors": [{"field": "/messages/0/content", "message": "was refused by the sandbox"}]}
    invalid = Refusal(
        422, "invalid_request", "The request is not valid.", param="/messages/0/content", details=bad
    )
    return {
        "rate_limited": RATE_LIMITED,
        "rate_limited_retry_after": rate_limited(1),
        "retry_after_garbage": rate_limited("nan"),
        "unauthorized": UNAUTHORIZED,
        "forbidden": Refusal(403, "forbidden", "This key may not use this endpoint."),
        "tenant_disabled": Refusal(403, "tenant_disabled", "The account is disabled."),
        "region_mismatch": Refusal(400, "api_key_region_mismatch", "The key belongs to another region."),
        "insufficient_balance": BALANCE_SPENT,
        "invalid_request": invalid,
        "unsupported_model": Refusal(400, "unsupported_model", "The model is not enabled.", param="/model"),
        "unsupported_capability": Refusal(400, "unsupported_capability", "The model cannot do that."),
        "unsupported_option": unsupported_option(["seed"]),
        "in_flight_409": IN_PROGRESS,
        "billing_failed": Refusal(500, "billing_failed", "The charge could not be booked.", retryable=True),
        "model_unavailable": Refusal(503, "model_unavailable", "The model is overloaded.", retryable=True),
        "internal_error": OVERLOADED,
        "internal_error_final": Refusal(500, "internal_error", "Something went wrong for good."),
        "retryable_400": Refusal(400, "invalid_request", "The request is not valid.", retryable=True),
    }


def rate_limited(retry_after: float | str | None) -> Refusal:
    """Make a 429; see `SandboxOptions.retry_after`."""
    if retry_after == "date":
        later = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        retry_after = format_datetime(later, usegmt=True)
    if isinstance(retry_after, int | float):
        retry_after = str(-int(-retry_after // 1))
    return Refusal(429, "rate_limited", "Too many requests.", retryable=True, retry_after=retry_after)


REFUSALS = _refusals()
PAGES: dict[str, ProxyPage] = {
    "bad_gateway_html": html_page(502, "Bad Gateway"),
    "gateway_timeout": html_page(504, "Gateway Time-out"),
    "gateway_timeout_after_charge": html_page(504, "Gateway Time-out"),
    "empty_500": ProxyPage(500, "text/html", b""),
    "plain_500": ProxyPage(500, "text/plain", b"Internal Server Error"),
    "redirect": ProxyPage(302, "text/html", b"Found", location="/v1/models"),
}
UNCHARGED = {
    *REFUSALS,
    *PAGES,
    "retry_after_date",
    "error_in_200",
    "reset",
    "disconnect_keepalive",
    "stall",
} - {"gateway_timeout_after_charge"}


def refuse(refusal: Refusal, request_id: str) -> web.Response:
    """Answer with Beatra's error envelope."""
    headers = {REQUEST_ID: request_id, "Content-Type": JSON}
    if refusal.retry_after is not None:
        headers["Retry-After"] = refusal.retry_after
    return web.Response(status=refusal.status, body=refusal.body(request_id), headers=headers)


async def play_uncharged(kind: str, request: web.Request, request_id: str) -> web.Response | None:
    """Play a fault of a request that is not executed; None when no answer was sent."""
    if kind == "unsupported_option" and b'"response_format"' in await request.read():
        return refuse(unsupported_option(["response_format"]), request_id)
    if kind in REFUSALS:
        return refuse(REFUSALS[kind], request_id)
    if kind in PAGES:
        return _page(kind)
    if kind == "retry_after_date":
        return refuse(rate_limited("date"), request_id)
    if kind == "error_in_200":
        body = REFUSALS["model_unavailable"].body(request_id)
        return web.Response(body=body, headers={REQUEST_ID: request_id, "Content-Type": JSON})
    if kind == "stall":
        await _client_gone()
    _hang_up(request, reset=kind == "reset")
    return None


def _page(kind: str) -> web.Response:
    page = PAGES[kind]
    headers = {"Content-Type": page.content_type}
    if page.location:
        headers["Location"] = page.location
    return web.Response(status=page.status, body=page.body, headers=headers)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A paid answer on its way out.

    Attributes:
        request: what it answers.
        answer: the completion's JSON.
        headers: of the response.
        streamed: whether it goes out as an event stream.
        usage: whether the stream carries usage.
        seconds: how long the stream takes.
    """

    request: web.Request
    answer: bytes
    headers: CIMultiDict[str]
    streamed: bool
    usage: bool
    seconds: float

    def parts(self) -> list[bytes]:
        """Give the body: one piece, or the events of the stream."""
        if not self.streamed:
            return [self.answer]
        return list(events(orjson.loads(self.answer), usage=self.usage))


async def deliver(delivery: Delivery, kind: str | None) -> web.StreamResponse | None:
    """Send a paid answer, with what goes wrong on the way; None when it did not go out as a response."""
    if kind in _WIRE:
        return await _WIRE[kind](delivery)
    if kind in PAGES:
        return _page(kind)
    if kind in _HEADERS:
        _HEADERS[kind](delivery.headers)
    parts = _MANGLED[kind](delivery) if kind in _MANGLED else delivery.parts()
    if kind in _ONE_PIECE or not delivery.streamed:
        return web.Response(body=b"".join(parts), headers=delivery.headers)
    return await _stream(delivery, parts)


async def _stream(delivery: Delivery, parts: list[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers=delivery.headers)
    await response.prepare(delivery.request)
    for part in parts:
        if delivery.seconds:
            await asyncio.sleep(delivery.seconds / len(parts))
        await response.write(part)
    await response.write_eof()
    return response


# --- what is in the body ---------------------------------------------------------------------------------


def _no_choices(delivery: Delivery) -> list[bytes]:
    completion: dict[str, Any] = orjson.loads(delivery.answer)
    del completion["choices"]
    if delivery.streamed:
        return list(events(completion, usage=delivery.usage))
    return [orjson.dumps(completion)]


def _invalid_utf8(delivery: Delivery) -> list[bytes]:
    body = b"".join(delivery.parts())
    return [body.replace(b'"content":"', b'"content":"\xff\xc3(', 1)]


def _half_the_bytes(delivery: Delivery) -> list[bytes]:
    body = b"".join(delivery.parts())
    return [body[: len(body) // 2]]


def _half_the_events(delivery: Delivery) -> list[bytes]:
    parts = delivery.parts()
    return parts[: len(parts) // 2]


def _with_error_event(delivery: Delivery) -> list[bytes]:
    error = OVERLOADED.envelope(delivery.headers[REQUEST_ID])
    return [*_half_the_events(delivery), data(error)]


_MANGLED: dict[str | None, Callable[[Delivery], list[bytes]]] = {
    "no_choices": _no_choices,
    "invalid_utf8": _invalid_utf8,
    "cut_json": _half_the_bytes,
    "empty_body": lambda _delivery: [],
    "stream_early_end": _half_the_events,
    "stream_error_event": _with_error_event,
    "stream_no_done": lambda delivery: [part for part in delivery.parts() if part != DONE_EVENT],
}
_ONE_PIECE = {"invalid_utf8", "cut_json", "empty_body"}  # sent with a Content-Length, streamed or not
_HEADERS: dict[str | None, Callable[[CIMultiDict[str]], None]] = {
    "wrong_content_type": lambda headers: headers.update({"Content-Type": "text/html"}),
    "missing_request_id": lambda headers: headers.popall(REQUEST_ID).clear(),
    "duplicate_request_id": lambda headers: headers.add(REQUEST_ID, f"{headers[REQUEST_ID]}-again"),
    "same_request_id": lambda headers: headers.update({REQUEST_ID: "req_sandbox_same"}),
}


# --- how the body goes out -------------------------------------------------------------------------------


async def _reset(delivery: Delivery) -> None:
    _hang_up(delivery.request, reset=True)


async def _cut_body(delivery: Delivery) -> None:
    _write_raw(delivery, b"Connection: close\r\n", _half_the_bytes(delivery)[0])


async def _cut_chunked(delivery: Delivery) -> None:
    half = b"".join(_half_the_events(delivery)) if delivery.streamed else _half_the_bytes(delivery)[0]
    _write_raw(delivery, b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(half), half))


async def _slow_loris(delivery: Delivery) -> web.StreamResponse:
    body = b"".join(delivery.parts())

    async def drips() -> AsyncIterator[bytes]:
        for byte in body:
            await asyncio.sleep(DRIP_SECONDS)
            yield bytes([byte])

    return web.Response(body=drips(), headers=delivery.headers)


async def _stream_stall(delivery: Delivery) -> web.StreamResponse:
    response = web.StreamResponse(headers=delivery.headers)
    await response.prepare(delivery.request)
    await response.write(b"".join(_half_the_events(delivery)))
    await _client_gone()
    return response


def _around_padding(delivery: Delivery) -> tuple[bytes, bytes]:
    """Give what stands before and after the padding so that the whole is valid JSON, or a valid stream."""
    if delivery.streamed:
        return b": ", b"\n\n" + b"".join(delivery.parts())
    return b'{"padding":"', b'",' + delivery.answer[1:]


async def _huge_body(delivery: Delivery) -> web.StreamResponse:
    before, after = _around_padding(delivery)
    response = web.StreamResponse(headers=delivery.headers)
    response.content_length = len(before) + PADDING + len(after)
    await response.prepare(delivery.request)
    await response.write(before)
    block = b"x" * BLOCK
    for _ in range(PADDING // BLOCK):
        await response.write(block)
    await response.write(after)
    await response.write_eof()
    return response


async def _gzip_bomb(delivery: Delivery) -> web.StreamResponse:
    before, after = _around_padding(delivery)
    body = await asyncio.to_thread(_zipped, before, after)
    delivery.headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, headers=delivery.headers)


@functools.lru_cache(maxsize=8)
def _zipped(before: bytes, after: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)  # 31: the gzip format
    block = b"x" * BLOCK
    middle = b"".join(packer.compress(block) for _ in range(PADDING // BLOCK))
    return b"".join((packer.compress(before), middle, packer.compress(after), packer.flush()))


_WIRE: dict[str | None, Callable[[Delivery], Awaitable[web.StreamResponse | None]]] = {
    "reset_after_charge": _reset,
    "cut_body": _cut_body,
    "cut_chunked": _cut_chunked,
    "stream_cut": _cut_chunked,
    "slow_loris": _slow_loris,
    "stream_stall": _stream_stall,
    "huge_body": _huge_body,
    "gzip_bomb": _gzip_bomb,
}


async def _client_gone() -> None:
    """Wait until the server cancels this handler, as it does when the client hangs up."""
    await asyncio.get_running_loop().create_future()


def _write_raw(delivery: Delivery, framing: bytes, body: bytes) -> None:
    """Write a 200 past aiohttp, which would frame it properly, and close the connection."""
    transport = delivery.request.transport
    if transport is None or transport.is_closing():
        return
    headers = b"".join(f"{name}: {value}\r\n".encode() for name, value in delivery.headers.items())
    transport.write(b"HTTP/1.1 200 OK\r\n" + headers + framing + b"\r\n" + body)
    transport.close()


def _hang_up(request: web.Request, *, reset: bool) -> None:
    """Close the connection; ``reset`` sends an RST instead of a FIN."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
