"""Review: rows go to people and come back, nothing is sent, and what they said corrects the counts of the whole table."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended

ROWS = 400
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


def truth(number: int) -> str:
    """Say what a row really is: every fourth is "pos"."""
    return "pos" if number % 4 == 0 else "neg"


def answer(body: dict[str, Any]) -> str:
    """Say "pos" of a few rows more than are; of the last row something that is no answer."""
    number = int(body["messages"][-1]["content"].split()[-1])
    if number == ROWS - 1:
        return "?"
    return json.dumps({"label": "pos" if number % 10 == 1 else truth(number)})


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that answers as `answer` says, and keeps books."""
    with BookedEndpoint(answer=answer) as server:
        yield server


@pytest.fixture
def ran(cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint) -> Path:
    """A job that has run."""
    rows = [{"t": f"row {n}"} for n in range(ROWS)]
    step = {"prompt": "Judge: {{ t }}", "schema": SCHEMA, "reask": 0}
    config = job(rows, step=step, tolerate=5)
    assert cli("run", config, endpoint=endpoint).code == 0
    return config


def told(ended: Ended) -> dict[str, Any]:
    """Read the JSON of a command that went well."""
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def lines_of(path: Path) -> list[dict[str, str]]:
    """Read a sheet."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, say: Callable[[int], str | None]) -> None:
    """Fill a sheet in, by the numbers of the rows."""
    lines = lines_of(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        for line in lines:
            said = say(int(line["t"].split()[-1]))
            writer.writerow({**line, "s_label_review": said or ""})


def test_a_sheet_goes_out_and_comes_back(
    cli: Callable[..., Ended], ran: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Stratified, without the answers; then accuracy and corrected counts, whose intervals hold the truth. Nothing is sent."""
    charges = len(endpoint.charges)
    drawn = told(cli("review", ran, "-n", "120", "-o", "sheet.csv", "--json"))
    lines = lines_of(tmp_path / "sheet.csv")
    assert drawn["rows"] == len(lines) == 120
    assert set(drawn["strata"]) == {"pos", "neg"}
    assert list(lines[0]) == ["review_row", "t", "s_label_review"]
    assert [line["t"] for line in lines] == [f"row {int(line['review_row']) - 1}" for line in lines]
    fill(tmp_path / "sheet.csv", truth)
    found = told(cli("review", ran, "--read", "sheet.csv", "--json"))
    assert (found["column"], found["n"], found["rows"]) == ("s_label", 120, ROWS - 1)
    wrong = sum(n % 10 == 1 and truth(n) == "neg" for n in range(ROWS - 1))
    low, high = found["accuracy_ci"]
    assert low <= 1 - wrong / (ROWS - 1) <= high
    for label in ("pos", "neg"):
        counts = found["counts"][label]
        true = sum(truth(n) == label for n in range(ROWS - 1))
        low, high = counts["corrected_ci"]
        assert low <= true <= high
        assert abs(counts["corrected"] - true) < abs(counts["answered"] - true)
    assert "prediction-powered" in found["method"]
    assert told(cli("review", ran, "--json")) == found
    words = cli("review", ran, "--margin", "0.01").out
    assert "too few for an accuracy within ±0.01: about " in words
    assert "corrected (" in words
    assert len(endpoint.charges) == charges


def test_sheets_may_be_workbooks_and_show_the_answers(
    cli: Callable[..., Ended], ran: Path, tmp_path: Path
) -> None:
    """What is filled in with a spreadsheet is taken back."""
    import openpyxl

    cli("review", ran, "-n", "20", "-o", "sheet.xlsx", "--show-answers")
    book = openpyxl.load_workbook(tmp_path / "sheet.xlsx")
    sheet = book.active
    assert sheet is not None
    names = [cell.value for cell in sheet[1]]
    assert names == ["review_row", "t", "s_label", "s_label_review"]
    for line in sheet.iter_rows(min_row=2):
        line[3].value = str(line[2].value).upper()
    book.save(tmp_path / "sheet.xlsx")
    found = told(cli("review", ran, "--read", "sheet.xlsx", "--json"))
    assert (found["n"], found["accuracy"]) == (20, 1)


def test_what_was_said_is_kept(cli: Callable[..., Ended], ran: Path, tmp_path: Path) -> None:
    """A sheet that is filled in half counts as far as it goes; a larger one has these labels already."""
    before = set(tmp_path.iterdir())
    cli("review", ran, "-n", "40", "-o", "sheet.csv")
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {
        "sheet.csv"
    }  # nothing beside the sheet
    fill(tmp_path / "sheet.csv", lambda n: truth(n) if n % 2 else None)
    half = told(cli("review", ran, "--read", "sheet.csv", "--json"))
    assert 0 < half["n"] < 40
    again = told(cli("review", ran, "-n", "399", "-o", "all.csv", "--json"))
    assert again["known"] == half["n"]
    labelled = [line for line in lines_of(tmp_path / "all.csv") if line["s_label_review"]]
    assert len(labelled) == half["n"]


def test_corrected_rows_become_examples(
    cli: Callable[..., Ended], ran: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Each with the prompt as it was asked and the answer as it should be; a step takes the file."""
    cli("review", ran, "-n", "200", "-o", "sheet.csv")
    fill(tmp_path / "sheet.csv", truth)
    cli("review", ran, "--read", "sheet.csv")
    wrong = [
        n
        for line in lines_of(tmp_path / "sheet.csv")
        if (n := int(line["t"].split()[-1])) % 10 == 1 and truth(n) == "neg"
    ]
    assert told(cli("review", ran, "--as-examples", "ex.jsonl", "--json"))["rows"] == len(wrong) > 3
    examples = [json.loads(line) for line in (tmp_path / "ex.jsonl").read_text().splitlines()]
    assert examples[0] == {"user": f"Judge: row {wrong[0]}", "assistant": {"label": "neg"}}
    shown = cli("preview", ran, "-n", "1", "--set", "steps.s.examples_file=ex.jsonl", endpoint=endpoint)
    assert f"Judge: row {wrong[0]}" in shown.out


@pytest.mark.parametrize("by", ["confidence", "status"])
def test_strata_of_other_kinds(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, by: str
) -> None:
    """By status the rows that failed are among them; by confidence it says what is missing."""
    rows = [{"t": f"row {n}"} for n in range(ROWS - 30, ROWS)]
    config = job(rows, step={"prompt": "{{ t }}", "schema": SCHEMA, "reask": 0}, tolerate=5)
    cli("run", config, endpoint=endpoint)
    ended = cli("review", config, "-n", "10", "-o", "sheet.csv", "--by", by, "--json")
    if by == "status":
        assert told(ended)["strata"] == {"ok": 9, "invalid_output": 1}
    else:
        assert ended.code == 2
        assert "logprobs" in ended.err


def test_labels_are_not_held_to_other_answers(
    cli: Callable[..., Ended], ran: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """When the output says something else than the sheet was drawn by, it says so, and keeps the labels."""
    cli("review", ran, "-n", "30", "-o", "sheet.csv")
    fill(tmp_path / "sheet.csv", truth)
    table = pq.read_table(tmp_path / "out.parquet")
    place = table.schema.names.index("s_label")
    other = pa.array(["neg"] * table.num_rows).cast(table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), other), tmp_path / "out.parquet")
    ended = cli("review", ran, "--read", "sheet.csv")
    assert ended.code == 2
    assert "have changed since the sheet was drawn" in ended.err
    assert told(cli("review", ran, "-n", "30", "-o", "again.csv", "--json"))["known"] > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-n", "5"], "-n goes with -o"),
        (["-o", "a.csv", "--read", "b.csv"], "exclude each other"),
        (["--column", "s_lab"], "the output has no such column of answers"),
        ([], "no sheet was drawn for `s_label` yet"),
        (["--read", "in.parquet"], "has no column `review_row`"),
        (["-o", "out.parquet"], "the output"),
        (["-o", "config.yaml/sheet.csv"], "sheet.csv"),
        (["--as-examples", "ex.jsonl"], "no sheet was drawn"),
    ],
)
def test_what_is_wrong_is_told(cli: Callable[..., Ended], ran: Path, flags: list[str], said: str) -> None:
    """In words, with exit code 2."""
    ended = cli("review", ran, *flags)
    assert ended.code == 2
    assert said in ended.err


def test_a_row_that_was_not_drawn_is_refused(cli: Callable[..., Ended], ran: Path, tmp_path: Path) -> None:
    """A sheet of another job's is no sheet of this one's."""
    cli("review", ran, "-n", "5", "-o", "sheet.csv")
    (tmp_path / "sheet.csv").write_text("review_row,s_label_review\n9999,pos\n", encoding="utf-8")
    ended = cli("review", ran, "--read", "sheet.csv")
    assert ended.code == 2
    assert "row 9999 was not drawn" in ended.err


def test_labels_that_nobody_has_read_are_not_drawn_over(
    cli: Callable[..., Ended], ran: Path, tmp_path: Path
) -> None:
    """A filled sheet stands nowhere else until it is read: drawing another one in its place is refused, and then is not."""
    draw = ("review", ran, "-n", "30", "-o", "sheet.csv")
    told(cli(*draw, "--json"))
    fill(tmp_path / "sheet.csv", truth)
    before = (tmp_path / "sheet.csv").read_bytes()
    refused = cli(*draw)
    assert refused.code == 2
    assert "sheet.csv holds labels that were not read yet" in refused.err
    assert (tmp_path / "sheet.csv").read_bytes() == before
    told(cli("review", ran, "--read", "sheet.csv", "--json"))
    assert told(cli(*draw, "--json"))["known"] == 30


def test_a_label_that_the_schema_does_not_have_is_refused(
    cli: Callable[..., Ended], ran: Path, tmp_path: Path
) -> None:
    """A slip of the pen is no class of the table: it is named, and nothing of the sheet is kept."""
    told(cli("review", ran, "-n", "30", "-o", "sheet.csv", "--json"))
    fill(tmp_path / "sheet.csv", lambda number: {"pos": " Pos", "neg": "negative"}[truth(number)])
    refused = cli("review", ran, "--read", "sheet.csv")
    assert refused.code == 2
    assert "says 'negative', which the step's schema does not have" in refused.err
    assert told(cli("review", ran, "--json"))["n"] == 0


def test_values_given_by_hand_before_are_not_shown(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Who labels a row anew does not see what it was called before, unless the answers are shown too."""
    rows = [{"t": f"row {n}", "by_hand": truth(n)} for n in range(20)]
    step = {"prompt": "Judge: {{ t }}", "schema": SCHEMA, "reask": 0}
    config = job(rows, step=step, gold={"s_label": "by_hand"})
    assert cli("run", config, endpoint=endpoint).code == 0
    told(cli("review", config, "-n", "10", "-o", "blind.csv", "--json"))
    assert "by_hand" not in lines_of(tmp_path / "blind.csv")[0]
    told(cli("review", config, "-n", "10", "-o", "seen.csv", "--show-answers", "--json"))
    assert "by_hand" in lines_of(tmp_path / "seen.csv")[0]


def test_rows_that_nobody_has_looked_at(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`--unseen` draws of the rows without a value by hand; what is known of the others counts as it is, without doubt."""
    rows = [{"t": f"row {n}", "by_hand": truth(n) if n < 300 else None} for n in range(ROWS - 1)]
    step = {"prompt": "Judge: {{ t }}", "schema": SCHEMA, "reask": 0}
    config = job(rows, step=step, gold={"s_label": "by_hand"})
    assert cli("run", config, endpoint=endpoint).code == 0
    drawn = told(cli("review", config, "--unseen", "-n", "50", "-o", "sheet.csv", "--json"))
    assert drawn["rows"] == 50
    numbers = [int(line["t"].split()[-1]) for line in lines_of(tmp_path / "sheet.csv")]
    assert min(numbers) >= 300
    fill(tmp_path / "sheet.csv", truth)
    said = told(cli("review", config, "--read", "sheet.csv", "--json"))
    assert (said["n"], said["rows"], said["by_hand"]) == (50, 399, 300)
    true = sum(truth(n) == "pos" for n in range(399))
    low, high = said["counts"]["pos"]["corrected_ci"]
    assert low <= true <= high
    assert high - low < 20  # the doubt of 99 rows, not of 399
    assert said["counts"]["pos"]["answered"] == sum(answer_of(n) == "pos" for n in range(399))
    assert "for 399 rows, of which 300 were known by hand" in cli("review", config).out
    whole = told(cli("review", config, "--unseen", "-n", "99", "-o", "all.csv", "--json"))
    assert whole["rows"] == 99
    fill(tmp_path / "all.csv", truth)
    exact = told(cli("review", config, "--read", "all.csv", "--json"))["counts"]["pos"]
    assert exact["corrected"] == true
    assert exact["corrected_ci"] == [true, true]


def answer_of(number: int) -> str:
    """Say what the endpoint answers of a row."""
    label: str = json.loads(answer({"messages": [{"content": f"row {number}"}]}))["label"]
    return label


def test_unseen_without_values_by_hand_is_refused(
    cli: Callable[..., Ended], ran: Path, job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """It says which setting is missing, or that there is nothing left to look at."""
    ended = cli("review", ran, "--unseen", "-o", "sheet.csv")
    assert ended.code == 2
    assert "gold: {s_label: COLUMN}" in ended.err
    assert "--unseen goes with -o" in cli("review", ran, "--unseen").err
    rows = [{"t": f"row {n}", "by_hand": truth(n)} for n in range(8)]
    step = {"prompt": "Judge: {{ t }}", "schema": SCHEMA, "reask": 0}
    config = job(rows, step=step, gold={"s_label": "by_hand"}, output="other.parquet")
    assert cli("run", config, endpoint=endpoint).code == 0
    ended = cli("review", config, "--unseen", "-o", "sheet.csv")
    assert ended.code == 2
    assert "every row is known by hand" in ended.err
