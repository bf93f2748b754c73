"""Schemas, re-asks, modes, parameters and messages through the main job, against an endpoint that keeps books.

It is long because what is configured together is tested together.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import enrich
from enrich.base.loops import run_sync
from enrich.errors import ConfigError, TemplateError
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.sandbox import Fault, SandboxOptions, ThreadedSandbox
from enrich.verbs.preview import preview_job
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope
from tests.schema.test_schema import SENTIMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from enrich.records import Summary

Job = "Callable[..., Path]"
TEXTS = [{"t": f"text {number}", "n": number} for number in range(1, 7)]
WIDE = {
    "type": "object",
    "$defs": {
        "Part": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}
    },
    "properties": {
        "label": {"enum": ["pos", "neg"]},
        "kind": {"const": "review"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "count": {"type": "integer", "minimum": 0},
        "sure": {"type": "boolean"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["label", "kind", "score", "count", "sure", "day", "at", "tags", "parts"],
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the endpoint takes."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def rows(path: Path) -> list[dict[str, Any]]:
    """Read the output beside a configuration."""
    return list(pq.read_table(path.parent / "out.parquet").to_pylist())


def first_user(body: dict[str, Any]) -> str:
    """The first question of a conversation."""
    return next(str(m["content"]) for m in body["messages"] if m["role"] == "user")


def turns(body: dict[str, Any]) -> int:
    """How often a conversation was asked so far."""
    return 1 + [message["role"] for message in body["messages"]].count("assistant")


def change(path: Path, **step: Any) -> None:
    """Change the first step of a configuration."""
    document = yaml.safe_load(path.read_text())
    document["steps"][0] |= step
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def run(path: Path, endpoint: BookedEndpoint | ThreadedSandbox, retry: Iterable[str] = ()) -> Summary:
    """Run a configuration against an endpoint."""
    config = enrich.load_config(path, overrides=[f"endpoint.base_url={endpoint.base_url}"])
    return run_sync(lambda: run_job(config, RunOptions(retry=frozenset(retry))))  # type: ignore[arg-type]  # plain words


# --- typed columns --------------------------------------------------------------------------------------


def test_typed_columns_on_the_sandbox(job: Callable[..., Path]) -> None:
    """A schema's properties become typed columns beside the raw text, which holds the very values."""
    path = job(TEXTS, step={"schema": WIDE}, endpoint={"base_url": "sandbox"})
    summary = enrich.run(path)
    assert (summary.exit_code, summary.statuses["ok"]) == (0, len(TEXTS))
    schema = pq.read_schema(path.parent / "out.parquet")
    category = pa.dictionary(pa.int32(), pa.string())
    part = pa.struct([("name", pa.string()), ("size", pa.int64())])
    assert {name: schema.field(f"s_{name}").type for name in WIDE["properties"]} == {
        "label": category,
        "kind": category,
        "score": pa.float64(),
        "count": pa.int64(),
        "sure": pa.bool_(),
        "day": pa.date32(),
        "at": pa.timestamp("us", tz="UTC"),
        "tags": pa.list_(pa.string()),
        "parts": pa.list_(part),
        "note": pa.string(),
    }
    for row in rows(path):
        told = json.loads(row["s"])
        for name in ("label", "kind", "score", "count", "sure", "tags"):
            assert row[f"s_{name}"] == told[name]
        assert row["s_day"] == dt.date.fromisoformat(told["day"])
        assert row["s_at"] == dt.datetime.fromisoformat(told["at"])
        for kept, given in zip(row["s_parts"], told["parts"], strict=True):
            assert {k: v for k, v in kept.items() if v is not None} == given


def test_where_schemas_come_from(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inline, from a file beside the configuration, or as a pydantic model's import path: the same requests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers_of_mine.py").write_text(
        textwrap.dedent("""
        from typing import Literal
        from pydantic import BaseModel

        class Mood(BaseModel):
            label: Literal["pos", "neg"]
            sure: bool
        """)
    )
    model = "answers_of_mine:Mood"
    enrich.run(job(TEXTS, step={"schema": model}, endpoint={"base_url": "sandbox"}))
    first = rows(tmp_path / "config.yaml")
    assert {row["s_label"] for row in first} <= {"pos", "neg"}
    assert all(type(row["s_sure"]) is bool for row in first)
    document = sys.modules["answers_of_mine"].Mood.model_json_schema()
    (tmp_path / "mood.json").write_text(json.dumps(document))
    (tmp_path / "mood.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    for schema in ("mood.json", "mood.yaml", document):
        summary = enrich.run(job(TEXTS, step={"schema": schema}, endpoint={"base_url": "sandbox"}))
        assert (summary.requests, summary.statuses["ok"]) == (0, len(TEXTS))
        assert [row["s_label"] for row in rows(tmp_path / "config.yaml")] == [row["s_label"] for row in first]
    monkeypatch.delitem(sys.modules, "answers_of_mine")


# --- modes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", ["json_schema", "response_format"])
def test_an_endpoint_that_refuses_the_format(job: Callable[..., Path], refused: str) -> None:
    """A refused `response_format` is asked in a plainer way under a new key, for the whole run; a resume asks nothing."""
    faults = (Fault("unsupported_option", match=f'"{refused}"'),)
    path = job([{"t": str(number)} for number in range(800)], step={"schema": SENTIMENT})
    with ThreadedSandbox(SandboxOptions(faults=faults)) as sandbox:
        summary = run(path, sandbox)
        assert (summary.exit_code, summary.statuses["ok"]) == (0, 800)
        assert [tally.charges for tally in sandbox.books.bodies.values() if tally.charges] == [1] * 800
        refusals = sandbox.books.faults["unsupported_option"]
        assert refusals < 500 * (1 + (refused == "response_format"))
        again = run(path, sandbox)
    assert (again.requests, again.attempts, again.statuses["ok"]) == (0, 0, 800)
    output = rows(path)
    assert len({row["s_idempotency_key"] for row in output}) == 800
    assert sum(row["s_attempts"] for row in output) == summary.attempts == 800 + refusals


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "prompt"])
def test_each_mode_tells_of_the_schema(job: Callable[..., Path], mode: str) -> None:
    """As a response format, or in the system message, joined to the step's own."""
    with BookedEndpoint(answer=lambda _: '{"label": "pos", "score": 1}') as endpoint:
        path = job(TEXTS[:1], step={"schema": SENTIMENT, "schema_mode": mode, "system": "Be brief."})
        assert run(path, endpoint).statuses["ok"] == 1
    (charge,) = endpoint.charges
    body = json.loads(charge.body)
    system = body["messages"][0]["content"]
    assert body.get("response_format", {}).get("type") == (None if mode == "prompt" else mode)
    assert (system == "Be brief.") is (mode == "json_schema")
    assert ('"enum": ["pos", "neg", "neutral"]' in system) is (mode != "json_schema")


# --- asking again ---------------------------------------------------------------------------------------


def test_reask_is_counted_with_its_row(job: Callable[..., Path]) -> None:
    """Each row's usage is that of all its completions; the sums are the books', in the output and in the summary."""

    def answer(body: dict[str, Any]) -> str:
        number = int(first_user(body).split()[-1])
        good = turns(body) > number % 3
        return '{"label": "pos", "score": 0.5}' if good else f'{{"label": "no such", "score": {number}}}'

    path = job([*TEXTS, TEXTS[1]], step={"schema": SENTIMENT, "reask": 1})
    with BookedEndpoint(answer=answer) as endpoint:
        summary = run(path, endpoint)
        assert run(path, endpoint).requests == 0
        output = rows(path)
        by_key = {charge.key: charge for charge in endpoint.charges}
    assert [row["s_status"] for row in output] == ["ok", "invalid_output", "ok"] * 2 + ["invalid_output"]
    assert [row["s_attempts"] for row in output] == [2, 2, 1] * 2 + [0]
    assert summary.exit_code == 3
    assert len(endpoint.charges) == len({charge.body for charge in endpoint.charges}) == 10
    for column, total in (
        ("s_prompt_tokens", sum(charge.prompt_tokens for charge in endpoint.charges)),
        ("s_completion_tokens", sum(charge.completion_tokens for charge in endpoint.charges)),
    ):
        assert sum(row[column] for row in output) == total
    assert sum(row["s_credits"] for row in output) == pytest.approx(endpoint.credits)
    assert summary.credits == pytest.approx(endpoint.credits)
    assert summary.prompt_tokens == sum(row["s_prompt_tokens"] for row in output)
    wrong = output[1]
    assert (wrong["s_label"], wrong["s_score"], wrong["s_source"]) == (None, None, "ledger")
    assert json.loads(wrong["s"]) == {"label": "no such", "score": 2}
    assert wrong["s_error"].startswith(
        'invalid_output: /label: "no such" is not one of "pos", "neg" or "neutral"'
    )
    last = json.loads(by_key[wrong["s_idempotency_key"]].body)["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user"]
    assert last[1]["content"] == wrong["s"]
    assert "- /score: 2 is greater than the maximum of 1" in last[2]["content"]


def _finishing(reason: str, content: str | None = "half an answ", **message: Any) -> Raw:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "credits": 0.5}
    return Raw(json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode())


@pytest.mark.parametrize(
    ("raw", "status", "error"),
    [
        (_finishing("length"), "truncated", "length: "),
        (_finishing("content_filter"), "filtered", "content_filter: "),
        (_finishing("stop", None, refusal="I won't."), "filtered", "refusal: I won't."),
        (_finishing("stop", None), "invalid_output", "no_content: "),
        (_finishing("stop", '{"label": "pos", "score": NaN}'), "invalid_output", "invalid_output: "),
        (
            _finishing("stop", '{"label": "pos", "score": 3328859648821064}'),
            "invalid_output",
            "invalid_output: ",
        ),
    ],
)
def test_answers_that_are_none(job: Callable[..., Path], raw: Raw, status: str, error: str) -> None:
    """What is cut, filtered, refused or empty is told by its status, is counted, and is not asked again."""
    path = job(TEXTS[:2], step={"schema": SENTIMENT, "reask": 0})
    with BookedEndpoint(script=lambda seen: raw if seen.method == "POST" else None) as endpoint:
        summary = run(path, endpoint)
        assert len(endpoint.posts) == 2
    assert (summary.exit_code, summary.statuses[status]) == (3, 2)  # type: ignore[index]  # a status, as listed above
    for row in rows(path):
        assert row["s_status"] == status
        assert row["s_error"].startswith(error)
        assert (row["s_label"], row["s_score"], row["s_credits"]) == (None, None, 0.5)


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_an_answer_without_a_text_is_not_asked_again_by_itself(
    job: Callable[..., Path], content: str | None
) -> None:
    """Null and empty alike: there is nothing to correct, and each further request would be paid for."""
    path = job(TEXTS[:2], step={"schema": SENTIMENT, "reask": 2})
    raw = _finishing("stop", content)
    with BookedEndpoint(script=lambda seen: raw if seen.method == "POST" else None) as endpoint:
        assert run(path, endpoint).statuses["invalid_output"] == 2
        assert len(endpoint.posts) == 2


def test_twice_the_tokens(job: Callable[..., Path]) -> None:
    """`on_truncated: retry` asks once more with twice the tokens, which the row's usage counts."""
    path = job(TEXTS[:3], step={"on_truncated": "retry", "max_tokens": "{{ n * 10 }}"})
    with ThreadedSandbox(SandboxOptions(faults=(Fault("truncated", times=1, per_key=True),))) as sandbox:
        assert run(path, sandbox).statuses["truncated"] == 3
        assert run(path, sandbox).requests == 0
        assert sandbox.books.total.charges == 6
    assert [row["s_attempts"] for row in rows(path)] == [2, 2, 2]


def test_another_round_when_asked_for(job: Callable[..., Path]) -> None:
    """`retry` asks invalid rows once more, each body once; the next plain run keeps what came of it."""
    said: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        said.append(first_user(body))
        good = said.count(first_user(body)) > 2
        return '{"label": "pos", "score": 0.5}' if good else "no"

    path = job([TEXTS[0], TEXTS[1], TEXTS[0]], step={"schema": SENTIMENT, "reask": 1})
    with BookedEndpoint(answer=answer) as endpoint:
        assert run(path, endpoint).statuses["invalid_output"] == 3
        assert len(endpoint.charges) == 4
        assert run(path, endpoint, ["invalid_output"]).statuses["ok"] == 3
        assert len(endpoint.charges) == 6
        assert run(path, endpoint).statuses["ok"] == 3
        assert len(endpoint.charges) == 6
    assert [row["s_attempts"] for row in rows(path)] == [3, 3, 0]


# --- reading again --------------------------------------------------------------------------------------


def test_what_is_stored_is_read_again(job: Callable[..., Path]) -> None:
    """With `reuse`, another schema, rule, mode or repair setting reads stored answers again; only what is left unfit is asked."""

    def answer(body: dict[str, Any]) -> str:
        number = int(first_user(body).split()[-1])
        return f"```json\n{json.dumps({'label': 'pos', 'n': number})}\n```"

    small = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 100}}, "required": ["n"]}
    path = job(TEXTS, step={"schema": small, "reask": 0, "repair": False, "reuse": True})
    with BookedEndpoint(answer=answer) as endpoint:

        def charged(**step: Any) -> int:
            change(path, **step)
            before = len(endpoint.charges)
            run(path, endpoint)
            return len(endpoint.charges) - before

        assert charged() == 6
        assert [row["s_status"] for row in rows(path)] == ["invalid_output"] * 6
        assert charged(repair=True) == 0
        assert [row["s_n"] for row in rows(path)] == [1, 2, 3, 4, 5, 6]
        wider = {"type": "object", "properties": {"n": {"type": "number"}, "label": {"type": "string"}}}
        assert charged(schema=wider) == 0
        assert [(row["s_label"], row["s_n"]) for row in rows(path)] == [
            ("pos", float(n)) for n in range(1, 7)
        ]
        assert {row["s_source"] for row in rows(path)} == {"ledger"}
        assert charged(schema_mode="prompt") == 0
        assert charged(check="n < 6") == 1
        assert [row["s_status"] for row in rows(path)] == ["ok"] * 5 + ["invalid_output"]
        assert charged(reask=1) == 1
        stricter = {
            "type": "object",
            "properties": {"n": {"type": "integer", "maximum": 4}},
            "required": ["n"],
        }
        assert charged(schema=stricter, check=None, reask=0) == 2
        assert [row["s_status"] for row in rows(path)] == ["ok"] * 4 + ["invalid_output"] * 2


# --- parameters and messages ----------------------------------------------------------------------------


def bodies(path: Path) -> list[Any]:
    """The bodies that `preview` shows, parsed."""
    lines = preview_job(enrich.load_config(path), 100)
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_parameters_per_row(job: Callable[..., Path]) -> None:
    """Values of `params` and the token limits may be templates, at any depth, and keep their type; preview is exact."""
    params = {
        "seed": "{{ n }}",
        "stop": ["{{ t }}", "END"],
        "metadata": {"row": "{{ t }}-{{ n }}", "deep": [{"n": "{{ n + 0.5 }}"}]},
        "logprobs": True,
    }
    path = job(
        TEXTS[:2], step={"max_tokens": "{{ n * 2 }}", "params": params}, endpoint={"base_url": "sandbox"}
    )
    shown = bodies(path)
    assert [(body["max_tokens"], body["seed"]) for body in shown] == [(2, 1), (4, 2)]
    assert shown[1]["metadata"] == {"row": "text 2-2", "deep": [{"n": 2.5}]}
    assert shown[1]["stop"] == ["text 2", "END"]
    with BookedEndpoint() as endpoint:
        run(path, endpoint)
    assert sorted(charge.body for charge in endpoint.charges) == sorted(
        json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() for body in shown
    )


def test_a_row_whose_parameter_is_none(job: Callable[..., Path]) -> None:
    """A limit that is no whole number on some row is that row's error; nothing is asked for it."""
    path = job([{"t": "a", "n": 3}, {"t": "b", "n": 0}], step={"max_tokens": "{{ n }}"})
    with BookedEndpoint() as endpoint:
        assert run(path, endpoint).statuses["error"] == 1
        assert len(endpoint.charges) == 1
    assert rows(path)[1]["s_error"] == "template_error: steps.s.max_tokens: 0 is no whole number from 1"


def test_messages_examples_and_files(job: Callable[..., Path], tmp_path: Path) -> None:
    """Few-shot turns from a file stand between system and prompt as they are; prompts may hold macros."""
    (tmp_path / "p.txt").write_text("{% macro q(x) %}«{{ x }}»{% endmacro %}Judge {{ q(t) }}")
    (tmp_path / "shots.jsonl").write_text(
        '{"user": "{{ not a template }}", "assistant": {"label": "pos", "score": 1}}\n'
        '{"user": "${HOME}", "assistant": "neg"}\n'
    )
    shots = yaml.safe_load("[" + ",".join((tmp_path / "shots.jsonl").read_text().splitlines()) + "]")
    (tmp_path / "shots.yaml").write_text(yaml.safe_dump(shots))
    wanted = [
        ("system", "Be brief."),
        ("user", "{{ not a template }}"),
        ("assistant", '{"label": "pos", "score": 1}'),
        ("user", "${HOME}"),
        ("assistant", "neg"),
        ("user", "Judge «text 1»"),
    ]
    for examples in ({"examples_file": "shots.jsonl"}, {"examples_file": "shots.yaml"}, {"examples": shots}):
        step = {"name": "s", "prompt_file": "p.txt", "system": "Be brief.", "schema": SENTIMENT, **examples}
        path = job(TEXTS[:1], steps=[step], endpoint={"base_url": "sandbox"})
        (body,) = bodies(path)
        assert [(message["role"], message["content"]) for message in body["messages"]] == wanted
    roles = [
        {"role": role, "content": f"{role} on {{{{ t }}}}"}
        for role in ("system", "user", "assistant", "user")
    ]
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(roles))
    for messages in ({"messages": roles}, {"messages_file": "chat.yaml"}):
        (body,) = bodies(job(TEXTS[:1], steps=[{"name": "s", **messages}], endpoint={"base_url": "sandbox"}))
        assert [message["content"] for message in body["messages"]] == [
            f"{m['role']} on text 1" for m in roles
        ]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"examples": [{"user": "x", "assistant": {"label": "meh", "score": 1}}], "schema": SENTIMENT},
            "example",
        ),
        ({"examples": [{"user": "x"}]}, "assistant"),
        ({"examples_file": "none.yaml"}, "none.yaml"),
        ({"messages_file": "m.yaml", "prompt": None, "system": "x"}, "`system` stands beside `prompt`"),
        ({"messages_file": "m.yaml", "prompt": None, "examples_file": "e.yaml"}, "examples stand beside"),
        ({"on_truncated": "retry"}, "doubles `max_tokens`"),
        ({"max_tokens": "many"}, "neither a whole number nor a template"),
        ({"params": {"logit_bias": {"a": float("nan")}}}, "not JSON"),
        ({"schema": SENTIMENT, "check": "{{ scor < 1 }}"}, "did you mean `score`"),
        ({"params": {"stop": ["{{ tt }}"]}}, "no column `tt`"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    job: Callable[..., Path], step: dict[str, Any], message: str
) -> None:
    """An example that breaks the schema, a rule on no property, a limit that is none: refused, nothing is sent."""
    path = job(TEXTS, step=step)
    document = yaml.safe_load(path.read_text())
    document["steps"][0] = {k: v for k, v in document["steps"][0].items() if v is not None}
    path.write_text(yaml.safe_dump(document))
    with BookedEndpoint() as endpoint:
        with pytest.raises((ConfigError, TemplateError)) as caught:
            run(path, endpoint)
        assert message in str(caught.value)
        assert not endpoint.posts


# --- hostile answers ------------------------------------------------------------------------------------


def test_random_answers_never_break_a_run(job: Callable[..., Path]) -> None:
    """Huge numbers, endless nesting, halves of characters, constants: each row gets a status, the run an end."""
    hostile = [
        '{"n": 3328859648821064}',
        '{"n": 33288596488210643328859648821064}',
        '{"n": 1e400}',
        '{"free": ' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"free": ' * 10_000,
        '{"free": "\\ud83d", "n": 1}',
        '{"n": Infinity}',
        "{" * 30_000 + "}" * 30_000,
    ]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "free": {}}, "required": ["n"]}
    path = job([{"t": str(number)} for number in range(len(hostile))], step={"schema": schema, "reask": 1})
    with BookedEndpoint(answer=lambda body: hostile[int(first_user(body))]) as endpoint:
        summary = run(path, endpoint)
    assert summary.exit_code == 3
    assert summary.statuses["ok"] + summary.statuses["invalid_output"] == len(hostile)
    output = rows(path)
    assert output[0]["s_n"] == 3328859648821064
    assert [row["s"] for row in output[:4]] == hostile[:4]


def test_a_stream_is_read_alike(job: Callable[..., Path]) -> None:
    """Streamed answers become the same columns."""
    with ThreadedSandbox(SandboxOptions()) as sandbox:
        path = job(TEXTS, step={"schema": SENTIMENT, "stream": True})
        assert run(path, sandbox).statuses["ok"] == len(TEXTS)
    assert all(0 <= row["s_score"] <= 1 for row in rows(path))


def test_refused_format_by_a_gateway_with_details(job: Callable[..., Path]) -> None:
    """`details.unsupported_fields` alone names the field; other fields fail the row."""

    def script(seen: Seen) -> Raw | None:
        if seen.method == "POST" and "response_format" in seen.body:
            error = json.loads(envelope("unsupported_option", 422).body)
            error["error"]["details"] = {"unsupported_fields": ["response_format"]}
            return Raw(json.dumps(error).encode(), 422)
        return None

    path = job(TEXTS, step={"schema": SENTIMENT})
    with BookedEndpoint(answer=lambda _: '{"label": "pos", "score": 1}', script=script) as endpoint:
        assert run(path, endpoint).statuses["ok"] == len(TEXTS)
        assert len(endpoint.charges) == len(TEXTS)
