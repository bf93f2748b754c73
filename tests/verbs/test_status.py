"""Looking at a job from outside: status while it runs, watching it, and a configuration for one's own data."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

import enrich
from enrich.config import load_config
from enrich.errors import InputError, LedgerError, OutputError
from enrich.ledger.opening import open_ledger
from enrich.runs.options import RunOptions
from enrich.runs.pipeline import run_job
from enrich.show.progress import Snapshot, pulse_name
from enrich.verbs.init import write_for
from enrich.verbs.status import status_job, watch_job
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every job in this module is for the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


async def test_watching_a_run(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Whoever watches sees the run's own figures as long as it runs, and then how it ended."""
    endpoint.pause()
    config = load_config(job())
    run = asyncio.create_task(run_job(config, RunOptions()))
    while len(endpoint.posts) < 3:  # noqa: ASYNC110  # the endpoint lives in another thread
        await asyncio.sleep(0.01)
    seen: list[Snapshot] = []

    def show(now: Snapshot) -> None:
        seen.append(now)
        endpoint.resume()

    ending = await watch_job(config, show, every=0.05)
    assert (await run).exit_code == 0
    assert seen[0].total == 3
    assert seen[0].phase == "asking"
    assert "3 rows done" in ending


async def test_status_while_a_run_goes_on(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Status can be asked while a run holds the ledger; the run is none the worse."""
    endpoint.pause()
    config = load_config(job())
    run = asyncio.create_task(run_job(config, RunOptions()))
    while len(endpoint.posts) < 3:  # noqa: ASYNC110  # the endpoint lives in another thread
        await asyncio.sleep(0.01)
    assert (await status_job(config)).requests["sent"] == 3
    endpoint.resume()
    assert (await run).exit_code == 0
    assert (await status_job(config)).requests["answered"] == 3
    assert len(endpoint.charges) == 3


async def test_watching_a_run_that_was_killed(job: Callable[..., Path]) -> None:
    """A run that is heard of no more is said to be gone, with what to type next."""
    config = load_config(job())
    ledger = await open_ledger(config.ledger_location())
    note = {
        "run": 1,
        "at": time.time() - 3600,
        "ended": False,
        "snapshot": Snapshot("asking", 1, 3, 2.0).to_dict(),
    }
    await ledger.remember(pulse_name(config.output.path), note)
    await ledger.close()
    ending = await watch_job(config, lambda _: None, every=0.05)
    assert "nothing was heard of the run for 1 h 00 min" in ending
    assert "Hint: beatra-enrich run" in ending


async def test_watching_before_the_first_run(job: Callable[..., Path]) -> None:
    """Without a ledger, or without a run in it, it is said so."""
    config = load_config(job())
    with pytest.raises(LedgerError, match="there is no ledger"):
        await watch_job(config, lambda _: None, every=0.05)
    await (await open_ledger(config.ledger_location())).close()
    assert "no run of this job has begun" in await watch_job(config, lambda _: None, every=0.05)


async def test_a_ledger_opened_for_reading(job: Callable[..., Path], tmp_path: Path) -> None:
    """A ledger opened for reading can be read and not written; one that is not there is not made."""
    config = load_config(job())
    location = config.ledger_location()
    writer = await open_ledger(location)
    await writer.remember("a", {"b": 1})
    reader = await open_ledger(location, read_only=True)
    assert await reader.recall("a") == {"b": 1}
    with pytest.raises(LedgerError, match="readonly"):
        await reader.remember("a", {"b": 2})
    await reader.close()
    await writer.close()
    with pytest.raises(LedgerError):
        await open_ledger(str(tmp_path / "none.db"), read_only=True)
    assert not (tmp_path / "none.db").exists()


def test_watch_as_a_command(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`status --watch` of a run that has ended says how, and leaves with 0."""
    config = job()
    assert cli("run", config, endpoint=endpoint).code == 0
    ended = cli("status", config, "--watch", endpoint=endpoint)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "the last run has ended: 3 rows done\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Callable[..., Ended], shell: str) -> None:
    """`completion` prints a script for each shell, and its help says where to put it."""
    ended = cli("completion", shell)
    assert ended.code == 0
    assert "_BEATRA_ENRICH_COMPLETE" in ended.out
    assert f"completion {shell}" in cli("completion", "--help").out


def test_completion_completes(cli: Callable[..., Ended]) -> None:
    """What the script calls back gives the commands that begin so."""
    ended = cli(
        script=True, _BEATRA_ENRICH_COMPLETE="bash_complete", COMP_WORDS="beatra-enrich sta", COMP_CWORD="1"
    )
    assert ended.out == "plain,status\n"


# --- init -------------------------------------------------------------------------------------------------


def test_a_configuration_for_ones_own_data(tmp_path: Path) -> None:
    """`init` writes a configuration with the data's real columns, however they are named, that runs at once."""
    data = tmp_path / "mine.csv"
    data.write_text(
        'id,review text,class,"a ""b"" {x}",row\n1,"good, yes",k,q,r\n2,bad,k,q,r\n', encoding="utf-8"
    )
    (config,) = write_for(tmp_path / "job", data, "Say whether the customer is happy.")
    summary = enrich.run(config)
    assert summary.exit_code == 0, summary.reason
    assert summary.statuses["ok"] == 2
    assert summary.output == str(tmp_path / "job" / "out" / "mine.csv")


def test_many_columns_and_taken_names(tmp_path: Path) -> None:
    """Of many columns the prompt shows some and names the rest; the step's name collides with no column."""
    data = tmp_path / "wide.jsonl"
    data.write_text(json.dumps({"answer": "a", **{f"c{n}": n for n in range(20)}}) + "\n", encoding="utf-8")
    (config,) = write_for(tmp_path, data, "Sum up.")
    text = config.read_text(encoding="utf-8")
    assert 'input: "wide.jsonl"' in text
    assert "further columns: c5, c6" in text
    assert "name: result" in text
    assert enrich.run(config).exit_code == 0


def test_a_template_as_the_task(tmp_path: Path) -> None:
    """A task that is a template already is taken as it stands."""
    data = tmp_path / "d.csv"
    data.write_text("t\nx\n", encoding="utf-8")
    (config,) = write_for(tmp_path, data, "Translate: {{ t }}")
    assert load_config(config).steps[0].prompt == "Translate: {{ t }}\n"


def test_data_that_is_not_there(tmp_path: Path) -> None:
    """Data that cannot be read is told, and nothing is written; nor is a file replaced that is there."""
    with pytest.raises(InputError):
        write_for(tmp_path / "job", tmp_path / "none.csv", "x")
    assert not (tmp_path / "job").exists()
    (tmp_path / "d.csv").write_text("t\nx\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="there already"):
        write_for(tmp_path, tmp_path / "d.csv", "x")


def test_the_status_tells_of_rows_failures_and_the_sandbox(
    cli: Callable[..., Ended], job: Callable[..., Path]
) -> None:
    """Rows that no request could be made of are counted as failed, with their cause; made-up answers are marked."""
    config = job([{"t": "a"}, {"t": None}, {"t": None}, {"t": "b"}])
    cli("run", config, "--sandbox")
    told = cli("status", config, "--sandbox").out
    assert "rows        4: 2 ok (50.0%), 2 error (50.0%)" in told
    assert "            2 rows null_value at step s, first in row 2" in told
    assert "the last run's answers are made up" in told
