"""What the chat endpoint accepts: reading and checking a request's body."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from enrich.sandbox.content import part_problems
from enrich.sandbox.error_bodies import Refusal, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROLES = ("system", "user", "assistant")
MAX_CHOICES = 128  # answers to one request; the emulator's own bound
REASONING = "reason"  # ids that begin so refuse the legacy `max_tokens`

Check = tuple[str, "Callable[[Any], bool]"]  # what the value must be, and the test of it


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _is_stream_options(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("include_usage", False), bool)


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)


_TEXT: Check = ("a string", lambda v: isinstance(v, str))
_FLAG: Check = ("a boolean", lambda v: isinstance(v, bool))
_NUMBER: Check = ("a number", _is_number)
_OBJECT: Check = ("an object", lambda v: isinstance(v, dict))
_COUNT: Check = ("an integer of 1 or more", _is_count)

OPTIONAL_FIELDS: dict[str, Check] = {
    "stream": _FLAG,
    "temperature": ("a number from 0.0 to 2.0", lambda v: _is_number(v) and 0 <= v <= 2),
    "top_p": ("a number from 0.0 to 1.0", lambda v: _is_number(v) and 0 <= v <= 1),
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "n": (f"an integer from 1 to {MAX_CHOICES}", lambda v: _is_count(v) and v <= MAX_CHOICES),
    "seed": ("an integer", lambda v: type(v) is int),
    "stop": ("a string or an array of strings", _is_stop),
    "stream_options": ("an object whose `include_usage` is a boolean", _is_stream_options),
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "logit_bias": _OBJECT,
    "logprobs": _FLAG,
    "top_logprobs": ("an integer of 0 or more", lambda v: type(v) is int and v >= 0),
    "tools": ("an array of objects", _is_objects),
    "tool_choice": ("a string or an object", lambda v: isinstance(v, str | dict)),
    "parallel_tool_calls": _FLAG,
    "response_format": _OBJECT,
    "reasoning_effort": _TEXT,
    "metadata": _OBJECT,
    "store": _FLAG,
    "service_tier": _TEXT,
    "safety_identifier": _TEXT,
    "prompt_cache_key": _TEXT,
    "user": _TEXT,
    "model_options": _OBJECT,
}
_FIELDS = OPTIONAL_FIELDS.keys() | {"model", "messages"}
_EXCLUDE = (("temperature", "top_p"), ("max_tokens", "max_completion_tokens"))


def parse(raw: bytes) -> dict[str, Any]:
    """Read a request's body.

    Raises:
        RefusedError: it is no JSON object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusedError(Refusal(400, "invalid_request", f"The body is not valid JSON: {error}")) from None
    if not isinstance(body, dict):
        raise RefusedError(Refusal(400, "invalid_request", "The body must be a JSON object.", param=""))
    return body


def check(body: dict[str, Any], models: tuple[str, ...], *, parts: bool = False) -> None:
    """Hold a body to what the endpoint accepts.

    Args:
        body: the parsed request.
        models: the ids that are served, beside `auto`.
        parts: whether a message's content may be a list of parts.

    Raises:
        RefusedError: 422 `invalid_request` with every problem, 400 `unsupported_model`, or 422 `unsupported_option`.
    """
    problems = [*_message_problems(body, parts=parts), *_option_problems(body)]
    if problems:
        errors = [{"field": pointer, "message": message} for pointer, message in problems]
        pointer, message = problems[0]
        raise RefusedError(
            Refusal(
                422, "invalid_request", f"{pointer} {message}.", param=pointer, details={"errors": errors}
            )
        )
    model = body["model"]
    if model != "auto" and model not in models:
        raise RefusedError(
            Refusal(
                400,
                "unsupported_model",
                f"The model `{model}` is not enabled for this account.",
                param="/model",
            )
        )
    unsupported = sorted(body.keys() - _FIELDS)
    if model.startswith(REASONING) and "max_tokens" in body:
        unsupported.append("max_tokens")
    if unsupported:
        raise RefusedError(unsupported_option(unsupported))


def unsupported_option(fields: list[str]) -> Refusal:
    """Make the refusal that names the fields to remove."""
    return Refusal(
        422,
        "unsupported_option",
        f"Not supported: {', '.join(fields)}.",
        param=f"/{_escaped(fields[0])}",
        details={"unsupported_fields": fields},
    )


def _escaped(name: str) -> str:
    """Escape a name for a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _message_problems(body: dict[str, Any], *, parts: bool) -> Iterator[tuple[str, str]]:
    if not isinstance(body.get("model"), str):
        yield "/model", "must be a string" if "model" in body else "is required"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "/messages", "must be an array of at least one message" if "messages" in body else "is required"
        return
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            yield f"/messages/{index}", "must be an object"
            continue
        if message.get("role") not in ROLES:
            yield f"/messages/{index}/role", f"must be one of {', '.join(ROLES)}"
        content = message.get("content")
        if parts and isinstance(content, list) and content:
            yield from part_problems(content, f"/messages/{index}/content")
        elif not isinstance(content, str):
            yield f"/messages/{index}/content", "must be a string"
        for name in message.keys() - {"role", "content"}:
            yield f"/messages/{index}/{_escaped(name)}", "is not a field of a message"


def _option_problems(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in body.items():
        rule = OPTIONAL_FIELDS.get(name)
        if rule is not None and not rule[1](value):
            yield f"/{name}", f"must be {rule[0]}"
    for first, second in _EXCLUDE:
        if first in body and second in body:
            yield f"/{second}", f"and {first} exclude each other"
    if isinstance(body.get("response_format"), dict):
        yield from _format_problems(body["response_format"])


def _format_problems(form: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kind = form.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        yield "/response_format/type", "must be text, json_object or json_schema"
    if kind != "json_schema":
        return
    wrapper = form.get("json_schema")
    if not isinstance(wrapper, dict) or not isinstance(wrapper.get("schema"), dict):
        yield "/response_format/json_schema/schema", "must be an object"
    elif not is_schema(orjson.dumps(wrapper["schema"])):
        yield "/response_format/json_schema/schema", "must be a valid JSON Schema"


@lru_cache(maxsize=256)
def is_schema(schema: bytes) -> bool:
    """Say whether a JSON text is a valid JSON Schema whose references lead somewhere."""
    try:
        jsonschema_rs.validator_for(orjson.loads(schema), retriever=_nowhere)
    except ValueError:
        return False
    return True


def _nowhere(uri: str) -> Any:
    """Refuse to fetch a schema from elsewhere."""
    raise ValueError(f"{uri} is not fetched")
