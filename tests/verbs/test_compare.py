"""Compare: the same rows in several ways, paid for once, told in words, numbers and a page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "score": {"type": "number"}},
    "required": ["label"],
}


def answer(body: dict[str, Any]) -> str:
    """Say "pos" of every even row; the prompt B errs on each tenth row, and its scores are a little higher."""
    prompt = body["messages"][-1]["content"]
    number = int(prompt.rsplit(" ", 1)[-1])
    wrong = prompt.startswith("B") and number % 10 == 0
    score = number + (0.01 if prompt.startswith("B") else 0)
    return json.dumps({"label": "pos" if (number % 2 == 0) != wrong else "neg", "score": score})


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that answers as `answer` says, and keeps books."""
    with BookedEndpoint(answer=answer) as server:
        yield server


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write two jobs over one input of so many rows."""

    def write(rows: int = 1000, **config: Any) -> tuple[Path, Path]:
        by_hand = ["pos" if n % 2 == 0 else "neg" for n in range(rows)]
        kind = ["rare" if n % 50 == 0 else "usual" for n in range(rows)]
        table = pa.table({"t": [f"row {n}" for n in range(rows)], "by_hand": by_hand, "kind": kind})
        pq.write_table(table, tmp_path / "in.parquet")
        paths = []
        for name in ("a", "b"):
            step = {"name": "s", "prompt": f"{name.upper()} {{{{ t }}}}", "schema": SCHEMA, "reask": 0}
            document = {"input": "in.parquet", "output": f"{name}/out.parquet", "steps": [step], **config}
            (tmp_path / name).mkdir(exist_ok=True)
            paths.append(tmp_path / f"{name}.yaml")
            paths[-1].write_text(yaml.safe_dump(document), encoding="utf-8")
        return paths[0], paths[1]

    return write


def told(ended: Ended) -> dict[str, Any]:
    """Read the JSON of a comparison that went well."""
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


@pytest.mark.parametrize("ledger", [None, "shared.db"])
def test_a_trial_and_the_run_of_the_winner_cost_one_run(
    cli: Callable[..., Ended],
    two: Callable[..., tuple[Path, Path]],
    endpoint: BookedEndpoint,
    ledger: str | None,
) -> None:
    """Of 1,000 rows ten are asked in both ways; then the winner's run asks 990: 1,000 charges of its own, and ten of the other's."""
    a, b = two(1000, **({"ledger": ledger} if ledger else {}))
    found = told(cli("compare", a, b, "--sample", "10", "--seed", "1", "--json", endpoint=endpoint))
    assert len(endpoint.charges) == 20
    assert [variant["requests"] for variant in found["variants"]] == [10, 10]
    assert [variant["to_ask"] for variant in found["variants"]] == [990, 990]
    again = told(cli("compare", a, b, "--sample", "10", "--seed", "1", "--json", endpoint=endpoint))
    assert again["cohort"] == found["cohort"]
    assert len(endpoint.charges) == 20
    assert cli("run", b, endpoint=endpoint).code == 0
    of_winner = [charge for charge in endpoint.charges if b'"B row ' in charge.body]
    assert (len(of_winner), len(endpoint.charges)) == (1000, 1010)
    assert set(endpoint.charges_per_body.values()) == {1}


def test_what_is_told_is_what_was_answered(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """Agreement, labels, cost and price are those of the rows; numbers agree within the tolerance."""
    a, b = two(200)
    found = told(cli("compare", a, b, "--limit", "100", "--tolerance", "0.1", "--json", endpoint=endpoint))
    assert found["rows"] == 100
    assert found["fields"] == {"s_label": "label", "s_score": "number"}
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"], pair["n"], pair["agreement"]) == ("a", "b", 100, 0.9)
    assert pair["agreement_ci"][0] < 0.9 < pair["agreement_ci"][1]
    assert pair["fields"]["s_label"]["differing"] == 10
    assert pair["fields"]["s_label"]["kappa"] == pytest.approx(0.8)
    assert pair["fields"]["s_score"]["agreement"] == 1
    first, second = found["variants"]
    assert first["labels"]["s_label"] == {"pos": 50, "neg": 50}
    assert second["labels"]["s_label"] == {"neg": 60, "pos": 40}
    assert first["shares"] == {"ok": 1.0}
    assert first["credits"] + second["credits"] == pytest.approx(endpoint.credits)
    assert first["credits_per_1000_rows"] == pytest.approx(10 * first["credits"])
    assert first["price"]["low"] <= first["price"]["likely"] <= first["price"]["high"]
    assert pair["price_of_changed"]["likely"] == pytest.approx(second["price"]["likely"] / 10)
    exact = told(cli("compare", a, b, "--limit", "100", "--json", endpoint=endpoint))
    assert exact["pairs"][0]["agreement"] == 0
    assert len(endpoint.charges) == 200


def test_gold_says_which_is_right_more_often(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """Each variant has its accuracy, and the pair the difference, with an interval."""
    a, b = two(100, gold={"s_label": "by_hand"})
    ended = cli("compare", a, b, "--limit", "100", "--json", endpoint=endpoint)
    found = told(ended)
    assert [variant["gold"]["s_label"]["accuracy"] for variant in found["variants"]] == [1, 0.9]
    gain = found["pairs"][0]["gold_difference"]["s_label"]
    assert gain["accuracy_difference"] == -0.1
    assert gain["accuracy_difference_ci"][1] < 0
    words = cli("compare", a, b, "--limit", "100", endpoint=endpoint).out
    assert "s_label: accuracy of b -0.1" in words
    assert "does not tell" not in words


def test_variants_of_one_configuration(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """One assignment is held against the file as it stands, several against each other."""
    a, _ = two(50)
    found = told(
        cli("compare", a, "--set", "steps.s.model=fast-1", "--sample", "5", "--json", endpoint=endpoint)
    )
    assert [variant["name"] for variant in found["variants"]] == ["a", "model=fast-1"]
    assert found["page"] == str(tmp_path / "a" / "compare.html")
    sets = [flag for model in ("x", "y", "z") for flag in ("--set", f"steps.s.model={model}")]
    found = told(cli("compare", a, *sets, "--sample", "5", "--json", endpoint=endpoint))
    assert [variant["name"] for variant in found["variants"]] == ["model=x", "model=y", "model=z"]
    assert len(found["pairs"]) == 3
    assert found["alpha"] == {"s_label": 1, "s_score": 1}
    assert len(endpoint.charges) == 5 * 5


def test_rows_can_be_chosen_and_stratified(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """`--where` looks at the input's columns; `--by` leaves out no value, however rare."""
    a, b = two(200)
    cli("compare", a, b, "--where", "kind = 'rare'", "--sample", "3", endpoint=endpoint)
    asked = {
        json.loads(charge.body)["messages"][-1]["content"].rsplit(" ", 1)[-1] for charge in endpoint.charges
    }
    assert len(asked) == 3
    assert all(int(number) % 50 == 0 for number in asked)
    endpoint.charges.clear()
    cli("compare", a, b, "--by", "kind", "--sample", "10", "--seed", "5", endpoint=endpoint)
    asked = {
        json.loads(charge.body)["messages"][-1]["content"].rsplit(" ", 1)[-1] for charge in endpoint.charges
    }
    assert len(asked) >= 9


def test_a_named_cohort_stays_though_the_input_grows(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """The same rows, nothing asked; and when these rows have changed it says so."""
    a, b = two(100)
    flags = ("--sample", "10", "--cohort", "spring", "--json")
    told(cli("compare", a, b, *flags, endpoint=endpoint))
    two(300)
    found = told(cli("compare", a, b, *flags, endpoint=endpoint))
    assert (found["cohort"], found["of"], len(endpoint.charges)) == ("spring", 300, 20)
    pq.write_table(pa.table({"t": [f"other {n}" for n in range(300)]}), a.parent / "in.parquet")
    ended = cli("compare", a, b, *flags, endpoint=endpoint)
    assert ended.code == 2
    assert "the cohort spring are not what they were" in ended.err
    assert len(endpoint.charges) == 20


def test_a_stop_on_the_way_costs_nothing_twice(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """Without money it leaves with 4; the next one asks what is left."""

    def empty(seen: Seen) -> Raw | None:
        return envelope("insufficient_balance", 402) if len(endpoint.charges) >= 13 else None

    endpoint.script = empty
    a, b = two(50)
    assert cli("compare", a, b, "--sample", "10", endpoint=endpoint).code == 4
    endpoint.script = None
    assert told(cli("compare", a, b, "--sample", "10", "--json", endpoint=endpoint))["rows"] == 10
    assert len(endpoint.charges) == 20
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_killed_comparison_goes_on_where_it_was(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """After SIGKILL amid the second variant, and then the winner's run, every request was charged once."""
    a, b = two(60, limits={"concurrency": 2})
    begun: list[int] = []

    def kill(_: Seen) -> None:
        if begun and len(endpoint.charges) >= 27:
            os.kill(begun.pop(), signal.SIGKILL)

    endpoint.script = kill
    env = {**os.environ, "BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    command = [str(SCRIPT), "compare", str(a), str(b), "--sample", "20", "--seed", "1", "-q"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    begun.append(process.pid)
    assert process.wait(60) == -signal.SIGKILL
    assert 20 < len(endpoint.charges) < 40
    assert (
        told(cli("compare", a, b, "--sample", "20", "--seed", "1", "--json", endpoint=endpoint))["rows"] == 20
    )
    assert cli("run", b, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 20 + 60
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_query_whose_rows_change_is_refused(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint
) -> None:
    """Variants are never asked different rows; with an order they are the same."""
    a, b = two(60)
    for path in (a, b):
        text = path.read_text().replace(
            "input: in.parquet", "input: {sql: SELECT t FROM 'in.parquet' ORDER BY random()}"
        )
        path.write_text(text)
    ended = cli("compare", a, b, "--sample", "20", endpoint=endpoint)
    assert ended.code == 2
    assert "the input's rows are not the same for every variant" in ended.err
    assert len(endpoint.charges) <= 20
    for path in (a, b):
        path.write_text(path.read_text().replace("random()", "t"))
    assert told(cli("compare", a, b, "--sample", "20", "--json", endpoint=endpoint))["rows"] == 20


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["a.yaml"], "there is 1 variant to compare; it takes 2 to 5"),
        (["a.yaml", "a.yaml"], "one configuration is named twice"),
        (["a.yaml", "b.yaml", "--by", "kin"], "the input has no column `kin`"),
        (["a.yaml", "b.yaml", "--where", "kind = 'none'"], "there is no row to compare"),
        (["a.yaml", "gone.yaml"], "no configuration file gone.yaml"),
        (["a.yaml", "b.yaml", "--tolerance", "-1"], "--tolerance"),
        (["a.yaml", "other.yaml"], "the variants have no column of answers in common"),
        (["a.yaml", "b.yaml", "-o", "in.parquet"], "in.parquet"),
        (["a.yaml", "b.yaml", "-o", "b/out.parquet"], "out.parquet"),
        (["a.yaml", "elsewhere.yaml"], "elsewhere reads another input than a"),
    ],
)
def test_what_is_wrong_costs_nothing(
    cli: Callable[..., Ended],
    two: Callable[..., tuple[Path, Path]],
    endpoint: BookedEndpoint,
    *,
    tmp_path: Path,
    flags: list[str],
    said: str,
) -> None:
    """It is refused in words before anything is sent."""
    a, _ = two(20)
    (tmp_path / "other.yaml").write_text(a.read_text().replace("name: s", "name: z"))
    (tmp_path / "twin.parquet").write_bytes((tmp_path / "in.parquet").read_bytes())
    (tmp_path / "elsewhere.yaml").write_text(a.read_text().replace("in.parquet", "twin.parquet"))
    ended = cli("compare", *flags, endpoint=endpoint)
    assert ended.code == 2
    assert said in ended.err
    assert not endpoint.posts


def test_answers_that_are_made_up_are_called_so(
    cli: Callable[..., Ended], two: Callable[..., tuple[Path, Path]], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Page, lines and JSON say which variants were asked of the sandbox; of a real endpoint none does."""
    two(20)
    ended = cli("compare", "a.yaml", "b.yaml", "--sample", "8", "--sandbox")
    assert "sandbox: answers are made up, nothing was charged (a, b)" in ended.out
    assert "sandbox: made-up answers</span>" in (tmp_path / "a" / "compare.html").read_text()
    document = yaml.safe_load((tmp_path / "b.yaml").read_text()) | {"endpoint": {"base_url": "sandbox"}}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(document))
    found = told(cli("compare", "a.yaml", "b.yaml", "--sample", "8", "--json", endpoint=endpoint))
    assert [variant["sandbox"] for variant in found["variants"]] == [False, True]
    assert "made-up answers of b</span>" in (tmp_path / "a" / "compare.html").read_text()
    del document["endpoint"]
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(document))
    ended = cli("compare", "a.yaml", "b.yaml", "--sample", "8", endpoint=endpoint)
    assert "sandbox" not in ended.out + (tmp_path / "a" / "compare.html").read_text()
