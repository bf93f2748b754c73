"""Binary goes into no prompt, however deep it lies."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import TemplateError
from enrich.prompt.column_types import check_prompt_column

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
