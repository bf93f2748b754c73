"""Rows that were answered before and would be paid for again: told, and above a share refused, before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import enrich
from enrich.base.loops import run_sync
from enrich.config import load_config
from enrich.errors import TooManyReasked
from enrich.runs.options import RunOptions
from enrich.runs.reasked import Reasked, too_many
from enrich.verbs.plan import plan_job
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every run in this module asks the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def change(path: Path, **keys: Any) -> None:
    """Change the first step of a configuration, or a key beside the steps."""
    document = yaml.safe_load(path.read_text())
    for key, value in keys.items():
        (document if key in {"max_reasked", "input"} else document["steps"][0])[key] = value
    path.write_text(yaml.safe_dump(document))


def told(path: Path) -> Reasked | None:
    """Give what a plan says of rows that would be asked again."""
    return run_sync(lambda: plan_job(load_config(path), RunOptions())).reasked


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"prompt": "Tell {{ t }}"}, "prompt"),
        ({"model": "fast-1"}, "model"),
        ({"temperature": 0.5}, "temperature"),
    ],
)
def test_a_changed_step_is_told_with_its_cause(
    job: Callable[..., Path], step: dict[str, Any], why: str
) -> None:
    """The plan says how many rows that were answered would be asked again, and what was changed."""
    config = job([{"t": f"x{n}"} for n in range(5)])
    enrich.run(config)
    assert told(config) is None
    change(config, **step)
    assert told(config) == Reasked(5, 5, (why,))


def test_above_the_share_a_run_stops_before_it_sends(
    job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """With `max_reasked` a changed prompt is refused with nothing sent, and confirmed by a larger share, once."""
    config = job([{"t": f"x{n}"} for n in range(5)])
    enrich.run(config)
    change(config, prompt="Tell {{ t }}", max_reasked="50%")
    sent = len(endpoint.seen)
    with pytest.raises(
        TooManyReasked, match=r"5 of 5 rows that were answered before .* changed since: prompt"
    ):
        enrich.run(config)
    assert len(endpoint.seen) == sent
    change(config, max_reasked="100%")
    assert enrich.run(config).requests == 5
    change(config, max_reasked=0)
    assert enrich.run(config).requests == 0


def test_a_trial_on_few_rows_confirms_nothing_for_the_rest(job: Callable[..., Path]) -> None:
    """After a run with a limit under a new prompt, the other rows still count as asked again."""
    config = job([{"t": f"x{n}"} for n in range(6)])
    enrich.run(config)
    change(config, prompt="Tell {{ t }}")
    enrich.run(config, limit=2)
    assert told(config) == Reasked(4, 6, ("prompt",))


def test_a_further_step_or_further_rows_ask_nothing_again(job: Callable[..., Path], tmp_path: Path) -> None:
    """What was never asked is not asked again: a new step, new rows."""
    config = job([{"t": f"x{n}"} for n in range(3)])
    enrich.run(config)
    document = yaml.safe_load(config.read_text())
    document["steps"].append({"name": "more", "prompt": "And {{ t }}"})
    config.write_text(yaml.safe_dump(document))
    assert told(config) is None
    assert tmp_path.exists()


def test_a_changed_type_is_told(job: Callable[..., Path], tmp_path: Path) -> None:
    """Whole numbers that a null elsewhere made fractions are another text: the column is named."""
    config = job([{"t": "x"}], step={"prompt": "{{ n }}", "on_null": "skip"})
    pq.write_table(pa.table({"n": pa.array([1, 2], pa.int64())}), tmp_path / "n.parquet")
    change(config, input=str(tmp_path / "n.parquet"))
    enrich.run(config)
    pq.write_table(pa.table({"n": pa.array([1.0, 2.0, None])}), tmp_path / "n.parquet")
    assert told(config) == Reasked(2, 2, ("the type of column `n` (int64, now double)",))


def test_how_a_text_is_stored_is_no_cause(job: Callable[..., Path], tmp_path: Path) -> None:
    """A column that became large_string beside a changed prompt: the prompt alone is named."""
    config = job([{"t": "x"}])
    for kind in (pa.string(), pa.large_string()):
        pq.write_table(pa.table({"t": pa.array(["a", "b"], kind)}), tmp_path / f"{kind}.parquet")
    change(config, input=str(tmp_path / "string.parquet"))
    enrich.run(config)
    change(config, input=str(tmp_path / "large_string.parquet"))
    change(config, prompt="Tell {{ t }}")
    assert told(config) == Reasked(2, 2, ("prompt",))


def test_changed_data_are_told_and_refuse_nothing(job: Callable[..., Path], tmp_path: Path) -> None:
    """Rows whose own data changed are new questions: they are counted, and a run goes on."""
    config = job([{"t": "x"}], step={"prompt": "{{ t }}"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"t": f"a{n}"}) + "\n" for n in range(4)))
    change(config, input=str(rows), max_reasked=0)
    enrich.run(config)
    rows.write_text("".join(json.dumps({"t": f"{'a' if n else 'b'}{n}"}) + "\n" for n in range(5)))
    assert told(config) == Reasked(1, 4, ("data",))
    assert enrich.run(config).requests == 2


def test_the_spelling_of_values_is_told(job: Callable[..., Path]) -> None:
    """Answers of `prompt_text: 1` are asked again where the text of a value is another now, and it says so."""
    config = job([{"t": ["a"]}, {"t": ["b"]}], step={"prompt": "{{ t }}", "prompt_text": 1})
    enrich.run(config)
    change(config, prompt_text=2)
    assert told(config) == Reasked(2, 2, ("the text of values (`prompt_text`)",))


@pytest.mark.parametrize(
    ("rows", "answered", "most", "stops"),
    [
        *((1001, 1001, None, True), (1000, 1000, None, False), (100, 1001, None, False), (101, 1001, None, True)),
        *((5, 10, "50%", False), (6, 10, "50%", True), (1, 10, 0, True), (9, 10, 9, False)),
    ],
)  # fmt: skip
def test_what_is_too_many(rows: int, answered: int, most: int | str | None, stops: bool) -> None:
    """By default a tenth, where more than 1,000 rows were answered; else the count or share that is set."""
    assert too_many(Reasked(rows, answered, ("prompt",)), most) is stops
    assert not too_many(Reasked(rows, answered, ("data",)), most)
