"""The plan: what a run would send and cost, and that it comes true."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import enrich
from enrich.base.loops import run_sync
from enrich.config import load_config
from enrich.runs.options import RunOptions
from enrich.verbs.plan import plan_job
from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.verbs.plan_result import JobPlan
    from tests.helpers.warm import Ended


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every plan in this module is about the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def plan(path: Path, sample: int = 0, seed: int = 0, **options: Any) -> JobPlan:
    """Plan a job in this process."""
    return run_sync(lambda: plan_job(load_config(path), RunOptions(**options), sample=sample, seed=seed))


def rows(count: int, copies: int = 0) -> list[dict[str, Any]]:
    """Give rows of different lengths, some of them twice."""
    texts = [f"row {n} " + "word " * (n % 17) for n in range(count)]
    return [{"t": text, "n": n} for n, text in enumerate(texts + texts[:copies])]


def test_counts_without_sending(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Rows, skipped rows, distinct requests and those in the ledger are counted, and nothing is sent."""
    config = job(rows(40, copies=10), step={"when": "{{ n >= 5 }}"})
    enrich.run(config, limit=15)
    sent = len(endpoint.seen)
    found = plan(config).to_dict()
    assert len(endpoint.seen) == sent
    assert found["rows"] == 50
    assert found["skipped"] == 5
    # The copies of the first five rows stand where `when` lets them through: they are distinct.
    assert (found["requests"], found["in_ledger"], found["to_ask"]) == (40, 10, 30)
    summary = enrich.run(config)
    assert summary.requests == 30


def test_requests_of_their_own(job: Callable[..., Path]) -> None:
    """With `dedupe: false` every row counts."""
    config = job(rows(10, copies=5), dedupe=False)
    assert plan(config).to_ask == 15
    assert enrich.run(config).requests == 15
    assert plan(config).to_ask == 0


def test_what_a_run_would_ask_again_counts(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """A request that failed for a passing reason is asked by the next run, and so it is in the plan."""
    endpoint.script = lambda seen: envelope("internal_error", 500) if b'"row 3 ' in seen.raw else None
    config = job(rows(5), retry={"attempts": 1})
    enrich.run(config)
    endpoint.script = None
    expected = plan(config).to_ask
    assert enrich.run(config).requests == expected


def test_nothing_left(job: Callable[..., Path]) -> None:
    """After a run there is nothing to ask and nothing to pay."""
    config = job()
    enrich.run(config)
    found = plan(config)
    assert found.to_ask == 0
    assert found.credits is not None
    assert (found.credits.high, found.tokens.high) == (0, 0)


def test_without_an_answer_the_price_is_unknown(job: Callable[..., Path]) -> None:
    """Before anything was answered tokens are guessed, and credits are not."""
    found = plan(job(rows(20)))
    assert found.measured == 0
    assert found.credits is None
    assert 0 < found.tokens.low < found.tokens.likely < found.tokens.high
    assert "--sample" in found.text()


def test_a_sample_foretells_the_run(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """A sample is asked, paid for and kept; what it foretells is what the run then costs."""
    config = job(rows(400, copies=50))
    found = plan(config, sample=50)
    assert len(endpoint.charges) == found.sampled == 50
    assert found.sampled_credits == pytest.approx(endpoint.credits)
    assert found.measured == 50
    assert found.to_ask == 350
    assert found.latency_ms is not None
    summary = enrich.run(config)
    assert summary.requests == 350
    assert found.credits is not None
    assert found.credits.low <= summary.credits <= found.credits.high
    assert found.tokens.low <= summary.total_tokens <= found.tokens.high
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_sample_is_asked_once(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """The same sample again sends nothing and foretells the same; a larger one asks only what it has more."""
    config = job(rows(100))
    first = plan(config, sample=10)
    second = plan(config, sample=10)
    assert second.sampled == 0
    assert second.credits == first.credits
    third = plan(config, sample=25)
    assert third.sampled == 15
    assert len(endpoint.charges) == 25


def test_another_seed_is_another_sample(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """The sample is not the head of the file, and a seed chooses another one."""
    config = job(rows(200))
    plan(config, sample=10, seed=1)
    first = {charge.body for charge in endpoint.charges}
    plan(config, sample=10, seed=2)
    second = {charge.body for charge in endpoint.charges} - first
    assert len(second) >= 8
    assert any(b"row 1" in body and b"row 1 " not in body for body in first | second)


def test_a_sample_larger_than_the_input(job: Callable[..., Path]) -> None:
    """A sample of more rows than there are asks them all."""
    found = plan(job(rows(6)), sample=50)
    assert (found.sampled, found.to_ask) == (6, 0)


def test_answers_in_the_ledger_are_measured(job: Callable[..., Path]) -> None:
    """Without a sample, what earlier runs paid tells the price."""
    config = job(rows(60))
    enrich.run(config, limit=30)
    found = plan(config)
    assert found.measured == 30
    assert found.credits is not None
    summary = enrich.run(config)
    assert found.credits.low <= summary.credits <= found.credits.high


def two_steps(config: Path) -> Path:
    """Add a step that needs the first one's answer, and one that does not."""
    text = config.read_text(encoding="utf-8")
    at = text.index("- name: s\n")
    more = '- name: u\n  prompt: "And {{ t }}?"\n  when: "{{ n < 30 }}"\n- name: v\n  prompt: "Reply to {{ s }}"\n'
    config.write_text(
        text[:at] + "- name: s\n" + text[at + 10 :].rstrip("\n") + "\n" + more, encoding="utf-8"
    )
    return config


def test_steps_that_wait_for_earlier_ones(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """A later step is counted where it can be rendered; where it needs an answer first, its rows are said to wait."""
    config = two_steps(job(rows(80)))
    found = plan(config)
    first, independent, following = found.steps
    assert (first.to_ask, independent.to_ask, independent.skipped) == (80, 30, 50)
    assert (following.to_ask, following.waiting) == (0, 80)
    measured = plan(config, sample=40)
    before = endpoint.credits
    enrich.run(config)
    assert measured.credits is not None
    assert measured.credits.low <= endpoint.credits - before <= measured.credits.high


def test_rows_that_cannot_be_asked(job: Callable[..., Path]) -> None:
    """A row without a value that it needs is counted as one that cannot be asked."""
    found = plan(job([{"t": "a"}, {"t": None}, {"t": "b"}, {"t": "a"}]))
    (step,) = found.steps
    assert (step.failing, step.to_ask, step.copies) == (1, 2, 1)
    assert "cannot ask  1 row at step s: null_value, first in row 2: column `t` is null" in found.text()
    assert "1 row a copy of another" in found.text()
    assert found.to_dict()["cannot_be_asked"][0]["code"] == "null_value"


def test_without_limits_and_answers_the_time_is_a_range(job: Callable[..., Path]) -> None:
    """Before any answer was seen, how long it takes is told from how long answers usually take."""
    found = plan(job(rows(640)))
    assert found.assumed
    assert "time        5 s to 1 min 20 s, at 0.5 to 8 s an answer and up to 64 in flight" in found.text()
    assert found.tokens.high < 10 * found.tokens.likely


def test_the_time_reckons_with_limits_that_the_sample_met(
    job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Where the sample met 429s, the time is by the rate that came through, not by the latency of the answers."""
    turn = iter(range(10**6))
    endpoint.script = lambda seen: (
        envelope("rate_limited", 429, retryable=True)
        if seen.method == "POST" and next(turn) % 3 == 1
        else None
    )
    found = plan(job(rows(2_000), retry={"max_wait": 0.05}), sample=20)
    assert "the endpoint's own limit" in found.bound_by
    assert found.seconds is not None


def test_a_sample_of_rows_that_are_each_asked(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """With `dedupe: false` equal rows of a sample are asked each, and each is measured at its own cost."""
    config = job([{"t": "the same"}] * 40, dedupe=False)
    found = plan(config, sample=10)
    assert (found.sampled, found.measured, found.to_ask) == (10, 10, 30)
    assert found.credits is not None
    before = endpoint.credits
    enrich.run(config)
    assert found.credits.likely == pytest.approx(endpoint.credits - before, rel=0.01)


def test_a_plan_on_a_full_disk_says_so(job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is taken before it is written to: without any the plan stops with a message, not by a signal."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(enrich.DiskFull, match="no room"):
        plan(job(rows(5)))


def test_a_prompt_without_columns(job: Callable[..., Path]) -> None:
    """A prompt that is the same for all rows is one request."""
    config = job(step={"prompt": "Say hello."})
    assert plan(config).to_ask == 1
    assert plan(config, sample=3).sampled == 1


def test_an_empty_input(job: Callable[..., Path], tmp_path: Path) -> None:
    """An input without rows is a plan for nothing."""
    config = job()
    (tmp_path / "none.csv").write_text("t\n", encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8").replace("in.parquet", "none.csv"), encoding="utf-8")
    assert plan(config, sample=5).to_dict()["requests"] == 0


def test_the_time_is_that_of_the_tightest_limit(job: Callable[..., Path]) -> None:
    """Of several limits the one that takes longest tells the time, and is named."""
    limits = {"requests_per_minute": 60, "windows": [{"requests": 1000, "seconds": 10}]}
    found = plan(job(rows(30), limits=limits))
    assert found.seconds is not None
    assert found.seconds.likely == pytest.approx(30)
    assert "60 requests a minute" in found.bound_by


# --- the command ------------------------------------------------------------------------------------------


def test_over_the_budget(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A plan over the budget says so and leaves with 4; raised, with 0."""
    config = job(rows(80), budget={"requests": 10})
    ended = cli("plan", config, endpoint=endpoint)
    assert ended.code == 4
    assert "the budget is 10 requests; the run would take about 80" in ended.out
    assert cli("plan", config, "--set", "budget.requests=80", endpoint=endpoint).code == 0
    priced = ("--set", "budget.requests=80", "--set", "budget.credits=1.2", "--sample", "8")
    ended = cli("plan", config, *priced, "--json", endpoint=endpoint)
    assert ended.code == 4, ended.err
    assert ended.out, ended.err
    assert json.loads(ended.out)["exit_code"] == 4
    assert "1.2 credits" in json.loads(ended.out)["over_budget"][0]


def test_a_sample_that_is_refused(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A sample that cannot be asked stops the plan with 4; what was answered is kept."""

    def empty(seen: Seen) -> Raw | None:
        return envelope("insufficient_balance", 402) if len(endpoint.charges) >= 3 else None

    endpoint.script = empty
    config = job(rows(50), limits={"concurrency": 1})
    ended = cli("plan", config, "--sample", "20", endpoint=endpoint)
    assert ended.code == 4
    assert "balance" in ended.err
    endpoint.script = None
    assert plan(config).in_ledger == 3


def test_confirm_needs_a_terminal(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`run --confirm` without a terminal is a mistake, told before anything is sent."""
    ended = cli("run", job(), "--confirm", endpoint=endpoint)
    assert ended.code == 2
    assert "Hint: leave --confirm out" in ended.err
    assert not endpoint.seen


@pytest.mark.parametrize(("word", "code", "charges"), [(b"n\n", 130, 0), (b"y\n", 0, 3)])
def test_confirm_on_a_terminal(
    job: Callable[..., Path], endpoint: BookedEndpoint, word: bytes, code: int, charges: int
) -> None:
    """On a terminal `run --confirm` shows the plan and does as it is told."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, "run", job(), "--confirm"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ,
    )
    os.close(theirs)
    shown = b""
    while b"Go on?" not in shown:
        shown += os.read(ours, 4096)
    assert b"3 requests to ask" in shown
    os.write(ours, word)
    while True:
        try:
            if not os.read(ours, 4096):
                break
        except OSError:  # the other end is closed
            break
    process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code
    assert len(endpoint.charges) == charges
