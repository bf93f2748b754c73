"""A plan that goes through no row: only where job, input and ledger are as they were; else the long way."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import enrich
from enrich.base.loops import run_sync
from enrich.config import load_config
from enrich.ledger.opening import open_ledger
from enrich.runs import unchanged
from enrich.runs.fresh import scope_of
from enrich.runs.job import compile_job
from enrich.runs.options import RunOptions
from enrich.verbs.ledger import prune_ledger
from enrich.verbs.plan import plan_job
from tests.helpers.endpoint import KEY, BookedEndpoint, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.verbs.plan_result import JobPlan
    from tests.helpers.warm import Ended

ROWS = 12


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every job goes to the endpoint that keeps books; a file counts as old enough at once."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    monkeypatch.setattr(unchanged, "COARSEST", -60.0)


def plan(config: Path, **options: Any) -> JobPlan:
    """Plan a job in this process."""
    return run_sync(lambda: plan_job(load_config(config), RunOptions(**options)))


def texts(count: int, copies: int = 0) -> list[dict[str, Any]]:
    """Give rows, some of them twice, and some that are skipped."""
    rows = [{"t": f"text {n}", "n": n} for n in range(count)]
    return rows + rows[:copies]


@pytest.fixture
def done(job: Callable[..., Path]) -> Path:
    """Give a job that was run to its end: copies, skipped rows, a second step."""
    config = job(texts(ROWS, copies=4), step={"when": "{{ n > 1 }}"})
    told = yaml.safe_load(config.read_text())
    told["steps"].append({"name": "again", "prompt": "{{ t }} {{ s }}", "on_null": "skip"})
    config.write_text(yaml.safe_dump(told))
    assert enrich.run(config).exit_code == 0
    return config


def ledger_of(config: Path) -> Path:
    """Give the file of a job's ledger."""
    return config.parent / ".beatra" / "ledger.db"


def change(config: Path, **keys: Any) -> None:
    """Change keys of the first step."""
    told = yaml.safe_load(config.read_text())
    told["steps"][0].update(keys)
    config.write_text(yaml.safe_dump(told))


def test_a_finished_job_is_planned_without_its_rows(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what the long way says of rows and requests, and reads not a single row."""
    with monkeypatch.context() as patch:
        patch.setattr("enrich.files.source.Source.batches", None)
        quick = plan(done)
    with monkeypatch.context() as patch:
        patch.setattr(unchanged, "_name", lambda _: "another note")
        long = plan(done)
    assert quick.unchanged
    assert not long.unchanged
    assert quick.steps == long.steps
    assert (quick.rows, quick.to_ask, quick.in_ledger) == (ROWS + 4, 0, 2 * ROWS - 4)
    assert "as they were when the job was finished" in quick.text()
    assert quick.to_dict()["unchanged"] is True
    assert long.to_dict()["unchanged"] is False


def test_a_plan_that_found_nothing_is_kept_too(done: Path) -> None:
    """What was finished elsewhere, or touched since, takes the long way once."""
    os.utime(done.parent / "in.parquet")
    assert [plan(done).unchanged for _ in range(3)] == [False, True, True]


def test_looking_changes_nothing(done: Path, cli: Callable[..., Ended]) -> None:
    """Commands that only read leave the ledger as it was."""
    for command in ("status", "ledger ls", "ledger verify", "report", "preview"):
        assert cli(*command.split(), done).code == 0
        assert plan(done).unchanged, command


# --- whatever has changed leads the long way; each gives the requests that are left to ask ---------------------


def other_rows(config: Path) -> int:
    """Another text, of the same length; the file's times are kept."""
    path = config.parent / "in.parquet"
    before = path.stat()
    rows = [{**row, "t": row["t"].replace("text 7", "TEXT 7")} for row in texts(ROWS, copies=4)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return 1


def touched(config: Path) -> int:
    """The same bytes, written anew."""
    path = config.parent / "in.parquet"
    path.write_bytes(path.read_bytes())
    return 0


def other_prompt(config: Path) -> int:
    """Another prompt."""
    change(config, prompt="Of {{ t }}")
    return ROWS - 2


def other_condition(config: Path) -> int:
    """A condition that lets more rows through."""
    change(config, when="{{ n > 0 }}")
    return 1


def asked_anew(config: Path) -> int:
    """A `--fresh` that was stopped before it had opened its run."""

    async def bump() -> None:
        loaded = load_config(config)
        compiled = compile_job(loaded, pq.read_schema(config.parent / "in.parquet"))
        ledger = await open_ledger(loaded.ledger_location())
        name = compiled.steps[0].builder.fingerprint
        number = await ledger.generation(name, bump=True)
        scope = scope_of(loaded.input)
        await ledger.remember(f"fresh:{name.hex()}:{scope}", {"generation": number})
        await ledger.close()

    run_sync(bump)
    return ROWS - 2


def pruned(config: Path) -> int:
    """Answers that were forgotten."""
    assert run_sync(lambda: prune_ledger(str(ledger_of(config)), 0.0)) == 2 * ROWS - 4
    return ROWS - 2


def lost(config: Path) -> int:
    """An answer that a stranger took out of the file."""
    with contextlib.closing(sqlite3.connect(ledger_of(config))) as con, con:
        con.execute("DELETE FROM answer WHERE id = 3")
    return 1


def damaged(config: Path) -> int:
    """A flipped bit in an answer: only its checksum tells."""
    path = ledger_of(config)
    data = bytearray(path.read_bytes())
    place = data.rindex(b'"finish_reason"')
    data[place + 1] ^= 1
    with path.open("r+b") as file:  # the same file
        file.write(data)
    return 1


def another_run(config: Path) -> int:
    """A run of another job on the same ledger."""
    other = config.with_name("other.yaml")
    told = yaml.safe_load(config.read_text())
    told["output"] = "other.parquet"
    other.write_text(yaml.safe_dump(told))
    assert enrich.run(other).requests == 0
    return 0


CHANGES = [
    *(other_rows, touched, other_prompt, other_condition),
    *(asked_anew, pruned, lost, damaged, another_run),
]


@pytest.mark.parametrize("changed", CHANGES, ids=lambda changed: changed.__name__)
@pytest.mark.parametrize("looked", [False, True], ids=["at once", "after another command"])
def test_whatever_changes_takes_the_long_way(
    done: Path, changed: Callable[[Path], int], looked: bool
) -> None:
    """However it came about, the plan counts what a run would ask, and so does each plan after it."""
    assert plan(done).unchanged
    left = changed(done)
    if looked:  # which checks the ledger's file, and vouches for it

        async def look() -> None:
            await (await open_ledger(str(ledger_of(done)))).close()

        run_sync(look)
    found = plan(done)
    assert not found.unchanged
    assert found.steps[0].to_ask + found.steps[1].to_ask == left
    assert plan(done).unchanged is (left == 0)
    if left:
        assert enrich.run(done, overrides=["max_reasked=100%"]).exit_code == 0
        assert plan(done).to_ask == 0


def test_another_limit_is_another_question(done: Path) -> None:
    """A plan of the first rows says how many these are."""
    found = plan(done, limit=5)
    assert (found.unchanged, found.rows, found.in_ledger) == (False, 5, 6)


def test_a_file_of_a_step_that_changes(job: Callable[..., Path], tmp_path: Path) -> None:
    """What a prompt's file says is a part of the job, not the file's name."""
    (tmp_path / "prompt.txt").write_text("First: {{ t }}")
    config = job(texts(3), step={"prompt": None, "prompt_file": "prompt.txt"})
    told = yaml.safe_load(config.read_text())
    del told["steps"][0]["prompt"]
    config.write_text(yaml.safe_dump(told))
    enrich.run(config)
    assert plan(config).unchanged
    (tmp_path / "prompt.txt").write_text("Other: {{ t }}")
    assert plan(config).to_ask == 3


# --- what is not kept -----------------------------------------------------------------------------------------


def test_a_file_just_written_is_not_trusted(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second write within the same tick of the file system's clock would not show."""
    monkeypatch.setattr(unchanged, "COARSEST", 2.0)
    config = job(texts(3))
    enrich.run(config)
    assert [plan(config).unchanged for _ in range(2)] == [False, False]


def test_rows_that_failed_are_looked_at(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """A failure may pass: whether the next run asks again is not for a note to say."""
    endpoint.script = lambda seen: envelope("internal_error", 500) if b"text 2" in seen.raw else None
    config = job(texts(3), retry={"attempts": 1}, tolerate=3)
    assert enrich.run(config).exit_code == 0
    assert [plan(config).unchanged for _ in range(2)] == [False, False]


def test_unfit_answers_are_looked_at_once(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """They are paid for: what a plan found about them stands as long as nothing changes."""
    endpoint.answer = lambda body: "no label" if "2" in str(body["messages"]) else '{"label": "good"}'
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    config = job(texts(3), step={"schema": schema, "reask": 0}, tolerate=1)
    assert enrich.run(config).exit_code == 0
    assert [plan(config).unchanged for _ in range(3)] == [False, True, True]


def test_a_model_of_the_users_is_looked_at(
    job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its validators may have changed while its schema stayed as it is."""
    endpoint.answer = lambda _: '{"label": "good"}'
    module = "from pydantic import BaseModel\nclass Answer(BaseModel):\n    label: str\n"
    (tmp_path / "labels_of_mine.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    config = job(texts(3), step={"schema": "labels_of_mine:Answer"})
    assert enrich.run(config).exit_code == 0
    assert [plan(config).unchanged for _ in range(2)] == [False, False]


def test_an_older_program_is_not_believed(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version may ask in another way."""
    monkeypatch.setattr(unchanged, "__version__", "999")
    assert not plan(done).unchanged
