"""A pinned step: who answered first is kept; when another one answers the run stops, asks, or marks, and nothing is paid twice.

It is long because a pin meets every other way of asking, each of which has a case here.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import enrich
import enrich.pandas
from enrich.ledger.opening import open_ledger
from enrich.rows.pins import Served, pin_name
from tests.conftest import SCRIPT
from tests.helpers.deaths import through_deaths
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope
from tests.helpers.terminal import on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.postgres import Server
    from tests.helpers.warm import Ended, Warm

ROWS = [{"t": f"row {n}"} for n in range(40)]
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


class Deployed:
    """Says who answers: from the given charge on another model."""

    def __init__(self, endpoint: BookedEndpoint) -> None:
        self.endpoint = endpoint
        self.after = 10_000
        self.first: dict[str, Any] = {"model": "m-may"}
        self.then: dict[str, Any] = {"model": "m-june"}
        endpoint.beside = self
        endpoint.answer = lambda _: json.dumps({"label": "pos" if self.is_first else "neg"})

    @property
    def is_first(self) -> bool:
        """Whether the first model is still there; what is answered now is charged already."""
        return len(self.endpoint.charges) < self.after

    def __call__(self, _: dict[str, Any]) -> dict[str, Any]:
        """Give what tells who answered."""
        return self.first if len(self.endpoint.charges) <= self.after else self.then


@pytest.fixture
def deployed(endpoint: BookedEndpoint) -> Deployed:
    """The endpoint, whose model changes after some charges."""
    return Deployed(endpoint)


@pytest.fixture
def pinned(job: Callable[..., Path]) -> Callable[..., Path]:
    """Write a job with a pinned step."""

    def write(pin: Any = True, rows: list[dict[str, Any]] = ROWS, **step: Any) -> Path:
        one = {"schema": SCHEMA, "pin": pin, **step}
        return job(rows, step=one, limits={"concurrency": 1})

    return write


def summary_of(ended: Ended) -> dict[str, Any]:
    """Read the JSON of a run."""
    found: dict[str, Any] = json.loads(ended.out)
    return found


def columns(path: Path, *names: str) -> list[Any]:
    """Read columns of the output."""
    table = pq.read_table(path)
    return [table[name].to_pylist() for name in names]


def test_a_change_stops_the_run_and_is_taken_by_word(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed, tmp_path: Path
) -> None:
    """Exit 4, the output as it was, every answer kept; further runs send nothing; --accept-model goes on and keeps that."""
    deployed.after = 10
    config = pinned()
    ended = cli("run", config, "--json", endpoint=deployed.endpoint)
    assert ended.code == 4
    told = summary_of(ended)
    assert told["model_changed"] == {
        "step": "s",
        "asked": "auto",
        "pinned": {"model": "m-may", "fingerprint": None},
        "served": {"model": "m-june", "fingerprint": None},
        "asks": False,
    }
    assert "`auto`, which m-june answers now; it is pinned to m-may" in told["reason"]
    assert "--accept-model` goes on with it" in told["reason"]
    assert not told["resumable"]
    assert not (tmp_path / "out.parquet").exists()
    charged = len(deployed.endpoint.charges)
    assert 10 < charged < 20
    again = cli("run", config, endpoint=deployed.endpoint)
    assert again.code == 4
    assert len(deployed.endpoint.charges) == charged
    collected = cli("collect", config, "-o", "half.parquet")
    assert collected.code == 0, collected.err
    assert cli("run", config, "--accept-model", endpoint=deployed.endpoint).code == 0
    assert len(deployed.endpoint.charges) == len(ROWS) == len(deployed.endpoint.charges_per_body)
    model, changed, status = columns(tmp_path / "out.parquet", "s_model", "s_model_changed", "s_status")
    assert changed == [name != "m-may" for name in model]
    assert changed.count(False) == 10
    assert set(status) == {"ok"}
    further = cli("run", config, "--force", "--json", endpoint=deployed.endpoint)
    assert (further.code, summary_of(further)["requests"]) == (0, 0)
    deployed.then = {"model": "m-july"}
    pq.write_table(
        pq.read_table(tmp_path / "in.parquet").append_column("x", [["y"] * len(ROWS)]),
        tmp_path / "in.parquet",
    )
    document = yaml.safe_load(config.read_text()) | {"output": "other.parquet", "ledger": ".beatra/ledger.db"}
    document["steps"][0]["prompt"] = "Judge {{ t }}"
    config.write_text(yaml.safe_dump(document))
    third = cli("run", config, endpoint=deployed.endpoint)
    assert third.code == 4
    assert "which m-july answers now; it is pinned to m-june" in third.err


def test_kills_lose_neither_pin_nor_answer(
    cli: Callable[..., Ended], warm: Warm, pinned: Callable[..., Path], deployed: Deployed, tmp_path: Path
) -> None:
    """Killed as the first answers come, and later: the first model is the pinned one all the same, and nothing is paid twice."""
    deployed.after = 20
    config = pinned()
    endpoint = deployed.endpoint
    ended = through_deaths(warm, endpoint, [1, 2, 3, 8, 19], tmp_path, "run", config, "-q")
    assert ended.code == 4
    assert "it is pinned to m-may" in ended.err
    assert cli("run", config, "--accept-model", endpoint=endpoint).code == 0
    assert len(endpoint.charges) == len(ROWS) == len(endpoint.charges_per_body)
    model, changed = columns(tmp_path / "out.parquet", "s_model", "s_model_changed")
    assert changed == [name != "m-may" for name in model]


def test_the_report_tells_before_and_after(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed, tmp_path: Path
) -> None:
    """Marked rows are ok; page and JSON have labels and models before and after; without content the models alone."""
    deployed.after = 10
    config = pinned("mark")
    ended = cli("run", config, endpoint=deployed.endpoint)
    assert ended.code == 0
    assert "`auto` is answered by m-june, and was answered by m-may" in ended.err
    assert len(deployed.endpoint.charges) == len(ROWS)
    model, changed, label = columns(tmp_path / "out.parquet", "s_model", "s_model_changed", "s_label")
    assert changed == [name == "m-june" for name in model]
    assert changed.count(True) == 30
    told = json.loads(cli("report", config, "--json").out)["steps"]["s"]["model_change"]
    assert told["before"] == {"rows": 10, "models": ["m-may"]}
    assert told["after"] == {"rows": 30, "models": ["m-june"]}
    before, after = (
        {
            name: sum(one == name and c is side for one, c in zip(label, changed, strict=True))
            for name in ("pos", "neg")
        }
        for side in (False, True)
    )
    assert told["labels"]["s_label"] == {
        name: {"before": before[name], "after": after[name]} for name in ("pos", "neg")
    }
    page = (tmp_path / "report.html").read_text()
    assert "Another model answered" in page
    assert "Labels of s_label before and after" in page
    bare = json.loads(cli("report", config, "--json", "--no-content").out)
    assert "labels" not in bare["steps"]["s"]["model_change"]
    assert cli("run", config, "--force", endpoint=deployed.endpoint).code == 0
    assert columns(tmp_path / "out.parquet", "s_model_changed") == [changed]
    assert len(deployed.endpoint.charges) == len(ROWS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_every_format_tells_of_the_change(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed, suffix: str
) -> None:
    """Text formats too."""
    deployed.after = 10
    config = pinned("mark")
    assert cli("run", config, "--output", f"out.{suffix}", endpoint=deployed.endpoint).code == 0
    told = json.loads(cli("report", config, "--output", f"out.{suffix}", "--json").out)
    assert told["steps"]["s"]["model_change"]["after"]["rows"] == 30


def test_without_a_change_nothing_is_said(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed, tmp_path: Path
) -> None:
    """All rows are false in the column, and neither page nor JSON has a word of it."""
    config = pinned()
    assert cli("run", config, endpoint=deployed.endpoint).code == 0
    assert columns(tmp_path / "out.parquet", "s_model_changed") == [[False] * len(ROWS)]
    assert "model_change" not in json.loads(cli("report", config, "--json").out)["steps"]["s"]
    assert "Another model answered" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("strict", "code"), [(True, 4), (False, 0)])
def test_the_fingerprint_counts_unless_it_is_told_not_to(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed, *, strict: bool, code: int
) -> None:
    """The same name with another system_fingerprint is another model; one that is not told is held against nobody."""
    deployed.after = 10
    deployed.first = {"system_fingerprint": "fp_1"}
    deployed.then = {"system_fingerprint": "fp_2"}
    config = pinned({"on_change": "stop", "fingerprint": strict})
    ended = cli("run", config, endpoint=deployed.endpoint)
    assert ended.code == code
    assert ("served-1 (fp_2) answers now; it is pinned to served-1 (fp_1)" in ended.err) is strict
    assert not Served("m", None).is_same(Served("n", None), fingerprint=True)
    assert Served("m", None).is_same(Served("m", "fp"), fingerprint=True)
    assert Served(None, "fp").is_same(Served("m", "fp"), fingerprint=True)


def test_each_asked_model_has_a_pin_of_its_own(
    cli: Callable[..., Ended], job: Callable[..., Path], deployed: Deployed
) -> None:
    """Models per row, votes over models and fallbacks are no change; that one of them answers as another one is."""
    deployed.endpoint.beside = lambda body: {"model": f"{body['model']}-snapshot"}
    rows = [{"t": f"row {n}", "m": "a" if n % 2 else "b"} for n in range(20)]
    config = job(rows, step={"schema": SCHEMA, "pin": True, "model": "{{ m }}"})
    assert cli("run", config, endpoint=deployed.endpoint).code == 0
    voted = {"schema": SCHEMA, "pin": True, "votes": {"most": 3, "models": ["a", "c", "b"]}}
    config = job(rows, step=voted, output="votes.parquet")
    assert cli("run", config, endpoint=deployed.endpoint).code == 0
    deployed.endpoint.beside = lambda body: {
        "model": f"{body['model']}-{'next' if body['model'] == 'c' else 'snapshot'}"
    }
    config = job([{"t": f"new {n}", "m": "a"} for n in range(20)], step=voted, output="votes.parquet")
    ended = cli("run", config, endpoint=deployed.endpoint)
    assert ended.code == 4
    assert "asks for `c`, which c-next answers now; it is pinned to c-snapshot" in ended.err


def test_a_fallback_is_no_change(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The model that is turned to has a pin of its own: it may answer in the first one's place, but not as another one."""
    endpoint.answer = lambda _: '{"label": "pos"}'
    away = False

    def trouble(seen: Seen) -> Raw | None:
        is_first = seen.method == "POST" and seen.body["model"] == "first"
        return envelope("model_unavailable", 503, retryable=True) if away and is_first else None

    endpoint.script = trouble
    endpoint.beside = lambda body: {"model": f"{body['model']}-snapshot"}
    step = {"schema": SCHEMA, "pin": True, "model": "first", "fallback_models": ["second"]}
    config = job(ROWS[:10], step=step)
    assert cli("run", config, endpoint=endpoint).code == 0
    away = True
    config = job(ROWS[:20], step=step)
    assert cli("run", config, endpoint=endpoint).code == 0
    (model,) = columns(tmp_path / "out.parquet", "s_model")
    assert set(model) == {"first-snapshot", "second-snapshot"}
    assert columns(tmp_path / "out.parquet", "s_model_changed") == [[False] * 20]
    endpoint.beside = lambda body: {"model": f"{body['model']}-next"}
    ended = cli("run", job(ROWS[:30], step=step), endpoint=endpoint)
    assert ended.code == 4
    assert "asks for `second`, which second-next answers now; it is pinned to second-snapshot" in ended.err


def test_with_a_cheap_model_first_each_has_its_pin(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """As of any models that are asked; a row with an answer of another large model is marked."""
    endpoint.answer = lambda body: json.dumps({"label": "pos" if body["model"] == "large" else "neg"})
    endpoint.beside = lambda body: {"model": f"{body['model']}-snapshot"}
    escalate = [{"model": "small"}, {"model": "large", "when": "s_label == 'neg'"}]
    step = {"schema": SCHEMA, "pin": True, "escalate": escalate}
    assert cli("run", job(ROWS[:10], step=step), endpoint=endpoint).code == 0
    endpoint.beside = lambda body: {
        "model": f"{body['model']}-{'next' if body['model'] == 'large' else 'snapshot'}"
    }
    ended = cli("run", job(ROWS[:20], step=step), endpoint=endpoint)
    assert ended.code == 4
    assert "asks for `large`, which large-next answers now" in ended.err


def test_a_vote_with_one_answer_of_another_model_is_marked(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Whichever of the answers it is, and whether the majority was its or not."""
    says = iter(["pos", "neg", "pos"] * 4)
    endpoint.answer = lambda _: json.dumps({"label": next(says)})
    served = iter(["m-may", "m-may", "m-may", "m-may", "m-june", "m-may"] * 2)
    endpoint.beside = lambda _: {"model": next(served)}
    step = {"schema": SCHEMA, "pin": "mark", "votes": 3, "temperature": 0.5}
    config = job([{"t": f"{n}"} for n in range(4)], step=step, limits={"concurrency": 1})
    assert cli("run", config, endpoint=endpoint).code == 0
    (first,) = columns(tmp_path / "out.parquet", "s_model_changed")
    assert first.count(True) >= 1
    assert cli("run", config, "--force", endpoint=endpoint).code == 0
    assert columns(tmp_path / "out.parquet", "s_model_changed") == [first]


def test_on_a_terminal_it_asks(pinned: Callable[..., Path], deployed: Deployed, tmp_path: Path) -> None:
    """`ask` shows what changed; yes goes on at once and keeps it, no ends with 4; without a terminal it stops."""
    deployed.after = 10
    config = pinned("ask")
    env = {"BEATRA_BASE_URL": deployed.endpoint.base_url, "BEATRA_API_KEY": KEY}
    done = subprocess.run(
        [SCRIPT, "run", config],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    code, seen = on_terminal(tmp_path, 120, "run", config, typed="n\n", **env)
    assert code == 4
    assert "Take the new model, and go on?" in seen
    code, seen = on_terminal(tmp_path, 120, "run", config, typed="y\n", **env)
    assert code == 0, seen
    assert len(deployed.endpoint.charges) == len(ROWS)


def test_answers_from_before_the_pin_are_the_first(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed
) -> None:
    """A step that is pinned later is pinned to who answered before; nothing is asked again for it."""
    deployed.after = 20
    config = pinned(pin=False, rows=ROWS[:20])
    assert cli("run", config, endpoint=deployed.endpoint).code == 0
    config = pinned()
    ended = cli("run", config, endpoint=deployed.endpoint)
    assert ended.code == 4
    assert "it is pinned to m-may" in ended.err
    assert len(deployed.endpoint.charges_per_body) == len(deployed.endpoint.charges)


def test_looking_pins_nothing(
    cli: Callable[..., Ended], pinned: Callable[..., Path], deployed: Deployed
) -> None:
    """Neither plan nor collect writes a pin, or ends because of one."""
    deployed.after = 10
    config = pinned()
    assert cli("run", config, endpoint=deployed.endpoint).code == 4
    assert cli("plan", config, endpoint=deployed.endpoint).code == 0
    assert cli("collect", config, "-o", "half.parquet").code == 0
    assert cli("run", config, "--trial", "5", "--yes", endpoint=deployed.endpoint).code == 4


def test_from_python(pinned: Callable[..., Path], deployed: Deployed) -> None:
    """`enrich.run` takes the word as an argument, and tells of the change."""
    deployed.after = 10
    config = pinned()
    url = deployed.endpoint.base_url
    stopped = enrich.run(config, base_url=url, api_key=KEY)
    assert stopped.exit_code == 4
    assert stopped.model_changed is not None
    assert stopped.model_changed["served"]["model"] == "m-june"
    assert enrich.run(config, base_url=url, api_key=KEY, accept_model=True).exit_code == 0


def test_a_data_frame_is_held_to_it_too(
    deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops with its error; marked rows are rows like others."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    deployed.after = 5
    frame = pd.DataFrame(ROWS)
    asked = {"schema": SCHEMA, "base_url": deployed.endpoint.base_url, "concurrency": 1, "progress": False}
    asked |= {"ledger": str(tmp_path / "l.db"), "columns": ["status", "model_changed"]}
    with pytest.raises(enrich.ModelChanged, match="m-june answers now; it is pinned to m-may"):
        frame.beatra.complete("{{ t }}", name="s", pin=True, **asked)
    out = frame.beatra.complete("{{ t }}", name="s", pin="mark", **asked)
    assert out["s_model_changed"].tolist().count(False) == 5
    assert len(deployed.endpoint.charges_per_body) == len(deployed.endpoint.charges) == len(ROWS)


@pytest.mark.parametrize("pin", ["stp", {"on_change": "halt"}, {"onchange": "stop"}, 3])
def test_what_is_no_pin_is_refused(
    cli: Callable[..., Ended], pinned: Callable[..., Path], endpoint: BookedEndpoint, pin: Any
) -> None:
    """In words, before anything is sent."""
    ended = cli("check", pinned(pin), endpoint=endpoint)
    assert ended.code == 2
    assert "pin" in ended.err


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A ledger of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "shared.db")
    else:
        server: Server = request.getfixturevalue("postgres_server")
        yield server.create(f"pins_{uuid.uuid4().hex}")


def test_two_processes_that_begin_at_once_agree(
    location: str, tmp_path: Path, deployed: Deployed, job: Callable[..., Path]
) -> None:
    """Each is answered by another model: one pin stands, and who meets the other model stops; nothing is paid twice."""
    deployed.endpoint.beside = lambda body: {"model": f"m-{body['messages'][-1]['content'].split()[0]}"}
    env = {**os.environ, "BEATRA_BASE_URL": deployed.endpoint.base_url, "BEATRA_API_KEY": KEY}
    processes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = [{"t": f"{name} {n}"} for n in range(30)]
        document = yaml.safe_load(job(rows, step={"schema": SCHEMA, "pin": True}).read_text())
        (tmp_path / "in.parquet").rename(tmp_path / name / "in.parquet")
        document |= {"ledger": location}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(document))
        command: list[str | Path] = [SCRIPT, "run", "config.yaml", "--json", "--no-progress"]
        processes.append(
            subprocess.Popen(
                command, cwd=tmp_path / name, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    ended = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert sorted(code for _, code in ended) == [0, 4], ended
    (out, _), _ = next(one for one in ended if one[1] == 4)
    change = json.loads(out)["model_changed"]
    assert {change["pinned"]["model"], change["served"]["model"]} == {"m-a", "m-b"}
    assert max(deployed.endpoint.charges_per_body.values()) == 1


async def test_the_first_one_stands(location: str) -> None:
    """Of many who would be the first, in as many ledgers opened at once, one is; whoever may join does, once."""
    ledgers = [await open_ledger(location) for _ in range(6)]
    try:
        name = pin_name("http://x", "s", "auto")
        told = await asyncio.gather(*(one.enlist(name, [f"m{n}", None]) for n, one in enumerate(ledgers)))
        assert all(one == told[0] for one in told)
        assert len(told[0]) == 1
        await asyncio.gather(*(one.enlist(name, ["next", None], further=True) for one in ledgers))
        assert await ledgers[0].recall(name) == {"items": [*told[0], ["next", None]]}
    finally:
        for one in ledgers:
            await one.close()
