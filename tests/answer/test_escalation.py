"""Cheap first: each model is asked only for the rows of whose answer there is doubt, both bills count, nothing is paid twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import enrich.pandas  # noqa: F401  # registers `df.beatra`
from enrich.config import StepConfig
from tests.helpers.deaths import through_deaths
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended, Warm

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "sure": {"type": "number"}},
    "required": ["label", "sure"],
}
ROWS = [{"t": f"row {n}"} for n in range(40)]
DOUBTFUL = 10  # of them the small model is not sure, of five more it says nothing that fits
STAGES = [{"model": "small"}, {"model": "large", "when": "s_status != 'ok' or s_sure < 0.7"}]


def answer(body: dict[str, Any]) -> str:
    """Say "neg" with the small model, and "pos" with the others; the small one doubts each fourth row, and fails each eighth."""
    number = int(body["messages"][-1]["content"].split()[-1])
    if body["model"] != "small":
        return json.dumps({"label": "pos", "sure": 0.99})
    if number % 8 == 1:
        return "I do not know"
    return json.dumps({"label": "neg", "sure": 0.4 if number % 4 == 0 else 0.9})


def goes_on(number: int) -> bool:
    """Whether a row comes to the large model."""
    return number % 4 == 0 or number % 8 == 1


@pytest.fixture
def endpoint() -> Any:
    """An endpoint that answers as `answer` says, and keeps books."""
    with BookedEndpoint(answer=answer) as server:
        yield server


@pytest.fixture
def cheap(job: Callable[..., Path]) -> Callable[..., Path]:
    """Write a job that asks the small model first."""

    def write(escalate: Any = STAGES, rows: list[dict[str, Any]] = ROWS, **further: Any) -> Path:
        step = {"schema": SCHEMA, "reask": 0, "escalate": escalate, **further.pop("step", {})}
        return job(rows, step=step, **further)

    return write


def columns(path: Path, *names: str) -> list[list[Any]]:
    """Read columns of the output."""
    table = pq.read_table(path / "out.parquet")
    return [table[name].to_pylist() for name in names]


def asked(endpoint: BookedEndpoint, model: str) -> list[int]:
    """Give the rows that a model was asked, by the books."""
    bodies = [json.loads(charge.body) for charge in endpoint.charges]
    return sorted(
        int(body["messages"][-1]["content"].split()[-1]) for body in bodies if body["model"] == model
    )


def test_only_doubtful_rows_come_to_the_large_model(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """One set of columns; `s_model` says who answered; columns, summary and waste account add up to the books."""
    config = cheap()
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    further = [n for n in range(40) if goes_on(n)]
    assert asked(endpoint, "small") == list(range(40))
    assert asked(endpoint, "large") == further
    model, label, status = columns(tmp_path, "s_model", "s_label", "s_status")
    assert model == ["large" if goes_on(n) else "small" for n in range(40)]
    assert label == ["pos" if goes_on(n) else "neg" for n in range(40)]
    assert set(status) == {"ok"}
    credits_, tokens, attempts = columns(tmp_path, "s_credits", "s_total_tokens", "s_attempts")
    assert sum(credits_) == pytest.approx(endpoint.credits)
    assert sum(tokens) == sum(endpoint.tokens) == summary["total_tokens"]
    assert attempts == [2 if goes_on(n) else 1 for n in range(40)]
    spent = summary["waste"]["spent"]
    assert (spent["ok"]["requests"], spent["reasked"]["requests"]) == (40, len(further))
    assert sum(use["total_tokens"] for use in spent.values()) == summary["waste"]["total"]["total_tokens"]
    again = cli("run", config, "--force", "--json", endpoint=endpoint)
    assert json.loads(again.out)["requests"] == 0
    assert columns(tmp_path, "s_model", "s_label", "s_credits", "s_attempts") == [
        model,
        label,
        credits_,
        attempts,
    ]


@pytest.mark.parametrize(
    ("when", "large"),
    [
        (None, [n for n in range(40) if n % 8 == 1]),
        ("not (check)", [n for n in range(40) if n % 8 == 1]),
        ("not (check) or s_label == 'neg'", list(range(40))),
        ("s_status == 'ok' and s_sure < 0.7", [n for n in range(40) if n % 4 == 0]),
        ("{{ s_sure and s_sure < 0.7 }}", [n for n in range(40) if n % 4 == 0]),
    ],
)
def test_the_condition_decides(
    cli: Callable[..., Ended],
    cheap: Callable[..., Path],
    endpoint: BookedEndpoint,
    when: str | None,
    large: list[int],
) -> None:
    """By default rows whose answer is not as it should be; `check` says whether it is."""
    second = {"model": "large"} if when is None else {"model": "large", "when": when}
    cli("run", cheap([{"model": "small"}, second], tolerate=40), endpoint=endpoint)
    assert asked(endpoint, "large") == large


def test_a_rule_of_the_step_passes_on_what_breaks_it(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`check: sure > 0.5` makes rows unfit, which go on by themselves."""
    config = cheap(["small", "large"], step={"check": "sure > 0.5"})
    assert cli("run", config, endpoint=endpoint).code == 0
    assert asked(endpoint, "large") == [n for n in range(40) if goes_on(n)]


def test_three_models(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Each is asked for what the one before left in doubt."""
    third = {"model": "largest", "when": "s_label == 'pos'"}
    assert cli("run", cheap([*STAGES, third]), endpoint=endpoint).code == 0
    further = [n for n in range(40) if goes_on(n)]
    assert asked(endpoint, "large") == asked(endpoint, "largest") == further
    model, attempts = columns(tmp_path, "s_model", "s_attempts")
    assert model == ["largest" if goes_on(n) else "small" for n in range(40)]
    assert attempts == [3 if goes_on(n) else 1 for n in range(40)]
    assert sum(columns(tmp_path, "s_credits")[0]) == pytest.approx(endpoint.credits)


def test_what_was_asked_of_one_model_alone_counts(
    cli: Callable[..., Ended],
    cheap: Callable[..., Path],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
) -> None:
    """After `compare`, or a run, of each model the escalation asks nothing; the row's cost is that of both all the same."""
    for model in ("small", "large"):
        config = job(ROWS, step={"schema": SCHEMA, "reask": 0, "model": model}, tolerate=40)
        assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 80
    assert cli("run", cheap(), endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 80
    (attempts,) = columns(tmp_path, "s_attempts")
    assert attempts == [2 if goes_on(n) else 1 for n in range(40)]


def test_copies_cost_nothing(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Rows with one prompt share both answers; the columns' sums are the books'."""
    assert cli("run", cheap(rows=[*ROWS, *ROWS]), endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 40 + 15
    credits_, source, model = columns(tmp_path, "s_credits", "s_source", "s_model")
    assert sum(credits_) == pytest.approx(endpoint.credits)
    assert source[40:] == ["copy"] * 40
    assert model[40:] == model[:40]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "deaths",
    [[3, 9, 17, 26, 33, 41, 48, 53], pytest.param(list(range(1, 55)), marks=pytest.mark.slow)],
    ids=["some", "each"],
)
def test_each_request_is_paid_once_through_kills(  # noqa: PLR0917  # fixtures
    cli: Callable[..., Ended],
    warm: Warm,
    cheap: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    deaths: list[int],
) -> None:
    """Killed after every few charges, or after each, on either model's answers: it takes the same turns again."""
    config = cheap(limits={"concurrency": 4})
    ended = through_deaths(warm, endpoint, deaths, tmp_path, "run", config, "-q")
    assert ended.code == 0, ended.err
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.charges) == 40 + 15
    assert sum(columns(tmp_path, "s_credits")[0]) == pytest.approx(endpoint.credits)
    assert cli("run", config, "--force", endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 55


def test_a_failure_that_lasts_goes_on_and_one_that_passes_does_not(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """What the small model refuses for good the large one is asked; what may come yet is asked of the small one again."""
    refused, busy = "row 3", "row 6"

    def trouble(seen: Seen) -> Raw | None:
        if seen.method != "POST" or seen.body["model"] != "small":
            return None
        text = seen.body["messages"][-1]["content"]
        if text == refused:
            return envelope("context_length_exceeded", 400)
        return envelope("internal_error", 500, retryable=True) if text == busy else None

    endpoint.script = trouble
    config = cheap(retry={"attempts": 1}, tolerate=1)
    assert cli("run", config, endpoint=endpoint).code == 0
    status, model = columns(tmp_path, "s_status", "s_model")
    assert (status[3], model[3]) == ("ok", "large")
    assert status[6] == "error"
    assert asked(endpoint, "large") == sorted([3, *(n for n in range(40) if goes_on(n))])
    endpoint.script = None
    assert cli("run", config, endpoint=endpoint).code == 0
    status, model = columns(tmp_path, "s_status", "s_model")
    assert (status[6], model[6], model[3]) == ("ok", "small", "large")
    assert 3 not in asked(endpoint, "small")
    charged = len(endpoint.charges)
    assert cli("retry", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == charged


def test_a_row_whose_large_answer_is_missing_is_asked_for_that_alone(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """It is an error, at the price of the small answer; the next run asks the large model again."""

    def trouble(seen: Seen) -> Raw | None:
        text = seen.body["messages"][-1]["content"] if seen.method == "POST" else ""
        is_large = text == "row 4" and seen.body["model"] == "large"
        return envelope("internal_error", 500, retryable=True) if is_large else None

    endpoint.script = trouble
    config = cheap(retry={"attempts": 1}, tolerate=1)
    assert cli("run", config, endpoint=endpoint).code == 0
    status, credits_ = columns(tmp_path, "s_status", "s_credits")
    assert status[4] == "error"
    assert sum(one or 0.0 for one in credits_) == pytest.approx(endpoint.credits)
    endpoint.script = None
    charged = len(endpoint.charges)
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == charged + 1
    assert columns(tmp_path, "s_status")[0] == ["ok"] * 40


def test_an_unfit_answer_of_the_large_model_takes_no_fit_ones_place(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """What the small one said, though unsure, counts; both are paid for. Where neither fits, `retry` asks the large one again."""
    usual = endpoint.answer
    endpoint.answer = lambda body: "?" if body["model"] == "large" else usual(body)
    config = cheap(tolerate=40)
    assert cli("run", config, endpoint=endpoint).code == 0
    status, model, credits_ = columns(tmp_path, "s_status", "s_model", "s_credits")
    assert status == ["invalid_output" if n % 8 == 1 else "ok" for n in range(40)]
    assert model == ["large" if n % 8 == 1 else "small" for n in range(40)]
    assert sum(credits_) == pytest.approx(endpoint.credits)
    endpoint.answer = usual
    before = len(endpoint.charges)
    assert cli("retry", config, endpoint=endpoint).code == 0
    again = endpoint.charges[before:]
    assert [json.loads(charge.body)["model"] for charge in again] == ["large"] * 5
    assert columns(tmp_path, "s_status")[0] == ["ok"] * 40
    assert sum(columns(tmp_path, "s_credits")[0]) == pytest.approx(endpoint.credits)


def test_plan_prices_both_models(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`--sample` asks rows to their end: what all would cost is within its range; a finished job has nothing to ask."""
    config = cheap(rows=[{"t": f"row {n}"} for n in range(400)])
    first = cli("plan", config, endpoint=endpoint)
    assert "each up to 1 more where there is doubt" in first.out
    told = json.loads(cli("plan", config, "--sample", "80", "--json", endpoint=endpoint).out)
    paid = endpoint.credits
    assert asked(endpoint, "large")
    assert cli("run", config, endpoint=endpoint).code == 0
    assert told["credits"]["low"] <= endpoint.credits - paid <= told["credits"]["high"]
    assert json.loads(cli("plan", config, "--json", endpoint=endpoint).out)["to_ask"] == 0


def test_a_data_frame_goes_the_same_way(endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same columns."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    out = pd.DataFrame(ROWS).beatra.complete(
        "{{ t }}",
        name="s",
        schema=SCHEMA,
        reask=0,
        escalate=STAGES,
        base_url=endpoint.base_url,
        progress=False,
    )
    assert out["s_model"].tolist() == ["large" if goes_on(n) else "small" for n in range(40)]


def test_check_looks_for_every_model(
    cli: Callable[..., Ended], cheap: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """One that the endpoint does not list is named."""
    ended = cli("check", cheap(["served-1", "fast-2"]), endpoint=endpoint)
    assert ended.code == 2
    assert "not listed: fast-2" in ended.out


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"escalate": [{"model": "a"}]}, "takes 2 to 5 models, the cheapest first; here is 1"),
        ({"escalate": ["a", "b", "c", "d", "e", "f"]}, "takes 2 to 5 models, the cheapest first; here are 6"),
        ({"escalate": ["a", "a"]}, "`a` is named twice"),
        ({"escalate": [{"model": "a", "when": "true"}, "b"]}, "the first model is asked for every row"),
        ({"escalate": ["{{ t }}", "b"]}, "not by templates"),
        ({"escalate": ["a", {"model": "b", "wenn": "x"}]}, "wenn"),
        ({"escalate": ["a", "b"], "model": "c"}, "`model` is `c`, and `escalate` begins with `a`"),
        ({"escalate": ["a", "b"], "votes": 3}, "`escalate` and `votes` exclude each other"),
        ({"escalate": ["a", "b"], "fallback_models": ["b"]}, "keep it in one of them"),
        ({"escalate": {"models": ["a", "b"], "sample": 50}}, "`sample` goes with `guarantee`"),
        ({"escalate": {"models": ["a", "b", "c"], "guarantee": 0.9}}, "takes two models"),
        ({"escalate": {"models": ["a", {"model": "b", "when": "true"}], "guarantee": 0.9}}, "remove `when`"),
        ({"escalate": {"guarantee": 0.9}}, "models"),
        ({"escalate": ["a", {"model": "b", "when": "s_labl == 1"}]}, "no `s_labl`"),
        ({"escalate": ["a", {"model": "b", "when": "s_confidence < 0.5"}]}, "probabilities"),
        ({"escalate": ["a", {"model": "b", "when": "s_label =="}]}, "when"),
        ({"escalate": {"models": ["a", "b"], "guarantee": 0.9}}, "probabilities"),
        ({"escalate": {"models": ["a", "b"], "guarantee": 0.9, "score": "s_shure"}}, "no `s_shure`"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    step: dict[str, Any],
    said: str,
) -> None:
    """By `check` and by the run, before anything is sent."""
    config = job(ROWS, step={"schema": SCHEMA, **step}, gold={"s_label": "t"})
    checked = cli("check", config, endpoint=endpoint)
    assert checked.code == 2
    assert said in " ".join((checked.out + checked.err).split())
    assert cli("run", config, endpoint=endpoint).code == 2
    assert not endpoint.posts


def test_a_step_without_it_is_as_it_was() -> None:
    """And one with it asks for its first model."""
    plain = StepConfig.model_validate({"name": "s", "prompt": "x"})
    assert (plain.model, plain.escalation) == ("auto", None)
    step = StepConfig.model_validate({"name": "s", "prompt": "x", "escalate": ["small", "large"]})
    assert step.model == "small"
    assert StepConfig.model_validate(step.model_dump(by_alias=True)) == step
