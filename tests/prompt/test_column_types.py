"""Binary goes into no prompt, however deep it lies."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import TemplateError
from enrich.prompt.cells import rows_of
from enrich.prompt.column_types import check_prompt_column
from enrich.prompt.template import RowError, compile_expression, compile_template

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(12),
        pa.list_(pa.binary()),
        pa.large_list(pa.binary_view()),
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.binary()))]),
        pa.map_(pa.string(), pa.binary()),
        pa.dictionary(pa.int8(), pa.binary()),
        pa.run_end_encoded(pa.int32(), pa.binary()),
        pa.list_view(pa.binary()),
        pa.opaque(pa.binary(), "geography", "PostgreSQL"),
    ],
    ids=str,
)
def test_binary_is_refused(kind: pa.DataType) -> None:
    """Whatever the type around it, the column is named."""
    with pytest.raises(TemplateError, match=r"column `c` .*which no prompt can hold"):
        check_prompt_column(pa.field("c", kind), "steps.s")


@pytest.mark.parametrize("name", ["duckdb_variant", "spark_variant"])
def test_variants_are_named(name: str) -> None:
    """A VARIANT, which Arrow reads as a struct of bytes, is called what it is."""
    field = pq.read_schema(DATA / f"{name}.parquet").field("v")
    with pytest.raises(TemplateError, match="column `v` is a VARIANT") as caught:
        check_prompt_column(field, "steps.s")
    assert "to_json" in caught.value.hint


def test_intervals_are_named() -> None:
    """So is what may be an INTERVAL of Parquet, which Arrow reads as twelve bytes."""
    with pytest.raises(
        TemplateError, match="column `i` is binary of 12 bytes, which is what an INTERVAL"
    ) as caught:
        check_prompt_column(pa.field("i", pa.binary(12)), "steps.s")
    assert "VARCHAR" in caught.value.hint


def test_geometries_are_named() -> None:
    """So is a geometry."""
    field = pa.field("g", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    with pytest.raises(TemplateError, match="column `g` is a geometry"):
        check_prompt_column(field, "steps.s")


def test_what_has_a_text_passes() -> None:
    """UUIDs are bytes and have a text; so has all that is not binary."""
    column = pa.array([uuid.uuid4().bytes], pa.uuid())
    for kind in (
        column.type,
        pa.list_(pa.uuid()),
        pa.json_(),
        pa.string_view(),
        pa.struct([("a", pa.int8())]),
    ):
        check_prompt_column(pa.field("c", kind), "steps.s")


def test_a_period_of_an_unknown_kind_is_refused() -> None:
    """One whose frequency pandas does not know, or whose file does not say it, has no text."""
    for said in ('{"freq": "fortnight"}', "", "[]"):
        metadata = {"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": said}
        with pytest.raises(TemplateError, match="column `p` is a period or interval of pandas"):
            check_prompt_column(pa.field("p", pa.int64(), metadata=metadata), "steps.s")


BLOBS: dict[str, pa.Array[Any]] = {
    "plain": pa.array([b"\x89PNG", None]),
    "in a list": pa.array([[b"x"], None]),
    "in a struct": pa.array([{"a": 1, "b": b"x"}, None]),
    "in a map": pa.array([[("k", b"x")], None], pa.map_(pa.string(), pa.binary())),
    "as a category": pa.array([b"x", None]).dictionary_encode(),
}


@pytest.mark.parametrize("name", BLOBS)
@pytest.mark.parametrize(
    "source",
    [
        "{{ row | tojson }}",
        "{{ row }}",
        "{{ row.values() | list }}",
        "{% for k, v in row.items() %}{{ v }}{% endfor %}",
        "{{ row['blob' | lower] ~ '' }}",
        "{{ [row['blob' | lower]] }}",
        "{{ 'of %s' | format(row['blob' | lower]) }}",
        "{{ row['blob' | lower] | join }}",
        "{{ row['blob' | lower] | pprint }}",
    ],
)
def test_binary_in_a_row_fails_the_row(name: str, source: str) -> None:
    """Where a template reaches it by no name, the row says which column it is; nothing of it gets into a prompt."""
    batch = pa.record_batch([pa.array(["t", "t"]), BLOBS[name]], names=["text", "blob"])
    for row in list(rows_of(batch))[:1]:
        with pytest.raises(RowError, match="column `blob` has binary in it"):
            compile_template(source, "here").render(row)


@pytest.mark.parametrize("name", BLOBS)
def test_the_rest_of_a_row_may_be_written(name: str) -> None:
    """What passes binary over has its text, and a null is none."""
    batch = pa.record_batch([pa.array(["t", "t"]), BLOBS[name]], names=["text", "blob"])
    rest = "{% for k, v in row.items() if k != 'blob' %}{{ k }}={{ v }}{% endfor %}"
    there = "{{ row['blob' | lower] is none }}"
    rows = [
        (compile_template(rest, "").render(row), compile_template(there, "").render(row))
        for row in rows_of(batch)
    ]
    assert rows == [("text=t", "False"), ("text=t", "True")]


def test_a_parameter_that_cannot_be_had_fails_the_row() -> None:
    """Binary in a row, and a text within a list that is none."""
    broken = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array([b"\xff"]).view(pa.string()))
    (row,) = rows_of(pa.record_batch([broken, BLOBS["plain"].slice(0, 1)], names=["texts", "blob"]))
    for source, said in (
        ("{{ texts }}", "no UTF-8"),
        ("{{ row['blob' | lower] }}", "`blob` has binary in it"),
    ):
        with pytest.raises(RowError, match=said):
            compile_expression(source, "here").value(row)


def test_a_period_of_an_unknown_kind_fails_a_row_that_writes_it() -> None:
    """And only that: the others of the row have their text."""
    metadata = {"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": '{"freq": "fortnight"}'}
    fields: list[pa.Field[Any]] = [pa.field("p", pa.int64(), metadata=metadata), pa.field("t", pa.string())]
    (row,) = rows_of(pa.record_batch([pa.array([1]), pa.array(["x"])], schema=pa.schema(fields)))
    assert compile_template("{{ row['t' | lower] }}", "").render(row) == "x"
    with pytest.raises(RowError, match="column `p` is one of pandas that it cannot read"):
        compile_template("{{ row.values() | list }}", "").render(row)
