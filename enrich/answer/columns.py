"""Outcomes become Arrow columns, and the steps' columns join the input's in the output schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.errors import ConfigError
from enrich.files.metadata import retell_metadata
from enrich.records import STATUSES, Outcome, key_text
from enrich.schema.schema import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.schema.schema import AnswerSchema

SOURCES = ("api", "ledger", "copy")


# suffix and type; all but the last are named as in an outcome
RECORD_COLUMNS = (
    ("status", CATEGORY),
    ("error", pa.string()),
    ("model", pa.string()),
    ("request_id", pa.string()),
    ("finish_reason", pa.string()),
    ("prompt_tokens", pa.int64()),
    ("completion_tokens", pa.int64()),
    ("total_tokens", pa.int64()),
    ("credits", pa.float64()),
    ("attempts", pa.int32()),
    ("latency_ms", pa.float64()),
    ("source", CATEGORY),
    ("idempotency_key", pa.string()),
)
CATEGORIES = {"status": STATUSES, "source": SOURCES}  # every batch has the same ones: files stay in one piece


def step_fields(name: str, schema: AnswerSchema | None) -> list[pa.Field[Any]]:
    """Give the output columns of one step, in order.

    Args:
        name: the step's name; it prefixes every column.
        schema: of the answer; None when the answer is text.
    """
    typed = [field.with_name(f"{name}_{field.name}") for field in schema.fields] if schema else []
    return [
        pa.field(name, pa.string()),
        *typed,
        *(pa.field(f"{name}_{suffix}", kind) for suffix, kind in RECORD_COLUMNS),
    ]


def output_schema(input_schema: pa.Schema, steps: Sequence[tuple[str, AnswerSchema | None]]) -> pa.Schema:
    """Join the input's columns, untouched, and those of every step.

    Args:
        input_schema: its metadata is kept, and told of the new columns.
        steps: name and answer schema of each step, in order.

    Raises:
        ConfigError: two columns would have the same name.
    """
    owners: dict[str, str] = {}
    for name in input_schema.names:
        if name in owners:
            raise ConfigError(
                f"the input has two columns named `{name}`", hint="rename one, or select with input.columns."
            )
        owners[name] = "the input"
    fields = list(input_schema)
    for step, schema in steps:
        for field in step_fields(step, schema):
            if field.name in owners:
                raise ConfigError(
                    f"step `{step}` makes a column `{field.name}`, which {owners[field.name]} has too",
                    hint="rename the step or the schema's property, or leave the input column out with input.columns.",
                )
            owners[field.name] = f"step `{step}`"
            fields.append(field)
    return retell_metadata(input_schema.metadata, pa.schema(fields))


def step_columns(schema: AnswerSchema | None, outcomes: Sequence[Outcome]) -> list[pa.Array[Any]]:
    """Build one step's columns, as `step_fields` lists them.

    Args:
        schema: of the answer, or None.
        outcomes: one per row, in order.
    """
    parts = dict(zip(Outcome._fields, zip(*outcomes, strict=True), strict=True)) if outcomes else {}
    parts["idempotency_key"] = [key and key_text(key) for key in parts.get("key", ())]
    columns: list[pa.Array[Any]] = [pa.array(parts.get("text", ()), pa.string())]
    if schema is not None:
        answers = [values or {} for values in parts.get("values", ())]
        for name, column in schema.columns.items():
            columns.append(_array([answer.get(name) for answer in answers], column.type, column.categories))
    for suffix, kind in RECORD_COLUMNS:
        columns.append(_array(parts.get(suffix, ()), kind, CATEGORIES.get(suffix, ())))
    return columns


def _array(values: Sequence[Any], kind: pa.DataType, categories: Sequence[str]) -> pa.Array[Any]:
    if not categories:
        return pa.array(values, kind)
    index: dict[str | None, int | None] = {category: i for i, category in enumerate(categories)}
    index[None] = None
    indices = pa.array([index[value] for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(categories, pa.string()))
