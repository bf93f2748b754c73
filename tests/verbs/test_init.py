"""The starter job, and a configuration for one's own data: each runs at once."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

import enrich
from enrich.cli.app import main
from enrich.config import load_config
from enrich.errors import InputError, OutputError
from enrich.verbs.init import COLUMNS_MOST, REVIEWS, propose, write_for, write_starter
from enrich.verbs.preview import preview_job
from tests.conftest import SCRIPT
from tests.helpers.terminal import on_terminal

names = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12
    )
    | st.sampled_from(
        ["row", "self", "class", "None", "{{ x }}", "{% raw %}", "#}", "a {# b", 'q"u', "back\\slash"]
    ),
    min_size=1,
    max_size=COLUMNS_MOST + 3,
    unique=True,
)


def test_the_starter_job_runs_at_once(tmp_path: Path) -> None:
    """It needs no key and no network, and asks of every review; a second one does not replace it."""
    files = write_starter(tmp_path / "demo")
    assert sorted(path.name for path in files) == ["config.yaml", "reviews.csv"]
    summary = enrich.run(tmp_path / "demo" / "config.yaml")
    assert (summary.exit_code, summary.statuses["ok"]) == (0, len(REVIEWS) - 1)
    with pytest.raises(OutputError, match="there already"):
        write_starter(tmp_path / "demo")


def test_its_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Line ends and quotes within a review come back as they are."""
    write_starter(tmp_path)
    with (tmp_path / "reviews.csv").open(encoding="utf-8", newline="") as file:
        assert [tuple(row) for row in csv.reader(file)] == REVIEWS


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in the way is told, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: [Nn]ot a directory"):
        write_starter(tmp_path / "file" / "demo")


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


@settings(max_examples=25)
@given(columns=names)
def test_whatever_the_columns_are_called_the_prompt_holds_their_values(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str]
) -> None:
    """Names that templates, YAML or Python know otherwise do no harm: there is a request, with the row's own values."""
    folder = tmp_path_factory.mktemp("init")
    values = [f"value-{number}." for number in range(len(columns))]
    data = folder / "data.jsonl"
    data.write_text(json.dumps(dict(zip(columns, values, strict=True))) + "\n", encoding="utf-8")
    (path,) = write_for(folder, data, "Sum up.")
    text = "\n".join(preview_job(load_config(path), 1))
    shown = [value for value in values if value in text]
    assert 0 < len(shown) <= COLUMNS_MOST
    assert "no request" not in text
    assert set(shown) <= set(values)


@pytest.mark.parametrize("stem", ["it's", "a: b", "ünï", "with space", 'q"uote', "#5"])
def test_files_of_any_name(tmp_path: Path, stem: str) -> None:
    """Paths in the configuration are quoted as YAML wants it."""
    data = tmp_path / f"{stem}.csv"
    data.write_text("t\nx\n", encoding="utf-8")
    (path,) = write_for(tmp_path, data, "Sum up.")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (document["input"], document["output"]) == (data.name, f"out/{data.name}")


# --- on a terminal


def test_a_wrong_name_is_said_at_once(tmp_path: Path) -> None:
    """A file that is not there is told before anything else is asked; the other answers are asked for once."""
    (tmp_path / "mine.csv").write_text("id,created_at,text\n1,2026-01-01,fine\n", encoding="utf-8")
    (tmp_path / "job").mkdir()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, "init"], cwd=tmp_path / "job", stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    for answer in (b"nine.csv", b"../mine.csv", b"Classify it.", b"pos, neg"):
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


def test_a_folder_that_is_named_is_made_without_a_question(tmp_path: Path) -> None:
    """README's first lines can be pasted into a terminal whole: none of them is taken for an answer."""
    code, seen = on_terminal(tmp_path, 80, "init", "demo")
    assert code == 0, seen
    assert "made demo/config.yaml" in seen
    assert "?" not in seen
    code, seen = on_terminal(tmp_path, 80, "run", "demo/config.yaml")
    assert code == 0, seen
    assert "sandbox: answers are made up, nothing was charged" in seen


def test_keys_and_dates_are_left_out_of_the_prompt(tmp_path: Path) -> None:
    """What tells a model nothing is not sent; the path of the data is relative, so that both can move."""
    (tmp_path / "d.csv").write_text("order_id,date,rating\n1,2026-01-02,5\n", encoding="utf-8")
    (config,) = write_for(tmp_path / "job", tmp_path / "d.csv", "Judge.")
    text = config.read_text(encoding="utf-8")
    assert 'input: "../d.csv"' in text
    assert "{{ rating }}" in text
    assert "order_id" not in text
    assert "date" not in text


def test_a_table_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init TABLE` shows the longest texts first, leaves out what tells nothing and says why; `check` passes, it runs."""
    monkeypatch.chdir(tmp_path)
    table = pa.table(
        {
            "id": [1, 2],
            "stars": [5, None],
            "shop": ["north", "south"],
            "review": ["Boils in two minutes and is quiet about it.", "The lid broke after a week."],
            "bought_on": ["2026-01-01", "2026-02-01"],
            "photo": [b"\x89PNG", b"\x89PNG"],
        }
    )
    pq.write_table(table, "reviews.parquet")
    asked = ["init", "reviews.parquet", "--task", "Label the mood.", "--labels", "good, bad"]
    said = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines() == [
        "review: shown, texts of about 35 characters",
        "shop: shown, texts of about 5 characters",
        "stars: shown, int64",
        "id: left out, it tells rows apart",
        "bought_on: left out, it is a point in time",
        "photo: left out, it is binary",
        "made config.yaml",
        "",
        "Now: beatra-enrich run config.yaml",
    ]
    prompt = load_config(Path("config.yaml")).steps[0].prompt
    assert prompt == "Label the mood.\n\nreview: {{ review }}\nshop: {{ shop }}\nstars: {{ stars }}\n"
    assert CliRunner().invoke(main, ["check", "config.yaml"]).exit_code == 0
    summary = enrich.run("config.yaml")
    assert summary.statuses["ok"] == 2
    labels = pq.read_table("out/reviews.parquet")["answer_label"].to_pylist()
    assert set(labels) <= {"good", "bad"}


def test_a_table_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped table, or a task without one, is told: no example is made in its place."""
    monkeypatch.chdir(tmp_path)
    for asked in (["init", "none.csv"], ["init", "none", "--task", "Label the mood."]):
        said = CliRunner().invoke(main, asked)
        assert said.exit_code == 2
        assert f"{asked[1]} is no file: name the table" in said.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["by_hand", "Label", "ground truth", "sentiment_gold", "target", "expected_label"]
)
def test_what_is_known_already_is_not_shown_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A column with what the answers should be stays out of the prompt: its values are the labels, `gold` holds answers to it."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"Text number {n} about something", ["good", "bad", ""][n % 3]) for n in range(12)]
    with Path("reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", name), *rows])
    said = CliRunner().invoke(main, ["init", "reviews.csv"], catch_exceptions=False)
    assert (
        f"{name}: left out, it says what the answer should be: `gold` holds the answers to it" in said.stdout
    )
    config = load_config(Path("config.yaml"))
    assert config.steps[0].prompt == "Summarize in one sentence.\n\nreview: {{ review }}\n"
    assert config.gold is not None
    assert config.gold.columns == {"answer_label": name}
    assert CliRunner().invoke(main, ["check", "config.yaml"]).exit_code == 0
    summary = enrich.run("config.yaml")
    assert summary.gold is not None
    assert summary.gold["answer_label"]["n"] == 8


def test_what_is_known_is_shown_where_there_is_nothing_else(tmp_path: Path) -> None:
    """A table with such a column alone has it in its prompt, and nothing to be held to."""
    (tmp_path / "d.csv").write_text("label\ngood\nbad\n", encoding="utf-8")
    (config,) = write_for(tmp_path / "job", tmp_path / "d.csv", "Judge.", (), propose(tmp_path / "d.csv"))
    assert "{{ label }}" in config.read_text(encoding="utf-8")
    assert load_config(config).gold is None
