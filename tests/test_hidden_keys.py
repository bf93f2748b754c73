"""Wherever the API key is put by mistake, and however an endpoint throws it back: nothing that is shown or kept holds it.

Looked for is the secret part of the key: as it stands, escaped for JSON, URLs or HTML, in base64 or hexadecimal, in
whatever case. What is no spelling of it by those rules (backwards, encrypted) is an answer like any other, and so is a
row of the input that holds the key.

It is long because it is two tables: the places where a key may stand, and the ways it may be thrown back.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.endpoint import Seen
    from tests.helpers.warm import Ended

SECRET = KEY[12:]  # what comes before is public
URL = "https://api.example/v1"


def spellings(text: str) -> Iterator[str]:
    """Give a text as it stands, and with its escapes undone."""
    yield text
    yield re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    yield unquote(text)
    yield unquote(unquote(text))
    yield html.unescape(text)


def leaks(text: str) -> bool:
    """Say whether a text gives the secret part of the key away."""
    encoded = {
        encode(b"\0" * before + KEY.encode())[2:-4].decode()[before + 2 :]
        for before in range(3)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    }
    folded = (SECRET.lower(), KEY.encode().hex())
    return (
        any(SECRET in spelt for spelt in spellings(text))
        or any(part in text for part in encoded)
        or any(part in text.lower() for part in folded)
    )


def kept(folder: Path) -> Iterator[tuple[str, str]]:
    """Give what the files of a folder say, but for those that hold the key on purpose."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name in {"config.yaml", "key"}:
            continue
        if path.suffix == ".parquet" and path.name != "in.parquet":
            yield f"{path.name}, read", str(pq.read_table(path).to_pylist())
            yield f"{path.name}, its metadata", str(pq.read_schema(path).metadata)
        yield path.name, path.read_bytes().decode("utf-8", "replace")


def assert_hidden(folder: Path, *ended: Ended) -> None:
    """Hold what commands said, and what they left, against the key."""
    for one in ended:
        assert not leaks(one.out), one.out
        assert not leaks(one.err), one.err
        assert one.code != 1, one
    for place, text in kept(folder):
        assert not leaks(text), place


def test_the_search_finds_every_spelling() -> None:
    """As it stands, escaped, encoded within a longer text, and not where only the public part stands."""
    assert leaks(f"a {KEY} b")
    assert leaks("".join(f"\\u{ord(c):04x}" for c in KEY))
    assert leaks(quote(KEY, safe="").replace("-", "%2d"))
    assert leaks("".join(f"&#{ord(c)};" for c in KEY))
    assert all(leaks(base64.b64encode(f"{'x' * n}:{KEY}:y".encode()).decode()) for n in range(3))
    assert not leaks(KEY[:12])


# --- thrown back by the endpoint -------------------------------------------------------------------------------

UNICODE = "".join(f"\\u{ord(c):04x}" for c in KEY)
HALF = KEY[:20] + "".join(f"\\u{ord(c):04X}" for c in KEY[20:])
PERCENT = "".join(f"%{ord(c):02X}" for c in KEY)
ENTITIES = "".join(f"&#{ord(c)};" for c in KEY)
HEX_ENTITIES = "".join(f"&#x{ord(c):x};" for c in KEY)
BASIC = base64.b64encode(f"user:{KEY}".encode()).decode()


def answer(content: object = "fine", *, headers: dict[str, str] | None = None, **more: Any) -> Raw:
    """Make an answer; `more` replaces parts of its first choice (`choice`), its message (`message`), or the whole."""
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more.pop("choice", {})}
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "credits": 0.5,
        **more.pop("usage", {}),
    }
    whole = {"id": "c-1", "model": "served-1", "choices": [choice], "usage": usage, **more}
    return Raw(json.dumps(whole).encode(), headers={"Content-Type": "application/json", **(headers or {})})


def spelt(text: str) -> Raw:
    """Make an answer whose text is written so in its JSON."""
    return Raw(answer("PLACE").body.replace(b"PLACE", text.encode()))


def stream(*events: str | dict[str, Any]) -> Raw:
    """Make a stream: texts are pieces of the answer, mappings events as they are."""
    told = [
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": event}}]}
        if isinstance(event, str)
        else event
        for event in events
    ]
    told.append({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in told) + "data: [DONE]\n\n"
    return Raw(body.encode(), headers={"Content-Type": "text/event-stream"})


def page(text: str, status: int = 502) -> Raw:
    """Make a gateway's page."""
    return Raw(
        f"<html><body><h1>Bad</h1>{text}</body></html>".encode(), status, {"Content-Type": "text/html"}
    )


def error(status: int = 400, **more: Any) -> Raw:
    """Make an error envelope with these fields."""
    told = {"code": "invalid_request", "message": "no", "retryable": False, "request_id": "e-1", **more}
    return Raw(json.dumps({"error": told}).encode(), status)


CALL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{KEY}"}}'}}
THROWN: dict[str, Raw] = {
    "the answer": answer(f"your key is {KEY}."),
    "the answer, escaped": spelt(UNICODE),
    "the answer, half escaped": spelt(HALF),
    "the answer, escaped twice": answer(f'{{"key": "{UNICODE}"}}'),
    "the answer, percent-encoded": answer(PERCENT),
    "the answer, in entities": answer(ENTITIES),
    "the answer, in base64": answer(f"Authorization: Basic {BASIC}"),
    "the answer, in base64 for URLs": answer(base64.urlsafe_b64encode(f"??>{KEY}".encode()).decode()),
    "the answer, in hexadecimal": answer(f"0x{KEY.encode().hex()}"),
    "the answer, in capitals": answer(KEY.upper()),
    "the answer, its case turned round": answer(KEY.swapcase()),
    "the answer, percent-encoded twice": answer(PERCENT.replace("%", "%25")),
    "an error, in hexadecimal": error(message=KEY.encode().hex().upper()),
    "a header, in small letters": answer(headers={"X-Request-Id": KEY.lower()}),
    "a link in the answer": answer(f"https://user:{KEY}@api.example/?token={KEY}"),
    "an answer of parts": answer([{"type": "text", "text": KEY}]),
    "the request id": answer(headers={"X-Request-Id": KEY}),
    "another header": answer(headers={"X-Debug": KEY, "Server": KEY}),
    "usage, a new field": answer(usage={"details": {"key": KEY}}),
    "usage, a count": answer(usage={"total_tokens": KEY}),
    "usage, the credits": answer(usage={"credits": KEY}),
    "the model": answer(model=KEY),
    "the id": answer(id=KEY),
    "the fingerprint": answer(system_fingerprint=KEY),
    "the finish reason": answer(choice={"finish_reason": KEY}),
    "a tool call": answer(None, message={"tool_calls": [CALL]}, choice={"finish_reason": "tool_calls"}),
    "a refusal": answer(None, message={"refusal": f"not with {KEY}"}),
    "the reasoning": answer(message={"reasoning_content": KEY}),
    "the draft": answer(f"<think>{KEY}</think> fine"),
    "the log probabilities": answer(choice={"logprobs": {"content": [{"token": KEY}]}}),
    "an error's message": error(message=f"Incorrect API key provided: {KEY}"),
    "an error's header": error(message=f"got header 'Authorization: Bearer {KEY}'"),
    "an error's code": error(code=KEY),
    "an error's request id": error(request_id=KEY),
    "an error's param": error(param=f"/{KEY}"),
    "an error's details": error(422, details={"errors": [{"field": KEY, "message": KEY}]}),
    "unsupported fields": error(422, code="unsupported_option", details={"unsupported_fields": [KEY]}),
    "an error as text": Raw(f"key {KEY} is not known".encode(), 400, {"Content-Type": "text/plain"}),
    "an error as a list": Raw(json.dumps([{"error": KEY}]).encode(), 400),
    "an error, escaped": Raw(error(message="PLACE").body.replace(b"PLACE", UNICODE.encode()), 400),
    "a refused key": envelope("invalid_api_key", 401, message=f"no such key: {KEY}"),
    "an empty account": envelope("insufficient_balance", 402, message=f"{KEY} has no credits"),
    "a busy endpoint": envelope("overloaded", 503, retryable=True, message=f"{KEY} has to wait"),
    "a limit": Raw(
        error(429, code="rate_limited", retryable=True, message=KEY).body, 429, {"Retry-After": "0"}
    ),
    "Retry-After": Raw(b"{}", 429, {"Retry-After": KEY}),
    "a page": page(f"<pre>{KEY}</pre>"),
    "a page, in entities": page(f"<p>{ENTITIES}</p><p>{HEX_ENTITIES}</p>"),
    "a page's link": page(f'<a href="?key={PERCENT}">again</a>', 403),
    "a redirection": Raw(b"", 302, {"Location": f"https://api.example/?key={KEY}"}),
    "a challenge": Raw(b"", 401, {"WWW-Authenticate": f'Bearer realm="{KEY}"'}),
    "an answer that is cut": Raw(answer(KEY).body, cut=len(answer(KEY).body) - 20),
    "no JSON": Raw(f"{{key {KEY}".encode()),
    "a stream, in one piece": stream(KEY),
    "a stream, in two pieces": stream("key ", KEY[:18], KEY[18:], " end"),
    "a stream, a character each": stream(*KEY),
    "a stream's model": stream(
        {"id": KEY, "model": KEY, "choices": [{"index": 0, "delta": {"content": "x"}}]}
    ),
    "a stream's error": stream(
        {"error": {"code": "x", "message": KEY, "retryable": False, "request_id": KEY}}
    ),
    "a stream's reasoning": stream({"choices": [{"index": 0, "delta": {"reasoning_content": KEY}}]}, "x"),
    "a stream's usage": stream("x", {"choices": [], "usage": {"credits": KEY, "note": KEY}}),
    "a stream's comment": Raw(
        f": {KEY}\nid: {KEY}\nevent: {KEY}\n".encode() + stream("x").body,
        headers={"Content-Type": "text/event-stream"},
    ),
}


STOPPING = (
    "a refused key",
    "an empty account",
    "a challenge",
    "a page's link",
    "unsupported fields",
)
STREAMS = tuple(place for place in THROWN if place.startswith("a stream"))
OTHERS = tuple(place for place in THROWN if place not in {*STREAMS, *STOPPING})


@pytest.mark.parametrize(
    "places", [OTHERS, STREAMS, *((place,) for place in STOPPING)], ids=lambda places: places[0]
)
def test_a_key_that_is_thrown_back(
    places: tuple[str, ...],
    job: Callable[..., Path],
    cli: Callable[..., Ended],
    endpoint: BookedEndpoint,
    tmp_path: Path,
) -> None:
    """Output, ledger, report, export, progress, logs and messages say `[key]` at most."""
    unused = set(places)

    def throws(seen: Seen) -> Raw | None:
        if seen.method != "POST":
            return None
        place = seen.body["messages"][-1]["content"]
        unused.discard(place)
        return THROWN.get(place)

    endpoint.script = throws
    config = job(
        [{"t": text} for place in places for text in (place, f"a good one before {place}")],
        step={"stream": places == STREAMS},
        report="report.html",
        retry={"attempts": 2, "max_wait": 0.01},
        tolerate="100%",
    )
    ended: list[Ended] = []
    while len(ended) < 3 and (unused or not ended):  # a place may stop a run before all are asked
        ended.append(cli("run", config, "-vv", "--json", "--log-format", "json", endpoint=endpoint))
    shown = cli("show", config, "--failed", endpoint=endpoint)
    exported = cli("ledger", "export", config, "-o", "export.jsonl", endpoint=endpoint)
    listed = cli("ledger", "ls", config, endpoint=endpoint)
    assert not unused
    written = cli("collect", config, endpoint=endpoint)  # also where a place has stopped the run
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 2 * len(places)
    assert_hidden(tmp_path, *ended, shown, exported, listed, written)


def test_a_schema_s_answer(
    job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Typed columns come from what is kept."""
    endpoint.answer = lambda _: json.dumps({"label": f"a {KEY}"})
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    ended = cli("run", job(step={"schema": schema}), "-v", endpoint=endpoint)
    assert ended.code == 0
    assert pq.read_table(tmp_path / "out.parquet")["s_label"].to_pylist() == ["a [key]"] * 3
    assert_hidden(tmp_path, ended)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_what_else_is_asked_of_an_endpoint(
    status: int,
    job: Callable[..., Path],
    cli: Callable[..., Ended],
    endpoint: BookedEndpoint,
    tmp_path: Path,
) -> None:
    """Health, the list of models, and what a probe gets."""
    body = {
        "object": "list",
        "status": KEY,
        "data": [{"id": KEY, "owned_by": KEY}],
        "error": {"message": KEY},
    }

    def says(seen: Seen) -> Raw:
        headers = {"X-Request-Id": KEY, "Server": KEY, "Via": KEY, "Content-Type": "application/json"}
        told = {**json.loads(answer(KEY, model=KEY).body), **body} if seen.method == "POST" else body
        return Raw(json.dumps(told).encode(), status, headers)

    endpoint.script = says
    config = job([{"t": "one"}])
    commands = [("check", config), ("check", config, "--probe"), ("models", config)]
    assert_hidden(tmp_path, *(cli(*command, endpoint=endpoint) for command in commands))


# --- put in the wrong place ------------------------------------------------------------------------------------


def within(**endpoint: Any) -> dict[str, Any]:
    """Give the section `endpoint` of a configuration."""
    return {"endpoint": {"base_url": URL, **endpoint}}


MISPLACED: dict[str, dict[str, Any]] = {
    "api_key_env": within(api_key_env=KEY),
    "api_key_env, spelled out": within(api_key_env=f"BEATRA_API_KEY={KEY}"),
    "api_key_file": within(api_key_file=KEY),
    "api_key_file, a path": within(api_key_file=f"/no/{KEY}/file"),
    "a header": within(headers={"X-Key": KEY}),
    "a header's name": within(headers={KEY: "x"}),
    "a header's name, with a colon": within(headers={f"Authorization: Bearer {KEY}": "x"}),
    "a header that none may be": within(headers={"X-Key": f"{KEY}\n"}),
    "a header of ours": within(
        headers={"Authorization": f"Bearer {KEY}", "Host": KEY, "Content-Length": KEY}
    ),
    "a header that is a list": within(headers={"X-Key": [KEY]}),
    "headers that are a text": within(headers=f"Authorization: {KEY}"),
    "a URL's user": within(base_url=f"https://{KEY}@api.example/v1"),
    "a URL's password": within(base_url=f"https://user:{KEY}@api.example/v1"),
    "a URL's query": within(base_url=f"https://api.example/v1?token={KEY}"),
    "a URL's fragment": within(base_url=f"https://api.example/v1#{KEY}"),
    "a URL that is the key": within(base_url=KEY),
    "a URL with a bad port": within(base_url=f"https://api.example:{KEY}/v1"),
    "a proxy's password": within(proxy=f"http://user:{KEY}@127.0.0.1:9"),
    "a proxy that is the key": within(proxy=KEY),
    "ca_file": within(ca_file=KEY),
    "timeout": within(timeout=KEY),
    "idempotent": within(idempotent=KEY),
    "finish_reason": within(finish_reason=KEY),
    "stream_end": within(stream_end=KEY),
    "an unknown key's value": within(api_key=KEY),
    "an unknown key's name": within(**{KEY: 1}),
    "the section itself": {"endpoint": KEY},
    "the section as a list": {"endpoint": [{"base_url": URL, "token": KEY}]},
    "a key of the job": {"api_key": KEY},
    "a ledger's password": {"ledger": f"postgresql://user:{KEY}@127.0.0.1:1/db"},
    "a ledger's query": {"ledger": f"postgresql://127.0.0.1:1/db?password={KEY}"},
    "a prompt": {"step": {"prompt": f"{KEY} {{{{ t }}}}"}},
    "a system message": {"step": {"system": f"Authorization: Bearer {KEY}"}},
    "a parameter": {"step": {"params": {"user": KEY}}},
}


SHORT = ("--set", "retry.attempts=1", "--set", "retry.deadline=0.5")  # where nobody listens


@pytest.mark.parametrize("place", MISPLACED)
def test_a_key_in_the_wrong_place(
    place: str, job: Callable[..., Path], cli: Callable[..., Ended], tmp_path: Path
) -> None:
    """What is wrong with it is told without it, by every command, and nothing is sent."""
    config = job([{"t": "one"}], report="report.html", **{**within(), **MISPLACED[place]})
    env = {"BEATRA_API_KEY": KEY, "HTTPS_PROXY": "http://127.0.0.1:9"}
    said = [
        cli(*command, config, *flags, **env)
        for command, flags in ((("check",), ()), (("run",), ("-vv", "--json", *SHORT)))
    ]
    assert_hidden(tmp_path, *said)


def test_a_prompt_with_the_key_is_not_sent(
    job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """It is refused, in a prompt's file too, before the ledger could keep it."""
    (tmp_path / "config.prompt").write_text(f"{KEY} {{{{ t }}}}")
    config = job([{"t": "one"}])
    told = yaml.safe_load(config.read_text())
    told["steps"][0] = {"name": "s", "prompt_file": "config.prompt"}
    config.write_text(yaml.safe_dump(told))
    ended = cli("run", config, endpoint=endpoint)
    (tmp_path / "config.prompt").unlink()
    assert (ended.code, len(endpoint.posts)) == (2, 0)
    assert "steps.s holds the API key" in ended.err
    assert_hidden(tmp_path, ended)


SET = {
    "a header": f"endpoint.headers.X-Key={KEY}",
    "a header's name": f"endpoint.headers.{KEY}=x",
    "all headers": f"endpoint.headers={{X: {KEY}}}",
    "api_key_env": f"endpoint.api_key_env={KEY}",
    "api_key_file": f"endpoint.api_key_file={KEY}",
    "an unknown key": f"endpoint.api_key={KEY}",
    "an unknown key's name": f"endpoint.{KEY}=1",
    "the section": f"endpoint={KEY}",
    "a URL": f"endpoint.base_url=https://user:{KEY}@api.example/v1?key={KEY}",
    "a colon for the sign": f"endpoint.headers.Authorization: Bearer {KEY}",
    "no sign": f"endpoint.api_key {KEY}",
    "broken YAML": f"endpoint.headers={{X: '{KEY}",
    "a ledger": f"ledger=postgresql://user:{KEY}@127.0.0.1:1/db",
    "the job's": f"api_key={KEY}",
}


@pytest.mark.parametrize("place", SET)
def test_a_key_given_with_set(
    place: str, job: Callable[..., Path], cli: Callable[..., Ended], tmp_path: Path
) -> None:
    """Neither the message nor the command that goes on from there holds it."""
    config = job([{"t": "one"}], report="report.html", **within(proxy="http://127.0.0.1:9"))
    flags = ("--set", SET[place], "--set", "retry.attempts=1", "--set", "retry.deadline=1")
    assert_hidden(tmp_path, cli("run", config, "-vv", *flags, BEATRA_API_KEY=KEY))


ENVIRONMENT = {
    "the URL's password": {"BEATRA_BASE_URL": f"https://user:{KEY}@api.example/v1"},
    "the URL's query": {"BEATRA_BASE_URL": f"https://api.example/v1?key={KEY}"},
    "the URL": {"BEATRA_BASE_URL": KEY},
    "a key with a blank": {"BEATRA_API_KEY": f"{KEY} {KEY}"},
    "a key in quotes": {"BEATRA_API_KEY": f'"{KEY}"'},
    "a key that is no ASCII": {"BEATRA_API_KEY": f"{KEY}é"},
    "a key of two lines": {"BEATRA_API_KEY": f"{KEY}\n{KEY}"},
    "a proxy": {"HTTPS_PROXY": f"http://user:{KEY}@127.0.0.1:9", "BEATRA_BASE_URL": URL},
    "a certificate": {"SSL_CERT_FILE": KEY, "BEATRA_BASE_URL": URL},
}


@pytest.mark.parametrize("place", ENVIRONMENT)
def test_a_key_in_the_environment(
    place: str, job: Callable[..., Path], cli: Callable[..., Ended], tmp_path: Path
) -> None:
    """A variable is named, its value is not told."""
    config = job([{"t": "one"}], retry={"attempts": 1, "deadline": 1})
    env = {"BEATRA_API_KEY": KEY, **ENVIRONMENT[place]}
    assert_hidden(tmp_path, *(cli(verb, config, **env) for verb in ("check", "run")))


@pytest.mark.parametrize(
    "text",
    [
        f"input: in.parquet\nendpoint: {{headers: {{Authorization: 'Bearer {KEY}}}}}\noutput: o.parquet\n",
        f"input: in.parquet\nendpoint:\n  api_key: {KEY}: x\n",
        f"endpoint:\n\tapi_key: {KEY}\n",
        f"{KEY}\n",
        f"- {KEY}\n",
        f"endpoint: {{a: 1, a: {KEY}}}\n",
        f"endpoint: &{KEY} {{}}\nsteps: *{KEY}x\n",
        f"endpoint: !{KEY} x\n",
        f"endpoint: {{{KEY}: 1, {KEY}: 2}}\n",
    ],
)
def test_a_file_that_is_no_configuration(text: str, cli: Callable[..., Ended], tmp_path: Path) -> None:
    """What is wrong with its YAML is told by line and column."""
    (tmp_path / "config.yaml").write_text(text)
    ended = cli("run", "config.yaml", BEATRA_API_KEY=KEY)
    assert ended.code == 2
    assert_hidden(tmp_path, ended)


def test_a_key_file_that_is_no_key(
    job: Callable[..., Path], cli: Callable[..., Ended], tmp_path: Path
) -> None:
    """What a key's file holds is never quoted."""
    (tmp_path / "key").write_text(f"api_key: {KEY}\nother: {KEY}\n")
    (tmp_path / "key").chmod(0o600)
    ended = cli("run", job(**within(api_key_file="key")))
    assert ended.code == 2
    assert_hidden(tmp_path, ended)


@pytest.mark.parametrize(
    "command", [("run",), ("ledger", "ls"), ("ledger", "export"), ("show",)], ids=" ".join
)
def test_a_key_as_an_argument(command: tuple[str, ...], cli: Callable[..., Ended], tmp_path: Path) -> None:
    """A configuration's name is told back; it ends the command in words, and leaves nothing behind."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"input": "none.csv"}))
    ended = cli(*command, "config.yaml", "--api-key", KEY)
    assert ended.code == 2
    assert_hidden(tmp_path, ended)
