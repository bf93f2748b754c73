"""What a file says of its own columns stays true in the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.answer.columns import output_schema, step_fields
from enrich.files.metadata import retell_metadata
from enrich.schema.schema import load_schema

DATA = Path(__file__).parent.parent / "data"
ANSWER = load_schema(
    {
        "properties": {
            "label": {"enum": ["pos", "neg"]},
            "score": {"type": "number"},
            "parts": {"type": "array", "items": {"properties": {"n": {"type": "integer"}}}},
        }
    }
)
SPARK = b"org.apache.spark.sql.parquet.row.metadata"


S = ("s", step_fields("s", ANSWER))
PLAIN = ("s", step_fields("s", None))
T = ("t", step_fields("t", None))


def told(schema: pa.Schema, key: bytes) -> Any:
    """Give what an output with a typed and a plain step says under a key."""
    out = output_schema(schema, [S, T])
    text = (out.metadata or {}).get(key)
    return text and json.loads(text)


def test_spark_is_told_of_the_new_columns() -> None:
    """Spark believes its own schema in the footer: every column of the output stands in it, the old ones as they were."""
    schema = pq.read_schema(DATA / "spark_nested.parquet")
    before = json.loads(schema.metadata[SPARK])["fields"]
    fields = told(schema, SPARK)["fields"]
    assert [field["name"] for field in fields] == output_schema(schema, [S, T]).names
    assert fields[: len(before)] == before
    types = {field["name"]: field["type"] for field in fields}
    assert (types["s"], types["s_label"], types["s_score"]) == ("string", "string", "double")
    assert (types["t_prompt_tokens"], types["t_attempts"]) == ("long", "integer")
    assert types["s_parts"]["elementType"]["fields"][0] == {
        "name": "n",
        "type": "long",
        "nullable": True,
        "metadata": {},
    }


def test_a_column_that_was_left_out_is_not_told_of() -> None:
    """Spark's and pandas' schemas lose the columns that the output lacks."""
    schema = pq.read_schema(DATA / "spark_nested.parquet")
    kept = pa.schema([schema.field("id")])
    fields = json.loads(retell_metadata(schema.metadata, kept).metadata[SPARK])["fields"]
    assert [field["name"] for field in fields] == ["id"]
    schema = pq.read_schema(DATA / "pandas_index.parquet")
    said = json.loads(
        retell_metadata(schema.metadata, pa.schema([schema.field("stars")])).metadata[b"pandas"]
    )
    assert [column["name"] for column in said["columns"]] == ["stars"]
    assert said["index_columns"] == []


def test_pandas_reads_its_index_and_the_new_columns() -> None:
    """A frame comes back with its index, its dtypes and the new columns as pandas would have them."""
    schema = pq.read_schema(DATA / "pandas_index.parquet")
    out = output_schema(schema, [S])
    frame = out.empty_table().to_pandas()
    assert frame.index.name == "key"
    assert frame["s"].dtype == pa.array([""]).to_pandas().dtype  # texts are objects until pandas 3
    assert str(frame["s_score"].dtype) == "float64"
    names = [column["name"] for column in told(schema, b"pandas")["columns"]]
    assert names[:4] == ["review", "stars", "day", "key"]
    assert set(names) == {*schema.names, *output_schema(schema, [S, T]).names}


@pytest.mark.parametrize(
    "key", [b"parquet.avro.schema", b"avro.schema", b"iceberg.schema", b"thrift.descriptor"]
)
def test_schemas_in_other_languages_are_dropped(key: bytes) -> None:
    """What cannot be told of the new columns goes; what is no schema stays."""
    schema = pa.schema([("a", pa.string())], metadata={key: "{}", "mine": "kept"})
    assert output_schema(schema, [PLAIN]).metadata == {b"mine": b"kept"}


def test_a_key_that_is_not_what_its_writer_writes_is_dropped() -> None:
    """Damaged text under a known key is no reason to stop, and is not handed on."""
    for key in (SPARK, b"pandas", b"geo", b"huggingface"):
        for text in (b"", b"{", b"[]", b"{}", b"null", b"1"):
            schema = pa.schema([("a", pa.string())], metadata={key: text})
            assert key not in (output_schema(schema, [PLAIN]).metadata or {})


def test_geometries_and_features() -> None:
    """GeoParquet's key stays as long as its primary geometry does; the features of `datasets` grow by the new columns."""
    geo = json.dumps(
        {"version": "1.1.0", "primary_column": "g", "columns": {"g": {"encoding": "WKB"}, "h": {}}}
    )
    features = json.dumps({"info": {"features": {"g": {"dtype": "binary", "_type": "Value"}}}})
    schema = pa.schema([("g", pa.binary())], metadata={"geo": geo, "huggingface": features})
    assert told(schema, b"geo")["columns"] == {"g": {"encoding": "WKB"}}
    assert retell_metadata(schema.metadata, pa.schema([("a", pa.string())])).metadata.get(b"geo") is None
    plain = output_schema(schema, [T]).metadata[b"huggingface"]
    assert json.loads(plain)["info"]["features"]["t_credits"] == {"dtype": "float64", "_type": "Value"}
    assert told(schema, b"huggingface") is None  # of a nested column the key has nothing to say
