"""Gold columns: the figures are those of the rows, wherever they are told; what is wrong is found before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg"]},
        "stars": {"type": "number"},
        "city": {"type": "string"},
    },
    "required": ["label"],
}
# What a row's text makes the endpoint answer, and what a person said of it.
ROWS: list[dict[str, Any]] = [
    {
        "t": "a",
        "label": "pos",
        "by_hand": "pos",
        "stars": 4,
        "stars_hand": 4.0,
        "city": "Rome",
        "city_hand": "Rome",
    },
    {
        "t": "b",
        "label": "pos",
        "by_hand": "neg",
        "stars": 5,
        "stars_hand": 3.0,
        "city": "Bern",
        "city_hand": "bern",
    },
    {
        "t": "c",
        "label": "neg",
        "by_hand": "neg",
        "stars": 1,
        "stars_hand": 2.0,
        "city": "Oslo",
        "city_hand": "Kyiv",
    },
    {
        "t": "d",
        "label": "neg",
        "by_hand": None,
        "stars": 1,
        "stars_hand": None,
        "city": "Lima",
        "city_hand": "",
    },
    {
        "t": "e",
        "label": "pos",
        "by_hand": "pos",
        "stars": 2,
        "stars_hand": 2.0,
        "city": "Pisa",
        "city_hand": "Pisa",
    },
]


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that answers each text as `ROWS` says."""
    answers = {row["t"]: json.dumps({k: row[k] for k in ("label", "stars", "city")}) for row in ROWS}
    with BookedEndpoint(
        answer=lambda body: answers.get(body["messages"][-1]["content"], "no JSON")
    ) as server:
        yield server


@pytest.fixture
def scored(job: Callable[..., Path]) -> Callable[..., Path]:
    """Write a job over `ROWS` with gold columns."""

    def write(rows: list[dict[str, Any]] = ROWS, **config: Any) -> Path:
        given = [{k: v for k, v in row.items() if k not in ("label", "stars", "city")} for row in rows]
        gold = {"s_label": "by_hand", "s_stars": "stars_hand", "s_city": "city_hand"}
        return job(given, step={"schema": SCHEMA, "reask": 0}, **{"gold": gold, **config})

    return write


def gold_of(ended: Ended) -> dict[str, Any]:
    """Read the gold of a JSON summary."""
    found: dict[str, Any] = json.loads(ended.out)["gold"]
    return found


def test_a_run_ends_with_its_agreement(
    cli: Callable[..., Ended], scored: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Rows without a value by hand are not wrong; a second run of the finished job says the same and asks nothing."""
    config = scored()
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0
    gold = gold_of(ended)
    label, stars, city = gold["s_label"], gold["s_stars"], gold["s_city"]
    assert (label["n"], label["without_gold"], label["unanswered"]) == (4, 1, 0)
    assert label["accuracy"] == 0.75
    assert label["kappa"] == 0.5
    assert label["labels"]["pos"]["precision"] == pytest.approx(2 / 3, abs=1e-6)
    assert label["confusion"] == {"pos": {"pos": 2}, "neg": {"pos": 1, "neg": 1}}
    assert label["disagree"] == [{"row": 2, "gold": "neg", "answer": "pos"}]
    assert label["accuracy_ci"][0] < 0.75 < label["accuracy_ci"][1]
    assert (stars["kind"], stars["mae"], stars["bias"]) == ("number", 0.75, 0.25)
    assert (city["kind"], city["accuracy"], city["normalised"]) == ("text", 0.5, 0.75)
    assert "s_label against by_hand: accuracy 0.75" in ended.err
    again = cli("run", config, "--json", endpoint=endpoint)
    assert gold_of(again) == gold
    assert len(endpoint.charges) == len(ROWS)


def test_rows_without_an_answer_are_in_no_figure(
    cli: Callable[..., Ended], scored: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """They are counted apart."""
    failing = {"t": "x", "by_hand": "pos", "stars_hand": 1.0, "city_hand": "Rome"}
    ended = cli("run", scored([*ROWS, failing]), "--json", endpoint=endpoint)
    assert ended.code == 3
    assert (gold_of(ended)["s_label"]["n"], gold_of(ended)["s_label"]["unanswered"]) == (4, 1)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_format_of_output_gives_the_same(
    cli: Callable[..., Ended], scored: Callable[..., Path], endpoint: BookedEndpoint, suffix: str
) -> None:
    """What a text file makes of types changes no figure."""
    gold = gold_of(cli("run", scored(output=f"out.{suffix}"), "--json", endpoint=endpoint))
    assert (gold["s_label"]["accuracy"], gold["s_stars"]["mae"], gold["s_city"]["normalised"]) == (
        0.75,
        0.75,
        0.75,
    )


def test_a_table_of_its_own_is_found_by_its_key(
    cli: Callable[..., Ended], scored: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """In any order, with rows that the job has not, and a key of another type."""
    table = pa.table({"who": ["e", "zz", "b", "a"], "said": ["pos", "pos", "neg", "pos"]})
    pyarrow.csv.write_csv(table, tmp_path / "gold.csv")
    config = scored(gold={"file": "gold.csv", "key": "who", "columns": {"s_label": "said"}})
    ended = cli("run", config, endpoint=endpoint)
    assert ended.code == 2
    assert "gold: the output has no column `who`" in ended.err
    assert not endpoint.posts
    pyarrow.csv.write_csv(table.rename_columns(["t", "said"]), tmp_path / "gold.csv")
    config = scored(gold={"file": "gold.csv", "key": "t", "columns": {"s_label": "said"}})
    gold = gold_of(cli("run", config, "--json", endpoint=endpoint))
    assert (gold["s_label"]["n"], gold["s_label"]["accuracy"]) == (3, pytest.approx(2 / 3, abs=1e-6))


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ({"s_label": "by_hnd"}, "the output has no column `by_hnd`\nHint: did you mean `by_hand`"),
        ({"s_labl": "by_hand"}, "`s_labl` is no column of answers"),
        ({"s_status": "by_hand"}, "`s_status` is no column of answers"),
        ({"file": "gone.csv", "key": "t", "columns": {"s_label": "x"}}, "gone.csv"),
        ({"file": "gone.csv", "columns": {"s_label": "x"}}, "`file` and `key` go together"),
        ({}, "gold"),
        ({"columns": {"s_label": "by_hand"}, "at_least": 2}, "at_least"),
    ],
)
def test_what_is_wrong_with_gold_costs_nothing(
    cli: Callable[..., Ended],
    scored: Callable[..., Path],
    endpoint: BookedEndpoint,
    gold: dict[str, Any],
    said: str,
) -> None:
    """It is refused in words, by `run` and by `check`."""
    config = scored(gold=gold)
    ended = cli("run", config, endpoint=endpoint)
    assert ended.code == 2
    assert said.partition("\n")[0] in ended.err
    assert cli("check", config, endpoint=endpoint).code == 2
    assert not endpoint.posts


def test_a_key_with_two_values_is_told_and_undoes_no_run(
    cli: Callable[..., Ended], scored: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Which of them is right nobody knows."""
    pyarrow.csv.write_csv(pa.table({"t": ["a", "a"], "said": ["pos", "neg"]}), tmp_path / "gold.csv")
    config = scored(gold={"file": "gold.csv", "key": "t", "columns": {"s_label": "said"}})
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0
    assert "two different rows for `t` 'a'" in ended.err
    assert "gold" not in json.loads(ended.out)
    checked = cli("check", config, endpoint=endpoint)
    assert checked.code == 2
    assert "FAIL  gold" in checked.out
    assert "two different rows for `t` 'a'" in checked.out


@pytest.mark.parametrize("apart", [False, True])
def test_a_value_that_no_answer_can_have_is_told(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    *,
    apart: bool,
) -> None:
    """`check` names the labels by hand that the schema does not know: rows with them can only be wrong."""
    labels = ["pos", "Pos", "neg", "mixed", "", None, "mixed"]
    rows = [{"t": f"{n}", "by_hand": label} for n, label in enumerate(labels)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gold.parquet")
    further = {"file": "gold.parquet", "key": "t", "columns": {"s_label": "by_hand"}}
    step = {
        "schema": {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}
    }
    given = [{"t": row["t"]} for row in rows] if apart else rows
    config = job(given, step=step, gold=further if apart else {"s_label": "by_hand"})
    checked = cli("check", config, endpoint=endpoint)
    assert checked.code == 0, checked.out
    said = (
        "warning: `by_hand` says 'Pos', 'mixed' (3 rows), which `s_label` cannot be: its schema has pos, neg"
    )
    assert said in " ".join(checked.out.split())
    cured = json.loads(json.dumps(step).replace('"neg"]', '"neg", "Pos", "mixed"]'))
    config = job(given, step=cured, gold=further if apart else {"s_label": "by_hand"})
    assert "warning" not in cli("check", config, endpoint=endpoint).out


def test_a_prompt_that_reads_the_gold_column_is_told(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """By `check`, `compare` and `run`: else an accuracy of 1 would be believed."""
    rows = [{"t": "a", "by_hand": "x"}]
    config = job(rows, step={"prompt": "{{ row | tojson }}"}, gold={"s": "by_hand"})
    said = "the prompts read the gold column `by_hand`"
    checked = cli("check", config, endpoint=endpoint)
    assert f"warning: {said}" in checked.out + checked.err
    assert said in cli("compare", config, "--set", "steps.s.temperature=0", endpoint=endpoint).err
    assert said in cli("run", config, endpoint=endpoint).err


def test_the_report_shows_it_and_says_it_as_json(
    cli: Callable[..., Ended], scored: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Figures, confusion and rows on the page; without content figures alone."""
    config = scored()
    cli("run", config, endpoint=endpoint)
    told = json.loads(cli("report", config, "--json").out)
    page = (tmp_path / "report.html").read_text()
    assert told["report"] == str(tmp_path / "report.html")
    assert told["gold"]["s_label"]["accuracy"] == 0.75
    assert told["last_run"]["rows"] == told["rows"] == len(ROWS)
    assert "s_label against by_hand" in page
    assert "Confusion of s_label" in page
    assert "Kyiv" in page
    bare = json.loads(cli("report", config, "--json", "--no-content").out)
    assert bare["gold"]["s_label"]["accuracy"] == 0.75
    assert "confusion" not in bare["gold"]["s_label"]
    assert "Kyiv" not in (tmp_path / "report.html").read_text()
