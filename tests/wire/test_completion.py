"""What a reply says, whole or in a stream: the completion, or the failure that a 200 can be as well.

It is long because it is a table of replies as gateways send them.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.records import Completion, Failure, Fate, Reply, Usage
from enrich.wire.completion import read, read_fresh

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "credits": 0.25}


def reply(body: bytes, *, streamed: bool = False) -> Reply:
    """Give a reply with this body."""
    return Reply(body, request_id="req-1", latency_ms=1.0, streamed=streamed)


def answer(message: Any, **more: Any) -> bytes:
    """Write an answer in one piece."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "fast-1", "choices": [choice], "usage": USAGE, **more}).encode()


def chunk(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Give one chunk of a stream."""
    return {"model": "fast-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def events(*chunks: Any, done: bool = True) -> bytes:
    """Write chunks as an event stream."""
    texts = [c if isinstance(c, bytes) else json.dumps(c).encode() for c in chunks] + (
        [b"[DONE]"] if done else []
    )
    return b"".join(b"data: " + text + b"\n\n" for text in texts)


def completion(body: bytes, *, streamed: bool = False) -> Completion:
    """Read a body that holds a completion."""
    read_as = read(reply(body, streamed=streamed))
    assert isinstance(read_as, Completion), read_as
    return read_as


def failure(body: bytes, *, streamed: bool = False) -> Failure:
    """Read a body that holds none."""
    read_as = read(reply(body, streamed=streamed))
    assert isinstance(read_as, Failure), read_as
    assert read_as.request_id == "req-1"
    assert read_as.status == 200
    return read_as


def test_answer() -> None:
    """A whole answer gives its text, the model that served it, why it ended, and what it cost."""
    assert completion(answer({"role": "assistant", "content": "Good 🙂"})) == Completion(
        text="Good 🙂", model="fast-1", finish_reason="stop", usage=Usage(3, 5, 8, 0.25)
    )


def test_byte_order_mark() -> None:
    """A byte order mark before the JSON is no fault."""
    assert completion(b"\xef\xbb\xbf" + answer({"content": "a"})).text == "a"


@pytest.mark.parametrize(
    ("message", "text", "refusal", "tool_calls"),
    [
        ({"content": None}, None, None, False),
        ({}, None, None, False),
        ({"content": ""}, "", None, False),
        ({"content": None, "tool_calls": [{"id": "t"}]}, None, None, True),
        ({"content": None, "function_call": {"name": "f"}}, None, None, True),
        ({"content": None, "tool_calls": []}, None, None, False),
        ({"content": None, "refusal": "No."}, None, "No.", False),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, 7]},
            "ab",
            None,
            False,
        ),
        ({"content": []}, None, None, False),
        ({"content": {"type": "text", "text": "a"}}, "a", None, False),
        ({"content": {"type": "thinking", "thinking": "a"}}, None, None, False),
        ({"content": {"label": "pos", "é": [1]}}, '{"label": "pos", "é": [1]}', None, False),
    ],
)
def test_answers_without_plain_text(
    message: Any, text: str | None, refusal: str | None, tool_calls: bool
) -> None:
    """Null contents, tool calls, refusals and contents in parts are completions: they are paid for."""
    read_as = completion(answer(message))
    assert (read_as.text, read_as.refusal, read_as.tool_calls) == (text, refusal, tool_calls)


@pytest.mark.parametrize("reason", ["length", "content_filter", "something_new"])
def test_finish_reason(reason: str) -> None:
    """The finish reason is given as it was sent, and the partial text with it."""
    body = json.dumps({"choices": [{"message": {"content": "par"}, "finish_reason": reason}]}).encode()
    assert completion(body) == Completion("par", None, reason, Usage())


@pytest.mark.parametrize(
    "body",
    [b"", b"  \n", answer({"content": "long answer"})[:-20], b"<html>Bad Gateway</html>", b"[" * 100_000,
     b'{"a": "\\ud83d', b'"\\ud83d"' + b"[" * 100_000],
)  # fmt: skip
def test_no_whole_json(body: bytes) -> None:
    """An empty, cut or foreign body leaves the outcome unknown: a replay may bring the answer."""
    failed = failure(body)
    assert (failed.code, failed.fate, failed.retryable) == ("response_cut", Fate.UNKNOWN, None)
    assert failed.evidence == body[:2048]


@pytest.mark.parametrize("junk", [b"\0\0\0", b"\n<!-- served by a proxy -->", b"\r\n\0"])
def test_what_follows_whole_json(junk: bytes) -> None:
    """Zeros or a proxy's mark behind the answer are none of it; a second object is, and nobody knows which counts."""
    body = answer({"content": "whole"})
    assert completion(body + junk).text == "whole"
    assert completion(b"\xef\xbb\xbf " + body + junk).text == "whole"
    assert failure(body + junk + body).code == "response_cut"


def test_cut_within_a_character() -> None:
    """A body that ends within a character was cut; it is not wrongly encoded."""
    assert failure('{"content": "é'.encode()[:-1]).code == "response_cut"


def test_invalid_utf8() -> None:
    """Bytes that are not UTF-8 are not guessed at."""
    failed = failure(answer({"content": "XX"}).replace(b"XX", b"\xff\xfe"))
    assert (failed.code, failed.fate) == ("invalid_utf8", Fate.UNKNOWN)


@pytest.mark.parametrize(
    "body",
    [b"null", b"[]", b"7", b'"text"', b"{}", b'{"choices": []}', b'{"choices": {}}', b'{"choices": ["a"]}', b'{"choices": [{}]}',
     b'{"choices": [{"message": "a"}]}', b'{"choices": [{"message": {"content": 7}}]}', b'{"choices": null, "error": null}',
     b'{"choices": [{"message": {"content": {}}}]}', b'{"choices": [{"message": {"content": true}}]}'],
)  # fmt: skip
def test_no_choices(body: bytes) -> None:
    """Whole JSON without a completion in it is told apart from a cut one."""
    failed = failure(body)
    assert (failed.code, failed.fate) == ("no_choices", Fate.UNKNOWN)


def test_error_envelope_wins_over_the_status() -> None:
    """An error envelope under a 200 is the error, even beside choices."""
    error = {"code": "rate_limited", "message": "Slow down", "retryable": True}
    failed = failure(answer({"content": "a"}, error=error))
    assert (failed.code, failed.message, failed.retryable, failed.fate) == (
        "rate_limited",
        "Slow down",
        True,
        Fate.REFUSED,
    )


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        ({"code": "billing_failed", "message": "m", "retryable": True}, Fate.UNKNOWN),
        ({"code": "invalid_request", "message": "m"}, Fate.REFUSED),
        ({"message": "upstream broke", "type": "server_error"}, Fate.UNKNOWN),
        ("upstream broke", Fate.UNKNOWN),
    ],
)
def test_fate_of_an_envelope_under_200(error: Any, fate: Fate) -> None:
    """Only Beatra's own word proves that nothing was charged; a gateway's does not."""
    assert failure(json.dumps({"error": error}).encode()).fate is fate


def test_stream() -> None:
    """A stream's pieces make the same completion as an answer in one piece."""
    body = events(
        chunk({"role": "assistant"}),
        chunk({"content": "Good"}),
        chunk({"content": " 🙂"}),
        chunk({}, "stop"),
        {"choices": [], "usage": USAGE},
    )
    assert completion(body, streamed=True) == Completion("Good 🙂", "fast-1", "stop", Usage(3, 5, 8, 0.25))


def test_stream_usage_beside_a_choice() -> None:
    """Usage may stand in the last chunk with a choice; a null one before does not clear it."""
    body = events(
        chunk({"content": "a"}, usage=None), chunk({}, "stop", usage=USAGE), chunk({}, None, usage=None)
    )
    assert completion(body, streamed=True).usage == Usage(3, 5, 8, 0.25)


def test_stream_usage_of_zeros() -> None:
    """Nothing but zeros beside the text of a stream is no usage."""
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert completion(events(chunk({"content": "a"}, "stop", usage=zeros)), streamed=True).usage == Usage()


@pytest.mark.parametrize("first", [0, 1])
def test_stream_of_several_choices(first: int) -> None:
    """Of choices that were not asked for, one is read: texts never mix, and another's finish reason ends nothing."""
    mine, other = ({"index": index} for index in (first, 1 - first))
    chunks = [
        {"choices": [{**mine, "delta": {"role": "assistant"}}]},
        {"choices": [{**other, "delta": {"content": "XX"}}, {**mine, "delta": {"content": "one "}}]},
        {"choices": [{**other, "delta": {"content": "XX"}, "finish_reason": "length"}]},
        {"choices": [{"delta": {"content": "and "}}]},
        {"choices": [{**mine, "delta": {"content": "whole"}}]},
    ]
    cut = completion(events(*chunks), streamed=True)
    assert (cut.text, cut.finish_reason, cut.cut) == ("one and whole", None, True)
    ended = {"choices": [{**mine, "delta": {}, "finish_reason": "stop"}]}
    assert completion(events(*chunks, ended), streamed=True).finish_reason == "stop"


@pytest.mark.parametrize("word", [b"[DONE]", b" [DONE] ", b"[done]", b'"[DONE]"'])
def test_spellings_of_done(word: bytes) -> None:
    """What ends a stream is known in other letters and in quotes, and nothing behind it is read."""
    body = events(chunk({"content": "a"}, "stop"), word, b"not JSON", done=False)
    assert completion(body, streamed=True).text == "a"


def test_stream_without_text() -> None:
    """Refusals and tool calls are put together too; no text is not an empty text."""
    body = events(
        chunk({"content": None, "refusal": "No"}),
        chunk({"refusal": "."}),
        chunk({"tool_calls": [{}]}, "tool_calls"),
    )
    read_as = completion(body, streamed=True)
    assert (read_as.text, read_as.refusal, read_as.tool_calls, read_as.finish_reason) == (
        None,
        "No.",
        True,
        "tool_calls",
    )


def test_emoji_cut_between_chunks() -> None:
    """An emoji whose halves are escaped in two chunks is joined; a half alone becomes the replacement character."""
    body = events(
        rb'{"choices": [{"delta": {"content": "a\ud83d"}}]}',
        rb'{"choices": [{"delta": {"content": "\uDE42b\ud83d"}, "finish_reason": "length"}]}',
    )
    assert completion(body, streamed=True).text == "a🙂b\ufffd"
    assert completion(rb'{"choices": [{"message": {"content": "cut \ud83d"}}]}').text == "cut \ufffd"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (events(chunk({"content": "a"}), done=False), "response_cut"),
        (b"", "response_cut"),
        (events(), "no_choices"),
        (events({"choices": []}), "no_choices"),
        (events([1]), "no_choices"),
        (events(chunk({"content": 7})), "no_choices"),
        (events(b'{"choices": [{"del'), "response_cut"),
        (events(b'{"choices": "\xff\xfe"}'), "invalid_utf8"),
        (b"data: " + b"x" * 9_000_000, "body_too_large"),
        (events({"error": {"code": "overloaded", "message": "m", "retryable": True}}), "overloaded"),
        (b"event: error\ndata: it broke\n\n", "stream_error"),
    ],
)
def test_broken_stream(body: bytes, code: str) -> None:
    """A stream that ended early or carries an error is no answer, and its outcome is unknown."""
    failed = failure(body, streamed=True)
    assert (failed.code, failed.fate) == (code, Fate.UNKNOWN)


def test_stream_that_ends_with_its_finish_reason() -> None:
    """A stream that the client took as whole without [DONE] is read by its finish reason."""
    assert completion(events(chunk({"content": "a"}, "stop"), done=False), streamed=True).text == "a"


def test_stream_without_a_finish_reason() -> None:
    """A kept stream that gave no finish reason is a completion that was cut, unless that is how the endpoint is."""
    kept = reply(events(chunk({"content": "half"})), streamed=True)
    read_as = read(kept)
    assert isinstance(read_as, Completion)
    assert (read_as.text, read_as.cut) == ("half", True)
    optional = read(kept, finish_optional=True)
    assert isinstance(optional, Completion)
    assert not optional.cut


def test_stream_kept_as_one_piece() -> None:
    """A stream that was kept without being known as one is read as what it is."""
    assert completion(events(chunk({"content": "a"}, "stop"))).text == "a"


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource", "CANCELLED"])
def test_answer_that_broke_off(finish: str) -> None:
    """An answer whose generation broke off is worth a replay when it is fresh; one that is kept is read as it is."""
    choice = {"message": {"content": "half"}, "finish_reason": finish}
    raw = reply(json.dumps({"choices": [choice]}).encode())
    fresh = read_fresh(raw)
    assert isinstance(fresh, Failure)
    assert (fresh.code, fresh.fate) == ("generation_failed", Fate.UNKNOWN)
    assert finish in fresh.message
    assert isinstance(read(raw), Completion)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}]',
        b'{"object": "error", "message": "busy", "type": "ServiceUnavailable", "code": 503}',
    ],
)
def test_error_in_a_200(body: bytes) -> None:
    """An error in another server's shape wins over the 200 that it came with."""
    read_as = read(reply(body))
    assert isinstance(read_as, Failure)
    assert (read_as.message, read_as.status) == ("busy", 503)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "message", "delta", "content", "usage", "error", "details", "errors", "param", "code", "credits",
                         "unsupported_fields", "path", "loc", "refusal", "tool_calls", "finish_reason", "total_tokens", "text"]),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.binary() | values.map(lambda v: json.dumps(v).encode()), st.booleans())
def test_never_raises(body: bytes, streamed: bool) -> None:
    """Whatever the bytes are, reading them gives a completion or a failure."""
    raw = b"data: " + body + b"\n\ndata: [DONE]\n\n" if streamed else body
    assert isinstance(read(reply(raw, streamed=streamed)), Completion | Failure)


@given(values, values)
def test_never_raises_for_strange_choices(first: Any, second: Any) -> None:
    """Whatever stands where a choice or an error should, reading it gives a completion or a failure."""
    for body in (
        {"choices": [first], "usage": second},
        {"choices": [{"message": first, "delta": second}]},
        {"error": first},
    ):
        data = json.dumps(body).encode()
        assert isinstance(read(reply(data)), Completion | Failure)
        assert isinstance(read(reply(events(data), streamed=True)), Completion | Failure)


@given(st.text(), st.lists(st.integers(0, 30)))
def test_stream_round_trip(text: str, cuts: list[int]) -> None:
    """A text streamed in any pieces is put together again."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    body = events(*[chunk({"content": piece}) for piece in pieces], chunk({"content": ""}, "stop"))
    assert completion(body, streamed=True).text == text


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [("stop", "stop"), (None, None), ("", None), (False, None), (2, "2"), ({"type": "length"}, "length"), ({"a": 1}, '{"a": 1}')],
)  # fmt: skip
def test_a_finish_reason_that_is_no_text_is_not_taken_for_none(sent: object, read_as: str | None) -> None:
    """A number, or an object, is kept as what it says."""
    body = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": sent}]}).encode()
    found = read(Reply(body, None, 1.0))
    assert isinstance(found, Completion)
    assert found.finish_reason == read_as


def test_infinities_among_log_probabilities_cost_no_answer() -> None:
    """Servers write -Infinity and NaN there, which JSON has not: they are null, and what was paid for is read."""
    body = answer({"content": "whole"}).replace(b'"index": 0', b'"index": 0, "logprobs": [-Infinity, NaN]')
    assert completion(body).text == "whole"


@pytest.mark.parametrize(
    ("content", "text", "refusal"),
    [
        ([{"type": "thinking", "text": "no"}, {"type": "text", "text": "yes"}], "yes", None),
        ([{"type": "reasoning", "text": "no"}, {"type": "output_text", "text": "yes"}], "yes", None),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}, {"text": "yes"}], "yes", None),
        (["ye", "s"], "yes", None),
        ([{"type": "reasoning", "text": "no"}], None, None),
        ([{"type": "refusal", "refusal": "I will not"}], None, "I will not"),
    ],
)
def test_of_parts_the_reasoning_is_no_answer(content: Any, text: str | None, refusal: str | None) -> None:
    """Texts of parts are joined, but what was thought is left out, and a refusal is one."""
    found = completion(answer({"content": content}))
    assert (found.text, found.refusal) == (text, refusal)


@pytest.mark.parametrize("said", ["", " ", None])
def test_an_empty_refusal_is_none(said: str | None) -> None:
    """Some servers send the field with every answer."""
    assert completion(answer({"content": "yes", "refusal": said})).refusal is None


def test_zeros_behind_a_usage_do_not_take_its_place() -> None:
    """Some servers tell the usage with the last chunk, and then once more as nothing but zeros."""
    zeros = {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
    body = events(chunk({"content": "yes"}, "stop", usage=USAGE), zeros)
    assert completion(body, streamed=True).usage == Usage(3, 5, 8, 0.25)
