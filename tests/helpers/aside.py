"""What models say beside their texts, as servers send it: whole, or in pieces."""

from __future__ import annotations

import json
import math
from typing import Any

from tests.helpers.endpoint import Raw, Seen

RATE = {"type": "function", "function": {"name": "rate", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "rate", "arguments": '{"label": "pos"}'}}
LOGPROBS = {"content": [{"token": "ye", "logprob": math.log(0.5)}, {"token": "s", "logprob": math.log(0.5)}]}
SAID: dict[str, dict[str, Any]] = {
    "text": {
        "message": {"content": "yes", "reasoning_content": "hm"},
        "logprobs": LOGPROBS,
        "finish_reason": "stop",
    },
    "call": {"message": {"content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"},
    "hollow": {"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"},
    "refusal": {"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"},
}


def say(seen: Seen) -> Raw | None:
    """Answer with what the prompt names, whole or in pieces."""
    if seen.method != "POST":
        return None
    body = seen.body
    choice = SAID[body["messages"][-1]["content"]]
    head = {"id": "c", "model": "m", "system_fingerprint": "fp_7"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "credits": 1.0}
    if not body.get("stream"):
        return Raw(json.dumps({**head, "choices": [choice], "usage": usage}).encode())
    message = choice["message"]
    deltas: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", **message}, "logprobs": choice.get("logprobs")}
    ]
    if message.get("tool_calls", [{}])[0]:
        function = {**CALL, "index": 0, "function": {"name": "rate", "arguments": ""}}
        pieces = [{"index": 0, "function": {"arguments": part}} for part in ('{"label', '": "po', 's"}')]
        deltas = [{"delta": {"tool_calls": [part]}} for part in (function, *pieces)]
    deltas.append({"delta": {}, "finish_reason": choice["finish_reason"]})
    events = [{**head, "choices": [delta]} for delta in deltas] + [{**head, "choices": [], "usage": usage}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Raw(text.encode(), headers={"Content-Type": "text/event-stream"})
