"""The emulator's answers: a function of the request alone, marked as made up, with tokens and credits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from enrich.sandbox.schemas import MARK, conform
from enrich.sandbox.validate import is_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARS_PER_TOKEN = 4  # characters; a rule of thumb, no tokenizer
TOKENS_PER_MESSAGE = 3  # tokens that a message costs beside its text
CREDITS_PER_PROMPT_TOKEN = 0.0001  # made up, like the next two
CREDITS_PER_COMPLETION_TOKEN = 0.0004
USD_PER_CREDIT = 0.01
CACHED_SHARE = 0.1  # of the price, that a token of the prompt costs which is read from the cache; made up
SUMMARY_CHARS = 80  # of the last user message that are quoted in an answer
CHUNK_CHARS = 16  # characters of text in one event of a stream
DONE_EVENT = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a completion is charged: tokens in all, and credits."""

    tokens: int
    credits: float


def complete(
    body: dict[str, Any], digest: bytes, *, completion_id: str, model: str, cached: int | None = None
) -> tuple[dict[str, Any], Bill]:
    """Answer a valid request.

    Args:
        body: the request.
        digest: SHA-256 of its bytes; decides what is answered.
        completion_id: `id` of the completion.
        model: the id that serves it.
        cached: tokens of the prompt that are read from a cache; None where there is none.

    Returns:
        The response's JSON, and what it is charged.
    """
    choices, completion_tokens = [], 0
    for index in range(body.get("n", 1)):
        text, finish_reason = _limited(_text(body, digest, index), body)
        completion_tokens += count_tokens(text)
        message = {"role": "assistant", "content": text}
        choices.append({"index": index, "message": message, "finish_reason": finish_reason})
    prompt_tokens = sum(count_tokens(m["content"]) + TOKENS_PER_MESSAGE for m in body["messages"])
    cached_tokens = min(cached or 0, prompt_tokens)
    full = prompt_tokens - (1 - CACHED_SHARE) * cached_tokens
    price = full * CREDITS_PER_PROMPT_TOKEN + completion_tokens * CREDITS_PER_COMPLETION_TOKEN
    bill = Bill(prompt_tokens + completion_tokens, round(price, 6))
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": bill.tokens,
        "credits": bill.credits,
        "credits_usd_reference": round(price * USD_PER_CREDIT, 8),
    }
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    completion = {"id": completion_id, "model": model, "system_fingerprint": "sandbox"}
    return {**completion, "choices": choices, "usage": usage}, bill


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text."""
    return -(-len(text) // CHARS_PER_TOKEN)


def schema_of(body: dict[str, Any]) -> Any:
    """Give the JSON Schema that a request asks its answer to follow, or None.

    It stands in `response_format`, or on a line of its own in a system message.
    """
    form = body.get("response_format", {})
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    for message in body["messages"]:
        if message["role"] == "system" and '"object"' in message["content"]:
            for line in message["content"].splitlines():
                if (schema := _schema_on(line.strip())) is not None:
                    return schema
    return None


def _schema_on(line: str) -> dict[str, Any] | None:
    if not (line.startswith("{") and '"type"' in line):
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if value.get("type") == "object" and is_schema(line.encode()) else None


def _text(body: dict[str, Any], digest: bytes, index: int) -> str:
    schema = schema_of(body)
    if schema is not None:
        return orjson.dumps(conform(schema, digest + bytes([index]))).decode()
    users = [m["content"] for m in body["messages"] if m["role"] == "user"] or [
        body["messages"][-1]["content"]
    ]
    summary = " ".join(users[-1][: 4 * SUMMARY_CHARS].split())[:SUMMARY_CHARS]
    mark = digest[:4].hex() + (f"/{index}" if index else "")
    text = f"{MARK} Answer to “{summary}” ({mark})"
    if body.get("response_format", {}).get("type") == "json_object":
        return orjson.dumps({"answer": text}).decode()
    return text


def _limited(text: str, body: dict[str, Any]) -> tuple[str, str]:
    """Cut a text at the first stop sequence and at the token limit; gives it with its finish reason."""
    stops = body.get("stop", [])
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop:
            text = text.partition(stop)[0]
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and count_tokens(text) > limit:
        return text[: limit * CHARS_PER_TOKEN], "length"
    return text, "stop"


def spoil(kind: str, completion: dict[str, Any], body: dict[str, Any]) -> None:
    """Play a fault that lies in the answer itself; other kinds change nothing.

    Args:
        kind: a key of `FAULTS`.
        completion: the response's JSON; changed in place.
        body: the request.
    """
    if kind == "missing_usage":
        del completion["usage"]
    for choice in completion["choices"]:
        message, text = choice["message"], choice["message"]["content"]
        match kind:
            case "null_content":
                message["content"] = None
            case "tool_calls":
                function = {"name": "sandbox", "arguments": "{}"}
                call = {"id": "call_sandbox", "type": "function", "function": function}
                message |= {"content": None, "tool_calls": [call]}
                choice["finish_reason"] = "tool_calls"
            case "truncated" | "content_filter":
                message["content"] = text[: len(text) // 2]
                choice["finish_reason"] = "length" if kind == "truncated" else kind
            case "refusal":
                message |= {"content": None, "refusal": f"{MARK} I can't help with that."}
            case "broken_schema":
                message["content"] = _breaking(text, schema_of(body))
            case "fenced_json":
                message["content"] = f"Here is the answer:\n```json\n{text}\n```\n"


def _breaking(text: str, schema: Any) -> str:
    """Give JSON as near to the answer as possible that does not conform to the schema."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # no JSON was asked for, or it was cut at the token limit
        value = text
    wrong = {"sandbox": "breaks the schema"}
    attempts: list[Any] = [dict.fromkeys(value, wrong)] if isinstance(value, dict) else []
    attempts += [wrong, [value], None]
    broken = (v for v in attempts if schema is not None and not jsonschema_rs.is_valid(schema, v))
    return orjson.dumps(next(broken, [value])).decode()


def events(completion: dict[str, Any], *, usage: bool) -> Iterator[bytes]:
    """Give a completion as the events of a stream: role, pieces of text, finish reason, usage, `[DONE]`.

    Args:
        completion: the response's JSON.
        usage: whether `include_usage` was asked for.
    """
    head = {name: completion[name] for name in ("id", "model", "system_fingerprint")}
    for choice in completion.get("choices", ()):
        message, index = choice["message"], choice["index"]
        text = message["content"] or ""
        yield _event(head, index, {"role": "assistant"})
        for start in range(0, len(text), CHUNK_CHARS):
            yield _event(head, index, {"content": text[start : start + CHUNK_CHARS]})
        if "refusal" in message:
            yield _event(head, index, {"refusal": message["refusal"]})
        if "tool_calls" in message:
            calls = [{"index": n, **call} for n, call in enumerate(message["tool_calls"])]
            yield _event(head, index, {"tool_calls": calls})
        yield _event(head, index, {}, choice["finish_reason"])
    if usage and "usage" in completion:
        yield data({**head, "choices": [], "usage": completion["usage"]})
    yield DONE_EVENT


def _event(
    head: dict[str, Any], index: int, delta: dict[str, Any], finish_reason: str | None = None
) -> bytes:
    return data({**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]})


def data(chunk: dict[str, Any]) -> bytes:
    """Write one event of a stream."""
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
