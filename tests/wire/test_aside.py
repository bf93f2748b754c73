from __future__ import annotations

import json
from typing import Any

import pytest

from enrich.records import Completion, Reply, ToolCall
from enrich.wire.completion import read


def whole(message: dict[str, Any], **more: Any) -> Completion:
    """Read a message as a whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", **more}
    found = read(Reply(json.dumps({"choices": [choice], "system_fingerprint": "fp_1"}).encode(), None, 1.0))
    assert isinstance(found, Completion)
    return found


def streamed(*deltas: dict[str, Any]) -> Completion:
    """Read pieces of a message as a stream."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [
        f"data: {json.dumps({'choices': [choice], 'system_fingerprint': 'fp_1'})}\n\n" for choice in choices
    ]
    found = read(Reply("".join([*events, "data: [DONE]\n\n"]).encode(), None, 1.0, streamed=True))
    assert isinstance(found, Completion)
    return found


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"reasoning_content": "Hm 🙂"}, "Hm 🙂"),
        ({"reasoning": "Hm", "reasoning_content": None}, "Hm"),
        ({"reasoning": "Hm", "reasoning_content": "Hm"}, "Hm"),
        ({"reasoning": {"content": "Hm"}}, "Hm"),
        ({"thinking": "Hm"}, "Hm"),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "H"}, {"type": "reasoning.summary", "summary": "m"}]}, "Hm"),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "x"}]}, "Hm"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "a"}]}, "Hm"),
        ({"content": [{"type": "reasoning", "reasoning": "Hm"}]}, "Hm"),
        ({"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "a"}]}, None),
        ({"reasoning_content": ""}, None),
        ({"reasoning_content": None, "reasoning": 5, "thinking": {}, "reasoning_details": [None, 1, {"type": "encrypted"}]}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_reasoning(message: dict[str, Any], expected: str | None) -> None:
    """What was thought is found wherever servers put it, and once, whole or streamed."""
    message = {"content": "a", **message}
    assert whole(message).reasoning == expected
    assert streamed(message).reasoning == expected
    assert whole(message).system_fingerprint == streamed(message).system_fingerprint == "fp_1"


def test_reasoning_in_pieces() -> None:
    """The pieces of a stream are put together, also where a character is cut in two."""
    found = streamed(
        {"reasoning_content": "H\ud83d"},
        {"reasoning_content": "\ude42m"},
        {"content": "a"},
        {"reasoning_content": None},
    )
    assert (found.reasoning, found.text) == ("H🙂m", "a")
    found = streamed(
        {"reasoning": "H", "reasoning_content": "H"}, {"reasoning": "m", "reasoning_content": "m"}
    )
    assert found.reasoning == "Hm"


CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Oslo"}'}},
    {"id": "c2", "type": "function", "function": {"name": "find", "arguments": '{"city": "Lima"}'}},
]
BOTH = (ToolCall("c1", "find", '{"city": "Oslo"}'), ToolCall("c2", "find", '{"city": "Lima"}'))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"tool_calls": CALLS}, BOTH),
        ({"tool_calls": [{"function": {"name": "find", "arguments": {"city": "Oslo"}}}]}, (ToolCall(None, "find", '{"city":"Oslo"}'),)),
        ({"tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": None}}]}, (ToolCall("c1", "find", None),)),
        ({"tool_calls": [{"id": "c1", "name": "find", "arguments": ""}]}, (ToolCall("c1", "find", ""),)),
        ({"function_call": {"name": "find", "arguments": "{}"}}, (ToolCall(None, "find", "{}"),)),
        ({"tool_calls": [None, 5, {}]}, (ToolCall(None, None, None),)),
        ({"tool_calls": None}, ()),
    ],
)  # fmt: skip
def test_tool_calls(message: dict[str, Any], expected: tuple[ToolCall, ...]) -> None:
    """Each call is read, in the shapes that servers give it."""
    found = whole({"content": None, **message})
    assert found.calls == expected
    assert found.tool_calls == bool(expected)


def piece(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    """Make a piece of a call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    place = {} if index is None else {"index": index}
    return {"tool_calls": [{**place, **({} if call_id is None else {"id": call_id}), "function": function}]}


@pytest.mark.parametrize(
    "deltas",
    [
        [piece(0, "c1", "find", ""), piece(0, None, None, '{"city": '), piece(0, None, None, '"Oslo"}'), piece(1, "c2", "find", '{"ci'),
         piece(1, None, None, 'ty": "Lima"}')],
        [piece(0, "c1", "find", '{"city": "Os'), piece(1, "c2", "find", '{"city": '), piece(0, None, None, 'lo"}'), piece(1, "", None, '"Lima"}')],
        [piece(0, "c1", "find", '{"city": "Os'), piece(0, "c1", "find", 'lo"}'), piece(1, "c2", "find", '{"city": "Lima"}')],
        [piece(None, "c1", "find", '{"city": '), piece(None, None, None, '"Oslo"}'), piece(None, "c2", "find", '{"city": "Lima"}')],
        [piece(0, "c1", "find", '{"city": "Oslo"}'), piece(0, "c2", "find", '{"city": "Lima"}')],
        [piece(0, "c1", "fi", ""), piece(0, None, "nd", None), piece(0, None, None, '{"city": "Oslo"}'), {"tool_calls": [{"index": 1, **CALLS[1]}]}],
        [{"tool_calls": [{"index": 0, **CALLS[0]}, {"index": 1, **CALLS[1]}]}],
        [{"tool_calls": CALLS}],
        [piece(0, "c1", "find", '{"city": "Os'), piece(0, None, "find", 'lo"}'), piece(1, "c2", "find", '{"city": "Lima"}')],
    ],
)  # fmt: skip
def test_calls_in_pieces(deltas: list[dict[str, Any]]) -> None:
    """Pieces are put together by index or id: in turn, at once, with names said again, with the index left out or never raised."""
    assert streamed({"role": "assistant", "content": None}, *deltas).calls == BOTH


def test_calls_without_ids_or_indices() -> None:
    """A piece that names a tool begins a call where nothing else tells them apart."""
    found = streamed(piece(None, None, "find", '{"a": 1}'), piece(None, None, "find", '{"a": 2}'))
    assert [(call.name, call.arguments) for call in found.calls] == [
        ("find", '{"a": 1}'),
        ("find", '{"a": 2}'),
    ]


def test_one_index_for_all() -> None:
    """A server that gives each call the same index and no id begins the next with a name behind whole arguments."""
    found = streamed(
        piece(0, None, "find", '{"a": '), piece(0, None, None, "1}"), piece(0, None, "find", '{"a": 2}')
    )
    assert [call.arguments for call in found.calls] == ['{"a": 1}', '{"a": 2}']


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"refusal": "I will "}, {"refusal": "not"}, {"refusal": None}], "I will not"),
        ([{"content": [{"type": "refusal", "refusal": "I will not"}]}], "I will not"),
        ([{"refusal": ""}, {"refusal": " "}, {"content": "yes"}], None),
    ],
)
def test_refusals_in_pieces(deltas: list[dict[str, Any]], expected: str | None) -> None:
    """A refusal is put together, wherever its pieces stand; blanks are none."""
    assert streamed(*deltas).refusal == expected


def test_log_probabilities_in_pieces() -> None:
    """Those of a stream are put together as those of a whole answer stand."""
    entries = [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -2.0}]
    choices = [
        {"delta": {"content": e["token"]}, "logprobs": {"content": [e], "refusal": None}} for e in entries
    ]
    choices += [{"delta": {"content": "c"}, "logprobs": None}, {"delta": {}, "finish_reason": "stop"}]
    events = "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices)
    found = read(Reply(f"{events}data: [DONE]\n\n".encode(), None, 1.0, streamed=True))
    assert isinstance(found, Completion)
    assert found.logprobs == {"content": entries}
    assert whole({"content": "ab"}, logprobs={"content": entries}).logprobs == {"content": entries}
