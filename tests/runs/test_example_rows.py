"""Rows that a prompt shows as examples are not what it is judged by: neither compare nor review draws them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.helpers.endpoint import BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}
SHOWN = (2, 3, 5, 7)
ROWS = [{"t": f"row {n}", "by_hand": "pos" if n % 2 else "neg"} for n in range(20)]


def always(_: dict[str, Any]) -> str:
    """Say "pos" of every row."""
    return '{"label": "pos"}'


@pytest.fixture
def shows(job: Callable[..., Path], tmp_path: Path) -> Path:
    """A job whose prompt shows four of its rows as examples."""
    lines = [{"user": f"Judge: row {n}", "assistant": {"label": "pos"}} for n in SHOWN]
    (tmp_path / "examples.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    step = {"prompt": "Judge: {{ t }}", "schema": SCHEMA, "examples_file": "examples.jsonl"}
    return job(ROWS, step=step, gold={"s_label": "by_hand"})


def test_compare_asks_no_row_that_a_variant_shows(
    cli: Callable[..., Ended], shows: Path, tmp_path: Path
) -> None:
    """Whichever variant shows it: no variant is asked it; the page says how many were left out. A named cohort of them is told."""
    other = yaml.safe_load(shows.read_text(encoding="utf-8"))
    del other["steps"][0]["examples_file"]
    other["output"] = "b/out.parquet"
    (tmp_path / "b").mkdir()
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    with BookedEndpoint(answer=always) as endpoint:
        named = cli("compare", "b.yaml", "b.yaml", "--cohort", "all", "--json", endpoint=endpoint)
        assert named.code == 2  # one configuration twice: nothing was drawn
        ended = cli("compare", "b.yaml", shows, "--sample", "20", endpoint=endpoint)
        asked = [post.body["messages"][-1]["content"] for post in endpoint.posts]
    assert ended.code == 0, ended.err
    assert (
        "16 of 20 rows, drawn at random with seed 0; 4 rows that a prompt shows as examples left out"
        in ended.out
    )
    assert "4 rows that a prompt shows as examples left out" in (tmp_path / "b" / "compare.html").read_text()
    assert sorted(asked) == sorted(2 * [f"Judge: row {n}" for n in range(20) if n not in SHOWN])


def test_a_named_cohort_with_examples_is_told(cli: Callable[..., Ended], shows: Path, tmp_path: Path) -> None:
    """Rows that were drawn before the prompt showed them stay, and it is said what they are worth."""
    plain = yaml.safe_load(shows.read_text(encoding="utf-8"))
    examples = plain["steps"][0].pop("examples_file")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    asked = ["compare", "config.yaml", "--set", "steps.s.temperature=0", "--sample", "20", "--cohort", "mine"]
    with BookedEndpoint(answer=always) as endpoint:
        assert cli(*asked, endpoint=endpoint).code == 0
        asked[3] = f"steps.s.examples_file={examples}"
        ended = cli(*asked, endpoint=endpoint)
    assert ended.code == 0, ended.err
    assert "4 rows of the cohort mine stand among a prompt's examples" in ended.err


def test_sheet_rowss_no_row_that_the_prompt_shows(
    cli: Callable[..., Ended], shows: Path, tmp_path: Path
) -> None:
    """Nothing is concluded from them, and it is said how many they are."""
    with BookedEndpoint(answer=always) as endpoint:
        assert cli("run", shows, endpoint=endpoint).code == 0
    drawn: dict[str, Any] = json.loads(cli("review", shows, "-n", "20", "-o", "sheet.csv", "--json").out)
    assert (drawn["rows"], drawn["left_out"]) == (16, 4)
    lines = (tmp_path / "sheet.csv").read_text(encoding="utf-8")
    assert not any(f"row {n}," in lines for n in SHOWN)
    assert cli("review", shows).out.startswith(
        "0 of 16 drawn rows labelled, for 16 rows; 4 rows that the prompt shows"
    )
