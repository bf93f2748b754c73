"""A chain of three steps with invalid answers, killed and resumed: paid once, and as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.warm import Warm

TEARING = 0.02  # seconds between looks at the books
PASSING = ("source", "latency_ms", "request_id", "attempts")  # what a resumed run may show otherwise
STEPS: list[dict[str, Any]] = [
    {
        "name": "mood",
        "prompt": "Judge: {{ t }}",
        "schema": {
            "type": "object",
            "properties": {"label": {"enum": ["pos", "neg"]}, "score": {"type": "number", "minimum": 0}},
            "required": ["label", "score"],
        },
    },
    {
        "name": "plan",
        "prompt": "What to do about {{ t }}, which is {{ mood_label }} ({{ mood_score }})?",
        "model": "smart-1",
        "schema": {
            "type": "object",
            "properties": {
                "steps": {"type": "array", "items": {"type": "string"}},
                "urgent": {"type": "boolean"},
            },
            "required": ["steps", "urgent"],
        },
        "reask": 2,
    },
    {
        "name": "reply",
        "prompt": "Reply to {{ t }} {{ 'now' if plan_urgent else 'later' }}: {{ plan_steps | join(', ') }}",
    },
]


@contextlib.contextmanager
def sandbox(port: int = 0) -> Iterator[str]:
    """Run the emulator in a process of its own; every twentieth completion breaks its schema."""
    command = ["sandbox", "--port", str(port), "--latency", "0.004", "--fault", "broken_schema=0.05"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from enrich.cli.app import main; main()", *command],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def books(base_url: str) -> Any:
    """The emulator's books."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/sandbox/ledger") as response:  # noqa: S310  # our own process on loopback
        return json.load(response)


def make_job(folder: Path, rows: int) -> None:
    """Write the chain into a folder; every tenth row equals an earlier one."""
    folder.mkdir()
    texts = [f"review {number // 2 if number % 10 == 9 else number}" for number in range(rows)]
    pq.write_table(pa.table({"t": texts}), folder / "in.parquet")
    document = {"input": "in.parquet", "output": "out.parquet", "steps": STEPS, "limits": {"adaptive": False}}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))


def result(folder: Path) -> pa.Table:
    """The output, without what a resumed run may show otherwise."""
    table = pq.read_table(folder / "out.parquet")
    return table.drop_columns([f"{step['name']}_{name}" for step in STEPS for name in PASSING])


def survives(warm: Warm, folder: Path, rows: int, kills: list[float]) -> None:
    """Kill the chain at these shares of its work, resume it, and hold it to the books and to an undisturbed run."""
    for name in ("torn", "calm"):
        make_job(folder / name, rows)
    with sandbox() as base_url:
        env = {"BEATRA_BASE_URL": base_url, "BEATRA_API_KEY": "sk-any"}
        for share in kills:
            running = warm.start(folder / "torn", "run", "config.yaml", "-q", env=env)
            while books(base_url)["totals"]["charges"] < share * rows:
                time.sleep(TEARING)
            os.kill(running.pid, signal.SIGKILL)
            assert running.wait().code == -signal.SIGKILL
        torn = warm.run(folder / "torn", "run", "config.yaml", "-q", "--json", env=env)
        told = books(base_url)
        again = warm.run(folder / "torn", "run", "config.yaml", "-q", "--json", env=env)
        assert books(base_url)["totals"]["requests"] == told["totals"]["requests"]
        assert json.loads(again.out)["requests"] == 0
    port = int(base_url.rsplit(":", 1)[-1].removesuffix("/v1"))
    with sandbox(port) as same_url:
        assert same_url == base_url
        calm = warm.run(folder / "calm", "run", "config.yaml", "-q", "--json", env=env)
        undisturbed = books(base_url)
    assert (torn.code, calm.code) in ((0, 0), (3, 3)), (torn.err, calm.err)
    assert {tally["charges"] for tally in told["bodies"].values()} == {1}
    assert told["bodies"].keys() == undisturbed["bodies"].keys()
    assert told["totals"]["faults"]["broken_schema"] > 0.05 * rows
    assert result(folder / "torn").equals(result(folder / "calm"))
    hold_to_books(folder / "torn", told, rows)


def hold_to_books(folder: Path, told: Any, rows: int) -> None:
    """Each row has a status at each step, and what all of them cost is what was charged."""
    table = pq.read_table(folder / "out.parquet")
    assert table.num_rows == rows
    columns = {name: table[name].to_pylist() for name in table.column_names}
    credits_ = sum(sum(value or 0 for value in columns[f"{step['name']}_credits"]) for step in STEPS)
    assert credits_ == pytest.approx(told["totals"]["credits"])
    tokens = sum(sum(value or 0 for value in columns[f"{step['name']}_total_tokens"]) for step in STEPS)
    assert tokens == told["totals"]["tokens"]
    assert {status for step in STEPS for status in columns[f"{step['name']}_status"]} <= {
        "ok",
        "invalid_output",
        "skipped",
    }
    for label, plan, reply in zip(
        columns["mood_label"], columns["plan_status"], columns["reply_status"], strict=True
    ):
        assert (label is None) is (plan == "skipped")
        assert (plan == "ok") is (reply == "ok")


def test_a_chain_that_is_killed(warm: Warm, tmp_path: Path) -> None:
    """1,000 rows, killed three times."""
    survives(warm, tmp_path, 1_000, [0.1, 1.2, 2.3])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_long_chain_that_is_killed(warm: Warm, tmp_path: Path) -> None:
    """10,000 rows, killed five times."""
    survives(warm, tmp_path, 10_000, [0.05, 0.6, 1.3, 2.0, 2.6])
