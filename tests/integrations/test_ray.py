"""Datasets of a real Ray cluster on this machine: actors, a shared ledger, and an endpoint that keeps books."""

from __future__ import annotations

import asyncio
import json
import os
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import ray
from pydantic import create_model, field_validator
from ray.exceptions import RayTaskError

from enrich.errors import ConfigError, InputError, TemplateError
from enrich.integrations.ray import enrich, preview
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, answer_to, echo, envelope
from tests.integrations.cluster import (
    ask_cli,
    busiest_second,
    clocked,
    job,
    kill,
    paid_once,
    plain,
    processes,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ray.data import Dataset

pytest_plugins = ["tests.integrations.cluster"]  # its fixtures

ROWS = 200
DRIVER_KEY = "sk-of-the-driver-0123456789"  # the endpoint takes another one: that of the actors


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Run a cluster of one node; its processes hold the key."""
    os.environ |= {"BEATRA_API_KEY": KEY, "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    os.environ["BEATRA_API_KEY"] = DRIVER_KEY
    yield
    ray.shutdown()


def texts(rows: int = ROWS, distinct: int = 10_000, blocks: int = 8) -> Dataset:
    """Make a dataset of texts; a text comes again after so many distinct ones, in other blocks too."""
    table = pa.table({"n": range(rows), "t": [f"text {n % distinct}" for n in range(rows)]})
    size = -(-rows // blocks)
    return ray.data.from_arrow([table.slice(start, size) for start in range(0, rows, size)])


def answered(ds: Dataset, rows: int = ROWS) -> bool:
    """Say whether every row is there with the answer to its text."""
    found = ds.take_all()
    right = all(row["s"] == answer_to(row["t"]) for row in found)
    return right and sorted(row["n"] for row in found) == list(range(rows))


def whole(ds: Dataset) -> pa.Table:
    """Give a dataset as one table."""
    return pa.concat_tables(ray.get(ds.to_arrow_refs()))


def actors() -> list[int]:
    """Give the processes of the actors that ask."""
    return [*processes("ray::MapWorker"), *processes("MapBatches(Asking)")]


def test_rows_are_those_of_the_command_line(endpoint: BookedEndpoint, ledger: str, tmp_path: Path) -> None:
    """Types, nulls and nested values go in and come out as they do there, for one charge in all."""

    def answer(body: dict[str, Any]) -> str:
        digest = echo(body)
        return json.dumps({"label": "pos", "tags": [digest], "of": {"x": int(digest[:4], 16)}})

    endpoint.answer = answer
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["pos", "neg"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "of": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
    }
    table = pa.table(
        {
            "n": range(40),
            "t": [None if n == 3 else f"text {n}" for n in range(40)],
            "pair": [{"x": n, "y": ["é", None]} for n in range(40)],
            "at": pa.array([n * 10**15 for n in range(40)], pa.timestamp("us", tz="UTC")),
        }
    )
    (tmp_path / "prompt.txt").write_text("{{ t }} {{ pair }} {{ at }}", encoding="utf-8")
    step = {"name": "s", "prompt_file": str(tmp_path / "prompt.txt"), "schema": schema, "reask": 0}
    config = job(endpoint, ledger, steps=[step])
    theirs = ask_cli(tmp_path, table, config)
    blocks = [table.slice(0, 3), table.slice(3, 1).set_column(1, "t", pa.nulls(1))]
    out = enrich(ray.data.from_arrow([*blocks, table.slice(4)]), config, actors=2)
    (tmp_path / "prompt.txt").unlink()  # machines elsewhere would not have it
    ours = whole(out)
    assert plain(ours) == plain(theirs)
    assert ours.schema.names == theirs.schema.names
    assert ours.schema.field("s_of").type == theirs.schema.field("s_of").type
    assert [row["s_status"] for row in plain(ours)].count("error") == 1
    paid_once(endpoint, 39)


def _pos(label: str) -> str:
    """Refuse any other word."""
    if label != "pos":
        raise ValueError("pos it must be")
    return label


# What only a program knows: a rule, a default, a decimal. As in a notebook, it travels by what it says.
_pos.__module__ = "__main__"
Tone = create_model(
    "Tone",
    __module__="__main__",
    __validators__={"known": field_validator("label")(_pos)},
    label=(str, ...),
    price=(Decimal, Decimal(1)),
)


def test_a_list_becomes_rows(endpoint: BookedEndpoint, ledger: str) -> None:
    """A step that explodes makes as many rows of one as the answer's list has elements, of the type that was promised."""
    endpoint.answer = lambda body: json.dumps(
        {"tags": ["a", "b"][: int(body["messages"][-1]["content"][-1]) % 3]}
    )
    schema = {
        "type": "object",
        "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["tags"],
    }
    step = {"name": "s", "prompt": "{{ t }}", "schema": schema, "explode": "tags"}
    made = enrich(texts(rows=6, blocks=2), job(endpoint, ledger, steps=[step]), actors=1)
    assert made.schema().base_schema.field("s_index").type == pa.int64()
    found = sorted(
        (row["n"], row["s_index"], row["s_tags"]) for row in made.take_all() if row["s_index"] is not None
    )
    assert found == [(1, 0, "a"), (2, 0, "a"), (2, 1, "b"), (4, 0, "a"), (5, 0, "a"), (5, 1, "b")]
    assert sum(row["s_credits"] for row in made.take_all()) == pytest.approx(
        sum(c.credits for c in endpoint.charges)
    )


def test_a_pydantic_model_validates_in_the_actors(endpoint: BookedEndpoint, ledger: str) -> None:
    """Its rules and defaults hold there as in a run of one process, and its types are those of the columns."""
    endpoint.answer = lambda body: json.dumps(
        {"label": "pos" if "text 1" in body["messages"][-1]["content"] else "neg"}
    )
    step = {"name": "s", "prompt": "{{ t }}", "schema": Tone, "reask": 0}
    out = whole(enrich(texts(4, blocks=2), job(endpoint, ledger, steps=[step])))
    found = sorted(zip(*(out[name].to_pylist() for name in ("n", "s_status", "s_price")), strict=True))
    assert found == [(n, "ok", 1) if n == 1 else (n, "invalid_output", None) for n in range(4)]
    assert pa.types.is_decimal(out.schema.field("s_price").type)
    assert "pos it must be" in str(out["s_error"].to_pylist())


def test_pandas_blocks_do_as_well(endpoint: BookedEndpoint, ledger: str) -> None:
    """A dataset of data frames has the same columns."""
    frames = texts(20).map_batches(lambda frame: frame, batch_format="pandas")
    assert answered(enrich(frames, job(endpoint, ledger)), 20)


def test_a_job_run_again_asks_nothing(endpoint: BookedEndpoint, ledger: str) -> None:
    """Neither the same dataset taken again nor a new one; equal texts in several blocks are asked once."""
    config = job(endpoint, ledger)
    out = enrich(texts(distinct=120), config, actors=2)
    assert out.count() == ROWS
    assert answered(out)
    assert answered(enrich(texts(distinct=120, blocks=3), config, actors=(1, 2)))
    assert len(endpoint.posts) == 120
    paid_once(endpoint, 120)


def test_killed_actors_are_paid_once(endpoint: BookedEndpoint, ledger: str) -> None:
    """SIGKILL to every actor in the middle: Ray starts others, which go on under the same keys and bytes."""
    killed: list[int] = []

    def murder(seen: Seen) -> Raw | None:
        if len(endpoint.charges) >= 60 and not killed:
            killed.extend(actors())
            for number in killed:
                kill(number)
        return None

    endpoint.script = murder
    config = job(endpoint, ledger, limits={"concurrency": 8, "adaptive": False})
    assert answered(enrich(texts(), config, actors=2))
    assert killed
    assert runs(ledger) > 2
    paid_once(endpoint, ROWS)
    assert ROWS <= len(endpoint.posts) <= ROWS + 16  # what was in flight came once more


def test_a_limit_is_held_by_two_actors(endpoint: BookedEndpoint, ledger: str) -> None:
    """They share it through the ledger: no second sees more than it allows."""
    moments: list[float] = []
    endpoint.script = clocked(moments)
    rate = 30  # per second
    config = job(endpoint, ledger, limits={"requests_per_minute": rate * 60})
    assert answered(enrich(texts(), config, actors=2))
    assert busiest_second(moments) <= 1.1 * rate
    assert runs(ledger) == 2
    paid_once(endpoint, ROWS)


class Counting(BookedEndpoint):
    """Takes a moment over each request, and knows how many it had at once."""

    now = most = 0

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        seen = await super()._read(reader)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.1)
        self.now -= 1
        return seen


def test_an_actor_has_several_blocks_under_way(ledger: str) -> None:
    """Blocks smaller than the concurrency do not keep it from being used."""
    with Counting() as endpoint:
        config = job(endpoint, ledger, limits={"concurrency": 40, "adaptive": False})
        assert answered(enrich(texts(blocks=20), config))
        assert endpoint.most == 40


def test_a_schema_and_a_preview_ask_nothing(endpoint: BookedEndpoint, ledger: str) -> None:
    """What the columns are is known without a run, and so is what would be sent."""
    config = job(endpoint, ledger)
    ds = enrich(texts(2_000), config)
    assert ds.schema().names[:3] == ["n", "t", "s"]
    assert ds.columns()[:3] == ["n", "t", "s"]
    assert str(preview(texts(2_000), config, 3)).count("text ") == 3
    assert endpoint.posts == []


def test_who_takes_few_rows_pays_for_the_blocks_under_way(endpoint: BookedEndpoint, ledger: str) -> None:
    """Ray takes whole blocks: of eight with 250 rows one is asked. A limit before it asks no more than its rows."""
    config = job(endpoint, ledger)
    assert len(enrich(texts(2_000), config).take(2)) == 2
    asked = len(endpoint.posts)
    assert 250 <= asked <= 500  # two, where Ray takes seconds to see that it has enough
    time.sleep(3)
    assert len(endpoint.posts) <= asked + 64  # what was in flight: nothing is sent that nobody takes
    asked = len(endpoint.posts)
    assert len(enrich(texts(2_000).limit(2), config).take_all()) == 2
    assert len(endpoint.posts) <= asked + 2  # the two, unless the block that Ray took first had them


def test_a_stop_says_why(endpoint: BookedEndpoint, ledger: str) -> None:
    """An empty balance fails the dataset with its reason; topped up, the same job goes on."""
    endpoint.script = lambda _: envelope("insufficient_balance", 402) if len(endpoint.charges) >= 50 else None
    with pytest.raises(RayTaskError, match="BalanceSpent"):
        enrich(texts(), job(endpoint, ledger)).take_all()
    endpoint.script = None
    assert answered(enrich(texts(), job(endpoint, ledger)))
    paid_once(endpoint, ROWS)


def test_what_is_wrong_is_found_before_any_actor(
    endpoint: BookedEndpoint, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the driver, in our own words, with what to type."""
    ds = texts(2)
    good = job(endpoint, ledger)
    with pytest.raises(TemplateError, match="no column `text`"):
        enrich(ds, {**good, "steps": [{"name": "s", "prompt": "{{ text }}"}]})
    with pytest.raises(ConfigError, match="ledger: postgresql://"):
        enrich(ds, {**good, "ledger": "ledger.db"})
    limited = {**good, "ledger": "ledger.db", "limits": {"requests_per_minute": 60}}
    with pytest.raises(ConfigError, match="split_limits=2"):
        enrich(ds, limited, one_machine=True)
    with pytest.raises(InputError, match="empty"):
        enrich(ray.data.from_items([]), good)
    monkeypatch.delenv("BEATRA_API_KEY")
    with pytest.raises(ConfigError, match="there is no API key"):
        enrich(ds, {**good, "endpoint": {"base_url": "https://beatra.invalid/v1"}})
    assert endpoint.seen == []
