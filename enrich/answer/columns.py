"""Outcomes become Arrow columns, and the steps' columns join the input's in the output schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.answer.arrays import arrow_array, categorical
from enrich.errors import ConfigError
from enrich.files.metadata import retell_metadata
from enrich.records import STATUSES, Outcome, key_text
from enrich.schema.choice import INDEX, RECORD_COLUMNS
from enrich.schema.places import MATCHES, first_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.schema.choice import Column
    from enrich.schema.schema import AnswerSchema

SOURCES = ("api", "ledger", "copy")


CATEGORIES = {"status": STATUSES, "source": SOURCES}  # every batch has the same ones: files stay in one piece


def step_fields(name: str, schema: AnswerSchema | None) -> list[pa.Field[Any]]:
    """Give the columns of one step that are written where nothing else is said, in order.

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


def output_schema(input_schema: pa.Schema, steps: Sequence[tuple[str, Sequence[pa.Field[Any]]]]) -> pa.Schema:
    """Join the input's columns, untouched, and those of every step.

    Args:
        input_schema: its metadata is kept, and told of the new columns.
        steps: name and written columns of each step, in order.

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
    for step, written in steps:
        for field in written:
            if field.name in owners:
                raise ConfigError(
                    f"step `{step}` makes a column `{field.name}`, which {owners[field.name]} has too",
                    hint="rename the step, or one of the two with the step's `rename`, or leave the input column out with "
                    "output.columns.",
                )
            owners[field.name] = f"step `{step}`"
            fields.append(field)
    return retell_metadata(input_schema.metadata, pa.schema(fields))


def made_fields(columns: Sequence[Column], schema: AnswerSchema | None) -> list[pa.Field[Any]]:
    """Give names and types of what `step_columns` makes: of a list that is going to be rows, the list."""
    return [
        column.field.with_type(schema.columns[column.of].type)
        if column.is_value and schema is not None
        else column.field
        for column in columns
    ]


def step_columns(
    columns: Sequence[Column], schema: AnswerSchema | None, outcomes: Sequence[Outcome]
) -> list[pa.Array[Any]]:
    """Build one step's columns.

    Args:
        columns: which, see `enrich.schema.choice.choose`.
        schema: of the answer, or None.
        outcomes: one per row, in order.
    """
    parts = dict(zip(Outcome._fields, zip(*outcomes, strict=True), strict=True)) if outcomes else {}
    parts["idempotency_key"] = [key and key_text(key) for key in parts.get("key", ())]
    parts[INDEX] = [None] * len(outcomes)  # filled where the rows are made
    told = [{**(o.evidence or {}), **(o.firsts or {})} for o in outcomes]
    answers = [values or {} for values in parts.get("values", ())]
    made: list[pa.Array[Any]] = []
    for column in columns:
        if column.is_value and schema is not None:
            typed = schema.columns[column.of]
            found = [answer.get(column.of) for answer in answers]
            made.append(_column(found, typed.type, typed.categories))
        elif column.of in parts or not outcomes:
            categories = CATEGORIES.get(column.of, ())
            made.append(_column(parts.get(column.of, ()), column.field.type, categories))
        else:
            made.append(
                _column(
                    [more.get(column.of) for more in told], column.field.type, _categories(column, schema)
                )
            )
    return made


def _categories(column: Column, schema: AnswerSchema | None) -> Sequence[str]:
    """Give the values that a column which tells more of a field may have, where they are few."""
    if not pa.types.is_dictionary(column.field.type):
        return ()
    for name, typed in schema.columns.items() if schema is not None else ():
        if column.of == first_column(name):
            return typed.categories
    return MATCHES


def _column(values: Sequence[Any], kind: pa.DataType, categories: Sequence[str]) -> pa.Array[Any]:
    return categorical(values, categories) if categories else arrow_array(values, kind)
