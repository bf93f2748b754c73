"""The key in what comes from outside: found however it is written, and nothing else is changed."""

from __future__ import annotations

import base64
import html
import itertools
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.records import Completion, Failure, Fate, Reply
from enrich.wire.completion import read
from enrich.wire.redact import HIDDEN_KEY, Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "sk-live/0123456789-SECRET_abcdefgh"
REDACTOR = Redactor(KEY)


def escaped(text: str) -> str:
    """Write every character as JSON may."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


SPELLINGS: list[Callable[[str], str]] = [
    str,
    escaped,
    lambda key: escaped(key).upper().replace("\\U", "\\u"),
    lambda key: key[:9] + escaped(key[9:]),
    lambda key: key.replace("/", "\\/"),
    lambda key: escaped(key).replace("\\", "\\\\"),
    lambda key: "".join(f"%{ord(c):02X}" for c in key),
    lambda key: quote(key, safe=""),
    lambda key: quote(quote(quote(key, safe=""), safe=""), safe=""),
    str.lower,
    str.upper,
    str.swapcase,
    lambda key: key.encode().hex(),
    lambda key: key.encode().hex().upper(),
    lambda key: "".join(f"&#{ord(c)};" for c in key),
    lambda key: "".join(f"&#x{ord(c):x};" for c in key),
    lambda key: f"Bearer {key}",
    lambda key: html.escape(f'"{key}"'),
]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_key_is_found_however_it_is_written(spell: Callable[[str], str]) -> None:
    """In an answer's bytes, in its request id, and in every text of a failure."""
    written = spell(KEY)
    reply = REDACTOR.outcome(Reply(f'{{"a": "x {written} y"}}'.encode(), f"req {written}", 1.0))
    assert isinstance(reply, Reply)
    failure = Failure(written, f"no {written}!", Fate.UNKNOWN, request_id=written, evidence=written.encode())
    found = REDACTOR.outcome(failure)
    assert isinstance(found, Failure)
    shown = (
        reply.body.decode(),
        reply.request_id,
        found.code,
        found.message,
        found.request_id,
        found.evidence.decode(),
    )
    for text in shown:
        assert "[key]" in str(text)
        assert "SECRET" not in str(text)
    assert json.loads(reply.body)["a"].startswith("x ")


@pytest.mark.parametrize("before", range(6))
def test_a_key_in_base64_is_found(before: int) -> None:
    """Wherever in the encoded text it begins: nothing of its secret part can be read back."""
    text = base64.b64encode(b"x" * before + KEY.encode() + b" and more").decode()
    reply = REDACTOR.outcome(Reply(text.encode(), None, 1.0))
    assert isinstance(reply, Reply)
    assert HIDDEN_KEY in reply.body
    assert base64.b64encode(b"SECRET") not in reply.body


def events(*texts: str) -> bytes:
    """Make a stream of these pieces."""
    chunks = [{"id": "c", "choices": [{"delta": {"content": text}, "index": 0}]} for text in texts]
    chunks.append({"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    return (
        b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    )


@given(st.lists(st.integers(0, len(KEY) + 20), max_size=8), st.booleans())
def test_a_key_cut_over_events_is_found(cuts: list[int], escape: bool) -> None:
    """However a stream is cut, neither its bytes nor its text hold the key; the rest is as it came."""
    text = f"0123456789{KEY}9876543210"
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    body = events(*pieces)
    if escape:
        body = body.replace(b"S", b"\\u0053")
    reply = REDACTOR.outcome(Reply(body, "r", 1.0, streamed=True))
    assert isinstance(reply, Reply)
    result = read(reply)
    assert isinstance(result, Completion)
    assert result.text == "0123456789[key]9876543210"


@given(st.binary(max_size=400), st.booleans())
def test_what_holds_no_key_is_left_alone(body: bytes, streamed: bool) -> None:
    """The very same object comes back."""
    reply = Reply(body, "an id", 1.0, streamed=streamed)
    assert REDACTOR.outcome(reply) == reply


def test_a_text_that_was_cut_within_the_key() -> None:
    """What is more than its public beginning is hidden."""
    assert REDACTOR.text(f"no such key {KEY[:20]}…") == "no such key [key]"
    assert REDACTOR.text(f"no such key {KEY[:10]}") == f"no such key {KEY[:10]}"


@pytest.mark.parametrize("key", ["", "a", "key"])
def test_a_placeholder_is_no_key(key: str) -> None:
    """A word that may stand in any answer is not taken for the key."""
    reply = Reply(b"a key", "a", 1.0)
    assert Redactor(key).outcome(reply) == reply
    failure = Failure("a", "a key", Fate.UNKNOWN)
    assert Redactor(key).outcome(failure) == failure
