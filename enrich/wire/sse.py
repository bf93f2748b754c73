"""Server-sent events, read incrementally from bytes that are cut anywhere."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT = 8 * 2**20  # bytes of one event; a chunk of a completion has some hundred
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event is larger than the parser was told to hold."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event.

    Attributes:
        data: the event's data lines, joined by line feeds. Bytes: whoever reads them decodes whole
            events, so that a character cut in two by the network is never seen.
        event: the event's name; ``message`` where the stream names none.
    """

    data: bytes
    event: str = "message"


class EventParser:
    """Turn chunks of a ``text/event-stream`` into events, in linear time, whatever way the chunks are cut.

    Lines end in CRLF, LF or CR. An event counts once the empty line after it was read; what is left over when
    the stream ends is for `rest` to say.

    Args:
        max_event: bytes that one event may hold before `EventTooLarge` is raised.
    """

    __slots__ = ("_at_start", "_cr", "_data", "_event", "_max", "_size", "_tail", "_tail_size")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._at_start = True  # no line was read yet: a byte order mark may stand there
        self._cr = False  # the last chunk ended in CR: an LF that follows belongs to it
        self._tail: list[bytes] = []  # the pieces of a line whose end has not come
        self._tail_size = 0
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; gives the events that they complete.

        Raises:
            EventTooLarge: the event at hand is larger than allowed; the parser is of no further use.
        """
        if self._cr and chunk:
            self._cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\r", b"\n")) else lines.pop()
        if lines and self._tail:
            lines[0] = b"".join((*self._tail, lines[0]))
            self._tail.clear()
            self._tail_size = 0
        events = [event for line in lines if (event := self._read_line(line)) is not None]
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
            self._check_size()
        return events

    @property
    def held(self) -> int:
        """Bytes of the event at hand, whose end has not come."""
        return self._size + self._tail_size

    def rest(self) -> Event | None:
        """Give the event at hand as far as it came, or the beginning of a line; None between events."""
        tail = b"".join(self._tail)
        if tail and not tail.startswith((b"data:", b":")):
            return Event(tail)
        data = [*self._data, tail[5:].removeprefix(b" ")] if tail.startswith(b"data:") else self._data
        return Event(b"\n".join(data), _name(self._event)) if data else None

    def _read_line(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")  # a comment's name is empty
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            self._check_size()
        elif name == b"event":
            self._event = value.removeprefix(b" ")
        return None

    def _dispatch(self) -> Event | None:
        data, self._data, self._size = self._data, [], 0
        name, self._event = self._event, b""
        if not data:
            return None
        return Event(b"\n".join(data), _name(name))

    def _check_size(self) -> None:
        if self._size + self._tail_size > self._max:
            raise EventTooLarge(f"an event of the stream is larger than {self._max:,} bytes")


def _name(event: bytes) -> str:
    return event.decode("utf-8", "replace") if event else "message"
