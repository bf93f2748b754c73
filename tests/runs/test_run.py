"""The main job in process, against an endpoint that keeps books.

It is long because a job has many endings, each with its exit code, its columns and its bill.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import random
import statistics
import textwrap
import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrich
from enrich.errors import OutputLocked
from enrich.files.output_lock import hold_output
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, echo, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USAGE = ("s_prompt_tokens", "s_completion_tokens", "s_total_tokens", "s_credits")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every run in this module goes to the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def texts(count: int) -> Iterator[str]:
    """Give real prose with quotes, line ends, tabs, other scripts and repetitions; the same each time."""
    chance = random.Random(7)
    modules = (asyncio, statistics, json, random, textwrap, uuid, itertools, inspect)
    prose = [
        doc
        for module in modules
        for item in vars(module).values()
        if isinstance(doc := getattr(item, "__doc__", None), str) and doc.strip()
    ]
    spice = [
        '"quoted", he said',
        "l'été à Zürich",
        "東京\r\n都",
        "🙂 👩‍👩‍👧",
        "a\tb",
        "{{ not a template }}",
        "\\n \\u0041",
        "\x00",
    ]
    earlier: list[str] = []
    for number in range(count):
        if earlier and chance.random() < 0.1:
            yield chance.choice(earlier)
            continue
        text = f"{number} {chance.choice(prose)[:600]}\n{chance.choice(spice)}"
        earlier.append(text)
        yield text


def table(path: Path) -> dict[str, list[Any]]:
    """Read an output as columns."""
    return pq.read_table(path).to_pydict()


def write_rows(path: Path, values: list[str]) -> None:
    """Write a text column."""
    pq.write_table(pa.table({"id": range(len(values)), "t": values}), path)


def prove_alignment(columns: dict[str, list[Any]], prompts: list[str], endpoint: BookedEndpoint) -> None:
    """Hold an output to its input and to the books: own answers, own ids, sums that agree."""
    asked = [{"messages": [{"content": prompt}]} for prompt in prompts]
    assert columns["id"] == list(range(len(prompts)))
    assert columns["t"] == prompts
    assert columns["s"] == [echo(body) for body in asked]
    distinct = len(set(prompts))
    assert len(endpoint.charges) == distinct
    assert set(endpoint.charges_per_body.values()) == {1}
    assert columns["s_source"].count("api") == distinct
    assert columns["s_source"].count("copy") == len(prompts) - distinct
    own = [
        i for source, i in zip(columns["s_source"], columns["s_request_id"], strict=True) if source == "api"
    ]
    assert sorted(own) == sorted(charge.request_id for charge in endpoint.charges)
    prompt_tokens, completion_tokens = endpoint.tokens
    assert sum(columns["s_prompt_tokens"]) == prompt_tokens
    assert sum(columns["s_completion_tokens"]) == completion_tokens
    assert sum(columns["s_total_tokens"]) == prompt_tokens + completion_tokens
    assert sum(columns["s_credits"]) == pytest.approx(endpoint.credits, rel=1e-12)


def prove_main_job(count: int, endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path) -> None:
    """Run the main job over so many rows, twice, and hold both to the books."""
    prompts = list(texts(count))
    config = job(limits={"concurrency": 32, "adaptive": False})
    write_rows(tmp_path / "in.parquet", prompts)
    summary = enrich.run(config)
    assert summary.exit_code == 0
    assert summary.statuses["ok"] == summary.rows == count
    assert summary.requests == summary.attempts == len(endpoint.posts) == len(set(prompts))
    first = pq.read_table(tmp_path / "out.parquet")
    prove_alignment(first.to_pydict(), prompts, endpoint)
    assert summary.credits == pytest.approx(endpoint.credits)
    again = enrich.run(config, force=True)
    assert (again.requests, again.attempts, again.credits) == (0, 0, 0)
    assert len(endpoint.posts) == len(set(prompts))
    second = pq.read_table(tmp_path / "out.parquet")
    assert second.drop_columns(["s_source"]).equals(first.drop_columns(["s_source"]))
    assert set(second["s_source"].to_pylist()) == {"ledger", "copy"}


def test_every_row_gets_its_own_answer_and_is_paid_for_once(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """2,000 rows of difficult text: aligned, one charge per distinct prompt, sums equal to the books; then none."""
    prove_main_job(2_000, endpoint, job, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sixty_thousand_rows(endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path) -> None:
    """The same holds for 60,000 rows."""
    prove_main_job(60_000, endpoint, job, tmp_path)


def test_copies_cost_nothing_on_their_row(job: Callable[..., Path], tmp_path: Path) -> None:
    """A row with the same request as an earlier one has its answer, zero usage, zero attempts, the same id."""
    enrich.run(job([{"t": "same"}, {"t": "other"}, {"t": "same"}]))
    columns = table(tmp_path / "out.parquet")
    assert columns["s_source"] == ["api", "api", "copy"]
    assert columns["s"][0] == columns["s"][2]
    assert columns["s_request_id"][0] == columns["s_request_id"][2]
    assert [columns[name][2] for name in USAGE] == [0, 0, 0, 0.0]
    assert columns["s_attempts"] == [1, 1, 0]


def test_without_dedupe_each_row_is_charged_once(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """`dedupe: false` asks equal rows apart, under keys of their own, and a second run still asks nothing."""
    config = job([{"t": "same"}] * 3 + [{"t": "other"}], dedupe=False)
    assert enrich.run(config).requests == 4
    assert sorted(endpoint.charges_per_body.values()) == [1, 3]
    columns = table(tmp_path / "out.parquet")
    assert len(set(columns["s_idempotency_key"])) == len(set(columns["s_request_id"])) == 4
    assert set(columns["s_source"]) == {"api"}
    assert enrich.run(config).requests == 0
    assert table(tmp_path / "out.parquet")["s_request_id"] == columns["s_request_id"]


def test_turning_dedupe_off_keeps_what_is_paid_for(
    endpoint: BookedEndpoint, job: Callable[..., Path]
) -> None:
    """The first of equal rows keeps the answer it had while duplicates were shared."""
    rows = [{"t": "same"}] * 3
    enrich.run(job(rows))
    assert enrich.run(job(rows, dedupe=False)).requests == 2
    assert len(endpoint.charges) == 3


def test_fresh_asks_anew_and_the_next_run_resumes_that(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """`fresh` pays for a second opinion once; a plain run afterwards shows that opinion and asks nothing."""
    config = job()
    enrich.run(config)
    first = table(tmp_path / "out.parquet")
    assert enrich.run(config, fresh=True).requests == 3
    anew = table(tmp_path / "out.parquet")
    assert not set(first["s_idempotency_key"]) & set(anew["s_idempotency_key"])
    assert enrich.run(config).requests == 0
    resumed = table(tmp_path / "out.parquet")
    assert resumed["s_request_id"] == anew["s_request_id"]
    assert set(endpoint.charges_per_body.values()) == {2}


def test_a_fresh_run_that_was_stopped_is_resumed(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """After a `fresh` run that had to stop, a plain run asks only what that one had not asked yet."""
    config = job(limits={"concurrency": 1, "adaptive": False})
    enrich.run(config)
    posts = itertools.count()
    endpoint.script = lambda _: envelope("insufficient_balance", 402) if next(posts) == 1 else None
    assert enrich.run(config, fresh=True).exit_code == 4
    endpoint.script = None
    assert enrich.run(config).requests == 2
    assert set(endpoint.charges_per_body.values()) == {2}


def test_a_limit_is_a_prefix_that_a_whole_run_builds_on(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """`limit` takes the first rows; the run without it pays only for the rest."""
    config = job()
    assert enrich.run(config, limit=2).rows == 2
    assert len(table(tmp_path / "out.parquet")["t"]) == 2
    assert enrich.run(config).requests == 1
    assert len(endpoint.charges) == 3


def test_a_limit_of_zero_writes_an_empty_output(job: Callable[..., Path], tmp_path: Path) -> None:
    """`limit=0` asks nothing and writes the columns without rows."""
    summary = enrich.run(job(), limit=0)
    assert (summary.exit_code, summary.rows, summary.requests) == (0, 0, 0)
    assert pq.read_table(tmp_path / "out.parquet").schema.names[:3] == ["t", "s", "s_status"]


def test_another_output_builds_on_the_same_answers(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """Given another output, a run still knows what is paid for."""
    config = job()
    enrich.run(config)
    summary = enrich.run(config, output=str(tmp_path / "elsewhere" / "other.csv"))
    assert (summary.exit_code, summary.requests) == (0, 0)
    assert (tmp_path / "elsewhere" / "other.csv").exists()


def test_a_refused_key_stops_at_once(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """A refused key stops the run: exit code 4, nothing charged, an older output stays byte for byte."""
    config = job([{"t": f"row {i}"} for i in range(500)])
    (tmp_path / "out.parquet").write_bytes(b"what was there")
    endpoint.script = lambda _: envelope("invalid_api_key", 401)
    summary = enrich.run(config)
    assert summary.exit_code == 4
    assert summary.statuses["pending"] == summary.rows == 500
    assert "API key" in summary.reason
    assert len(endpoint.posts) <= 64
    assert endpoint.charges == []
    assert (tmp_path / "out.parquet").read_bytes() == b"what was there"
    endpoint.script = None
    assert enrich.run(config).statuses["ok"] == 500
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_spent_balance_keeps_what_is_paid_for(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """402 in the middle: exit code 4, no output, `collect` shows what there is, a run after a top-up goes on."""
    config = job([{"t": f"row {i}"} for i in range(60)], limits={"concurrency": 2, "adaptive": False})
    posts = itertools.count()
    endpoint.script = lambda _: envelope("insufficient_balance", 402) if next(posts) >= 20 else None
    summary = enrich.run(config)
    assert summary.exit_code == 4
    assert "balance" in summary.reason
    assert not (tmp_path / "out.parquet").exists()
    paid = len(endpoint.charges)
    assert paid == 20
    assert sum(summary.statuses.values()) == summary.rows == 60
    assert enrich.collect(config).statuses == {**summary.statuses, "ok": 20, "pending": 40}
    columns = table(tmp_path / "out.parquet")
    assert columns["s_status"].count("pending") == 40
    assert sum(v or 0 for v in columns["s_credits"]) == pytest.approx(endpoint.credits)
    endpoint.script = None
    assert enrich.run(config).statuses["ok"] == 60
    assert set(endpoint.charges_per_body.values()) == {1}


def test_an_output_that_is_held_is_left_alone(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """A second run of the same output ends at once and sends nothing."""
    config = job()
    with hold_output(tmp_path / "out.parquet"), pytest.raises(OutputLocked) as caught:
        enrich.run(config)
    assert caught.value.exit_code == 5
    assert endpoint.seen == []


@pytest.mark.parametrize(("tolerate", "code"), [(0, 3), (1, 3), (2, 0), ("10%", 3), ("50%", 0)])
def test_tolerate_decides_between_success_and_failure(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path, tolerate: int | str, code: int
) -> None:
    """So many failed rows, or such a share, still exit 0; the output is written either way."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if "bad" in seen.raw.decode() else None
    summary = enrich.run(job([{"t": t} for t in ("bad 1", "good", "bad 2", "fine")], tolerate=tolerate))
    assert summary.exit_code == code
    assert summary.statuses["error"] == 2
    assert table(tmp_path / "out.parquet")["s_status"] == ["error", "ok", "error", "ok"]


def test_a_row_that_failed_for_good_is_not_asked_again_by_itself(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """A row that the endpoint refuses keeps its code and request id; a second run does not send it again."""
    endpoint.script = lambda seen: (
        envelope("invalid_request", 422, message="too odd") if b"two" in seen.raw else None
    )
    config = job()
    enrich.run(config)
    columns = table(tmp_path / "out.parquet")
    assert columns["s_error"] == [None, "invalid_request: too odd", None]
    assert columns["s_request_id"][1].startswith("req-")
    assert columns["s"][1] is None
    assert enrich.run(config).attempts == 0


def test_a_run_without_a_base_url_in_the_file_takes_the_environment(
    endpoint: BookedEndpoint, job: Callable[..., Path]
) -> None:
    """BEATRA_BASE_URL and BEATRA_API_KEY are enough: the file needs no endpoint section."""
    assert enrich.run(job()).statuses["ok"] == 3
    assert endpoint.posts[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_file_s_endpoint_overrides_the_environment(
    endpoint: BookedEndpoint, job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """endpoint.base_url and endpoint.api_key_env win over BEATRA_BASE_URL and BEATRA_API_KEY."""
    monkeypatch.setenv("BEATRA_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("BEATRA_API_KEY", "sk-wrong-key")
    monkeypatch.setenv("OTHER_KEY", KEY)
    section = {"base_url": endpoint.base_url, "api_key_env": "OTHER_KEY"}
    assert enrich.run(job(endpoint=section)).statuses["ok"] == 3


def test_an_override_wins_over_the_file(endpoint: BookedEndpoint, job: Callable[..., Path]) -> None:
    """`key.path=value` replaces what the file says."""
    section = {"base_url": "http://127.0.0.1:1/v1"}
    config = job(endpoint=section)
    overrides = [f"endpoint.base_url={endpoint.base_url}", "steps.s.model=fast-1"]
    assert enrich.run(config, overrides=overrides).statuses["ok"] == 3
    assert {post.body["model"] for post in endpoint.posts} == {"fast-1"}


def test_the_sandbox_flag_keeps_the_endpoint_out_of_it(
    endpoint: BookedEndpoint, job: Callable[..., Path]
) -> None:
    """`sandbox=True` sends nothing to the configured endpoint, and its answers never stand in for real ones."""
    config = job()
    assert enrich.run(config, sandbox=True).statuses["ok"] == 3
    assert endpoint.seen == []
    assert enrich.run(config).requests == 3


def test_the_key_stands_nowhere(endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path) -> None:
    """Neither output nor ledger nor anything else a run leaves behind holds the key."""
    endpoint.script = lambda seen: (
        Raw(seen.headers["authorization"].encode(), 500) if b"three" in seen.raw else None
    )
    summary = enrich.run(job(retry={"attempts": 1, "max_wait": 0.01}))
    assert summary.statuses["ok"] == 2
    assert KEY not in str(summary.to_dict())
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


# --- conditions, nulls, steps -----------------------------------------------------------------------------


def test_when_skips_rows(endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path) -> None:
    """Rows for which `when` is false are skipped, cost nothing and do not count as failed."""
    rows = [{"t": "a", "stars": 1}, {"t": "b", "stars": 5}, {"t": "c", "stars": 2}]
    summary = enrich.run(job(rows, step={"when": "{{ stars < 3 }}"}))
    assert (summary.exit_code, summary.statuses["skipped"], summary.requests) == (0, 1, 2)
    assert table(tmp_path / "out.parquet")["s_status"] == ["ok", "skipped", "ok"]


@pytest.mark.parametrize(
    ("on_null", "status", "code"), [("error", "error", 3), ("skip", "skipped", 0), ("render", "ok", 0)]
)
def test_nulls_do_what_on_null_says(
    endpoint: BookedEndpoint,
    job: Callable[..., Path],
    tmp_path: Path,
    *,
    on_null: str,
    status: str,
    code: int,
) -> None:
    """A null in a template's column is an error, a skipped row or an empty text; never the word None."""
    rows = [{"t": "a"}, {"t": None}]
    step = {"prompt": "Say: {{ t }}", "on_null": on_null}
    assert enrich.run(job(rows, step=step)).exit_code == code
    assert table(tmp_path / "out.parquet")["s_status"] == ["ok", status]
    sent = {post.body["messages"][0]["content"] for post in endpoint.posts}
    assert sent == ({"Say: a", "Say: "} if on_null == "render" else {"Say: a"})


def test_a_nan_counts_as_null(endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path) -> None:
    """NaN in a column of numbers is treated like null: it never reaches a prompt."""
    rows = [{"t": "a", "n": 1.5}, {"t": "b", "n": float("nan")}]
    enrich.run(job(rows, step={"prompt": "{{ t }} {{ n }}"}))
    columns = table(tmp_path / "out.parquet")
    assert columns["s_status"] == ["ok", "error"]
    assert columns["s_error"][1] == "null_value: column `n` is null"
    assert b"nan" not in b"".join(post.raw for post in endpoint.posts).lower()


def test_columns_with_any_name_are_reachable(endpoint: BookedEndpoint, job: Callable[..., Path]) -> None:
    """`row["Unit Price"]` reaches a column whose name is no identifier."""
    enrich.run(job([{"Unit Price": 3.5, "t": "x"}], step={"prompt": 'Cost: {{ row["Unit Price"] }}'}))
    assert endpoint.posts[0].body["messages"][0]["content"] == "Cost: 3.5"


def test_messages_are_sent_as_written(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """`messages` stands instead of system and prompt: roles in order, contents rendered."""
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "On {{ t }}")]
    messages = [{"role": role, "content": content} for role, content in said]
    enrich.run(job(steps=[{"name": "s", "messages": messages}]), limit=1)
    assert endpoint.posts[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "On one"},
    ]


def test_a_later_step_sees_earlier_answers(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """A second step's template holds the first one's answer; where that failed, the second is skipped."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b'"two"' in seen.raw else None
    steps = [{"name": "a", "prompt": "{{ t }}"}, {"name": "b", "prompt": "After {{ a }}: {{ t }}"}]
    summary = enrich.run(job(steps=steps), overrides=[])
    assert summary.statuses["error"] == 1
    columns = table(tmp_path / "out.parquet")
    assert columns["b_status"] == ["ok", "skipped", "ok"]
    assert columns["b_error"][1].startswith("no_a: step `a` has no answer")
    sent = {post.body["messages"][0]["content"] for post in endpoint.posts}
    assert f"After {columns['a'][0]}: one" in sent
    assert enrich.run(job(steps=steps)).requests == 0


def test_the_sum_of_credits_is_what_two_steps_cost(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """With several steps and duplicates, the usage columns of all steps together equal the books."""
    steps = [
        {"name": "a", "prompt": "{{ t }}"},
        {"name": "b", "prompt": "{{ t }}"},
        {"name": "c", "prompt": "{{ a }}"},
    ]
    rows = [{"t": str(i % 7)} for i in range(20)]
    enrich.run(job(rows, steps=steps))
    columns = table(tmp_path / "out.parquet")
    shown = sum(sum(columns[f"{step}_credits"]) for step in "abc")
    assert shown == pytest.approx(endpoint.credits)
    assert len(endpoint.charges) == 14
    assert len(endpoint.charges_per_body) == 14


# --- answers in other shapes --------------------------------------------------------------------------------


def completion(**changes: Any) -> Raw:
    """Make a completion with some of it changed; None removes a field."""
    payload: dict[str, Any] = {
        "id": "x",
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "credits": 0.5},
        **changes,
    }
    return Raw(json.dumps({k: v for k, v in payload.items() if v is not None}).encode())


def choice(content: str | None, finish: str | None = "stop", **more: Any) -> Raw:
    """Make a completion with one choice."""
    return completion(choices=[{"message": {"content": content, **more}, "finish_reason": finish}])


HTML = Raw(b"<html><h1>502 Bad Gateway</h1></html>", 502, {"Content-Type": "text/html"})
FASTAPI = {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]}
SHAPES = [
    ("no usage", completion(usage=None), "ok", None),
    ("usage null and odd", completion(usage={"prompt_tokens": "many", "credits": None}), "ok", None),
    ("no request id", Raw(completion().body, headers={"X-Request-Id": ""}), "ok", None),
    ("no model", completion(model=None), "ok", None),
    ("text/plain", Raw(completion().body, headers={"Content-Type": "text/plain"}), "ok", None),
    ("a byte order mark", Raw(b"\xef\xbb\xbf" + completion().body), "ok", None),
    ("length", choice("half an", "length"), "truncated", "length: "),
    ("filtered", choice("", "content_filter"), "filtered", "content_filter: "),
    ("refusal", choice(None, refusal="I will not."), "filtered", "refusal: I will not."),
    ("null content", choice(None), "invalid_output", "no_content: "),
    ("no choices", completion(choices=[]), "error", "no_choices: "),
    ("choices null", completion(choices=None), "error", "no_choices: "),
    ("a list", Raw(b"[]"), "error", "no_choices: "),
    ("an envelope in a 200", Raw(envelope("invalid_request", 400).body), "error", "invalid_request: "),
    ("422 of FastAPI", Raw(json.dumps(FASTAPI).encode(), 422), "error", "http_422: body.messages: field required"),
    ("422 with a string", Raw(b'{"detail":"no such thing"}', 422), "error", "http_422: no such thing"),
    ("400 of OpenAI", Raw(b'{"error":{"message":"bad","type":"invalid_request_error","code":null}}', 400), "error",
     "invalid_request_error: bad"),
    ("400 of LiteLLM", Raw(b'{"error":{"message":"no db","type":"None","param":"None","code":"400"}}', 400), "error",
     "http_400: no db"),
    ("404 of a router", Raw(b"404 page not found", 404, {"Content-Type": "text/plain"}), "error",
     "http_404: HTTP 404 and no error in JSON: 404 page not found"),
    ("405 without a body", Raw(b"", 405), "error", "http_405: "),
    ("a redirect", Raw(b"", 302, {"Location": "/elsewhere"}), "error", "redirected: "),
    ("plain-text 500", Raw(b"Internal Server Error", 500, {"Content-Type": "text/plain"}), "in_doubt", "http_500: "),
    ("HTML 502", HTML, "in_doubt", "http_502: "),
    ("an empty 200", Raw(b""), "in_doubt", "response_cut: "),
    ("cut JSON", Raw(completion().body[:40]), "in_doubt", "response_cut: "),
    ("HTML in a 200", Raw(b"<html>login</html>", 200, {"Content-Type": "text/html"}), "in_doubt", "response_cut: "),
    ("a body cut short", Raw(completion().body, cut=30), "in_doubt", "response_cut: "),
    ("bytes that are no text", Raw(b'{"choices":[{"message":{"content":"\xff"}}]}'), "error", "invalid_utf8: "),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "status", "error"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_answers_in_other_shapes_give_a_clear_status(
    endpoint: BookedEndpoint,
    job: Callable[..., Path],
    tmp_path: Path,
    *,
    raw: Raw,
    status: str,
    error: str | None,
) -> None:
    """Whatever one request is answered with, its row has a status and a reason, and the other rows are fine."""
    endpoint.script = lambda seen: raw if b"two" in seen.raw else None
    summary = enrich.run(job(retry={"attempts": 3, "max_wait": 0.01}))
    columns = table(tmp_path / "out.parquet")
    assert columns["s_status"] == ["ok", status, "ok"]
    assert summary.exit_code == (0 if status == "ok" else 3)
    said = columns["s_error"][1]
    assert said is None if error is None else said.startswith(error), said
    assert status != "ok" or columns["s"][1] == "fine"


def test_missing_usage_is_null_not_zero(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """An answer without usage is kept; its usage columns are null, and so is a missing request id."""
    bare = Raw(completion(usage=None, model=None).body, headers={"X-Request-Id": ""})
    endpoint.script = lambda _: bare
    summary = enrich.run(job(), limit=1)
    columns = table(tmp_path / "out.parquet")
    assert [columns[name] for name in (*USAGE, "s_request_id", "s_model")] == [[None]] * 6
    assert (summary.statuses["ok"], summary.total_tokens, summary.credits) == (1, 0, 0)


def test_a_lost_answer_is_fetched_under_the_same_key(
    endpoint: BookedEndpoint, job: Callable[..., Path]
) -> None:
    """An answer that was charged and then lost on the way comes with the second attempt, for nothing."""
    lost: set[str] = set()

    def lose_each_once(seen: Seen) -> Raw | None:
        if seen.key in lost:
            return None
        lost.add(seen.key)
        return Raw(b"x" * 99, cut=10, charge=True)

    endpoint.script = lose_each_once
    summary = enrich.run(job(retry={"max_wait": 0.01}))
    assert summary.statuses["ok"] == 3
    assert (summary.requests, summary.attempts) == (3, 6)
    assert set(endpoint.charges_per_body.values()) == {1}
    assert endpoint.conflicts == 0


def test_twenty_rows_that_fail_alike_stop_the_run(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """When the first requests are all refused in the same way, the rest is not sent."""
    endpoint.script = lambda _: envelope("invalid_request", 400, message="no such field")
    summary = enrich.run(job([{"t": str(i)} for i in range(300)], limits={"concurrency": 4}))
    assert summary.exit_code == 4
    assert len(endpoint.posts) < 40
    assert "no such field" in summary.reason
    assert not (tmp_path / "out.parquet").exists()


def test_an_unknown_model_stops_the_run(endpoint: BookedEndpoint, job: Callable[..., Path]) -> None:
    """A pinned model that the account does not have stops the run and is named."""
    endpoint.script = lambda _: envelope("unsupported_model", 400)
    summary = enrich.run(job([{"t": str(i)} for i in range(100)], step={"model": "fast-9"}))
    assert summary.exit_code == 4
    assert "`fast-9`" in summary.reason


def test_run_works_inside_a_running_loop(job: Callable[..., Path]) -> None:
    """`enrich.run` can be called from async code."""

    async def main() -> int:
        return enrich.run(job()).exit_code

    assert asyncio.run(main()) == 0


def test_run_takes_a_mapping(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """A configuration may be given as a mapping, as it stands in a YAML file."""
    write_rows(tmp_path / "in.parquet", ["x"])
    mapping = {
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "o.jsonl"),
        "steps": [{"name": "s", "prompt": "{{ t }}"}],
    }
    assert enrich.run(mapping).statuses["ok"] == 1
