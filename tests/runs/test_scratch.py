from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from enrich.config import Config, validate_config
from enrich.runs.scratch import occurrences_of, scratch_of


def job(**keys: Any) -> Config:
    """Give a small job with these keys."""
    steps = [{"name": "s", "prompt": "x"}]
    return validate_config({"input": "a.csv", "output": "/o/b.csv", "steps": steps, **keys})


@pytest.mark.parametrize(
    ("keys", "folder"),
    [
        ({}, "/o"),
        ({"output": "/o/parts/"}, "/o"),
        ({"output": "b.csv"}, "."),
        ({"ledger": "postgresql://h/d"}, "/o"),
        ({"output": "s3://b/k.csv", "ledger": "postgresql://h/d"}, tempfile.gettempdir()),
    ],
)
def test_what_is_kept_meanwhile_lies_beside_the_output(keys: dict[str, Any], folder: str) -> None:
    """There is a place for it that takes files; of an object, the system's where the ledger is a server."""
    assert scratch_of(job(**keys)) == Path(folder)


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
