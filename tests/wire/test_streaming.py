"""Streams through a whole run: what counts as an answer, what is kept of one that broke, what is measured."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from enrich.records import Completion, Reply
from enrich.sandbox import Fault, SandboxOptions, ThreadedSandbox
from enrich.wire.completion import read
from tests.helpers.loopback import LoopbackServer, reset_on_close
from tests.helpers.wire import config_of, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("_either_way")

STREAM = {"stream": True}
WORDS = ["Grüße ", "an ", "die 🌍", "!"]
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "credits": 0.25}


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """Write one chunk of a completion."""
    delta = {} if content is None else {"content": content}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"model": "m-1", "choices": choices, **more}, ensure_ascii=False).encode()


def events(*chunks: bytes, end: bytes = b"\n") -> bytes:
    """Write events, lines ending as told."""
    return b"".join(b"data: " + one + end * 2 for one in chunks)


USUAL = [*(chunk(word) for word in WORDS), chunk(finish="stop")]
USAGE_CHUNK = json.dumps({"model": "m-1", "choices": [], "usage": USAGE}).encode()
DONE = b"[DONE]"
WHOLE = events(*USUAL, USAGE_CHUNK, DONE)


class StreamServer(LoopbackServer):
    """Answers each request in turn by pieces of bytes; ``close`` or ``reset`` after the last, unless told otherwise."""

    def __init__(self, *answers: tuple[Sequence[bytes], str]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.bodies: list[Any] = []
        self.keys: list[str] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.bodies.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        self.keys.append(headers["idempotency-key"])
        pieces, end = self.answers.pop(0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: req-7\r\n")
        writer.write(b"Connection: close\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if end == "reset":
            reset_on_close(writer)
            writer.transport.abort()


def whole(pieces: Sequence[bytes] = (WHOLE,)) -> tuple[Sequence[bytes], str]:
    """Give an answer that comes whole."""
    return pieces, "close"


def test_usual_stream(tmp_path: Path) -> None:
    """A stream gives the same columns as an answer in one piece, and asks for its usage."""
    with StreamServer(whole()) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM))
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    (row,) = ran.rows
    assert (row["s"], row["s_status"], row["s_model"]) == ("".join(WORDS), "ok", "m-1")
    assert (row["s_finish_reason"], row["s_request_id"], row["s_attempts"]) == ("stop", "req-7", 1)
    assert (row["s_prompt_tokens"], row["s_total_tokens"], row["s_credits"]) == (5, 12, 0.25)
    assert ran.summary.credits == 0.25


def test_both_modes_agree(tmp_path: Path) -> None:
    """The same rows, streamed or not, read the same but for ids and times."""
    read_alike = ("t", "s_status", "s_model", "s_finish_reason", "s_prompt_tokens", "s_completion_tokens")
    texts = [f"row {n}" for n in range(50)]
    with ThreadedSandbox(SandboxOptions()) as sandbox:
        streamed = run(config_of(tmp_path / "a", texts, sandbox.base_url, step=STREAM))
        plain = run(config_of(tmp_path / "b", texts, sandbox.base_url))
    assert [[row[name] for name in read_alike] for row in streamed.rows] == [
        [row[name] for name in read_alike] for row in plain.rows
    ]


def test_own_stream_options(tmp_path: Path) -> None:
    """Stream options of the configuration stand beside the one for usage."""
    step = {**STREAM, "params": {"stream_options": {"include_obfuscation": False}}}
    with StreamServer(whole()) as server:
        run(config_of(tmp_path, ["one"], server.base_url, step=step))
    assert server.bodies[0]["stream_options"] == {"include_usage": True, "include_obfuscation": False}


def test_latencies(tmp_path: Path) -> None:
    """The ledger keeps the time to the first token beside the time to the last byte."""
    with ThreadedSandbox(SandboxOptions(latency=0.05)) as sandbox:
        ran = run(config_of(tmp_path, ["one"], sandbox.base_url, step=STREAM))
    reply = ran.entries[0].record.reply
    assert reply is not None
    assert reply.first_token_ms is not None
    assert 0 < reply.first_token_ms <= reply.latency_ms
    assert ran.rows[0]["s_latency_ms"] == pytest.approx(reply.latency_ms)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("seed", range(3))
def test_cut_into_pieces(tmp_path: Path, end: bytes, seed: int) -> None:
    """However the network cuts a stream, and whatever ends its lines, the text is whole."""
    stream = b"\xef\xbb\xbf: a comment" + end + events(*USUAL, USAGE_CHUNK, DONE, end=end)
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(len(stream)), 60))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    with StreamServer(whole(pieces)) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM))
    assert (ran.rows[0]["s"], ran.rows[0]["s_status"]) == ("".join(WORDS), "ok")


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (events(*USUAL, DONE), "".join(WORDS)),  # without usage
        (
            events(*USUAL[:-1], chunk("?", "stop"), DONE),
            "".join(WORDS) + "?",
        ),  # text beside the finish reason
        (events(chunk("x", usage=USAGE), chunk(finish="stop"), DONE), "x"),  # usage with choices
        (events(chunk("y" * 600_000), chunk(finish="stop"), DONE), "y" * 600_000),  # a line above 512 KiB
        (b"event: message\nid: 1\nretry: 5\n" + WHOLE, "".join(WORDS)),
        (WHOLE + b"data: what comes after the end\n\n", "".join(WORDS)),
        (events(*USUAL, b"[DONE] "), "".join(WORDS)),
        (b"data:\n\ndata: \n\n" + WHOLE, "".join(WORDS)),
        (events(chunk(finish="stop").replace(b'"delta": {}', b'"message": {"content": "m"}'), DONE), "m"),
        (
            b"data: "
            + chunk("z").replace(b', "', b',\ndata: "')
            + b"\n\n"
            + events(chunk(finish="stop"), DONE),
            "z",
        ),  # many lines
    ],
    ids=[
        "no-usage",
        "late-text",
        "usage-with-choices",
        "long-line",
        "other-fields",
        "after-done",
        "blank-behind-done",
        "empty-events",
        "message-for-delta",
        "multi-data",
    ],
)
def test_odd_streams(tmp_path: Path, stream: bytes, text: str) -> None:
    """Streams that are unusual, but whole, are answers."""
    with StreamServer(whole([stream])) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM))
    assert (ran.rows[0]["s_status"], ran.rows[0]["s"]) == ("ok", text)


BROKEN: dict[str, tuple[tuple[Sequence[bytes], str], str]] = {
    "reset": (([events(*USUAL[:2])], "reset"), "connection_lost response_cut"),
    "early end": (([events(*USUAL[:2])], "close"), "response_cut"),
    "done alone": (([events(*USUAL[:2], DONE)], "close"), "response_cut"),
    "nothing but done": (([events(DONE)], "close"), "response_cut"),
    "cut within done": (([WHOLE[:-3]], "close"), "response_cut"),
    "nothing": (([], "close"), "response_cut"),
    "error event": (
        ([events(*USUAL[:2]), events(b'{"error":{"code":"overloaded"}}')], "close"),
        "overloaded",
    ),
    "named error": (([events(*USUAL[:2]), b"event: error\ndata: gone\n\n"], "close"), "stream_error"),
    "broken chunk": (([events(USUAL[0], b'{"choices":[', DONE)], "close"), "response_cut"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_stream(tmp_path: Path, kind: str) -> None:
    """What breaks a stream leaves its outcome unknown: the same key again; the part that came is evidence only."""
    broken, codes = BROKEN[kind]
    with StreamServer(broken, broken, whole()) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM))
    assert len(set(server.keys)) == 1
    assert server.bodies[0] == server.bodies[2]
    assert (ran.rows[0]["s"], ran.rows[0]["s_attempts"]) == ("".join(WORDS), 3)
    failed = ran.entries[0].failures
    assert {line.failure.code for line in failed} <= set(codes.split())
    assert {line.failure.fate.value for line in failed} == {"unknown"}
    if kind not in ("nothing", "nothing but done", "reset"):  # a reset takes along what was not read yet
        kept = failed[0].answer or failed[0].failure.evidence
        assert WORDS[0].encode() in kept


def test_broken_for_ever(tmp_path: Path) -> None:
    """A stream that never ends well is in doubt after as many requests as it may have; its text is in no column."""
    with StreamServer(*[BROKEN["done alone"][0]] * 3) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM, retry={"attempts": 3}))
    assert (ran.rows[0]["s_status"], ran.rows[0]["s"]) == ("in_doubt", None)
    assert "the stream ended with [DONE], but gave no finish_reason" in ran.rows[0]["s_error"]
    assert server.answers == []
    assert ran.summary.exit_code == 3


@pytest.mark.parametrize(
    ("sent", "ok"),
    [
        (events(*USUAL), True),
        (events(*USUAL, USAGE_CHUNK), True),
        (WHOLE, True),
        (events(*USUAL[:-1]), False),
        (events(*USUAL) + b"data: {", False),
        (events(*(chunk(word, "") for word in WORDS)), False),
    ],
    ids=["finish", "usage-after", "done", "no-finish", "cut", "finish-empty"],
)
def test_stream_end(tmp_path: Path, sent: bytes, ok: bool) -> None:
    """For an endpoint that never sends [DONE] the finish reason ends a stream."""
    with StreamServer(*[whole([sent])] * 3) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM, retry={"attempts": 3}))
    assert ran.rows[0]["s_status"] == ("ok" if ok else "in_doubt")
    assert len(server.keys) == (1 if ok else 3)


def test_answer_in_one_piece(tmp_path: Path) -> None:
    """An endpoint that does not stream, though asked to, is understood."""
    message = {"message": {"content": "whole"}, "finish_reason": "stop"}
    with StreamServer(whole([json.dumps({"choices": [message]}).encode()])) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM))
    assert (ran.rows[0]["s"], ran.rows[0]["s_status"]) == ("whole", "ok")


def test_raw_bytes_are_kept(tmp_path: Path) -> None:
    """The ledger holds the stream as it came; reading it again gives the same answer."""
    with StreamServer(whole()) as server:
        ran = run(config_of(tmp_path, ["one"], server.base_url, step=STREAM))
    reply = ran.entries[0].record.reply
    assert isinstance(reply, Reply)
    assert (reply.body, reply.streamed) == (WHOLE, True)
    again = read(reply)
    assert isinstance(again, Completion)
    assert again.text == "".join(WORDS)


def test_stream_resumes(tmp_path: Path) -> None:
    """A second run takes streamed answers from the ledger and sends nothing."""
    with ThreadedSandbox(SandboxOptions()) as sandbox:
        config = config_of(tmp_path, ["one", "two"], sandbox.base_url, step=STREAM)
        first, second = run(config), run(config)
        assert sandbox.books.total.requests == 2
    assert [row["s"] for row in second.rows] == [row["s"] for row in first.rows]
    assert {row["s_source"] for row in second.rows} == {"ledger"}


@pytest.mark.parametrize("kind", ["truncated", "content_filter", "refusal"])
def test_finish_reasons(tmp_path: Path, kind: str) -> None:
    """Streams that end for another reason than the text's own end have the status that says so."""
    expected = {"truncated": "truncated", "content_filter": "filtered", "refusal": "filtered"}
    with ThreadedSandbox(SandboxOptions(faults=(Fault(kind),))) as sandbox:
        ran = run(config_of(tmp_path, ["one two three four"], sandbox.base_url, step=STREAM))
    assert ran.rows[0]["s_status"] == expected[kind]
    assert ran.rows[0]["s_credits"] > 0


def test_stream_end_is_said_once(tmp_path: Path) -> None:
    """That an endpoint ends its streams without [DONE] is kept in the ledger: a second run does not say it again."""
    with StreamServer(*[whole([events(*USUAL, USAGE_CHUNK)])] * 3) as server:
        runs = [
            run(config_of(tmp_path, texts, server.base_url, step=STREAM))
            for texts in (["one", "two"], ["three"])
        ]
    assert [[row["s_status"] for row in ran.rows] for ran in runs] == [["ok", "ok"], ["ok"]]
    said = [sum("without [DONE]" in record.getMessage() for record in ran.logged) for ran in runs]
    assert said == [1, 0]
