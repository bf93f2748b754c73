"""Read a raw reply: a `Completion`, or the `Failure` that a 200 can be as well."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from enrich.records import Completion, Failure, Fate, Usage
from enrich.wire.envelope import MAX_EVIDENCE, Envelope, find, loads, mend, one_line, to_failure
from enrich.wire.finish import ending
from enrich.wire.sse import Event, EventParser, EventTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from enrich.records import Record, Reply

DONE = b"[DONE]"
BLANK = b" \t\r\n\xef\xbb\xbf"  # what may stand before JSON or a stream: white space, a byte order mark
EVENT_BEGINS = (
    b"data:",
    b"event:",
    b"id:",
    b"retry:",
    b":",
)  # what a stream begins with, whatever type it gives
PROMPT = (("prompt_tokens",), ("input_tokens",))  # as OpenAI's newer API and Anthropic's call them too
COMPLETION = (("completion_tokens",), ("output_tokens",))
# Where servers say how much of the prompt came from a cache: OpenAI, vLLM and Azure; OpenAI's newer name; DeepSeek;
# Anthropic's name, which gateways pass on; Moonshot. And how much of the completion was thought.
CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),
    ("cache_read_input_tokens",),
    ("cached_tokens",),
)
REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)
_THOUGHT = re.compile("reason|think|thought")  # in the type of a part that is no answer
MOST_DIGITS = 40  # characters of a number that is written as text
MAX_PLAUSIBLE = 10**9  # tokens or credits of one completion; more is a defect of the endpoint


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
        if reply.streamed or reply.body.lstrip(BLANK).startswith(EVENT_BEGINS):
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
    """Say whether an event ends a stream, blanks around its word or not."""
    return event.data == DONE or event.data.strip() == DONE


def last_event(parser: EventParser) -> Event | None:
    """Give an event at a stream's end whose empty line is missing, where nothing else can be: ``[DONE]``, whole JSON.

    Raises:
        ValueError: the stream was cut within an event.
    """
    event = parser.rest()
    if event is not None and not is_done(event) and not isinstance(loads(event.data), dict):
        raise ValueError("the last event is no whole chunk")
    return event


def has_content(payload: Any) -> bool:
    """Say whether a stream's chunk carries some of the answer's text."""
    choice = _first_choice(payload)
    delta = choice.get("delta", choice.get("message")) if choice else None
    return isinstance(delta, dict) and bool(delta.get("content"))


def is_finished(payload: Any) -> bool:
    """Say whether a stream's chunk carries the finish reason."""
    choice = _first_choice(payload)
    return choice is not None and bool(_finish_reason(choice))


# --- a body of JSON ------------------------------------------------------------------------------------


def _read_json(reply: Reply) -> Completion:
    payload = _loads(reply.body, reply, "the answer")
    _raise_error(payload, reply)
    choice = _first_choice(payload)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise _unusable("no_choices", "the answer has no choices[0].message", reply)
    text = _content(message.get("content"), reply)
    return Completion(
        text=text,
        model=_text(payload.get("model")),
        finish_reason=_finish_reason(choice),
        usage=_usage(payload.get("usage"), text),
        refusal=_refusal(message),
        tool_calls=_calls_tools(message),
    )


def _loads(data: bytes, reply: Reply, what: str) -> Any:
    try:
        return loads(data)
    except ValueError:
        pass
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            raise _unusable("invalid_utf8", f"{what} is not UTF-8 at byte {error.start:,}", reply) from None
        text = data[: error.start].decode()
    begins = f"no whole JSON; it begins with {one_line(text[:200], 60)}" if text.strip() else "empty"
    raise _unusable("response_cut", f"{what} is {begins}", reply)


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
    choices = payload.get("choices") if isinstance(payload, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


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
    """Give the text of a ``content``: a string, null, or parts of which the texts are joined, without the reasoning."""
    if value is None or isinstance(value, str):
        return _text(value)
    if not isinstance(value, list):
        raise _unusable("no_choices", f"the answer's content is a {type(value).__name__}, not text", reply)
    texts = [text for part in value if (text := _part_text(part)) is not None]
    return mend("".join(texts)) if texts else None


def _part_text(part: Any) -> str | None:
    if isinstance(part, dict):
        part = None if _THOUGHT.search(str(part.get("type"))) else part.get("text")
    return part if isinstance(part, str) else None


def _refusal(message: dict[str, Any]) -> str | None:
    """Give what a model says in refusing, beside its content or as a part of it; None where it does not refuse."""
    said = _text(message.get("refusal"))
    if not said and isinstance(content := message.get("content"), list):
        parts = (part.get("refusal") for part in content if isinstance(part, dict))
        said = next((mend(part) for part in parts if isinstance(part, str)), None)
    return said if said and said.strip() else None


def _calls_tools(message: dict[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _usage(value: Any, text: str | None) -> Usage:
    """Read the usage; nothing but zeros beside a text was not counted: it tells nothing."""
    if not isinstance(value, dict):
        return Usage()
    prompt, completion = (_first_count(value, names) for names in (PROMPT, COMPLETION))
    total = _count(_number(value.get("total_tokens")))
    if "total_tokens" not in value and prompt is not None and completion is not None:
        total = prompt + completion
    usage = Usage(
        prompt,
        completion,
        total,
        _amount(_number(value.get("credits"))),
        _first_count(value, CACHED),
        _first_count(value, REASONING),
        _amount(_number(value.get("credits_usd_reference"))),
    )
    counted = usage.prompt_tokens or usage.completion_tokens or usage.total_tokens or usage.credits
    if counted or not text:
        return usage
    further = (usage.cached_tokens, usage.reasoning_tokens, usage.credits_usd)
    return Usage(None, None, None, None, *further) if any(further) else Usage()


def _tells(usage: dict[str, Any]) -> bool:
    """Say whether a usage holds more than zeros."""
    return any(_number(value) for value in usage.values())


def _first_count(usage: dict[str, Any], places: Sequence[tuple[str, ...]]) -> int | None:
    """Give the count at the first of some places that holds one; servers agree on none of them."""
    for *objects, name in places:
        holder: Any = usage
        for one in objects:
            holder = holder.get(one)
            if not isinstance(holder, dict):
                break
        else:
            count = _count(_number(holder.get(name)))
            if count is not None:
                return count
    return None


def _number(value: Any) -> Any:
    """Give the number that a text holds; anything else as it is."""
    if not isinstance(value, str) or len(value) > MOST_DIGITS or not value.isascii():
        return value
    try:
        return float(value)
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    if type(value) is int:  # as nearly always
        return value if 0 <= value <= MAX_PLAUSIBLE else None
    amount = _amount(value)
    return int(amount) if amount is not None and amount.is_integer() else None


def _amount(value: Any) -> float | None:
    """Give a plausible number, else None: not a bool, not text, not negative, not beyond all reason."""
    if type(value) not in (float, int):
        return None
    return float(value) if 0 <= value <= MAX_PLAUSIBLE else None


# --- an event stream -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Assembly:
    """A completion while its chunks come in."""

    texts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    has_text: bool = False
    has_choice: bool = False
    tool_calls: bool = False
    model: str | None = None
    finish_reason: str | None = None
    usage: Any = None

    def add(self, payload: Any, reply: Reply) -> None:
        if not isinstance(payload, dict):
            raise _unusable(
                "no_choices", f"a chunk of the stream is a {type(payload).__name__}, not an object", reply
            )
        self.model = self.model or _text(payload.get("model"))
        usage = payload.get("usage")
        if isinstance(usage, dict) and (self.usage is None or _tells(usage)):
            self.usage = usage
        choice = _first_choice(payload)
        if choice is None:
            return
        self.has_choice = True
        self.finish_reason = _finish_reason(choice) or self.finish_reason
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
        if isinstance(delta.get("refusal"), str):
            self.refusals.append(delta["refusal"])
        self.tool_calls = self.tool_calls or _calls_tools(delta)

    def completion(self, *, cut: bool) -> Completion:
        text = mend("".join(self.texts)) if self.has_text else None
        return Completion(
            text=text,
            model=self.model,
            finish_reason=self.finish_reason,
            usage=_usage(self.usage, text),
            cut=cut,
            refusal=mend("".join(self.refusals)) or None,
            tool_calls=self.tool_calls,
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
