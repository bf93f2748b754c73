"""Chained steps through the main job: what a later step sees, when it is skipped, and that no step waits for another."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml

import enrich
from enrich.base.loops import run_sync
from enrich.errors import TemplateError
from enrich.runs.collect import collect_job
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, echo, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.records import RowStatus, Summary

MOOD = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg"]},
        "score": {"type": "number"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["label", "score"],
}
FIRST = {"name": "mood", "prompt": "Judge: {{ t }}", "schema": MOOD, "reask": 0}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the endpoint takes."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def prompt_of(body: dict[str, Any]) -> str:
    """The last message."""
    return str(body["messages"][-1]["content"])


def judging(body: dict[str, Any]) -> str:
    """Judge by the text: `bad` breaks the schema, `neg` is negative; other prompts are echoed."""
    prompt = prompt_of(body)
    if not prompt.startswith("Judge"):
        return prompt
    if "bad" in prompt:
        return "no idea"
    return json.dumps({"label": "neg" if "neg" in prompt else "pos", "score": 0.25})


def run(
    path: Path, endpoint: BookedEndpoint, retry: frozenset[RowStatus] = frozenset(), **more: Any
) -> Summary:
    """Run a configuration against an endpoint."""
    config = enrich.load_config(path, overrides=[f"endpoint.base_url={endpoint.base_url}"])
    return run_sync(lambda: run_job(config, RunOptions(retry=retry, **more)))


def column(path: Path, name: str) -> list[Any]:
    """A column of the output."""
    return list(pq.read_table(path.parent / "out.parquet").column(name).to_pylist())


def test_a_later_step_sees_earlier_columns(job: Callable[..., Path]) -> None:
    """The text, the typed values, the status and the model of an earlier step are columns of the later ones."""
    seen = "{{ t }}|{{ mood }}|{{ mood_label }}|{{ mood_score + 1 }}|{{ mood_status }}|{{ mood_model }}"
    steps = [
        FIRST,
        {"name": "echo", "prompt": seen, "model": "fast-1"},
        {
            "name": "last",
            "prompt": "{{ row.echo }} and {{ row['mood_label'] }}",
            "max_tokens": "{{ echo | length }}",
        },
    ]
    path = job([{"t": "one"}, {"t": "neg two"}], steps=steps)
    with BookedEndpoint(answer=judging) as endpoint:
        summary = run(path, endpoint)
        bodies = [json.loads(charge.body) for charge in endpoint.charges]
    assert (summary.exit_code, summary.statuses["ok"], summary.requests) == (0, 2, 6)
    assert column(path, "mood_label") == ["pos", "neg"]
    assert column(path, "echo") == [
        'one|{"label": "pos", "score": 0.25}|pos|1.25|ok|served-1',
        'neg two|{"label": "neg", "score": 0.25}|neg|1.25|ok|served-1',
    ]
    assert column(path, "last") == [f"{text} and {text.split('|')[2]}" for text in column(path, "echo")]
    assert Counter(body["model"] for body in bodies) == {"auto": 4, "fast-1": 2}
    assert sorted(body["max_tokens"] for body in bodies if "max_tokens" in body) == sorted(
        map(len, column(path, "echo"))
    )


def test_rows_without_an_earlier_answer(job: Callable[..., Path]) -> None:
    """A step whose template needs an answer that is not there is skipped with the reason; one that does not, is asked."""
    steps = [
        FIRST,
        {"name": "needs", "prompt": "Say {{ mood_label }}"},
        {"name": "free", "prompt": "About {{ t }}: {{ mood_status }}"},
        {"name": "told", "prompt": "Why {{ mood_error }}", "on_null": "skip"},
        {"name": "after", "prompt": "And {{ needs }}"},
    ]
    path = job([{"t": "good"}, {"t": "bad"}], steps=steps)
    with BookedEndpoint(answer=judging) as endpoint:
        summary = run(path, endpoint)
        assert len(endpoint.charges) == 2 + 1 + 2 + 1 + 1
        assert run(path, endpoint).requests == 0
    assert summary.statuses["invalid_output"] == 1
    reason = "no_mood: step `mood` has no answer (invalid_output: the answer is not JSON)"
    assert column(path, "needs_status") == ["ok", "skipped"]
    assert column(path, "needs_error") == [None, reason]
    assert column(path, "free") == ["About good: ok", "About bad: invalid_output"]
    assert column(path, "told_status") == ["skipped", "ok"]
    assert column(path, "told")[1] == "Why invalid_output: the answer is not JSON"
    assert column(path, "after_error") == [None, f"no_needs: step `needs` has no answer ({reason})"]


def test_when(job: Callable[..., Path]) -> None:
    """`when` skips rows, on input columns and on earlier answers; a step that needs a skipped one is skipped too."""
    steps = [
        {**FIRST, "when": "{{ n > 1 }}"},
        {"name": "sorry", "prompt": "Sorry for {{ t }}", "when": "{{ mood_label == 'neg' }}"},
    ]
    path = job(
        [{"t": f"{word} {n}", "n": n} for n, word in enumerate(["pos", "neg", "neg", "pos"])], steps=steps
    )
    with BookedEndpoint(answer=judging) as endpoint:
        summary = run(path, endpoint)
        assert len(endpoint.charges) == 3
    assert (summary.exit_code, summary.statuses["skipped"]) == (0, 3)
    assert column(path, "mood_status") == ["skipped", "skipped", "ok", "ok"]
    assert column(path, "sorry_status") == ["skipped", "skipped", "ok", "skipped"]
    assert column(path, "sorry_error")[0] == "no_mood: step `mood` has no answer (skipped)"
    assert column(path, "sorry_error")[3] is None


def test_an_absent_property_is_null(job: Callable[..., Path]) -> None:
    """An optional property that the answer left out is a null to later templates."""
    steps = [FIRST, {"name": "note", "prompt": "Note {{ mood_note }}"}]
    path = job([{"t": "x"}], steps=steps)
    with BookedEndpoint(answer=judging) as endpoint:
        run(path, endpoint)
    assert column(path, "note_error") == ["null_value: column `mood_note` is null"]


def test_unknown_columns_of_earlier_steps(job: Callable[..., Path]) -> None:
    """A later step that names what no earlier one gives is refused, and so is one that looks ahead."""
    for steps, name in (
        ([FIRST, {"name": "b", "prompt": "{{ mood_labl }}"}], "mood_labl"),
        ([{"name": "b", "prompt": "{{ mood_label }}"}, FIRST], "mood_label"),
    ):
        with pytest.raises(TemplateError, match=f"no column `{name}`"):
            enrich.run(job([{"t": "x"}], steps=steps, endpoint={"base_url": "sandbox"}))


def test_no_step_waits_for_another(job: Callable[..., Path]) -> None:
    """While one row is held up in the first step, all the others go through all steps."""
    slow, others = threading.Event(), threading.Semaphore(0)
    rows = [{"t": f"row {number}"} for number in range(40)]
    steps = [
        {"name": f"s{n}", "prompt": f"step {n}: {{{{ {'t' if n == 0 else f's{n - 1}'} }}}}"} for n in range(3)
    ]

    def script(seen: Seen) -> Raw | None:
        prompt = prompt_of(seen.body) if seen.method == "POST" else ""
        if prompt.startswith("step 2"):
            others.release()
        if prompt == "step 0: row 0" and not slow.is_set():
            return envelope("model_unavailable", 503, retryable=True)
        return None

    path = job(rows, steps=steps, retry={"attempts": 100, "max_wait": 0.2}, limits={"concurrency": 8})
    with BookedEndpoint(answer=prompt_of, script=script) as endpoint:
        ended: list[Summary] = []
        thread = threading.Thread(target=lambda: ended.append(run(path, endpoint)))
        thread.start()
        passed = [others.acquire(timeout=30) for _ in range(39)]
        slow.set()
        thread.join()
    assert all(passed)
    assert ended[0].statuses["ok"] == 40
    assert column(path, "s2") == [f"step 2: step 1: step 0: row {number}" for number in range(40)]


def test_equal_rows_in_chains(job: Callable[..., Path]) -> None:
    """Equal requests are asked once, also when they meet in a later step only; cost stands on one row."""
    steps = [
        {"name": "a", "prompt": "{{ t }}"},
        {"name": "b", "prompt": "same for {{ a | length }}"},
    ]
    path = job([{"t": text} for text in ("aa", "bb", "aa", "ccc")], steps=steps)
    with BookedEndpoint(answer=prompt_of) as endpoint:
        run(path, endpoint)
        assert len(endpoint.charges) == 3 + 2
    assert Counter(column(path, "b_source")) == {"api": 2, "copy": 2}
    total = sum(column(path, "a_credits")) + sum(column(path, "b_credits"))
    assert total == pytest.approx(endpoint.credits)


def test_an_answer_for_each_row_in_chains(job: Callable[..., Path]) -> None:
    """With `dedupe: false` equal rows have answers of their own at every step, and a resume asks for none."""
    steps = [{"name": "a", "prompt": "{{ t }}"}, {"name": "b", "prompt": "on {{ a }}"}]
    path = job([{"t": "x"}] * 5 + [{"t": "y"}], steps=steps, dedupe=False)
    with BookedEndpoint(answer=echo) as endpoint:
        assert run(path, endpoint).requests == 12
        assert len({charge.key for charge in endpoint.charges}) == 12
        first = pq.read_table(path.parent / "out.parquet")
        assert run(path, endpoint).requests == 0
    for step in "ab":
        assert set(first[f"{step}_source"].to_pylist()) == {"api"}
        assert len(set(first[f"{step}_idempotency_key"].to_pylist())) == 6


def test_retry_goes_on_with_later_steps(job: Callable[..., Path]) -> None:
    """A row that `retry` mends in its first step goes through the later ones; other rows are left as they are."""
    said: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> str:
        prompt = prompt_of(body)
        said[prompt] += 1
        if prompt == "Judge: bad" and said[prompt] > 1:
            return '{"label": "neg", "score": 1}'
        return judging(body)

    steps = [FIRST, {"name": "reply", "prompt": "Reply to {{ mood_label }} {{ t }}"}]
    path = job([{"t": "good"}, {"t": "bad"}], steps=steps)
    with BookedEndpoint(answer=answer) as endpoint:
        assert run(path, endpoint).statuses["invalid_output"] == 1
        assert len(endpoint.charges) == 3
        summary = run(path, endpoint, frozenset({"invalid_output"}))
        assert (summary.exit_code, summary.requests) == (0, 2)
        assert run(path, endpoint).requests == 0
    assert column(path, "reply") == ["Reply to pos good", "Reply to neg bad"]
    assert column(path, "mood_attempts") == [1, 2]


def test_collecting_a_chain_that_was_stopped(job: Callable[..., Path]) -> None:
    """What a stopped run has of each step is collected; the rest is pending."""
    steps = [{"name": "a", "prompt": "{{ t }}"}, {"name": "b", "prompt": "on {{ a }}"}]
    path = job([{"t": "x"}, {"t": "y"}], steps=steps)

    def script(seen: Seen) -> Raw | None:
        if seen.method == "POST" and prompt_of(seen.body).startswith("on "):
            return envelope("insufficient_balance", 402)
        return None

    with BookedEndpoint(answer=prompt_of, script=script) as endpoint:
        assert run(path, endpoint).exit_code == 4
        config = enrich.load_config(path, overrides=[f"endpoint.base_url={endpoint.base_url}"])
        run_sync(lambda: collect_job(config, RunOptions()))
        asked = [status == "ok" for status in column(path, "a_status")]
        assert column(path, "a") == [t if ok else None for t, ok in zip("xy", asked, strict=True)]
        assert column(path, "b_status") == ["pending"] * 2
        endpoint.script = None
        assert run(path, endpoint).exit_code == 0
        assert len(endpoint.charges) == 4
    assert column(path, "b") == ["on x", "on y"]


def test_changing_a_later_step_asks_for_that_step_alone(job: Callable[..., Path]) -> None:
    """A changed step, and steps that use its answers, are asked anew; earlier ones are not."""
    steps = [{"name": n, "prompt": f"{n} {{{{ {p} }}}}"} for n, p in (("a", "t"), ("b", "a"), ("c", "b"))]
    path = job([{"t": "x"}, {"t": "y"}], steps=steps)
    with BookedEndpoint(answer=prompt_of) as endpoint:
        assert run(path, endpoint).requests == 6
        document = yaml.safe_load(path.read_text())
        document["steps"][1]["prompt"] = "B {{ a }}"
        path.write_text(yaml.safe_dump(document))
        assert run(path, endpoint).requests == 4
    assert column(path, "c") == ["c B a x", "c B a y"]
