"""What a run paid for stands under one use each, and adds up to what it spent, to the last token."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from enrich.runs.unchanged import COARSEST
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}
FIGURES = ("requests", "prompt_tokens", "completion_tokens", "total_tokens", "credits")


def books(endpoint: BookedEndpoint) -> dict[str, Any]:
    """What the endpoint charged."""
    prompt, completion = endpoint.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "credits": pytest.approx(endpoint.credits),
    }


def adds_up(summary: dict[str, Any]) -> dict[str, Any]:
    """Hold the uses to the total, and the total to the summary; gives those uses that there were."""
    waste = summary["waste"]
    for name in FIGURES:
        assert sum(one[name] for one in waste["spent"].values()) == pytest.approx(
            waste["total"][name], abs=1e-6
        )
        assert waste["total"][name] == pytest.approx(summary[name])
    tokens = [one["total_tokens"] for one in waste["spent"].values()]
    assert sum(tokens) == summary["total_tokens"]
    return {use: one for use, one in waste["spent"].items() if one["requests"]}


def finish(text: str, reason: str) -> Raw:
    """Answer with a finish reason of one's own."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "credits": 0.5}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return Raw(json.dumps({"id": "x", "model": "served-1", "choices": [choice], "usage": usage}).encode())


def test_every_use_by_its_name(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Re-asked, unfit, truncated, filtered and refused answers are told apart; duplicates and the ledger saved the rest."""

    def answer(body: dict[str, Any]) -> str:
        first, again = body["messages"][0]["content"], len(body["messages"]) > 1
        return "nonsense" if first == "never" or (first == "second" and not again) else '{"label": "pos"}'

    def script(seen: Seen) -> Raw | None:
        text = seen.body["messages"][0]["content"] if seen.method == "POST" else ""
        found = {"long": finish("half", "length"), "bad": finish("", "content_filter")}
        return envelope("invalid_request", 400) if text == "refused" else found.get(text)

    endpoint.answer, endpoint.script = answer, script
    texts = ["plain", "plain", "plain", "second", "never", "long", "bad", "refused"]
    config = job([{"t": t} for t in texts], step={"schema": SCHEMA}, tolerate=10)
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    uses = adds_up(summary)
    counts = {use: one["requests"] for use, one in uses.items()}
    assert counts == {
        "ok": 2, "reasked": 2, "invalid_output": 1, "truncated": 1, "filtered": 1, "unanswered": 1,
    }  # fmt: skip
    assert uses["truncated"]["total_tokens"] == uses["filtered"]["total_tokens"] == 12
    assert summary["waste"]["saved"]["duplicates"]["requests"] == 2
    by_answers = books(endpoint)
    assert summary["total_tokens"] == by_answers["total_tokens"] + 24
    assert "tokens 24" not in ended.err
    again = json.loads(cli("run", config, "--json", "--force", endpoint=endpoint).out)
    adds_up(again)
    saved = again["waste"]["saved"]
    assert (again["total_tokens"], saved["ledger"]["requests"], saved["duplicates"]["requests"]) == (0, 7, 0)


def test_it_is_told_and_shown(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The run's end names what went into nothing, the report has the table over all runs, whose sum is the books'."""
    endpoint.answer = lambda body: "nonsense" if body["messages"][0]["content"] == "x" else '{"label": "neg"}'
    config = job([{"t": "x"}, {"t": "y"}], step={"schema": SCHEMA}, tolerate=1)
    ended = cli("run", config, endpoint=endpoint)
    assert "into answers that were asked again" in ended.err
    job([{"t": "x"}, {"t": "y"}, {"t": "z"}], step={"schema": SCHEMA}, tolerate=1)
    assert cli("run", config, endpoint=endpoint).code == 0
    assert cli("report", config, endpoint=endpoint).code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    card = page[page.index('id="waste"') :]
    card = card[: card.index("</table>")]
    assert "answers that were asked again" in card
    total = books(endpoint)["total_tokens"]
    assert f'<td class="n">{total:,}</td>' in card[card.index("<tfoot>") :]


@pytest.mark.parametrize("seed", range(2))
def test_whatever_befalls_it_adds_up(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, seed: int
) -> None:
    """Two steps, copies, lost answers, 503s, a stop by the budget, a retry: each run's uses are its sums, all runs' the books'."""
    chance = random.Random(seed)

    def answer(body: dict[str, Any]) -> str:
        return "nonsense" if hash_of(body) % 3 == 0 else '{"label": "pos"}'

    def hash_of(body: dict[str, Any]) -> int:
        return sum(json.dumps(body["messages"]).encode()) + seed

    def script(seen: Seen) -> Raw | None:
        dice = chance.random() if seen.method == "POST" else 1.0
        if dice < 0.1:
            return envelope("overloaded", 503, retryable=True)
        return (
            Raw(b'{"id": "x", "choi', headers={"Content-Length": "900"}, cut=17, charge=True)
            if dice < 0.2
            else None
        )

    endpoint.answer, endpoint.script = answer, script
    rows = [{"t": f"text {chance.randrange(30)}"} for _ in range(40)]
    second = json.loads(json.dumps(SCHEMA))  # YAML would write an alias
    steps = [
        {"name": "s", "prompt": "{{ t }}", "schema": SCHEMA, "reask": 1},
        {"name": "u", "prompt": "{{ s_label }} {{ t }}", "schema": second, "reask": 2},
    ]
    runs = [("run", {"requests": 25}), ("run", None), ("retry", None)]
    told = []
    for verb, budget in runs:
        more = {"budget": budget} if budget else {}
        config = job(rows, steps=steps, tolerate="100%", retry={"max_wait": 0.05}, **more)
        ended = cli(verb, config, "--json", *(["--force"] if verb == "run" else []), endpoint=endpoint)
        assert ended.code in (0, 3, 4), ended.err
        told.append(json.loads(ended.out))
        adds_up(told[-1])
    assert told[0]["exit_code"] == 4
    assert sum(one["total_tokens"] for one in told) == books(endpoint)["total_tokens"]
    assert sum(one["waste"]["total"]["total_tokens"] for one in told) == books(endpoint)["total_tokens"]
    assert told[0]["waste"]["perhaps"]["lost_attempts"] + told[1]["waste"]["perhaps"]["lost_attempts"] > 0


def test_a_run_that_did_nothing_has_none(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A second run with nothing to do says null."""
    config = job()
    time.sleep(1.1 * COARSEST)  # files that are younger are not trusted to be what they were
    cli("run", config, endpoint=endpoint)
    assert json.loads(cli("run", config, "--json", endpoint=endpoint).out)["waste"] is None
