"""The examples run as they are, and say of themselves what is so."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.warm import Ended

EXAMPLES = Path(__file__).parent.parent / "examples"
JOBS = sorted(path.parent.name for path in EXAMPLES.glob("*/config.yaml"))


@pytest.fixture
def example(tmp_path: Path, cli: Callable[..., Ended]) -> Callable[[str], dict[str, Any]]:
    """Run a copy of an example; gives the summary."""

    def run(name: str) -> dict[str, Any]:
        if not (tmp_path / name).exists():
            shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("out"))
        ended = cli("run", f"{name}/config.yaml", "--json")
        assert ended.code == 0, ended.err
        return dict(json.loads(ended.out))

    return run


@pytest.mark.parametrize("name", JOBS)
def test_an_example_runs_as_it_is_and_only_once(example: Callable[[str], dict[str, Any]], name: str) -> None:
    """Without key, network or flags every row is ok or skipped; run again, nothing is asked."""
    first = example(name)
    assert first["ok"] + first["skipped"] == first["rows"] > 0
    again = example(name)
    assert again["requests"] == 0
    assert again["ok"] == (
        0 if "partitions" in again else first["ok"]
    )  # finished partitions are not read again


def test_tickets_get_typed_columns(example: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    """Leading zeros stay, a ticket sent in twice is asked once, and the answer's fields have types."""
    assert (example("tickets")["rows"], example("tickets")["requests"]) == (24, 0)
    table = pq.read_table(tmp_path / "tickets" / "out" / "tickets.parquet")
    assert table["ticket"][0].as_py() == "004100"
    assert table["triage_source"].to_pylist().count("copy") == 1
    assert table.schema.field("triage_urgency").type == pa.int64()
    assert table.schema.field("triage_needs_human").type == pa.bool_()


def test_invoices_keep_their_types_and_skip_what_was_not_scanned(
    example: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Decimals, zones and large strings pass through; items are a list of structs; null documents are skipped."""
    assert example("invoices")["skipped"] == 2
    given = pq.read_table(EXAMPLES / "invoices" / "invoices.parquet")
    table = pq.read_table(tmp_path / "invoices" / "out" / "invoices.parquet")
    assert table.select(given.column_names).equals(given)
    items = table.schema.field("invoice_items").type
    assert pa.types.is_list(items)
    assert items.value_type.field("quantity").type == pa.int64()


def test_articles_are_summarised_from_two_columns(
    example: Callable[[str], dict[str, Any]], cli: Callable[..., Ended], tmp_path: Path
) -> None:
    """Title and text stand in one prompt; short notes are skipped; the second step follows the first."""
    assert example("articles")["skipped"] == 2
    shown = cli("preview", "articles/config.yaml", "-n", "1").out
    assert "# Harbour bridge closes for repairs" in shown
    assert "needs the answer of summary" in shown
    with (tmp_path / "articles" / "out" / "articles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["headline_status"] for row in rows].count("ok") == 6


def test_the_invoices_are_what_their_script_makes(tmp_path: Path) -> None:
    """The committed Parquet file is the script's output."""
    script = shutil.copy(EXAMPLES / "invoices" / "make_invoices.py", tmp_path)
    subprocess.run([sys.executable, script], check=True)
    made = pq.read_table(tmp_path / "invoices.parquet")
    assert made.equals(pq.read_table(EXAMPLES / "invoices" / "invoices.parquet"))


def test_the_readme_tells_of_every_example() -> None:
    """Each job has a section, and every link leads somewhere."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+):", text, re.MULTILINE) == ["tickets", "invoices", "articles", "days"]
    assert sorted(re.findall(r"^## (\w+):", text, re.MULTILINE)) == JOBS
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (EXAMPLES / target).exists(), target
