"""`explode`: a list that a step answers with becomes rows, typed, in any output; sums hold, and a resume goes by input rows."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import enrich
import enrich.pandas
import enrich.polars
from enrich.errors import ConfigError
from enrich.rows import explode
from enrich.rows.explode import Explosion
from tests.helpers.endpoint import KEY, BookedEndpoint, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "at": {"type": "string", "format": "date"}},
    "required": ["name", "at"],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": ITEM}, "n": {"type": "integer"}},
    "required": ["items", "n"],
}
ROWS = [{"t": "2"}, {"t": "0"}, {"t": "bad"}, {"t": "3"}, {"t": "2"}]
MADE = [("2", 0), ("2", 1), ("0", None), ("bad", None), ("3", 0), ("3", 1), ("3", 2), ("2", 0), ("2", 1)]
STEP = {"schema": SCHEMA, "explode": "items"}


def answer(body: dict[str, Any]) -> str:
    """Give as many items as the prompt says."""
    count = int(body["messages"][-1]["content"].split()[-1])
    items = [{"name": f"item {n}", "at": f"2026-11-{n + 1:02}"} for n in range(count)]
    return json.dumps({"items": items, "n": count})


@pytest.fixture
def endpoint() -> Any:
    """An endpoint that refuses one row."""
    with BookedEndpoint(
        answer=answer, script=lambda seen: envelope("invalid_request", 400) if b"bad" in seen.raw else None
    ) as server:
        yield server


def test_an_element_is_a_row(
    tmp_path: Path, cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Typed, with its place; without one there is a row of nulls with its status. What was paid stands once."""
    ended = cli("run", job(ROWS, step=STEP, tolerate=1), "--json", endpoint=endpoint)
    summary = json.loads(ended.out)
    assert (ended.code, summary["rows"], summary["ok"], summary["error"]) == (0, 5, 4, 1)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("s_items").type == pa.struct([("name", pa.string()), ("at", pa.date32())])
    assert table.schema.field("s_index").type == pa.int64()
    assert table.column_names.index("s_index") == table.column_names.index("s_items") + 1
    rows = table.to_pylist()
    assert [(row["t"], row["s_index"]) for row in rows] == MADE
    names = [row["s_items"] and row["s_items"]["name"] for row in rows]
    assert names == [None if place is None else f"item {place}" for _, place in MADE]
    assert [row["s_status"] for row in rows] == ["error" if t == "bad" else "ok" for t, _ in MADE]
    assert math.isclose(sum(row["s_credits"] or 0 for row in rows), sum(c.credits for c in endpoint.charges))
    assert sum(row["s_completion_tokens"] or 0 for row in rows) == summary["completion_tokens"]
    assert sum(row["s_attempts"] for row in rows) == summary["attempts"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "arrow"])
def test_any_format_has_the_same_rows_and_a_resume_asks_nothing(
    tmp_path: Path, cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, suffix: str
) -> None:
    """`collect` makes them too, of what the ledger holds; a run that goes on does so by input rows."""
    config = job(ROWS, step=STEP, tolerate=1)
    cli("run", config, "--limit", "2", endpoint=endpoint)
    cli("run", config, endpoint=endpoint)
    posts = len(endpoint.posts)
    assert posts == 4
    out = tmp_path / f"again.{suffix}"
    assert cli("collect", config, "-o", out, endpoint=endpoint).code == 0
    assert len(endpoint.posts) == posts
    rows: list[dict[str, Any]]
    if suffix == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            rows = [
                {**row, "s_index": int(row["s_index"]) if row["s_index"] else None}
                for row in csv.DictReader(file)
            ]
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pa.ipc.open_file(str(out)).read_all().to_pylist()
    assert [(row["t"], row["s_index"]) for row in rows] == MADE


def test_a_folder_and_a_chain(
    tmp_path: Path, cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Each file has its rows; what earlier steps cost stands once as well; a report counts input rows."""
    data = tmp_path / "data"
    for name, text in (("a", "2"), ("b", "0")):
        (data / f"k={name}").mkdir(parents=True)
        pq.write_table(pa.table({"t": [text]}), data / f"k={name}" / "x.parquet")
    config = job(input="data/", output="out/", step={"schema": SCHEMA})
    text = config.read_text(encoding="utf-8").rstrip()
    config.write_text(
        f"{text}\n- {json.dumps({'name': 'z', 'prompt': '{{ s_n }}', **STEP})}\n", encoding="utf-8"
    )
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert ended.code == 0, ended.err
    made = [
        pq.read_table(tmp_path / "out" / f"k={name}" / "part-0.parquet", partitioning=None) for name in "ab"
    ]
    assert [table.num_rows for table in made] == [2, 1]
    spent: float = sum(row["s_credits"] + row["z_credits"] for table in made for row in table.to_pylist())
    assert math.isclose(spent, json.loads(ended.out)["credits"])
    one = job(ROWS, step=STEP, tolerate=1, report="report.html")
    assert cli("run", one, endpoint=endpoint).code == 0
    assert "5 rows" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_frames_and_batches_have_them_too(endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the index are repeated as by `DataFrame.explode`; Polars and record batches have the same rows."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    frame = pd.DataFrame({"t": ["2", "0", "1"]}, index=[7, 7, 9])
    asked: dict[str, Any] = {"name": "s", "schema": SCHEMA, "explode": "items", "ledger": None}
    out = frame.beatra.complete("{{ t }}", **asked)
    assert out.index.tolist() == [7, 7, 7, 9]
    assert out["t"].tolist() == ["2", "2", "0", "1"]
    assert out["s_index"].tolist() == [0, 1, pd.NA, 0] or out["s_index"].isna().tolist() == [
        False,
        False,
        True,
        False,
    ]
    assert out["s_credits"].sum() == pytest.approx(sum(c.credits for c in endpoint.charges))
    other = pl.from_pandas(frame).beatra.complete("{{ t }}", **asked)  # type: ignore[attr-defined]  # registered
    assert other["s_index"].to_list() == [0, 1, None, 0]
    config = {"steps": [{"name": "s", "prompt": "{{ t }}", **STEP}]}
    batches = [pa.record_batch({"t": ["2", "0"]}), pa.record_batch({"t": pa.array([], pa.string())})]
    made = pa.Table.from_batches(enrich.enrich_batches(batches, config))
    assert made["s_index"].to_pylist() == [0, 1, None]
    assert made.schema.equals(enrich.output_schema(batches[0].schema, config))


def test_rows_are_chosen_by_their_elements(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`retry --where` asks an input row anew where one of its elements says so."""
    config = job(ROWS, step=STEP, tolerate=1)
    cli("run", config, endpoint=endpoint)
    ended = cli("retry", config, "--where", "s_items.name = 'item 2'", "--yes", endpoint=endpoint)
    assert "chosen      1 row" in ended.err
    assert endpoint.posts[-1].body["messages"][-1]["content"] == "3"
    assert len(endpoint.charges) == 4


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"explode": "item"}, "did you mean `items`?"),
        ({"explode": "n"}, "`n` is int64, and no list"),
        ({"explode": "items", "schema": None}, "no property `items`"),
        ({"explode": "items", "columns": ["n", "status"]}, "leaves out `items`"),
        (
            {
                "explode": "items",
                "schema": {**SCHEMA, "properties": {**SCHEMA["properties"], "index": {"type": "integer"}}},
            },
            "makes a column `s_index`",
        ),
    ],
)
def test_what_cannot_be_rows_is_refused(step: dict[str, Any], said: str) -> None:
    """No such property, no list, one that is not written, a name that is taken: before anything is sent."""
    with pytest.raises(ConfigError) as error:
        enrich.output_schema(
            pa.schema([("t", pa.string())]), {"steps": [{"name": "s", "prompt": "{{ t }}", **STEP, **step}]}
        )
    assert said in str(error.value)


def test_only_the_last_step_explodes() -> None:
    """What stands behind it would have to ask for each element, and asks for each input row: it is named."""
    steps = [{"name": "s", "prompt": "{{ t }}", **STEP}, {"name": "z", "prompt": "{{ s_n }}"}]
    with pytest.raises(ConfigError, match=r"`s.explode` makes many rows of one, and step `z` behind it"):
        enrich.output_schema(pa.schema([("t", pa.string())]), {"steps": steps})


@given(
    st.lists(st.none() | st.lists(st.integers(-9, 9), max_size=7), max_size=9),
    st.integers(1, 5),
    st.integers(1, 60),
)
def test_pieces_of_any_size_are_the_same_rows(lists: list[list[int] | None], rows: int, size: int) -> None:
    """However few rows or bytes a piece holds, there is each element once, in order, and its row beside it."""
    texts = [f"{n} " * n for n in range(len(lists))]
    batch = pa.record_batch(
        {
            "t": pa.array(texts, pa.string()),
            "l": pa.array(lists, pa.list_(pa.int64())),
            "i": pa.nulls(len(lists), pa.int64()),
            "c": pa.array([None if n % 3 == 2 else float(n) for n in range(len(lists))], pa.float64()),
        }
    )
    kinds: dict[str, pa.DataType] = {"t": pa.string(), "l": pa.int64(), "i": pa.int64(), "c": pa.float64()}
    schema = pa.schema(kinds)
    expected = [
        (n, texts[n], element, place, None if n % 3 == 2 else (0.0 if place else float(n)))
        for n, found in enumerate(lists)
        for place, element in (list(enumerate(found)) if found else [(None, None)])
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explode, "ROWS", rows)
        patched.setattr(explode, "PIECE_BYTES", size)
        pieces = list(Explosion("l", "i", frozenset({"c"})).pieces(batch, schema))
    made = [
        (int(n), *row.values())
        for places, piece in pieces
        for n, row in zip(places, piece.to_pylist(), strict=True)
    ]
    assert made == expected
    assert all(piece.num_rows <= rows for _, piece in pieces)
