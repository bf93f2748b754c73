"""When a stream is whole: its finish reason came, and `[DONE]` or an orderly end, as this endpoint ends its streams."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from enrich.config.endpoint import DEFAULT_BASE_URL
from enrich.wire.completion import OneChoice, has_content, is_done, is_finished, last_event, stream_error
from enrich.wire.envelope import loads
from enrich.wire.sse import EventParser

if TYPE_CHECKING:
    from enrich.config.endpoint import Endpoint
    from enrich.records import Failure
    from enrich.wire.sse import Event

NO_FINISH = "the stream ended with [DONE], but gave no finish_reason"
NO_DONE = "the stream ended before [DONE]"
ENDED_EARLY = "the stream ended before its finish_reason"

LONGEST_END = 64  # bytes of an event that may be the last one, `[DONE]`

_TELLING = re.compile(
    rb'"error"|"(?:finish_reason|usage)"\s*:\s*(?!null|\s)'
)  # what makes an event worth reading

log = logging.getLogger("enrich")


@dataclass(slots=True)
class StreamEnds:
    """How an endpoint ends its streams: what the configuration says of it, and what was learned.

    Attributes:
        end: what ends a stream: ``[DONE]``, an orderly end after the finish reason, or either (``auto``).
        finish_optional: whether a stream may come without any finish reason.
        says_done: whether ``[DONE]`` was seen: True, or False where whole streams came without; None before the first.
    """

    end: Literal["auto", "done", "finish_reason"] = "auto"
    finish_optional: bool = False
    says_done: bool | None = None

    @classmethod
    def of(cls, endpoint: Endpoint) -> Self:
        """Give what is known of an endpoint before any stream was seen: Beatra's contract promises ``[DONE]``."""
        says_done = True if endpoint.base_url == DEFAULT_BASE_URL else None
        return cls(endpoint.stream_end, endpoint.finish_reason == "optional", says_done)

    def done(self) -> None:
        """Note a stream that ended with ``[DONE]``."""
        self.says_done = True

    def takes_orderly_end(self, watch: StreamWatch) -> bool:
        """Say whether a stream that ended without ``[DONE]`` is whole all the same; the first such end is said aloud.

        Where the endpoint is known to send ``[DONE]``, one without it counts only when the usage came as well: then
        nothing is missing.
        """
        if self.end == "done" or not watch.ended_orderly():
            return False
        if self.end == "auto" and self.says_done and not watch.usage:
            return False
        if self.end == "auto" and self.says_done is None:
            self.says_done = False
            log.warning(
                "the endpoint ends its streams without [DONE]; those with a finish_reason and an orderly end are kept "
                "(endpoint.stream_end)"
            )
        return True


class StreamWatch:
    """What has to be known of a stream while it passes: its end, its errors, the time of its first token.

    Attributes:
        done: whether ``[DONE]`` came.
        ended_between: whether the body came to its end, and not within an event.
        finished: whether a finish reason came.
        usage: whether the usage came.
        first_token_ms: milliseconds from ``started``, in seconds of `time.perf_counter`, to the first text.
    """

    __slots__ = (
        "_choice",
        "_choices",
        "_chunks",
        "_parser",
        "_request_id",
        "_started",
        "done",
        "ended_between",
        "finished",
        "first_token_ms",
        "usage",
    )

    def __init__(self, started: float, request_id: str | None) -> None:
        self._started = started
        self._request_id = request_id
        self._parser = EventParser()
        self._choice = OneChoice()
        self.finished = False
        self.usage = False
        self._chunks = self._choices = False
        self.first_token_ms: float | None = None
        self.done = self.ended_between = False

    def feed(self, chunk: bytes) -> Failure | None:
        """Take the next bytes; gives the failure that an event among them reports.

        Raises:
            EventTooLarge: an event is larger than any chunk of a completion.
        """
        for event in self._parser.feed(chunk):
            failure = self._take(event)
            if failure is not None or self.done:
                return failure
        if 0 < self._parser.held <= LONGEST_END:  # some send no empty line after it, and keep the connection
            last = self._parser.rest()
            self.done = last is not None and is_done(last)
        return None

    def close(self) -> Failure | None:
        """Take the end of the body; gives the failure that a last event reports, which no empty line follows."""
        try:
            last = last_event(self._parser)
        except ValueError:
            return None
        self.ended_between = True
        return self._take(last) if last is not None else None

    @property
    def hollow(self) -> bool:
        """Whether chunks came, but none with a choice in it: a whole stream, perhaps, but no completion."""
        return self._chunks and not self._choices

    def ended_orderly(self) -> bool:
        """Say whether the body ended between events, after a finish reason."""
        return self.finished and self.ended_between

    def _take(self, event: Event) -> Failure | None:
        if is_done(event):
            self.done = True
            return None
        return self._see(event) if self._is_of_interest(event) else None

    def _is_of_interest(self, event: Event) -> bool:
        """Spare most events the parsing: the reply is read as a whole later."""
        return (
            self.first_token_ms is None or event.event == "error" or _TELLING.search(event.data) is not None
        )

    def _see(self, event: Event) -> Failure | None:
        try:
            payload = loads(event.data)
        except ValueError:
            payload = None  # a broken chunk is found when the reply is read
        failure = stream_error(event, payload, self._request_id, begun=self.first_token_ms is not None)
        choice = self._choice.of(payload)
        if self.first_token_ms is None and has_content(choice):
            self.first_token_ms = (time.perf_counter() - self._started) * 1000.0
        if self.first_token_ms is None and isinstance(payload, dict):
            self._chunks = True
            self._choices = self._choices or bool(payload.get("choices"))
        self.finished = self.finished or is_finished(choice)
        self.usage = self.usage or (isinstance(payload, dict) and isinstance(payload.get("usage"), dict))
        return failure
