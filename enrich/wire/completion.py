"""Read a raw reply: a `Completion`, or the `Failure` that a 200 can be as well.

It is long because an answer in one piece and one in a stream are read by the same rules, side by side.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from enrich.records import Completion, Failure, Fate
from enrich.wire.aside import Calls, refused, said, thought
from enrich.wire.envelope import MAX_EVIDENCE, Envelope, find, loads, mend, one_line, to_failure
from enrich.wire.finish import ending
from enrich.wire.sse import Event, EventParser, EventTooLarge
from enrich.wire.usage import read_usage, tells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.records import Record, Reply, ToolCall

DONE = b"[DONE]"
_decoder = json.JSONDecoder()
MAX_DONE = 16  # bytes of an event that may say so
BLANK = b" \t\r\n\xef\xbb\xbf"  # what may stand before JSON or a stream: white space, a byte order mark
_BARE = frozenset(
    {"role", "content", "refusal", "annotations"}
)  # of a message that has nothing beside its text
EVENT_BEGINS = (
    b"data:",
    b"event:",
    b"id:",
    b"retry:",
    b":",
)  # what a stream begins with, whatever type it gives


class _UnusableError(Exception):
    """The bytes hold no completion; carries the failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


def read(reply: Reply, *, finish_optional: bool = False) -> Completion | Failure:
    """Read a reply; never raises, whatever its bytes.

    Args:
        reply: as it came.
        finish_optional: whether a stream that ended with ``[DONE]`` may come without a finish reason. Else it is
            read as a completion that was `cut`: it is paid for, and nobody knows whether it is whole.

    Returns:
        A `Completion` for whole JSON (or a whole stream) with a choice in it, whatever its finish reason.
        Else a `Failure`: the error envelope's, or ``response_cut`` (no whole JSON or stream), ``no_choices``
        (whole, but no completion) or ``invalid_utf8``, each of unknown fate: the request was executed.
    """
    try:
        if reply.streamed or _is_stream(reply.body):
            return _read_stream(reply, finish_optional=finish_optional)
        return _read_json(reply)
    except _UnusableError as unusable:
        return unusable.failure


def read_fresh(reply: Reply, *, finish_optional: bool = False) -> Completion | Failure:
    """Read a reply that has just come, as `read` does; one whose generation broke off is a failure, worth a replay.

    From the ledger such an answer is read as a completion: it is not asked for again unless somebody says so.
    """
    result = read(reply, finish_optional=finish_optional)
    if not isinstance(result, Completion) or ending(result.finish_reason) != "broken":
        return result
    said = f"the server broke the answer off: finish_reason `{one_line(result.finish_reason or '', 60)}`"
    return _unusable("generation_failed", said, reply).failure


def completion_of(record: Record) -> Completion | None:
    """Give what the ledger's answer to a request says; None where there is none, or none that can be read."""
    result = read(record.reply) if record.reply is not None else None
    return result if isinstance(result, Completion) else None


def stream_error(event: Event, payload: Any, request_id: str | None, *, begun: bool = True) -> Failure | None:
    """Give the failure that an event of a stream reports, or None for an event that reports none.

    Its fate is unknown, whatever the envelope says, once text has come: the work may be charged. Before that, an
    envelope whose code is a status of the client's own fault refuses the request as that status would.
    """
    envelope = find(payload)
    if envelope is None and event.event != "error":
        return None
    envelope = envelope or Envelope(None, one_line(event.data[:MAX_EVIDENCE].decode("utf-8", "replace")))
    failure = to_failure(envelope, 200, evidence=event.data, request_id=request_id)
    refused = not begun and envelope.told is not None and failure.fate is Fate.REFUSED
    return replace(
        failure,
        code=envelope.code or (failure.code if envelope.told else "stream_error"),
        fate=Fate.REFUSED if refused else Fate.UNKNOWN,
    )


def is_done(event: Event) -> bool:
    """Say whether an event ends a stream; some write its word in small letters, or as a text in JSON."""
    return event.data == DONE or (len(event.data) <= MAX_DONE and event.data.strip(b' "').upper() == DONE)


def last_event(parser: EventParser) -> Event | None:
    """Give an event at a stream's end whose empty line is missing, where nothing else can be: ``[DONE]``, whole JSON.

    Raises:
        ValueError: the stream was cut within an event.
    """
    event = parser.rest()
    if event is not None and not is_done(event) and not isinstance(loads(event.data), dict):
        raise ValueError("the last event is no whole chunk")
    return event


def has_content(choice: dict[str, Any] | None) -> bool:
    """Say whether a chunk's choice carries some of the answer's text."""
    delta = choice.get("delta", choice.get("message")) if choice else None
    return isinstance(delta, dict) and bool(delta.get("content"))


def is_finished(choice: dict[str, Any] | None) -> bool:
    """Say whether a chunk's choice carries the finish reason."""
    return choice is not None and bool(_finish_reason(choice))


class OneChoice:
    """Picks one choice of a stream, that of its first chunk: some servers send more than were asked for."""

    __slots__ = ("_index",)

    def __init__(self) -> None:
        self._index: Any = None

    def of(self, payload: Any) -> dict[str, Any] | None:
        """Give what a chunk says of it; None where it says nothing."""
        for choice in _choices(payload):
            index = choice.get("index")
            self._index = index if self._index is None else self._index
            if index in (None, self._index):
                return choice
        return None


# --- a body of JSON ------------------------------------------------------------------------------------


def _read_json(reply: Reply) -> Completion:
    payload = _loads(reply.body, reply, "the answer")
    _raise_error(payload, reply)
    choice = _first_choice(payload)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise _unusable("no_choices", "the answer has no choices[0].message", reply)
    content = message.get("content")
    text = _content(content, reply)
    bare = message.keys() <= _BARE and not message.get("refusal") and not isinstance(content, list)
    return Completion(
        text=text,
        model=_text(payload.get("model")),
        finish_reason=_finish_reason(choice),
        usage=read_usage(payload.get("usage"), text),
        system_fingerprint=_text(payload.get("system_fingerprint")),
        logprobs=choice.get("logprobs"),
        **({} if bare else _beside(message)),  # bare as nearly always
    )


def _is_stream(body: bytes) -> bool:
    """Say whether an answer is a stream, whatever type it was given."""
    return not body.startswith(b"{") and body.lstrip(BLANK).startswith(EVENT_BEGINS)


def _beside(message: dict[str, Any]) -> dict[str, Any]:
    """Give what a message says beside its text, as a `Completion` names it."""
    return {
        "refusal": _refusal(refused(message)),
        "tool_calls": _calls_tools(message),
        "calls": _calls(message),
        "reasoning": _text(thought(message)),
    }


def _loads(data: bytes, reply: Reply, what: str) -> Any:
    try:
        return loads(data)
    except ValueError:
        pass
    try:
        text = data.decode()
        if (found := _before_junk(text)) is not None:
            return found
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            raise _unusable("invalid_utf8", f"{what} is not UTF-8 at byte {error.start:,}", reply) from None
        text = data[: error.start].decode()
    begins = f"no whole JSON; it begins with {one_line(text[:200], 60)}" if text.strip() else "empty"
    raise _unusable("response_cut", f"{what} is {begins}", reply)


def _before_junk(text: str) -> dict[str, Any] | None:
    """Give the object that a body begins with, where what follows is none of the answer: zeros, or a proxy's own mark."""
    try:
        found, end = _decoder.raw_decode(text.lstrip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return None
    rest = text.lstrip("\ufeff \t\r\n")[end:]
    return found if isinstance(found, dict) and "{" not in rest else None


def _raise_error(payload: Any, reply: Reply) -> None:
    """Let an error envelope win over the 200 that it came with."""
    envelope = find(payload)
    if envelope is not None:
        raise _UnusableError(to_failure(envelope, 200, evidence=reply.body, request_id=reply.request_id))


def _unusable(code: str, message: str, reply: Reply) -> _UnusableError:
    return _UnusableError(
        Failure(
            code=code,
            message=message,
            fate=Fate.UNKNOWN,
            status=200,
            request_id=reply.request_id,
            evidence=reply.body[:MAX_EVIDENCE],
        )
    )


def _first_choice(payload: Any) -> dict[str, Any] | None:
    return next(iter(_choices(payload)), None)


def _choices(payload: Any) -> list[dict[str, Any]]:
    choices = payload.get("choices") if isinstance(payload, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _text(value: Any) -> str | None:
    return mend(value) if isinstance(value, str) else None


def _finish_reason(choice: dict[str, Any]) -> str | None:
    """Give why a choice ended; one that is no text in JSON, or its ``type``, so that it is never taken for none."""
    reason = choice.get("finish_reason")
    if isinstance(reason, dict):
        reason = reason.get("type") or reason
    if not reason or isinstance(reason, str):
        return _text(reason) or None
    return one_line(json.dumps(reason), 60)


def _content(value: Any, reply: Reply) -> str | None:
    """Give the text of a ``content``: a string, null, or parts of which the texts are joined, without the reasoning.

    A mapping is one part, or the answer itself where the server has parsed its JSON.
    """
    if value is None or isinstance(value, str):
        return _text(value)
    if isinstance(value, dict) and value:
        is_part = "type" in value or said(value) is not None
        return _content([value], reply) if is_part else mend(json.dumps(value, ensure_ascii=False))
    if not isinstance(value, list):
        raise _unusable("no_choices", f"the answer's content is a {type(value).__name__}, not text", reply)
    texts = [text for part in value if (text := said(part)) is not None]
    return mend("".join(texts)) if texts else None


def _refusal(said: str | None) -> str | None:
    return mend(said) if said and said.strip() else None


def _calls(message: dict[str, Any]) -> tuple[ToolCall, ...]:
    if not _calls_tools(message):  # as nearly always
        return ()
    calls = Calls()
    calls.add(message)
    return calls.whole()


def _calls_tools(message: dict[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


# --- an event stream -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Assembly:
    """A completion while its chunks come in."""

    texts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    choice: OneChoice = field(default_factory=OneChoice)
    has_text: bool = False
    has_choice: bool = False
    tool_calls: bool = False
    model: str | None = None
    finish_reason: str | None = None
    usage: Any = None
    calls: Calls = field(default_factory=Calls)
    thoughts: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    logprobs: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, payload: Any, reply: Reply) -> None:
        if not isinstance(payload, dict):
            raise _unusable(
                "no_choices", f"a chunk of the stream is a {type(payload).__name__}, not an object", reply
            )
        self.model = self.model or _text(payload.get("model"))
        self.fingerprint = self.fingerprint or _text(payload.get("system_fingerprint"))
        usage = payload.get("usage")
        if isinstance(usage, dict) and (self.usage is None or tells(usage)):
            self.usage = usage
        choice = self.choice.of(payload)
        if choice is None:
            return
        self.has_choice = True
        self.finish_reason = _finish_reason(choice) or self.finish_reason
        if isinstance(choice.get("logprobs"), dict):
            for name, pieces in choice["logprobs"].items():
                if isinstance(pieces, list):
                    self.logprobs.setdefault(name, []).extend(pieces)
        delta = choice.get(
            "delta", choice.get("message")
        )  # who makes a stream of a whole answer may leave it one
        if isinstance(delta, dict):
            self._add_delta(delta, reply)

    def _add_delta(self, delta: dict[str, Any], reply: Reply) -> None:
        content = delta.get("content")
        # A string is taken as it is: half an emoji may wait for its other half in the next chunk.
        text = content if isinstance(content, str) else _content(content, reply)
        if text is not None:
            self.has_text = True
            self.texts.append(text)
        if piece := refused(delta):
            self.refusals.append(piece)
        if piece := thought(delta):
            self.thoughts.append(piece)
        if _calls_tools(delta):
            self.tool_calls = True
            self.calls.add(delta)

    def completion(self, *, cut: bool) -> Completion:
        text = mend("".join(self.texts)) if self.has_text else None
        return Completion(
            text=text,
            model=self.model,
            finish_reason=self.finish_reason,
            usage=read_usage(self.usage, text),
            cut=cut,
            refusal=_refusal("".join(self.refusals)),
            tool_calls=self.tool_calls,
            calls=self.calls.whole(),
            reasoning=mend("".join(self.thoughts)) or None,
            system_fingerprint=self.fingerprint,
            logprobs=self.logprobs or None,
        )


def _read_stream(reply: Reply, *, finish_optional: bool) -> Completion:
    assembly = _Assembly()
    done = False
    for event in _events(reply):
        if is_done(event):
            done = True
            break
        if not event.data.strip():  # some keep a connection open so
            continue
        if event.event == "error" or b'"error"' in event.data:
            _raise_event(event, reply)
        assembly.add(_loads(event.data, reply, "a chunk of the stream"), reply)
    if not done and assembly.finish_reason is None:
        raise _unusable("response_cut", "the stream ended before [DONE]", reply)
    if not assembly.has_choice:
        raise _unusable("no_choices", "the stream carried no choices", reply)
    return assembly.completion(cut=assembly.finish_reason is None and not finish_optional)


def _events(reply: Reply) -> Iterator[Event]:
    parser = EventParser()
    try:
        yield from parser.feed(reply.body)
    except EventTooLarge as error:
        raise _unusable("body_too_large", str(error), reply) from None
    with contextlib.suppress(ValueError):  # what was cut is none
        last = last_event(parser)
        if last is not None:
            yield last


def _raise_event(event: Event, reply: Reply) -> None:
    try:
        payload = loads(event.data)
    except ValueError:
        payload = None
    failure = stream_error(event, payload, reply.request_id)
    if failure is not None:
        raise _UnusableError(failure)
