"""What a model says beside its text: what it thought, why it refuses, the tools it calls; whole, or in a stream's pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from enrich.records import ToolCall
from enrich.wire.envelope import mend

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where servers put what was thought, the first that holds some counts: DeepSeek, vLLM and many more; OpenRouter and newer
# vLLM, which may send both; Ollama; OpenRouter's and LiteLLM's lists of parts; parts of the content, as Mistral has them.
_PLACES = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
_IN_PART = ("thinking", "reasoning", "text", "summary", "content")
_THOUGHT = re.compile("reason|think|thought")  # in the type of a content part that is no part of the answer
MOST_NESTED = 4  # levels of lists and objects that texts are looked for in


def thought(message: dict[str, Any]) -> str | None:
    """Give what a message, or a piece of one, holds of the model's thinking; None where it holds none."""
    for place in _PLACES:
        found = message.get(place)
        if found and (text := _texts(found)):
            return text
    content = message.get("content")
    if not isinstance(content, list):  # as nearly always
        return None
    return _texts([part for part in content if _is_thought(part)]) or None


def said(part: Any) -> str | None:
    """Give the text of a part of a ``content``; None where it holds none, or what was thought."""
    if isinstance(part, dict):
        part = None if _is_thought(part) else part.get("text")
    return part if isinstance(part, str) else None


def refused(message: dict[str, Any]) -> str | None:
    """Give what a message, or a piece of one, says in refusing, beside its content or as a part of it."""
    found = message.get("refusal")
    if not found and isinstance(content := message.get("content"), list):
        parts = (part.get("refusal") for part in content if isinstance(part, dict))
        found = next((part for part in parts if isinstance(part, str)), None)
    return found if isinstance(found, str) else None


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and _THOUGHT.search(str(part.get("type"))) is not None


def _texts(value: Any, depth: int = MOST_NESTED) -> str:
    """Join the texts of what may be a text, a part, or a list of such."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "".join(_texts(item, depth - 1) for item in value)
    if isinstance(value, dict) and depth:
        return next((text for name in _IN_PART if (text := _texts(value.get(name), depth - 1))), "")
    return ""


@dataclass(slots=True)
class _Call:
    """A call while its pieces come in."""

    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list)

    def add(self, call_id: str | None, name: str | None, arguments: str | None) -> None:
        self.id = self.id or call_id
        if name and name != self.name:  # it comes in pieces, or once more with every piece
            self.name = (self.name or "") + name
        if arguments is not None:
            self.arguments.append(arguments)

    def is_whole(self) -> bool:
        """Say whether the arguments that came are whole."""
        try:
            orjson.loads("".join(self.arguments))
        except ValueError:
            return False
        return True


@dataclass(slots=True)
class Calls:
    """The tool calls of a message, put together of however many pieces."""

    _calls: list[_Call] = field(default_factory=list)
    _by_index: dict[int, _Call] = field(default_factory=dict)

    def add(self, message: dict[str, Any]) -> None:
        """Take the calls, or the pieces of calls, that a message or a piece of one holds."""
        for index, call_id, name, arguments in _pieces(message):
            self._of(index, call_id, name).add(call_id, name, arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """Give the calls, in the order in which they began."""
        return tuple(
            ToolCall(
                None if call.id is None else mend(call.id),
                None if call.name is None else mend(call.name),
                mend("".join(call.arguments)) if call.arguments else None,
            )
            for call in self._calls
        )

    def _of(self, index: int | None, call_id: str | None, name: str | None) -> _Call:
        """Find the call that a piece belongs to: by its index, else its id; one that begins has an id or a name of its own."""
        known = self._by_index.get(index) if index is not None else self._last(call_id)
        goes_on = known is not None and (call_id is None or known.id in (None, call_id))
        if known is not None and call_id is None and name and known.name:
            goes_on = index is not None and not known.is_whole()
        if known is None or not goes_on:
            known = _Call()
            self._calls.append(known)
        if index is not None:
            self._by_index[index] = known
        return known

    def _last(self, call_id: str | None) -> _Call | None:
        same = [call for call in self._calls if call_id is not None and call.id == call_id]
        return (same or self._calls or [None])[-1]  # type: ignore[list-item]  # None where there is no call yet


def _pieces(message: dict[str, Any]) -> Iterator[tuple[int | None, str | None, str | None, str | None]]:
    """Give index, id, name and arguments of each call in a message; the older ``function_call`` is one without an id."""
    calls = message.get("tool_calls")
    old = message.get("function_call")
    for call in calls if isinstance(calls, list) else [calls]:
        if not isinstance(call, dict):
            continue
        function = call.get("function")
        held = function if isinstance(function, dict) else call
        index = call.get("index")
        number = index if type(index) is int else None
        yield number, _word(call.get("id")), _word(held.get("name")), _arguments(held.get("arguments"))
    if isinstance(old, dict):
        yield 0, None, _word(old.get("name")), _arguments(old.get("arguments"))


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _arguments(value: Any) -> str | None:
    """Give arguments as text; some servers send them as the object that the text would be."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
