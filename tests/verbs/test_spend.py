"""What a ledger's answers cost, added up in every way: each sum is the same, and that of status, report, waste and the books."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from enrich.verbs.spend import WAYS
from tests.helpers.chaos import place
from tests.helpers.endpoint import BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.warm import Warm

FIGURES = ("prompt_tokens", "completion_tokens", "total_tokens", "credits")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def answer(body: dict[str, Any]) -> str:
    """Answer with what the schema wants, at the second time for some rows."""
    texts = [message["content"] for message in body["messages"]]
    return "no" if len(texts) == 2 and "row 3" in texts[-1] else '{"a": "yes"}'


def write(folder: Path, name: str, rows: list[str], **keys: Any) -> Path:
    """Write a job of two steps on a ledger that jobs share."""
    pq.write_table(pa.table({"t": rows}), folder / f"{name}.parquet")
    document = {
        "input": f"{name}.parquet",
        "output": f"out/{name}.parquet",
        "ledger": "team.db",
        "steps": [
            {"name": "first", "prompt": "{{ t }}", "system": "x", "schema": SCHEMA, "reask": 1},
            {"name": "second", "prompt": "again {{ t }}", "model": "fast-1", "stream": name == "two"},
        ],
        **keys,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


class Done:
    """Two jobs that have run, and what was said of them."""

    def __init__(self, folder: Path, warm: Warm, endpoint: BookedEndpoint) -> None:
        self.folder, self.warm, self.endpoint = folder, warm, endpoint
        windows = [{"credits": 500, "per": "day", "tag": tag} for tag in ("marketing", "company")]
        self.one = write(folder, "one", [f"row {n}" for n in range(6)], budget={"windows": windows})
        self.two = write(
            folder, "two", [f"row {n}" for n in range(4, 9)], prices={"fast-1": {"input": 1e6, "output": 2e6}}
        )
        self.waste = [
            self.ask("run", path, "--json", "-q")["waste"]["total"] for path in (self.one, self.two)
        ]

    def ask(self, *args: str | Path) -> Any:
        """Ask the command line for JSON."""
        ended = self.warm.run(self.folder, *args, env=place(self.endpoint))
        assert ended.code == 0, ended.err
        return json.loads(ended.out)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Done]:
    """Run two jobs on one ledger."""
    with BookedEndpoint(answer=answer) as endpoint:
        yield Done(tmp_path_factory.mktemp("spend"), warm, endpoint)


@pytest.mark.parametrize("by", [*WAYS, "day,tag,model,step,config"])
def test_every_way_adds_up_to_the_same(done: Done, by: str) -> None:
    """To the books, to `status`, and to the waste of all runs, to the last token."""
    found = done.ask("ledger", "spend", "team.db", "--by", by, "--json")
    status = done.ask("status", done.one, "--json")
    prompt, completion = done.endpoint.tokens
    assert (
        found["total"]["requests"]
        == len(done.endpoint.charges)
        == sum(waste["requests"] for waste in done.waste)
    )
    for figure, booked in zip(
        FIGURES, (prompt, completion, prompt + completion, done.endpoint.credits), strict=True
    ):
        sums = [
            found["total"][figure],
            sum(line[figure] for line in found["spend"]),
            status[figure],
            sum(waste[figure] for waste in done.waste),
        ]
        assert sums == pytest.approx([booked] * 4, abs=1e-9), figure


def test_what_stands_where(done: Done) -> None:
    """Steps by their name, also where a row was asked again; tags and configurations by the run that got the answer."""
    steps = {
        line["step"]: line["requests"]
        for line in done.ask("ledger", "spend", "team.db", "--by", "step", "--json")["spend"]
    }
    assert steps == {
        "first": 6 + 1 + 3,
        "second": 6 + 5,
    }  # two rows are in both jobs; a stream is another request
    tags = {
        line["tag"]: line["requests"]
        for line in done.ask("ledger", "spend", "team.db", "--by", "tag", "--json")["spend"]
    }
    assert tags == {"company, marketing": 13, "": 8}
    configs = [
        line["config"] for line in done.ask("ledger", "spend", "team.db", "--by", "config", "--json")["spend"]
    ]
    assert configs == [str(done.one), str(done.two)]
    models = {
        line["model"] for line in done.ask("ledger", "spend", "team.db", "--by", "model", "--json")["spend"]
    }
    assert models == {"served-1", "fast-1"}


def test_prices_count_money_where_they_name_the_model(done: Done) -> None:
    """At a dollar a token of prompts and two of answers; the other model as the endpoint tells it."""
    found = done.ask("ledger", "spend", done.two, "--by", "model", "--json")
    lines = {line["model"]: line for line in found["spend"]}
    fast = lines["fast-1"]
    assert fast["usd"] == fast["prompt_tokens"] + 2 * fast["completion_tokens"]
    assert lines["served-1"]["usd"] == pytest.approx(lines["served-1"]["credits"] / 100)


def test_a_table_of_it(done: Done) -> None:
    """The file has the lines, with numbers as numbers; for people the last line is the sum."""
    ended = done.warm.run(
        done.folder, "ledger", "spend", "team.db", "--by", "model,day", "--parquet", "spend.parquet"
    )
    table = pq.read_table(done.folder / "spend.parquet")
    assert table.column_names[:3] == ["model", "day", "requests"]
    assert pc.sum(table["total_tokens"]).as_py() == sum(done.endpoint.tokens)
    assert ended.out.splitlines()[-1].split()[:2] == ["all", str(len(done.endpoint.charges))]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--by", "week"), "one of config, day"),
        (("--by", ""), "--by names nothing"),
        (("--zone", "Mars"), "no time zone is named"),
        (("--parquet", "team.db"), ""),
    ],
)
def test_what_cannot_be_is_refused(done: Done, args: tuple[str, str], says: str) -> None:
    """In words, with exit code 2; the ledger stays as it is."""
    before = (done.folder / "team.db").read_bytes()
    ended = done.warm.run(done.folder, "ledger", "spend", done.one, *args)
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert (done.folder / "team.db").read_bytes() == before
