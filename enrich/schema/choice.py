"""Which of a step's columns are written, in which order, and under which names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from enrich.errors import ConfigError, did_you_mean
from enrich.schema.places import further_fields
from enrich.schema.schema import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from enrich.config import StepConfig
    from enrich.schema.schema import AnswerSchema

# suffix and type; all but the last are named as in an outcome
RECORD_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
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
# What is written only where it is asked for, behind the others.
FURTHER_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("cached_tokens", pa.int64()),
    ("reasoning_tokens", pa.int64()),
    ("credits_usd", pa.float64()),
    ("reasoning", pa.string()),
    (
        "tool_calls",
        pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])),
    ),
    ("refusal", pa.string()),
    ("logprob", pa.float64()),
    ("confidence", pa.float64()),
    ("system_fingerprint", pa.string()),
    ("votes", pa.int32()),
    ("agreement", pa.float64()),
)
# Request fields that ask for what a further column shows; a step that sends one has the column among its standard ones.
BROUGHT_BY: dict[str, tuple[str, ...]] = {
    "tool_calls": ("tools", "functions"),
    "logprob": ("logprobs",),
    "confidence": ("logprobs",),
    "reasoning": ("reasoning_effort", "reasoning", "include_reasoning", "thinking", "enable_thinking"),
}
FINGERPRINT = "system_fingerprint"  # standard where a step is pinned
VOTED = ("votes", "agreement")  # standard where a step asks for several answers
# Request fields that hold more of them: Beatra's, vLLM's and the Python client's.
HOLDERS = ("model_options", "chat_template_kwargs", "extra_body")
TEXT: Final = "\ud800"  # the short name of the text itself; no column can be called so, for it is no UTF-8
# Words for one column or several. A schema's property of the same name is meant as well.
WORDS: Final = ("answer", "text", "fields", "tokens", "minimal", "standard", "all")


INDEX: Final = (
    "index"  # the short name of the column with an element's place in the list that is made rows of
)


class Column(NamedTuple):
    """One column of a step that is written.

    Attributes:
        of: what it shows: a property of the schema, or an attribute of an outcome.
        is_value: whether ``of`` is a property of the schema.
        field: its type, and the name under which it is written.
    """

    of: str
    is_value: bool
    field: pa.Field[Any]


def choose(step: StepConfig, schema: AnswerSchema | None) -> tuple[Column, ...]:
    """Give the columns of a step that are written, in their order.

    Raises:
        ConfigError: ``columns`` or ``rename`` names what the step does not have.
    """
    there = _columns(step, schema)
    chosen = step.columns
    words = ["standard"] if chosen is None else [chosen] if isinstance(chosen, str) else chosen
    where = f"steps.{step.name}"
    brought = [name for name in _brought(step.params) if not there[name].is_value]
    brought += [name for name in VOTED if step.ballot is not None and not there[name].is_value]
    brought += [FINGERPRINT] if step.pinned is not None and not there[FINGERPRINT].is_value else []
    brought += [field.name for field in further_fields(step, schema)]
    names = dict.fromkeys(name for word in words for name in _meant(word, there, where, brought))
    if step.explode is not None:
        names = dict.fromkeys(_with_index(step.explode, names, where))
    renamed = {_one(name, there, f"{where}.rename"): written for name, written in step.rename.items()}
    return tuple(
        there[name]._replace(field=there[name].field.with_name(renamed.get(name, there[name].field.name)))
        for name in names
    )


def written_names(step: StepConfig, schema: AnswerSchema | None) -> dict[str, str]:
    """Give, for each column of a step that is written, its name in templates and the name under which it is written."""
    usual = {(column.of, column.is_value): column.field.name for column in _columns(step, schema).values()}
    return {usual[column.of, column.is_value]: column.field.name for column in choose(step, schema)}


def _brought(params: Mapping[str, Any]) -> list[str]:
    """Give the further columns whose content a request with these fields asks for."""
    held = [params, *(params[name] for name in HOLDERS if isinstance(params.get(name), dict))]
    asked = {field for fields in held for field, value in fields.items() if value}
    return [name for name, fields in BROUGHT_BY.items() if not asked.isdisjoint(fields)]


def _columns(config: StepConfig, schema: AnswerSchema | None) -> dict[str, Column]:
    """Give every column that a step can have, by its short name; a schema's property comes before a further column."""
    step = config.name
    there = {TEXT: Column("text", is_value=False, field=pa.field(step, pa.string()))}
    for field in schema.fields if schema is not None else ():
        there[field.name] = Column(field.name, is_value=True, field=field.with_name(f"{step}_{field.name}"))
    if config.explode is not None:
        there = _exploded(config.explode, step, there)
    places = further_fields(config, schema)
    for name, kind in (*RECORD_COLUMNS, *((field.name, field.type) for field in places)):
        if name in there:
            raise ConfigError(
                f"step `{step}` makes a column `{step}_{name}`, which step `{step}` has too",
                hint="rename the step or the schema's property.",
            )
        there[name] = Column(name, is_value=False, field=pa.field(f"{step}_{name}", kind))
    for name, kind in FURTHER_COLUMNS:
        there.setdefault(name, Column(name, is_value=False, field=pa.field(f"{step}_{name}", kind)))
    return there


def _exploded(name: str, step: str, there: Mapping[str, Column]) -> dict[str, Column]:
    """Give the columns of a step whose answer's list becomes rows: one element each, and its place.

    Raises:
        ConfigError: there is no such list.
    """
    where = f"steps.{step}.explode"
    fields = [short for short, column in there.items() if column.is_value]
    if name not in fields:
        hint = did_you_mean(name, fields) if fields else "`schema` says what the step answers with."
        raise ConfigError(f"{where}: the step's schema has no property `{name}`", hint=hint)
    kind: Any = there[name].field.type
    if not pa.types.is_list(kind):
        raise ConfigError(
            f"{where}: `{name}` is {kind}, and no list",
            hint="make it an array with `items` of one type in the schema.",
        )
    if INDEX in fields:
        raise ConfigError(
            f"{where} makes a column `{step}_{INDEX}`, which step `{step}` has too",
            hint="rename the schema's property.",
        )
    made: dict[str, Column] = {}
    for short, column in there.items():
        made[short] = column
        if short == name:
            made[short] = column._replace(field=column.field.with_type(kind.value_type))
            made[INDEX] = Column(INDEX, is_value=False, field=pa.field(f"{step}_{INDEX}", pa.int64()))
    return made


def _with_index(name: str, chosen: Iterable[str], where: str) -> list[str]:
    """Have an element's place written behind it.

    Raises:
        ConfigError: the element is not written.
    """
    names = [short for short in chosen if short != INDEX]
    if name not in names:
        raise ConfigError(
            f"{where}.columns leaves out `{name}`, of whose elements `explode` makes rows",
            hint="name it, or `answer`.",
        )
    names.insert(names.index(name) + 1, INDEX)
    return names


def _meant(word: str, there: Mapping[str, Column], where: str, brought: Sequence[str]) -> Sequence[str]:
    """Give the short names of the columns that a word of ``columns`` stands for.

    Args:
        word: as given.
        there: the columns that the step can have.
        where: for what is told where there is none.
        brought: further columns that are standard ones here, for the request asks for what they show.
    """
    if word not in WORDS:
        return [_one(word, there, f"{where}.columns")]
    fields = [name for name, column in there.items() if column.is_value]
    record = [name for name, _ in RECORD_COLUMNS]
    groups: dict[str, Sequence[str]] = {
        "answer": [TEXT, *fields],
        "text": [TEXT],
        "fields": fields,
        "tokens": [name for name in record if name.endswith("_tokens")],
        "minimal": [TEXT, *fields, "status", "error"],
        "standard": [TEXT, *fields, *record, *brought],
        "all": list(there),
    }
    return [*groups[word], *([word] if word in fields else [])]


def _one(name: str, there: Mapping[str, Column], where: str) -> str:
    """Give the short name of a column, which may be called by its whole name too.

    Raises:
        ConfigError: there is none of this name.
    """
    if name in there and name != TEXT:
        return name
    whole = {column.field.name: short for short, column in there.items()}
    if name in whole:
        return whole[name]
    if name in ("answer", "text"):
        return TEXT
    known = ["answer", *(short for short in there if short not in (TEXT, ""))]
    known += WORDS[1:] if where.endswith(".columns") else ()
    raise ConfigError(f"{where}: the step has no column `{name}`", hint=did_you_mean(name, known))
