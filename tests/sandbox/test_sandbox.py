from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import ConfigError
from enrich.sandbox import FAULTS, Fault, Sandbox, SandboxOptions, ThreadedSandbox, parse_fault
from enrich.sandbox.answers import CHARS_PER_TOKEN, complete, events
from enrich.sandbox.breakage import PADDING
from enrich.sandbox.faults import FaultPlan
from enrich.sandbox.schemas import conform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from multidict import CIMultiDictProxy

LABELS = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg", "neutral"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["label", "score"],
    "additionalProperties": False,
}


@dataclass
class TurnedClock:
    """A clock that stands still until it is turned."""

    now: float = 1_000_000.0

    def wall(self) -> float:
        """Give the time it was turned to."""
        return self.now

    def boottime(self) -> float:
        """Give the time it was turned to."""
        return self.now

    def boot_id(self) -> str:
        """Give a name that stays."""
        return "test"


@dataclass(frozen=True)
class Answer:
    """One HTTP response, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def error(self) -> Any:
        """What the error envelope holds."""
        return self.json["error"]

    @property
    def text(self) -> Any:
        """The text of the first choice."""
        return self.json["choices"][0]["message"]["content"]


class Caller:
    """A plain client of one sandbox."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def chat(
        self, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Post a body (bytes as they are; by default a plain question) to the chat endpoint."""
        data = body if isinstance(body, bytes) else orjson.dumps(ask() if body is None else body)
        sent = {"Authorization": "Bearer sk-secret", "Content-Type": "application/json", **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        target = f"{self.url}/chat/completions"
        async with self.session.post(target, data=data, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        """Get a path of the server."""
        async with self.session.get(self.url.removesuffix("/v1") + path, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())


def ask(text: str = "Is this good?", **fields: Any) -> dict[str, Any]:
    """Make a valid request body."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def with_schema(schema: dict[str, Any], text: str = "Classify this.") -> dict[str, Any]:
    """Make a request body that asks for JSON of a schema."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    return ask(text, response_format=form)


def new_key() -> str:
    """Make an idempotency key."""
    return str(uuid.uuid4())


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client session; redirects and cookies play no part."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as opened:
        yield opened


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Run a sandbox without limits or faults."""
    async with Sandbox(SandboxOptions()) as opened:
        yield opened


@pytest.fixture
def caller(session: aiohttp.ClientSession, sandbox: Sandbox) -> Caller:
    """Give a client of the sandbox."""
    return Caller(session, sandbox.base_url)


# --- the contract ----------------------------------------------------------------------------------------


async def test_an_answer_has_what_the_contract_lists(caller: Caller) -> None:
    """A 200 names the serving model, one choice, the usage and the charge, and is marked as made up."""
    answer = await caller.chat()
    reply = answer.json
    assert answer.status == 200
    assert reply["model"] == "fast-1"
    assert reply["system_fingerprint"] == "sandbox"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert answer.text.startswith("[sandbox] ")
    assert "Is this good?" in answer.text
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["credits"] > usage["credits_usd_reference"] > 0
    assert answer.headers["X-Request-Id"].startswith("req_")


async def test_a_pinned_model_serves(caller: Caller) -> None:
    """A model that is asked for by its id is the one that serves."""
    assert (await caller.chat({**ask(), "model": "smart-1"})).json["model"] == "smart-1"


async def test_models_and_health(caller: Caller) -> None:
    """The models need a key; the health of the endpoint needs none."""
    models = (await caller.get("/v1/models", Authorization="Bearer sk-any")).json
    assert models["object"] == "list"
    assert {"id": "fast-1", "object": "model", "owned_by": "sandbox"} in models["data"]
    assert (await caller.get("/v1/models")).error["code"] == "unauthorized"
    assert (await caller.get("/v1/health")).json == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/v1/completions", 404, "not_found"), ("/v1/chat/completions", 405, "method_not_allowed")],
)
async def test_other_paths_and_methods_get_the_envelope(
    caller: Caller, path: str, status: int, code: str
) -> None:
    """What the endpoint does not offer is refused in its own form, too."""
    answer = await caller.get(path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["request_id"] == answer.headers["X-Request-Id"]


async def test_keys_are_checked(session: aiohttp.ClientSession) -> None:
    """Without a key, or with a wrong one, nothing is answered; the two have codes of their own."""
    async with Sandbox(SandboxOptions(api_keys=("sk-right",))) as sandbox:
        caller = Caller(session, sandbox.base_url)
        missing = await caller.chat(headers={"Authorization": "Bearer "})
        wrong = await caller.chat()
        right = await caller.chat(headers={"Authorization": "Bearer sk-right"})
    assert (missing.status, missing.error["code"]) == (401, "unauthorized")
    assert (wrong.status, wrong.error["code"]) == (401, "invalid_api_key")
    assert right.status == 200
    assert "sk-" not in str(sandbox.books.to_dict(attempts=True))


MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b'{"model":"auto","messages":[', 400, None),
        (b"[]", 400, ""),
        ({"messages": [MESSAGE]}, 422, "/model"),
        ({"model": 3, "messages": [MESSAGE]}, 422, "/model"),
        ({"model": "auto"}, 422, "/messages"),
        ({"model": "auto", "messages": []}, 422, "/messages"),
        ({"model": "auto", "messages": ["x"]}, 422, "/messages/0"),
        ({"model": "auto", "messages": [{"role": "tool", "content": "x"}]}, 422, "/messages/0/role"),
        ({"model": "auto", "messages": [MESSAGE, {"role": "user"}]}, 422, "/messages/1/content"),
        ({"model": "auto", "messages": [{"role": "user", "content": [{}]}]}, 422, "/messages/0/content"),
        ({"model": "auto", "messages": [{**MESSAGE, "a/b": 1}]}, 422, "/messages/0/a~1b"),
        (ask(temperature=2.1), 422, "/temperature"),
        (ask(temperature=True), 422, "/temperature"),
        (ask(temperature=None), 422, "/temperature"),
        (ask(top_p=-0.1), 422, "/top_p"),
        (ask(temperature=0, top_p=1), 422, "/top_p"),
        (ask(max_tokens=1, max_completion_tokens=1), 422, "/max_completion_tokens"),
        (ask(max_tokens=0), 422, "/max_tokens"),
        (ask(n=1.0), 422, "/n"),
        (ask(stop=[1]), 422, "/stop"),
        (ask(stream="yes"), 422, "/stream"),
        (ask(stream_options={"include_usage": 1}), 422, "/stream_options"),
        (ask(response_format={"type": "xml"}), 422, "/response_format/type"),
        (with_schema({"type": "thing"}), 422, "/response_format/json_schema/schema"),
        (with_schema({"$ref": "http://127.0.0.1:9/x"}), 422, "/response_format/json_schema/schema"),
        (ask(response_format={"type": "json_schema"}), 422, "/response_format/json_schema/schema"),
    ],
)
async def test_a_body_that_breaks_the_contract_is_refused(
    caller: Caller, body: Any, status: int, param: str | None
) -> None:
    """The refusal points into the body and lists every field; it is final and costs nothing."""
    answer = await caller.chat(body)
    assert (answer.status, answer.error["code"]) == (status, "invalid_request")
    assert answer.error["retryable"] is False
    assert answer.error.get("param") == param
    if status == 422:
        assert answer.error["details"]["errors"][0]["field"] == param
    assert answer.error["request_id"] == answer.headers["X-Request-Id"]


async def test_every_problem_of_a_body_is_listed(caller: Caller) -> None:
    """One answer names all the fields that are wrong."""
    error = (await caller.chat({"model": "auto", "messages": "x", "temperature": 9, "seed": "x"})).error
    assert [e["field"] for e in error["details"]["errors"]] == ["/messages", "/temperature", "/seed"]


async def test_unknown_fields_and_models_have_codes_of_their_own(caller: Caller) -> None:
    """Fields to remove are named; an unknown model is named; a reasoning model refuses the legacy limit."""
    option = await caller.chat(ask(zeal=1, best_of=2))
    assert (option.status, option.error["code"]) == (422, "unsupported_option")
    assert option.error["details"] == {"unsupported_fields": ["best_of", "zeal"]}
    assert option.error["param"] == "/best_of"
    legacy = await caller.chat({**ask(max_tokens=5), "model": "reason-1"})
    assert legacy.error["details"] == {"unsupported_fields": ["max_tokens"]}
    model = await caller.chat({**ask(), "model": "gpt-9"})
    assert (model.status, model.error["code"], model.error["param"]) == (400, "unsupported_model", "/model")


async def test_every_documented_option_is_taken(caller: Caller) -> None:
    """A request with every field of the contract in its right form is answered."""
    body = ask(
        stream=False,
        temperature=2.0,
        max_tokens=20,
        n=2,
        seed=7,
        stop=["END"],
        stream_options={"include_usage": True},
        frequency_penalty=0.5,
        presence_penalty=-1,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=2,
        tools=[{"type": "function"}],
        tool_choice="auto",
        parallel_tool_calls=False,
        response_format={"type": "text"},
        reasoning_effort="low",
        metadata={"job": "1"},
        store=False,
        service_tier="default",
        safety_identifier="u",
        prompt_cache_key="k",
        user="u",
        model_options={"any": 1},
    )
    answer = await caller.chat(body)
    assert answer.status == 200
    assert len({c["message"]["content"] for c in answer.json["choices"]}) == 2


async def test_the_content_type_must_be_json(caller: Caller) -> None:
    """JSON under another name is refused."""
    answer = await caller.chat(headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


# --- answers ---------------------------------------------------------------------------------------------


async def test_answers_are_a_function_of_the_body(caller: Caller) -> None:
    """The same body gives the same text under any key, another body another text; ids are never the same."""
    first, second = await caller.chat(), await caller.chat()
    other = await caller.chat(ask("Is that good?"))
    assert first.text == second.text != other.text
    assert first.json["id"] != second.json["id"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_token_limit_cuts_the_answer(caller: Caller, field: str) -> None:
    """An answer that runs out of tokens says so and is charged for what there is."""
    reply = await caller.chat({**ask(), field: 4})
    assert len(reply.text) == 4 * CHARS_PER_TOKEN
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert reply.json["usage"]["completion_tokens"] == 4


async def test_a_stop_sequence_ends_the_answer(caller: Caller) -> None:
    """What stands before the stop sequence is the answer, and it counts as finished."""
    reply = await caller.chat(ask(stop=" Answer"))
    assert reply.text == "[sandbox]"
    assert reply.json["choices"][0]["finish_reason"] == "stop"


async def test_a_schema_is_followed_wherever_it_stands(caller: Caller) -> None:
    """A schema in response_format, or on a line of a system message, gives JSON that conforms to it."""
    system = f"Answer with JSON only, as this schema says:\n{orjson.dumps(LABELS).decode()}\nNothing else."
    prompted = {
        "model": "auto",
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": "x"}],
    }
    for body in (with_schema(LABELS), prompted):
        jsonschema_rs.validate(LABELS, orjson.loads((await caller.chat(body)).text))
    plain = await caller.chat(ask(response_format={"type": "json_object"}))
    assert "[sandbox]" in orjson.loads(plain.text)["answer"]


async def test_labels_vary_over_rows(caller: Caller) -> None:
    """Different prompts get different values of an enum."""
    texts = [(await caller.chat(with_schema(LABELS, f"row {n}"))).text for n in range(40)]
    assert {orjson.loads(text)["label"] for text in texts} == {"pos", "neg", "neutral"}


PATTERNS = ["^[A-Z]{2}[0-9]{4}$", r"^\d{3}-\d{2}$", "(foo|bar)+", "^a.c?$", r"^\w+@x\.org$"]
FORMATS = ["date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"]
TYPES = ["string", "integer", "number", "boolean", "null"]
SCALARS = st.one_of(st.text(), st.integers(-9, 9), st.booleans(), st.none())


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Give schemas of every kind that the sandbox follows."""
    leaves = st.one_of(
        st.sampled_from(TYPES).map(lambda name: {"type": name}),
        st.lists(st.sampled_from(TYPES), min_size=1, unique=True).map(lambda names: {"type": names}),
        st.lists(SCALARS, min_size=1).map(lambda values: {"enum": values}),
        st.one_of(SCALARS, st.lists(SCALARS)).map(lambda value: {"const": value}),
        st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
        st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
        st.builds(_lengths, st.integers(0, 60), st.integers(0, 60)),
        _numbers(),
    )
    return st.recursive(leaves, _nested, max_leaves=8)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    further = {"properties": {"further": LABELS}, "required": ["further"]}
    objects = st.builds(
        _object,
        st.dictionaries(st.text("abcdefg", min_size=1), inner, max_size=4),
        st.booleans(),
        st.booleans(),
    )
    arrays = st.builds(
        lambda items, low, width: {"type": "array", "items": items, "minItems": low, "maxItems": low + width},
        inner,
        st.integers(0, 3),
        st.integers(0, 3),
    )
    return st.one_of(
        objects,
        arrays,
        objects.map(lambda schema: {"allOf": [schema, further]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    )


def _object(properties: dict[str, Any], required: bool, typed: bool) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties) if required else []}
    return {**schema, "additionalProperties": {"type": "object"}} if typed else schema


def _lengths(low: int, width: int) -> dict[str, Any]:
    return {"type": "string", "minLength": low, "maxLength": low + width}


@st.composite
def _numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    low, width = draw(st.integers(-(10**6), 10**6)), draw(st.integers(2, 10**6))
    step = draw(st.integers(1, 7))
    bounds: list[dict[str, Any]] = [
        {},
        {"minimum": low},
        {"maximum": low},
        {"minimum": low, "maximum": low + (0 if kind == "integer" else width)},
        {"exclusiveMinimum": low, "exclusiveMaximum": low + width},
        {"minimum": low, "maximum": low + width + step, "multipleOf": step},
    ]
    return {"type": kind, **draw(st.sampled_from(bounds))}


@given(schema=schemas(), seed=st.binary(min_size=1, max_size=32))
def test_made_up_values_conform_to_their_schema(schema: dict[str, Any], seed: bytes) -> None:
    """Whatever is made conforms, survives JSON, and is made again from the same seed."""
    value = conform(schema, seed)
    assert orjson.loads(orjson.dumps(value)) == value
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)
    assert conform(schema, seed) == value


@pytest.mark.parametrize(
    "schema",
    [
        {
            "$ref": "#/$defs/tree",
            "$defs": {"tree": {"properties": {"kids": {"items": {"$ref": "#/$defs/tree"}}}}},
        },
        {
            "$defs": {
                "link": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/link"}, {"type": "null"}]}},
                    "required": ["next"],
                }
            },
            "$ref": "#/$defs/link",
        },
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
        {
            "type": "array",
            "prefixItems": [{"const": "a"}, {"type": "integer"}],
            "items": False,
            "minItems": 2,
        },
        {"type": "object", "required": ["x"], "minProperties": 3},
        {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["b"], "maxProperties": 1},
        {"type": "number", "multipleOf": 0.01, "minimum": 0, "exclusiveMaximum": 0.02},
        {"type": "integer", "minimum": 1e30},
        {
            "oneOf": [{"const": 1}, {"type": "object", "properties": {"a/b": {"$ref": "#/$defs/~1"}}}],
            "$defs": {"/": {}},
        },
        {"properties": {"x": {"minimum": 3}, "y": {"items": {"type": "null"}}}, "required": ["x", "y"]},
    ],
)
def test_schemas_with_a_catch_are_followed_too(schema: dict[str, Any]) -> None:
    """Recursion, uniqueness, tuples, counts of properties and odd bounds are met."""
    for number in range(30):
        jsonschema_rs.validate(schema, conform(schema, bytes([number])))


@pytest.mark.parametrize("pattern", [r"\p{L}+", "(?<=a)b{900}", "["])
def test_a_pattern_out_of_reach_still_gives_a_text(pattern: str) -> None:
    """A pattern that cannot be met within the length gets marked text instead of an error."""
    assert conform({"type": "string", "pattern": pattern, "maxLength": 50}, b"x").startswith("[sandbox]")


def test_a_schema_that_requires_itself_without_end_comes_to_an_end() -> None:
    """No value conforms to it, and making one stops all the same."""
    node = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a"]}
    assert "a" in conform(node, b"x")
    assert conform({"allOf": [{"$ref": "#"}]}, b"x") is not None


# --- idempotency -----------------------------------------------------------------------------------------


async def test_the_same_key_gets_the_same_answer_for_nothing(caller: Caller, sandbox: Sandbox) -> None:
    """A replay is byte for byte the paid answer under a new request id; only the first is charged."""
    key = new_key()
    first, again = await caller.chat(key=key), await caller.chat(key=key.upper())
    assert first.body == again.body
    assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert sandbox.books.total.charges == 1
    assert sandbox.books.replays == 1


async def test_without_a_key_every_request_is_charged(caller: Caller, sandbox: Sandbox) -> None:
    """The same body twice without a key is paid for twice, and the books show it."""
    await caller.chat()
    await caller.chat()
    [tally] = sandbox.books.bodies.values()
    assert (tally.requests, tally.charges) == (2, 2)


async def test_a_key_is_bound_to_its_body(caller: Caller) -> None:
    """Another body under a used key is a final 409."""
    key = new_key()
    await caller.chat(key=key)
    answer = await caller.chat(ask("something else"), key=key)
    assert (answer.status, answer.error["code"]) == (409, "idempotency_key_reused")
    assert answer.error["retryable"] is False


async def test_a_key_that_is_no_uuid_is_refused(caller: Caller) -> None:
    """The header must be a uuid."""
    answer = await caller.chat(key="row-17")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


async def test_a_key_in_flight_is_a_retryable_409(session: aiohttp.ClientSession) -> None:
    """While the first request runs, a second one with its key is told to come again; both are charged once."""
    key = new_key()
    async with Sandbox(SandboxOptions(latency=0.3)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = asyncio.create_task(caller.chat(key=key))
        await sandbox.books.received(1)
        second = await caller.chat(key=key)
        assert (second.status, second.error["code"]) == (409, "idempotency_in_progress")
        assert second.error["retryable"] is True
        assert (await caller.chat(key=key)).status == 409
        assert (await first).status == 200
        assert (await caller.chat(key=key)).body == (await first).body
    assert sandbox.books.keys[key].charges == 1


async def test_a_client_that_hangs_up_has_paid(session: aiohttp.ClientSession) -> None:
    """A request whose client gives up is completed and charged; its key gets the answer afterwards."""
    key = new_key()
    async with Sandbox(SandboxOptions(latency=0.2)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = asyncio.create_task(caller.chat(key=key))
        await sandbox.books.received(1)
        first.cancel()
        answer = await caller.chat(key=key)
        while answer.status == 409:
            await asyncio.sleep(0.05)
            answer = await caller.chat(key=key)
        assert answer.headers["Idempotency-Replayed"] == "true"
    assert sandbox.books.total.charges == 1


async def test_a_key_is_forgotten_after_a_day(session: aiohttp.ClientSession) -> None:
    """23:59 after the first request the answer is free, at 24:00 it is paid for again."""
    clock, key = TurnedClock(), new_key()
    async with Sandbox(SandboxOptions(), clock=clock) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = await caller.chat(key=key)
        clock.now += 24 * 3600 - 60
        assert (await caller.chat(key=key)).body == first.body
        clock.now += 60
        late = await caller.chat(key=key)
    assert "Idempotency-Replayed" not in late.headers
    assert sandbox.books.keys[key].charges == 2


# --- streams ---------------------------------------------------------------------------------------------


def chunks(body: bytes) -> list[Any]:
    """Read a whole stream; it must end in `[DONE]`."""
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    return [orjson.loads(line) for line in lines]


async def test_a_stream_has_the_shape_of_the_contract(caller: Caller) -> None:
    """The role comes first, then text, then the finish reason with an empty delta, then `[DONE]`."""
    plain, streamed = await caller.chat(), await caller.chat(ask(stream=True))
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    first, *middle, last = [chunk["choices"][0] for chunk in chunks(streamed.body)]
    assert first["delta"] == {"role": "assistant"}
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")
    text = "".join(choice["delta"]["content"] for choice in middle)
    assert text.rpartition(" ")[0] == plain.text.rpartition(" ")[0]


async def test_usage_is_streamed_when_it_was_asked_for(caller: Caller) -> None:
    """The usage comes in a chunk of its own without choices, and a replay streams the same."""
    key, body = new_key(), ask(stream=True, stream_options={"include_usage": True})
    first, again = await caller.chat(body, key=key), await caller.chat(body, key=key)
    last = chunks(first.body)[-1]
    assert last["choices"] == []
    assert last["usage"]["credits"] > 0
    assert again.body == first.body


async def test_a_refused_stream_is_an_ordinary_error(caller: Caller) -> None:
    """What fails before the stream starts is JSON with its status."""
    answer = await caller.chat({**ask(stream=True), "model": "gpt-9"})
    assert (answer.status, answer.error["code"]) == (400, "unsupported_model")


@given(text=st.text(min_size=1), count=st.integers(1, 3))
def test_a_stream_carries_the_same_text(text: str, count: int) -> None:
    """Whatever the prompt, the pieces of a stream add up to the text of the answer."""
    reply, _ = complete(ask(text, n=count), b"0" * 32, completion_id="x", model="m")
    joined = [""] * count
    for chunk in chunks(b"".join(events(reply, usage=False))):
        [choice] = chunk["choices"]
        joined[choice["index"]] += choice["delta"].get("content", "")
    assert joined == [choice["message"]["content"] for choice in reply["choices"]]


# --- limits and money ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "let_through"),
    [
        (SandboxOptions(rpm=120), 2),
        (SandboxOptions(rate=3), 3),
        (SandboxOptions(rate=1, burst=5), 5),
        (SandboxOptions(tpm=60), 1),
    ],
)
async def test_more_than_the_limit_is_a_429(
    session: aiohttp.ClientSession, options: SandboxOptions, let_through: int
) -> None:
    """A spike is let through up to the burst; the limit refills with time and refusals cost nothing."""
    clock = TurnedClock()
    async with Sandbox(options, clock=clock) as sandbox:
        caller = Caller(session, sandbox.base_url)
        answers = [await caller.chat() for _ in range(8)]
        clock.now += 60
        assert (await caller.chat()).status == 200
    assert [a.status for a in answers] == [200] * let_through + [429] * (8 - let_through)
    assert answers[-1].error["code"] == "rate_limited"
    assert answers[-1].error["retryable"] is True
    assert "Retry-After" not in answers[-1].headers
    assert sandbox.books.to_dict()["totals"]["rejected_429"] == 8 - let_through


@pytest.mark.parametrize(
    ("given", "sent"), [(1.2, r"2"), (7, "7"), ("soon", "soon"), ("date", r"\w{3}, .* GMT")]
)
async def test_a_429_can_say_when_to_come_again(
    session: aiohttp.ClientSession, given: float | str, sent: str
) -> None:
    """Retry-After takes whole seconds, a date, or any text."""
    async with Sandbox(SandboxOptions(rpm=1, retry_after=given), clock=TurnedClock()) as sandbox:
        caller = Caller(session, sandbox.base_url)
        await caller.chat()
        assert re.fullmatch(sent, (await caller.chat()).headers["Retry-After"])


async def test_a_spent_balance_is_a_402_until_it_is_topped_up(session: aiohttp.ClientSession) -> None:
    """Paid answers are still given again; new ones wait for money."""
    key = new_key()
    async with Sandbox(SandboxOptions(balance=0.000001)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        assert (await caller.chat(key=key)).status == 200
        refused = await caller.chat(key=new_key())
        assert (refused.status, refused.error["code"]) == (402, "insufficient_balance")
        assert (await caller.chat(key=key)).status == 200
        sandbox.books.balance = 5.0
        assert (await caller.chat(key=new_key())).status == 200


# --- books -----------------------------------------------------------------------------------------------


async def test_the_books_are_served(caller: Caller) -> None:
    """Totals, keys and bodies agree, and the attempts name what the client sent."""
    key = new_key()
    first = await caller.chat(key=key, headers={"X-Request-Id": "mine-1"})
    await caller.chat(key=key)
    await caller.chat(b"{", key=new_key())
    books = (await caller.get("/sandbox/ledger?attempts=1")).json
    usage = first.json["usage"]
    paid = {"requests": 2, "charges": 1, "credits": usage["credits"], "tokens": usage["total_tokens"]}
    assert books["keys"][key] == paid
    assert books["totals"]["requests"] == 3
    assert books["totals"]["credits"] == usage["credits"]
    assert books["totals"]["statuses"] == {"200": 2, "400": 1}
    attempt = books["attempts"][0]
    assert (attempt["key"], attempt["status"], attempt["x_request_id"]) == (key, 200, "mine-1")
    assert books["bodies"][attempt["body"]] == paid
    assert attempt["request_id"] == first.headers["X-Request-Id"] != "mine-1"
    assert "attempts" not in (await caller.get("/sandbox/ledger")).json


async def test_the_books_count_what_runs_at_once(session: aiohttp.ClientSession) -> None:
    """The most requests in flight and the busiest second are kept."""
    async with Sandbox(SandboxOptions(latency=0.1, latency_spread=0.1), clock=TurnedClock()) as sandbox:
        caller = Caller(session, sandbox.base_url)
        await asyncio.gather(*(caller.chat(ask(str(n))) for n in range(5)))
    assert (sandbox.books.max_in_flight, sandbox.books.in_flight) == (5, 0)
    assert sandbox.books.busiest_second == 5


# --- faults ----------------------------------------------------------------------------------------------

ENVELOPES = {
    "rate_limited": (429, "rate_limited", True),
    "rate_limited_retry_after": (429, "rate_limited", True),
    "retry_after_date": (429, "rate_limited", True),
    "retry_after_garbage": (429, "rate_limited", True),
    "unauthorized": (401, "unauthorized", False),
    "forbidden": (403, "forbidden", False),
    "tenant_disabled": (403, "tenant_disabled", False),
    "region_mismatch": (400, "api_key_region_mismatch", False),
    "insufficient_balance": (402, "insufficient_balance", False),
    "invalid_request": (422, "invalid_request", False),
    "unsupported_model": (400, "unsupported_model", False),
    "unsupported_capability": (400, "unsupported_capability", False),
    "unsupported_option": (422, "unsupported_option", False),
    "in_flight_409": (409, "idempotency_in_progress", True),
    "billing_failed": (500, "billing_failed", True),
    "model_unavailable": (503, "model_unavailable", True),
    "internal_error": (500, "internal_error", True),
    "internal_error_final": (500, "internal_error", False),
    "retryable_400": (400, "invalid_request", True),
    "error_in_200": (200, "model_unavailable", True),
}
SLOW = {"stall", "slow_loris", "stream_stall"}  # no answer until the client gives up


async def suffer(
    session: aiohttp.ClientSession, kind: str, body: Any = None
) -> tuple[Answer, Answer, Sandbox]:
    """Send a request that suffers a fault, and the same again without it."""
    key = new_key()
    async with Sandbox(SandboxOptions(), script=[kind]) as sandbox:
        caller = Caller(session, sandbox.base_url)
        return await caller.chat(body, key=key), await caller.chat(body, key=key), sandbox


@pytest.mark.parametrize("kind", ENVELOPES)
async def test_a_refusal_carries_the_envelope(session: aiohttp.ClientSession, kind: str) -> None:
    """Status, code and flag are those of the contract; nothing is charged until the retry."""
    struck, again, sandbox = await suffer(session, kind)
    error = struck.error
    assert (struck.status, error["code"], error["retryable"]) == ENVELOPES[kind]
    assert error.keys() <= {"code", "message", "retryable", "request_id", "param", "details"}
    assert error["request_id"] == struck.headers["X-Request-Id"]
    assert again.status == 200
    assert "Idempotency-Replayed" not in again.headers
    assert sandbox.books.faults == {kind: 1}


async def test_retry_after_takes_every_form(session: aiohttp.ClientSession) -> None:
    """Seconds, a date ahead of the server's own, and something that is neither."""
    seconds, _, _ = await suffer(session, "rate_limited_retry_after")
    date, _, _ = await suffer(session, "retry_after_date")
    garbage, _, _ = await suffer(session, "retry_after_garbage")
    assert seconds.headers["Retry-After"] == "1"
    assert garbage.headers["Retry-After"] == "nan"
    ahead = parsedate_to_datetime(date.headers["Retry-After"]) - parsedate_to_datetime(date.headers["Date"])
    assert 0 <= ahead.total_seconds() <= 3


@pytest.mark.parametrize(
    ("kind", "status", "part", "charged"),
    [
        ("bad_gateway_html", 502, b"<html>", False),
        ("gateway_timeout", 504, b"<html>", False),
        ("gateway_timeout_after_charge", 504, b"<html>", True),
        ("empty_500", 500, b"", False),
        ("plain_500", 500, b"Internal", False),
        ("redirect", 302, b"Found", False),
    ],
)
async def test_a_proxy_answers_without_an_envelope(
    session: aiohttp.ClientSession, kind: str, status: int, part: bytes, *, charged: bool
) -> None:
    """A page from the way has no request id; the retry is free only if the request was executed."""
    struck, again, sandbox = await suffer(session, kind)
    assert struck.status == status
    assert part in struck.body
    assert "X-Request-Id" not in struck.headers
    assert ("Idempotency-Replayed" in again.headers) is charged
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize(
    ("kind", "error", "charged"),
    [
        ("reset", aiohttp.ClientOSError, False),
        ("disconnect_keepalive", aiohttp.ServerDisconnectedError, False),
        ("reset_after_charge", aiohttp.ClientOSError, True),
        ("cut_chunked", aiohttp.ClientPayloadError, True),
        ("stream_cut", aiohttp.ClientPayloadError, True),
    ],
)
async def test_a_broken_connection_looks_broken(
    session: aiohttp.ClientSession, kind: str, error: type[Exception], *, charged: bool
) -> None:
    """The client sees the break; the same key then gets an answer that is charged once in all."""
    key, body = new_key(), ask(stream=kind.startswith("stream_"))
    async with Sandbox(SandboxOptions(), script=[kind]) as sandbox:
        caller = Caller(session, sandbox.base_url)
        with pytest.raises(error):
            await caller.chat(body, key=key)
        assert sandbox.books.total.charges == charged
        again = await caller.chat(body, key=key)
    assert ("Idempotency-Replayed" in again.headers) is charged
    assert sandbox.books.keys[key].charges == 1


@pytest.mark.parametrize("kind", sorted(SLOW))
async def test_a_silent_server_waits_for_the_client_to_give_up(
    session: aiohttp.ClientSession, kind: str
) -> None:
    """The client runs into its own time-out; the sandbox lets go of the request then."""
    async with Sandbox(SandboxOptions(), script=[kind]) as sandbox:
        caller = Caller(session, sandbox.base_url)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.chat(ask(stream=kind == "stream_stall")), 0.5)
        assert (await caller.chat()).status == 200
    assert sandbox.books.in_flight == 0
    assert sandbox.books.total.charges == (1 if kind == "stall" else 2)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["cut_body", "cut_json", "empty_body", "invalid_utf8", "no_choices"])
async def test_a_spoilt_body_is_whole_on_the_retry(
    session: aiohttp.ClientSession, kind: str, *, streamed: bool
) -> None:
    """A 200 whose body is unusable was charged; the same key gets the whole answer for nothing."""
    struck, again, sandbox = await suffer(session, kind, ask(stream=streamed))
    assert struck.status == again.status == 200
    assert struck.body != again.body
    if kind in ("cut_body", "cut_json", "empty_body"):
        assert again.body.startswith(struck.body)
    if kind == "invalid_utf8":
        with pytest.raises(UnicodeDecodeError):
            struck.body.decode()
    if kind == "no_choices":
        assert b'"choices"' not in struck.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize(
    ("kind", "ids"), [("missing_request_id", 0), ("duplicate_request_id", 2), ("same_request_id", 1)]
)
async def test_the_request_id_can_be_wrong(session: aiohttp.ClientSession, kind: str, ids: int) -> None:
    """It is missing, stands there twice, or is the same on every answer."""
    struck, _, _ = await suffer(session, kind)
    found = struck.headers.getall("X-Request-Id", [])
    assert len(set(found)) == len(found) == ids
    if kind == "same_request_id":
        other, _, _ = await suffer(session, kind)
        assert other.headers["X-Request-Id"] == found[0]


async def test_the_content_type_can_be_wrong(session: aiohttp.ClientSession) -> None:
    """The right JSON comes as HTML."""
    struck, again, _ = await suffer(session, "wrong_content_type")
    assert struck.headers["Content-Type"] == "text/html"
    assert struck.body == again.body


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["huge_body", "gzip_bomb"])
async def test_a_body_can_be_huge(session: aiohttp.ClientSession, kind: str, *, streamed: bool) -> None:
    """Padding surrounds the answer, in plain or folded up; the answer in it is right."""
    struck, again, _ = await suffer(session, kind, ask(stream=streamed))
    assert len(struck.body) > PADDING
    assert struck.body.endswith(again.body[1:])


@pytest.mark.parametrize(
    ("kind", "finish_reason"),
    [
        ("null_content", "stop"),
        ("tool_calls", "tool_calls"),
        ("truncated", "length"),
        ("content_filter", "content_filter"),
        ("refusal", "stop"),
        ("missing_usage", "stop"),
        ("fenced_json", "stop"),
    ],
)
async def test_a_bad_answer_stays_bad(session: aiohttp.ClientSession, kind: str, finish_reason: str) -> None:
    """What the model itself got wrong is what was paid for: the same key gets it again."""
    struck, again, _ = await suffer(session, kind)
    choice = struck.json["choices"][0]
    assert struck.body == again.body
    assert choice["finish_reason"] == finish_reason
    assert (choice["message"]["content"] is None) is (kind in ("null_content", "tool_calls", "refusal"))
    assert ("usage" in struck.json) is (kind != "missing_usage")
    assert bool(choice["message"].get("tool_calls")) is (kind == "tool_calls")
    assert bool(choice["message"].get("refusal")) is (kind == "refusal")


async def test_bad_answers_are_streamed_as_well(session: aiohttp.ClientSession) -> None:
    """A stream carries tool calls and refusals in its deltas, and no text."""
    for kind in ("tool_calls", "refusal"):
        struck, _, _ = await suffer(session, kind, ask(stream=True))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(struck.body)]
        assert any(kind in delta for delta in deltas)
        assert not any("content" in delta for delta in deltas)


@pytest.mark.parametrize(
    "schema", [LABELS, {"type": "object"}, {"type": "array"}, {"type": ["object", "null"]}]
)
async def test_an_answer_can_break_its_schema(session: aiohttp.ClientSession, schema: dict[str, Any]) -> None:
    """It is JSON still, but not of the schema."""
    struck, _, _ = await suffer(session, "broken_schema", with_schema(schema))
    assert not jsonschema_rs.is_valid(schema, orjson.loads(struck.text))


@pytest.mark.parametrize("kind", ["stream_early_end", "stream_error_event", "stream_no_done"])
async def test_a_stream_can_end_without_done(session: aiohttp.ClientSession, kind: str) -> None:
    """The body ends cleanly, but the stream is not complete; the retry is."""
    struck, again, sandbox = await suffer(session, kind, ask(stream=True))
    assert b"[DONE]" not in struck.body
    assert (b"finish_reason" in struck.body) is True
    assert (b'"finish_reason":"stop"' in struck.body) is (kind == "stream_no_done")
    assert (b'data: {"error"' in struck.body) is (kind == "stream_error_event")
    assert chunks(again.body)
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", sorted(FAULTS.keys() - SLOW - {"huge_body", "gzip_bomb"}))
async def test_every_fault_can_be_played(
    session: aiohttp.ClientSession, kind: str, *, streamed: bool
) -> None:
    """Each kind that there is does something, and the sandbox answers the next request."""
    body, seen = ask(stream=streamed), b""
    fault = Fault(kind, times=1)
    async with Sandbox(SandboxOptions(faults=(fault,))) as sandbox:
        caller, key = Caller(session, sandbox.base_url), new_key()
        try:
            struck = await caller.chat(body, key=key)
            seen = struck.body
        except aiohttp.ClientError:
            pass
        again = await caller.chat(body, key=key)
    assert again.status == 200
    assert sandbox.books.total.charges == 1
    struck_at_all = streamed or not kind.startswith("stream_")
    assert sandbox.books.faults == ({kind: 1} if struck_at_all else {})
    if not struck_at_all:
        assert seen == again.body


# --- which request a fault strikes -----------------------------------------------------------------------


def draws(plan: FaultPlan, keys: list[bytes], body: bytes = b"{}") -> list[str | None]:
    """Draw once for each key in turn."""
    return [plan.draw(key, body, stream=False) for key in keys]


KEYS = [b"%d" % n for n in range(1000)]


def test_the_draws_depend_on_the_seed_alone() -> None:
    """The same seed strikes the same keys in any order, at about the probability asked for."""
    fault = Fault("reset", 0.2)
    struck = dict(zip(KEYS, draws(FaultPlan([fault], seed=3), KEYS), strict=True))
    turned = dict(zip(KEYS[::-1], draws(FaultPlan([fault], seed=3), KEYS[::-1]), strict=True))
    other = dict(zip(KEYS, draws(FaultPlan([fault], seed=4), KEYS), strict=True))
    assert struck == turned != other
    assert 150 < sum(kind == "reset" for kind in struck.values()) < 250


def test_times_bounds_a_fault_overall_or_per_key() -> None:
    """Once overall strikes one request; once per key strikes the first request of each."""
    keys = [b"a", b"a", b"b", b"b"]
    assert draws(FaultPlan([Fault("reset", times=1)]), keys) == ["reset", None, None, None]
    assert draws(FaultPlan([Fault("reset", times=1, per_key=True)]), keys) == ["reset", None, "reset", None]


def test_a_fault_can_wait_and_can_be_picky() -> None:
    """`after` lets requests pass first; `match` looks into the body."""
    assert draws(FaultPlan([Fault("reset", after=2)]), KEYS[:4]) == [None, None, "reset", "reset"]
    plan = FaultPlan([Fault("model_unavailable", match='"model":"fast-1"')])
    assert draws(plan, KEYS[:1], b'{"model":"fast-1"}') == ["model_unavailable"]
    assert draws(plan, KEYS[:1], b'{"model":"auto"}') == [None]


def test_the_script_comes_first() -> None:
    """A script is consumed one request at a time; then the faults count."""
    plan = FaultPlan([Fault("stall")], script=["ok", "reset"])
    assert draws(plan, KEYS[:3]) == [None, "reset", "stall"]


@given(
    kind=st.sampled_from(sorted(FAULTS)),
    probability=st.floats(0, 1),
    times=st.none() | st.integers(1, 99),
)
def test_a_fault_is_read_back_as_it_is_written(kind: str, probability: float, times: int | None) -> None:
    """The command line's form says everything: kind, probability, times per key."""
    text = f"{kind}={probability}" + (f":{times}" if times else "")
    assert parse_fault(text) == Fault(kind, probability, times=times, per_key=times is not None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resett=1", "did you mean `reset`"),
        ("", "there is no fault ``"),
        ("reset=often", "kind=probability:times"),
        ("reset=0.1:x", "kind=probability:times"),
        ("reset=1.5", "must be 0 to 1"),
        ("reset=nan", "must be 0 to 1"),
        ("reset=1:0", "1 or more"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    """The message says what is wrong and what to write instead."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse_fault(text)


def test_a_kind_alone_always_strikes() -> None:
    """`--fault reset` is `--fault reset=1`."""
    assert parse_fault("reset") == Fault("reset")


@given(text=st.text())
def test_no_text_breaks_the_reading_of_faults(text: str) -> None:
    """Anything that is typed gives a fault or a message."""
    with contextlib.suppress(ConfigError):
        assert parse_fault(text).kind in FAULTS


def test_options_out_of_range_are_refused() -> None:
    """Each bad number is named."""
    wrong: dict[str, Any] = {"port": 70_000, "latency": -1, "rpm": 0, "models": (), "tpm": float("nan")}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=name):
            dataclasses.replace(SandboxOptions(), **{name: value})
    with pytest.raises(ConfigError, match="no fault"):
        Sandbox(SandboxOptions(), script=["rest"])


# --- running it ------------------------------------------------------------------------------------------


async def test_a_sandbox_comes_back_after_an_outage(session: aiohttp.ClientSession) -> None:
    """Entered again it has the same address, and remembers what was paid for."""
    sandbox, key = Sandbox(SandboxOptions()), new_key()
    async with sandbox:
        url = sandbox.base_url
        first = await Caller(session, url).chat(key=key)
    with pytest.raises(aiohttp.ClientConnectionError):
        await Caller(session, url).chat(key=key)
    async with sandbox:
        assert sandbox.base_url == url
        assert (await Caller(session, url).chat(key=key)).body == first.body
    assert sandbox.books.total.charges == 1


async def test_a_taken_port_is_named(sandbox: Sandbox) -> None:
    """A port in use is a message with a way out, in the loop and in a thread."""
    options = SandboxOptions(port=int(sandbox.base_url.split(":")[2].partition("/")[0]))
    with pytest.raises(ConfigError, match=f"{options.port}.*\nHint: port 0"):
        await Sandbox(options).__aenter__()
    with pytest.raises(ConfigError, match=str(options.port)), ThreadedSandbox(options):
        pass


async def test_a_sandbox_in_a_thread_serves(session: aiohttp.ClientSession) -> None:
    """It answers from a loop of its own, and its books are at hand."""
    with ThreadedSandbox(SandboxOptions(faults=(parse_fault("reset=1:1"),))) as sandbox:
        caller, key = Caller(session, sandbox.base_url), new_key()
        with pytest.raises(aiohttp.ClientOSError):
            await caller.chat(key=key)
        assert (await caller.chat(key=key)).status == 200
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_process_says_where_it_is_and_stops_cleanly(
    session: aiohttp.ClientSession, number: signal.Signals
) -> None:
    """The first line on stdout is the base URL; a signal ends it with exit 0 and without a traceback."""
    code = "from enrich.sandbox import SandboxOptions, serve; serve(SandboxOptions(latency=9))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    caller = Caller(session, (await process.stdout.readline()).decode().strip())
    waiting = asyncio.create_task(caller.chat())
    in_flight = 0
    while not in_flight:
        in_flight = (await caller.get("/sandbox/ledger")).json["totals"]["in_flight"]
    process.send_signal(number)
    with pytest.raises(aiohttp.ClientError):
        await waiting
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0


def test_naming_faults_does_not_load_the_server() -> None:
    """`FAULTS` and `SandboxOptions` come without aiohttp, so that a help text stays quick."""
    code = "import sys, enrich.sandbox; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
