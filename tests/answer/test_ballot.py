"""Several answers to a row and their majority: by whole runs against an endpoint that keeps books."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import enrich.pandas
from enrich.answer.ballot import Ballot, useless
from enrich.config import StepConfig
from enrich.errors import UsageError
from enrich.frames.batches import output_schema
from enrich.records import Outcome
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended, Warm

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "n": {"type": "integer"}},
    "required": ["label"],
}
STEP: dict[str, Any] = {"schema": SCHEMA, "temperature": 1, "vote_on": "label"}


class Ballots:
    """Answers each prompt with what was said for it, one after the other; `?` is an answer that does not fit."""

    def __init__(self, **said: str) -> None:
        self.said = said
        self.asked: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> str:
        """Answer."""
        prompt = body["messages"][-1]["content"]
        number = self.asked[prompt]
        self.asked[prompt] += 1
        label = {"p": "pos", "n": "neg", "?": "none"}[self.said[prompt][number]]
        return json.dumps({"label": label, "n": number})


def rows(folder: Path) -> list[dict[str, Any]]:
    """Read the output."""
    return pq.read_table(folder / "out.parquet").to_pylist()


def test_asking_stops_when_the_majority_is_certain(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Two that agree settle three; the value, the share and what was spared are told, and a row costs all its answers."""
    ballots = endpoint.answer = Ballots(a="ppp", b="pnn", c="npp", d="p?n")
    config = job([{"t": t} for t in "abcda"], step={**STEP, "votes": 3, "reask": 0})
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert ballots.asked == {"a": 2, "b": 3, "c": 3, "d": 3}
    assert summary["requests"] == len(endpoint.charges) == 11
    assert summary["waste"]["saved"]["votes"]["requests"] == 1
    assert "votes: 1 request not needed" in ended.err
    found = rows(tmp_path)
    assert [(r["s_label"], r["s_n"], r["s_votes"], round(r["s_agreement"], 3)) for r in found] == [
        ("pos", 0, 2, 1.0), ("neg", 1, 3, 0.667), ("pos", 1, 3, 0.667), ("pos", 0, 2, 0.5), ("pos", 0, 2, 1.0)
    ]  # fmt: skip
    assert [r["s_attempts"] for r in found] == [2, 3, 3, 3, 0]
    assert sum(r["s_credits"] for r in found) == pytest.approx(endpoint.credits)
    assert sum(cost["requests"] for cost in summary["waste"]["spent"].values()) == 11
    assert len({seen.key for seen in endpoint.posts}) == 11
    assert cli("run", config, "--force", endpoint=endpoint).code == 0
    assert cli("collect", config, "-o", "again.parquet", endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 11
    again = pq.read_table(tmp_path / "again.parquet").to_pylist()
    assert [r["s_votes"] for r in again] == [r["s_votes"] for r in found]
    assert cli("report", config, "-o", "r.html", endpoint=endpoint).code == 0
    assert "requests that votes did not need" in (tmp_path / "r.html").read_text()


def test_the_first_answer_of_a_run_without_votes_is_the_first_vote(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """What is paid for is not asked again: neither when votes are turned on, nor when there may be more of them."""
    endpoint.answer = Ballots(a="pnn", b="ppp")
    step = {key: value for key, value in STEP.items() if key != "vote_on"}
    assert cli("run", job([{"t": "a"}, {"t": "b"}], step=step), endpoint=endpoint).code == 0
    assert "s_votes" not in rows(tmp_path)[0]
    config = job([{"t": "a"}, {"t": "b"}], step={**STEP, "votes": 2})
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 4
    assert cli("run", config, "--set", "steps.s.votes=3", endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 5
    assert [(r["s_label"], r["s_votes"]) for r in rows(tmp_path)] == [("neg", 3), ("pos", 2)]


def test_gold_says_whether_voting_helped(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Beside the majority stands what the first answer said, and both are scored against the values given by hand."""
    endpoint.answer = Ballots(a="npp", b="pp", c="nn", d="pnn")
    given = [{"t": t, "hand": hand} for t, hand in zip("abcd", ("pos", "pos", "neg", "pos"), strict=True)]
    config = job(given, step={**STEP, "votes": 3}, gold={"s_label": "hand"})
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    gold = json.loads(ended.out)["gold"]
    assert (gold["s_label"]["accuracy"], gold["s_label_first"]["accuracy"]) == (0.75, 0.75)
    assert [r["s_label_first"] for r in rows(tmp_path)] == ["neg", "pos", "neg", "pos"]
    assert [r["s_label"] for r in rows(tmp_path)] == ["pos", "pos", "neg", "neg"]
    assert "s_label_first against hand" in ended.err
    assert cli("report", config, "-o", "r.html", endpoint=endpoint).code == 0
    assert "s_label_first" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("on_tie", "shown"),
    [("first", ("ok", "pos")), ("null", ("ok", None)), ("invalid_output", ("invalid_output", None))],
)
def test_a_tie_is_what_the_user_chose(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    *,
    on_tie: str,
    shown: tuple[str, str | None],
) -> None:
    """Where two values have as many votes: the first, null, or a row that has no answer."""
    endpoint.answer = Ballots(a="pn", b="nn")
    config = job([{"t": "a"}, {"t": "b"}], step={**STEP, "votes": 2, "on_tie": on_tie})
    cli("run", config, endpoint=endpoint)
    first, second = rows(tmp_path)
    assert (first["s_status"], first["s_label"]) == shown
    assert (first["s_votes"], first["s_agreement"], second["s_label"]) == (2, 0.5, "neg")
    assert first["s_error"] == ("tie: label: pos 1, neg 1" if on_tie == "invalid_output" else None)


def test_only_doubtful_rows_are_asked_further(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`when` reads the first answer, its confidence too; a row without doubt has one answer."""
    endpoint.answer = Ballots(a="npp", b="ppp", c="npp")
    votes = {"most": 3, "when": "s_label == 'neg' and s_n < 5"}
    assert (
        cli("run", job([{"t": t} for t in "abc"], step={**STEP, "votes": votes}), endpoint=endpoint).code == 0
    )
    assert [(r["s_label"], r["s_votes"]) for r in rows(tmp_path)] == [("pos", 3), ("pos", 1), ("pos", 3)]
    assert len(endpoint.charges) == 7


def test_a_killed_run_goes_on_with_the_votes_it_has(
    warm: Warm, cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Each answer is charged once, whenever the process is killed."""
    names = [f"r{number}" for number in range(60)]
    said = {name: ("ppp", "pnn", "npn", "nnn")[number % 4] for number, name in enumerate(names)}
    ballots = endpoint.answer = Ballots(**said)
    config = job([{"t": name} for name in names], step={**STEP, "votes": 3}, limits={"concurrency": 4})
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    for charges in (20, 60, 100):
        running = warm.start(tmp_path, "run", config, env=env)
        while len(endpoint.charges) < charges:
            time.sleep(0.005)
        running.signal(signal.SIGKILL)
        running.wait()
    assert cli("run", config, endpoint=endpoint).code == 0
    assert ballots.asked == {name: 2 if said[name][0] == said[name][1] else 3 for name in names}
    assert len(endpoint.charges) == sum(ballots.asked.values())
    wanted = ["neg" if votes[:3].count("n") > 1 else "pos" for votes in said.values()]
    assert [r["s_label"] for r in rows(tmp_path)] == wanted
    assert sum(r["s_credits"] for r in rows(tmp_path)) == pytest.approx(endpoint.credits)


def test_models_take_turns(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Each answer comes from the next model; texts count as equal but for case and white space."""
    endpoint.answer = lambda body: {"m1": "Yes", "m2": " yes ", "m3": "no"}[body["model"]]
    config = job([{"t": "a"}], step={"temperature": 0, "votes": {"most": 3, "models": ["m1", "m3", "m2"]}})
    ended = cli("run", config, endpoint=endpoint)
    assert "useless" not in ended.err
    [row] = rows(tmp_path)
    assert (row["s"], row["s_votes"], row["s_model"]) == ("Yes", 3, "m1")


def test_frames_have_the_columns(
    endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`complete(votes=3)` tells what files tell."""
    endpoint.answer = Ballots(a="pp", b="pnn")
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    frame = pd.DataFrame({"t": ["a", "b"]})
    made = frame.beatra.complete(
        "{{ t }}", name="s", schema=SCHEMA, votes=3, vote_on="label", temperature=1, ledger=tmp_path / "l.db"
    )
    assert made["s_votes"].tolist() == [2, 3]
    assert made["s_label"].tolist() == ["pos", "neg"]
    assert enrich.pandas is not None


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"votes": 3, "temperature": 0}, "temperature: 0"),
        ({"votes": 3, "params": {"top_p": 0}}, "top_p: 0"),
        ({"votes": {"most": 3, "models": ["a", "a"]}, "temperature": 0}, "temperature: 0"),
        ({"votes": 3, "params": {"seed": 7}}, "seed"),
        ({"votes": 3, "temperature": 0.7}, None),
        ({"votes": 3}, None),
        ({"votes": 1, "temperature": 0}, None),
    ],
)
def test_votes_that_cannot_differ_are_warned_of(step: dict[str, Any], why: str | None) -> None:
    """A model that says the same each time is paid for nothing, and the warning says why."""
    told = useless(StepConfig.model_validate({"name": "s", "prompt": "x", **step}))
    assert (why in told) if told is not None and why is not None else told is why


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"votes": 0}, "votes"),
        ({"votes": 16}, "votes"),
        ({"votes": {"most": 3, "wenn": "x"}}, "wenn"),
        ({"votes": 3, "vote_on": "labl"}, "no field .labl."),
        ({"votes": {"most": 3, "when": "s_labl == 1"}}, "no .s_labl."),
        ({"votes": {"most": 3, "when": "s_confidence < 0.8"}}, "probabilities"),
        ({"votes": {"most": 3, "when": "s_label =="}}, "when"),
    ],
)
def test_what_cannot_be_counted_is_refused(step: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    import pyarrow as pa

    config = {
        "endpoint": {"base_url": "sandbox"},
        "steps": [{"name": "s", "prompt": "{{ t }}", "schema": SCHEMA, **step}],
    }
    with pytest.raises(UsageError, match=said):
        output_schema(pa.table({"t": ["a"]}).schema, config)


def test_each_field_has_a_majority_of_its_own() -> None:
    """By default every field of the schema is voted on by itself."""
    from enrich.schema.schema import load_schema

    step = StepConfig.model_validate({"name": "s", "prompt": "x", "schema": SCHEMA, "votes": 3})
    ballot = Ballot(step, load_schema(SCHEMA))
    answers = [{"label": "pos", "n": 1}, {"label": "neg", "n": 2}, {"label": "neg", "n": 1}]
    cast = [
        Outcome("ok", key=bytes([i]) * 16, text=str(i), values=v, source="api") for i, v in enumerate(answers)
    ]
    assert [ballot.is_settled(cast[:n]) for n in (1, 2, 3)] == [False, False, True]
    made = ballot.decide(cast)
    assert (made.values, made.text, made.key) == ({"label": "neg", "n": 1}, "2", cast[2].key)  # noqa: PD011  # an outcome's
    assert (made.votes, made.agreement, made.spared) == (3, 2 / 3, 0)
