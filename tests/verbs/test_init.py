"""`init` on a terminal: what it asks, and the configuration that it makes of the answers."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

import enrich
from enrich.config import load_config
from enrich.verbs.init import write_for
from tests.conftest import SCRIPT

if TYPE_CHECKING:
    from pathlib import Path


def test_a_wrong_name_is_said_at_once(tmp_path: Path) -> None:
    """A file that is not there is told before anything else is asked; the other answers are asked for once."""
    (tmp_path / "mine.csv").write_text("id,created_at,text\n1,2026-01-01,fine\n", encoding="utf-8")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, "init", "job"], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    for answer in (b"nine.csv", b"mine.csv", b"Classify it.", b"pos, neg"):
        while not seen.endswith(b": "):
            seen += os.read(ours, 4096)
        os.write(ours, answer + b"\n")
        seen += b"\n"
    assert process.wait(60) == 0
    os.close(ours)
    assert b"nine.csv" in seen.split(b"Your data")[1].partition(b"\n")[2].partition(b"\n")[2]
    step = load_config(tmp_path / "job" / "config.yaml").steps[0]
    assert step.answer_schema == {
        "type": "object",
        "properties": {"label": {"enum": ["pos", "neg"]}},
        "required": ["label"],
    }
    assert enrich.run(tmp_path / "job" / "config.yaml").statuses["ok"] == 1


def test_keys_and_dates_are_left_out_of_the_prompt(tmp_path: Path) -> None:
    """What tells a model nothing is not sent; the path of the data is relative, so that both can move."""
    (tmp_path / "d.csv").write_text("order_id,date,rating\n1,2026-01-02,5\n", encoding="utf-8")
    (config,) = write_for(tmp_path / "job", tmp_path / "d.csv", "Judge.")
    text = config.read_text(encoding="utf-8")
    assert 'input: "../d.csv"' in text
    assert "{{ rating }}" in text
    assert "order_id" not in text
    assert "date" not in text
