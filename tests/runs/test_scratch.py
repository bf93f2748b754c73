from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enrich.cli import main
from enrich.config import Config, validate_config
from enrich.runs.scratch import occurrences_of, scratch_of


def job(**keys: Any) -> Config:
    """Give a small job with these keys."""
    steps = [{"name": "s", "prompt": "x"}]
    return validate_config({"input": "a.csv", "output": "o/b.csv", "steps": steps, **keys})


@pytest.mark.parametrize(
    ("keys", "folder"),
    [
        ({}, "o"),
        ({"output": "o/parts/"}, "o"),
        ({"output": "b.csv"}, "."),
        ({"ledger": "postgresql://h/d"}, "o"),
        ({"output": "s3://b/k.csv", "ledger": "postgresql://h/d"}, tempfile.gettempdir()),
    ],
)
def test_what_is_kept_meanwhile_lies_beside_the_output(
    keys: dict[str, Any], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a place for it that takes files; of an object, the system's where the ledger is a server."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    assert scratch_of(job(**keys)) == Path(folder)


@pytest.mark.parametrize("ledger", ["deep/ledger.db", "postgresql://h/d"])
def test_without_the_output_s_folder_it_lies_elsewhere(ledger: str, tmp_path: Path) -> None:
    """Plan, trial, compare and retry --where look before a first run has made it."""
    shared = ledger if "://" in ledger else str(tmp_path / ledger)
    found = scratch_of(job(output=str(tmp_path / "not yet" / "b.csv"), ledger=shared))
    assert found == (Path(tempfile.gettempdir()) if "://" in ledger else tmp_path / "deep")
    assert found.is_dir()


@pytest.mark.parametrize(
    "command",
    [("plan", "--set", "dedupe=false"), ("run", "--trial", "1"), ("retry", "--where", "true", "--yes")],
)
def test_a_ledger_elsewhere_needs_no_folder_of_the_output(command: tuple[str, ...], tmp_path: Path) -> None:
    """What looks before it asks works where the output's folder is yet to be made."""
    (tmp_path / "a.csv").write_text("a\nx\n")
    written = {
        "input": "a.csv",
        "output": "out/b.csv",
        "ledger": "ledger.db",
        "endpoint": {"base_url": "sandbox"},
    }
    (tmp_path / "c.yaml").write_text(json.dumps({**written, "steps": [{"name": "s", "prompt": "{{ a }}"}]}))
    made = CliRunner().invoke(main, ["run", str(tmp_path / "c.yaml"), "--no-progress"])
    assert made.exit_code == 0, made.output
    shutil.rmtree(tmp_path / "out")
    verb, *flags = command
    ended = CliRunner().invoke(main, [verb, str(tmp_path / "c.yaml"), *flags])
    assert ended.exit_code == 0, ended.output


def test_an_object_s_lies_beside_the_ledger(tmp_path: Path) -> None:
    """Its folder is made, so that the first run finds it."""
    config = job(output="s3://b/k.csv", ledger=str(tmp_path / "deep" / "ledger.db"))
    assert scratch_of(config) == tmp_path / "deep"
    assert (tmp_path / "deep").is_dir()


def test_equal_requests_are_counted_where_each_is_asked(tmp_path: Path) -> None:
    """Where equal rows share one answer there is nothing to count."""
    with occurrences_of(job()) as none:
        assert none is None
    with occurrences_of(job(dedupe=False, output=f"{tmp_path}/b.csv")) as occurrences:
        assert [occurrences.count(b"k"), occurrences.count(b"k")] == [0, 1]
