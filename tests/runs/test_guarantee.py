"""A guarantee: found on rows whose values are known, asked once, kept for later runs, refused where it cannot be given."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

import enrich
from tests.helpers.deaths import through_deaths
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended, Warm

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "sure": {"type": "number"}},
    "required": ["label", "sure"],
}
COUNT = 600
KNOWN = 400
ESCALATE = {"models": ["small", "large"], "guarantee": 0.9, "sample": 200, "score": "s_sure"}


def truth(number: int) -> str:
    """Say what a row is."""
    return "pos" if number % 3 else "neg"


def answer(body: dict[str, Any]) -> str:
    """The large model is right but of each fiftieth row; the small one where it is sure, which it is of two rows of three."""
    number = int(body["messages"][-1]["content"].split()[-1])
    other = {"pos": "neg", "neg": "pos"}[truth(number)]
    if body["model"] == "large":
        return json.dumps({"label": other if number % 50 == 7 else truth(number), "sure": 0.99})
    unsure = number % 7 in (2, 5)
    return json.dumps({"label": other if unsure else truth(number), "sure": 0.3 if unsure else 0.97})


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that answers as `answer` says, and keeps books."""
    with BookedEndpoint(answer=answer) as server:
        yield server


@pytest.fixture
def promised(job: Callable[..., Path]) -> Callable[..., Path]:
    """Write a job with a guarantee; two rows of three have a value by hand."""

    def write(**further: Any) -> Path:
        rows = [{"t": f"row {n}", "by_hand": truth(n) if n < KNOWN else None} for n in range(COUNT)]
        escalate = {**ESCALATE, **further.pop("escalate", {})}
        step = {"schema": SCHEMA, "reask": 0, "escalate": escalate}
        return job(rows, step=step, **{"gold": {"s_label": "by_hand"}, **further})

    return write


def unsure(number: int) -> bool:
    """Whether the small model is not sure."""
    return number % 7 in (2, 5)


def asked(endpoint: BookedEndpoint, model: str) -> list[int]:
    """Give the rows that a model was asked, by the books."""
    bodies = [json.loads(charge.body) for charge in endpoint.charges]
    return sorted(
        int(body["messages"][-1]["content"].split()[-1]) for body in bodies if body["model"] == model
    )


def test_a_threshold_is_found_kept_and_told(
    cli: Callable[..., Ended], promised: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Both models are asked for the sample, the large one for the other unsure rows; the answers keep the promise."""
    config = promised()
    assert "ok    guarantee  400 rows with a known `s_label`" in cli("check", config, endpoint=endpoint).out
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["guarantee"]["s"]
    assert (found["of"], found["rows"], found["guarantee"], found["sure"]) == ("s_label", 200, 0.9, 0.95)
    assert 0.3 < found["threshold"] <= 0.97
    assert found["least"] >= 0.9
    assert asked(endpoint, "small") == list(range(COUNT))
    large = asked(endpoint, "large")
    rest = [n for n in large if n >= KNOWN]
    assert rest == [n for n in range(KNOWN, COUNT) if unsure(n)]
    assert len(large) - len(rest) < KNOWN  # the sample, and unsure ones beside it
    assert set(endpoint.charges_per_body.values()) == {1}
    out = pq.read_table(tmp_path / "out.parquet")
    labels = out["s_label"].to_pylist()
    assert sum(label == truth(n) for n, label in enumerate(labels)) >= 0.9 * COUNT
    assert out["s_model"].to_pylist() == ["large" if unsure(n) else "small" for n in range(COUNT)]
    charged = len(endpoint.charges)
    again = cli("run", config, "--force", endpoint=endpoint)
    assert f"cheap answers stay from a score of {found['threshold']:g} on" in again.err
    assert len(endpoint.charges) == charged
    assert pq.read_table(tmp_path / "out.parquet")["s_label"].to_pylist() == labels
    cli("collect", config, "-o", "collected.parquet", endpoint=endpoint)
    assert pq.read_table(tmp_path / "collected.parquet")["s_label"].to_pylist() == labels


def test_where_it_cannot_be_met_the_run_stops(
    cli: Callable[..., Ended], promised: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Exit 4 after the sample alone, with what was shown and what would do; nothing of it is asked again."""
    config = promised(escalate={"guarantee": 0.985})
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 4
    reason = json.loads(ended.out)["reason"]
    assert "a share of 0.985 cannot be promised: of 200 rows even `large` has" in reason
    assert json.loads(ended.out)["pending"] == COUNT
    assert not (tmp_path / "out.parquet").exists()
    assert len(endpoint.charges) == 400
    assert cli("run", config, endpoint=endpoint).code == 4
    assert len(endpoint.charges) == 400
    assert enrich.run(config, base_url=endpoint.base_url, api_key=KEY).exit_code == 4
    assert cli("run", promised(), endpoint=endpoint).code == 0
    assert set(endpoint.charges_per_body.values()) == {1}


def test_values_in_a_file_of_their_own(
    cli: Callable[..., Ended], promised: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Found by their key, as `gold` has them."""
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("t", "said"), *((f"row {n}", truth(n)) for n in range(100, 400))])
    config = promised(gold={"file": "labels.csv", "key": "t", "columns": {"s_label": "said"}})
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["guarantee"]["s"]["rows"] == 200
    assert min(asked(endpoint, "large")) < 100  # unsure rows outside the sample


def test_a_reviewed_sample_will_do(
    cli: Callable[..., Ended],
    promised: Callable[..., Path],
    endpoint: BookedEndpoint,
    job: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Rows that people labelled on a sheet of an earlier run; of rare answers as many count as are their share."""
    rows = [{"t": f"row {n}"} for n in range(COUNT)]
    plain = job(rows, step={"schema": SCHEMA, "reask": 0, "model": "small"})
    assert cli("run", plain, endpoint=endpoint).code == 0
    assert cli("review", plain, "--column", "s_label", "-n", "300", "-o", "sheet.csv").code == 0
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as file:
        lines = [
            {**line, "s_label_review": truth(int(line["t"].split()[-1]))} for line in csv.DictReader(file)
        ]
    with (tmp_path / "sheet.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert cli("review", plain, "--read", "sheet.csv").code == 0
    escalate = {**ESCALATE, "of": "s_label"}
    config = job(rows, step={"schema": SCHEMA, "reask": 0, "escalate": escalate})
    ended = cli("run", config, "--json", "--set", "max_reasked=100%", endpoint=endpoint)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["guarantee"]["s"]["rows"] == 200
    assert asked(endpoint, "small") == list(range(COUNT))


def test_rows_that_the_prompt_shows_are_not_in_the_sample(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """The models are told their answers: they would be right of them in any case."""
    rows = [{"t": f"row {n}", "by_hand": truth(n) if n < 100 else None} for n in range(200)]
    shown = [{"user": f"row {n}", "assistant": {"label": truth(n), "sure": 1}} for n in range(0, 100, 10)]
    step = {"schema": SCHEMA, "reask": 0, "escalate": {**ESCALATE, "sample": 100}, "examples": shown}
    config = job(rows, step=step, gold={"s_label": "by_hand"})
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["guarantee"]["s"]["rows"] == 90


def test_through_kills_each_request_is_paid_once(
    warm: Warm, promised: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """In the sample and after it; the same rows are drawn again."""
    config = promised(limits={"concurrency": 8})
    ended = through_deaths(warm, endpoint, [40, 250, 399, 430, 600], tmp_path, "run", config, "-q")
    assert ended.code == 0, ended.err
    assert set(endpoint.charges_per_body.values()) == {1}
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["s_model"].to_pylist() == ["large" if unsure(n) else "small" for n in range(COUNT)]
    assert asked(endpoint, "small") == list(range(COUNT))


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ({"gold": None}, "nothing is known of any row's"),
        ({"escalate": {"of": "s_labl"}}, "no column of answers `s_labl`"),
        (
            {"gold": {"s_label": "by_hand", "s_sure": "by_hand"}},
            "which answer counts as right or wrong is not said",
        ),
    ],
)
def test_without_anything_known_it_is_refused(
    cli: Callable[..., Ended],
    promised: Callable[..., Path],
    endpoint: BookedEndpoint,
    further: dict[str, Any],
    said: str,
) -> None:
    """By `check` and by the run, before anything is sent."""
    if further.get("gold", 0) is None:
        further = {"gold": None, "escalate": {"of": "s_label"}}
    config = promised(**further)
    checked = cli("check", config, endpoint=endpoint)
    assert checked.code == 2
    assert said in checked.out
    ended = cli("run", config, endpoint=endpoint)
    assert ended.code == 2
    assert said in ended.err
    assert not endpoint.posts


def test_rows_on_their_way_have_no_guarantee(
    endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data frame has no values that are known."""
    import pandas as pd

    import enrich.pandas  # registers `df.beatra`

    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    with pytest.raises(enrich.UsageError, match="needs a job over files"):
        pd.DataFrame({"t": ["a"]}).beatra.complete(
            "{{ t }}", name="s", schema=SCHEMA, escalate=ESCALATE, base_url=endpoint.base_url, progress=False
        )
    assert not endpoint.posts
