from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.wire.sse import Event, EventParser, EventTooLarge


def parse(*chunks: bytes) -> tuple[list[Event], bool]:
    """Give the events of these chunks, and whether the stream ended between events."""
    parser = EventParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.rest() is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_line_ends(end: bytes) -> None:
    """Lines end in LF, CRLF or CR."""
    events, whole = parse(end.join([b"event: delta", b"data: one", b"", b"data: two", b"", b""]))
    assert events == [Event(b"one", "delta"), Event(b"two")]
    assert whole


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\ndata: b\ndata:\ndata:c\n\n", [Event(b"a\nb\n\nc")]),
        (b": keep-alive\n\n:\n\ndata: a\n: within\n\n", [Event(b"a")]),
        (b"data:  two blanks\n\n", [Event(b" two blanks")]),
        (b"data\n\n", [Event(b"")]),
        (b"event: lonely\n\ndata: a\n\n", [Event(b"a")]),
        (b"id: 7\nretry: 10\nunknown: x\ndata: a\n\n", [Event(b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
        (b"\n\n\n", []),
        (b"event: \xff\ndata: a\n\n", [Event(b"a", "\ufffd")]),
        (b'data: {"a": "x:y"}\n\n', [Event(b'{"a": "x:y"}')]),
    ],
)
def test_fields(stream: bytes, events: list[Event]) -> None:
    """Data lines are joined; comments, ids, unknown fields and events without data say nothing."""
    assert parse(stream) == (events, True)


@pytest.mark.parametrize("tail", [b"data: b", b"data: b\n", b"da", b"data: b\r"])
def test_undispatched_tail(tail: bytes) -> None:
    """What no empty line follows is no event, and the stream was cut."""
    assert parse(b"data: a\n\n" + tail) == ([Event(b"a")], False)


@pytest.mark.parametrize(
    ("stream", "rest"),
    [
        (b"data: b", Event(b"b")),
        (b"data: b\n", Event(b"b")),
        (b"event: e\ndata: a\ndata: b\r", Event(b"a\nb", "e")),
        (b"data: a\n: not whol", Event(b"a")),
        (b": not whol", None),
        (b"dat", Event(b"dat")),
        (b"data: a\n\n", None),
    ],
)
def test_rest(stream: bytes, rest: Event | None) -> None:
    """The event that a stream ended within can be looked at, and what it is part of may still come."""
    parser = EventParser()
    parser.feed(stream)
    assert parser.rest() == rest == parser.rest()
    assert parser.held or rest is None
    if rest is not None and rest.data != b"dat":
        assert parser.feed(b"\n\n") == [rest]


def test_character_cut_in_two() -> None:
    """A character whose bytes come in two chunks arrives whole."""
    word = "naïve 🙂".encode()
    for cut in range(len(word) + 1):
        events, _ = parse(b"data: " + word[:cut], word[cut:] + b"\n\n")
        assert events[0].data.decode() == "naïve 🙂"


def test_crlf_cut_in_two() -> None:
    """A CRLF of which each half comes in a chunk of its own ends one line, not two."""
    assert parse(b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n") == ([Event(b"a\nb")], True)


def test_large_events() -> None:
    """Events above 512 KiB, where reading by lines gives up, come whole."""
    data = b"x" * 600_000
    pieces = [b"data: ", *(data[i : i + 1000] for i in range(0, len(data), 1000)), b"\n\n"]
    assert parse(*pieces) == ([Event(data)], True)


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 200, b"data: x\n" * 100, b":" + b"x" * 200, b"\ndata: " + b"x" * 200 + b"\n"],
)
def test_bounded_events(stream: bytes) -> None:
    """An event beyond the bound is refused, whether it is one line or many, ended or not."""
    with pytest.raises(EventTooLarge, match="100 bytes"):
        EventParser(max_event=100).feed(stream)


def test_bound_is_per_event() -> None:
    """Many events together may be larger than the bound."""
    parser = EventParser(max_event=100)
    assert len(parser.feed((b"data: " + b"x" * 60 + b"\n\n") * 50)) == 50


lines = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                b"",
                b"data: x",
                b"data:y",
                b"event: e",
                b": c",
                b"data",
                "data: é🙂".encode(),
                b"\xef\xbb\xbfdata: b",
            ]
        ),
    ),
    max_size=20,
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(lines, st.lists(ends, min_size=1), st.lists(st.integers(0, 400)))
def test_any_chunking(rows: list[bytes], line_ends: list[bytes], cuts: list[int]) -> None:
    """However a stream is cut into chunks, its events are the same."""
    stream = b"".join(row + line_ends[i % len(line_ends)] for i, row in enumerate(rows))
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in itertools.pairwise(places)]
    single = [stream[i : i + 1] for i in range(len(stream))]
    assert parse(*chunks) == parse(stream) == parse(*single)


@given(st.lists(st.text(), min_size=1), ends)
def test_round_trip(texts: list[str], end: bytes) -> None:
    """Texts written as events are read back, line for line."""
    stream = b"".join(
        b"".join(
            b"data: " + line + end
            for line in text.encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        )
        + end
        for text in texts
    )
    events, whole = parse(stream)
    assert [event.data.decode() for event in events] == [
        t.replace("\r\n", "\n").replace("\r", "\n") for t in texts
    ]
    assert whole
