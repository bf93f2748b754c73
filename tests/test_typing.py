"""What type checkers see of the Python faces, in a user's own file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # both checkers read pandas' and Polars' stubs from scratch

RIGHT = """
import asyncio
from typing import Literal

import pandas as pd
import polars as pl
import pyarrow as pa
from pydantic import BaseModel

import enrich
import enrich.polars
from enrich.pandas import beatra


class Answer(BaseModel):
    label: Literal["pos", "neg"]


df = pd.DataFrame({"review": ["good"]})
out: pd.DataFrame = beatra(df).complete("Classify: {{ review }}", name="tone", schema=Answer, budget={"credits": 5})
labels: "pd.Series[str]" = beatra(df["review"]).complete("{{ value }}", ledger=None)
rows: int = beatra(df).plan("{{ review }}").rows
text: str = beatra(df).preview("{{ review }}")
steps: pd.DataFrame = beatra(df).run("config.yaml", errors="raise")
frame: pl.DataFrame = enrich.polars.beatra(pl.LazyFrame({"t": ["a"]})).complete("{{ t }}", progress=False)
batches: list[pa.RecordBatch] = list(enrich.enrich_batches([], {"steps": []}))
schema: pa.Schema = enrich.output_schema(pa.schema([]), "config.yaml")
summary: enrich.Summary = enrich.run("config.yaml", limit=3)


async def main() -> pd.DataFrame:
    async for batch in enrich.aenrich_batches([], "config.yaml"):
        print(batch.num_rows)
    return await beatra(df).acomplete("{{ review }}", when="{{ review }}")


asyncio.run(main())
"""

WRONG = """
import pandas as pd
from enrich.pandas import beatra
df = pd.DataFrame({"review": ["good"]})
beatra(df).complete("x", nmae="tone")
beatra(df).complete("x", columns="some")
beatra(df).complete(3)
beatra(df).complete("x", "y")
n: int = beatra(df).complete("x")
"""
WRONG_LINES = {5, 6, 7, 8, 9}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a file that is right and one that is wrong, as a user has them."""
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    return tmp_path


def test_mypy_sees_every_argument_and_every_result(files: Path) -> None:
    """A right file passes in strict mode; in a wrong one, each wrong line is told."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--output", "json", "right.py", "wrong.py"],
        cwd=files,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = {(item["file"], item["line"]) for item in told if item["severity"] == "error"}
    assert errors == {("wrong.py", line) for line in WRONG_LINES}, done.stdout + done.stderr


def test_pyright_sees_every_argument_and_every_result(files: Path) -> None:
    """The same with pyright's rules."""
    pytest.importorskip("basedpyright")
    (files / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=files,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)["generalDiagnostics"]
    errors = {
        (item["file"].rpartition("/")[2], item["range"]["start"]["line"] + 1)
        for item in told
        if item["severity"] == "error"
    }
    assert errors == {("wrong.py", line) for line in WRONG_LINES}, done.stdout
