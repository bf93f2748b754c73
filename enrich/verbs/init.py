"""The starter job that `init` writes: a configuration and rows that run at once on the sandbox."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.config import InputConfig
from enrich.errors import OutputError
from enrich.files.source import open_source
from enrich.prompt.template import is_template
from enrich.prompt.variables import as_variable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONFIG_TEMPLATE = """\
# A first job. Run it with: beatra-enrich run config.yaml
input: reviews.csv
output: out/reviews.parquet

endpoint:
  base_url: sandbox        # the built-in emulator; remove this line to ask Beatra (key: BEATRA_API_KEY)

steps:
  - name: sentiment        # the output columns begin with this name
    system: You are a concise analyst.
    prompt: |
      Classify this review of {{ product }}:
      {{ review }}
    model: auto
    temperature: 0
    max_tokens: 64
    schema:                # one typed column per property: sentiment_label, sentiment_score
      type: object
      properties:
        label: {enum: [pos, neg, neutral]}
        score: {type: number, minimum: 0, maximum: 1}
      required: [label, score]

limits:
  concurrency: 16          # the most requests in flight
  requests_per_minute: 6000

tolerate: 0                # failed rows (a count, or a share such as 1%) that still count as success
"""

REVIEWS = [
    ("product", "stars", "review"),
    ("kettle", "5", "Boils in two minutes and is quiet about it."),
    ("kettle", "2", 'The lid broke after a week.\nThe shop said "bad luck".'),
    ("lamp", "4", "Warm light, a little wobbly on its foot."),
    ("lamp", "1", "Arrived with a plug for another country."),
    ("chair", "3", "Comfortable, but the colour is not the one in the picture."),
    ("chair", "5", "Très confortable, je recommande."),
    ("desk", "4", "Solid. Took me an hour to put together."),
    ("desk", "2", "The drawer sticks, and the handle came off."),
]


FOR_DATA = """\
# Run it with: beatra-enrich run config.yaml
input: {input}
output: {output}

endpoint:
  base_url: sandbox        # the built-in emulator; remove this line to ask Beatra (key: BEATRA_API_KEY)

steps:
  - name: {step}           # the output columns begin with this name
    prompt: |
{prompt}
    model: auto
    max_tokens: 256
{on_null}{schema}{gold}
limits:
  concurrency: 16          # the most requests in flight

tolerate: 0                # failed rows (a count, or a share such as 1%) that still count as success
"""
LOOKED_AT = 1_000  # rows
LABELS_MOST = 20  # different values up to which a column with what is known gives the labels to choose from
COLUMNS_MOST = 6  # columns that a prompt for a table of the user's shows; more are for the user to choose
STEP_NAMES = ("answer", "result", "enriched", "step_1")  # the first that collides with no column


def write_starter(directory: Path) -> list[Path]:
    """Write the starter job into a directory; gives the files it made.

    Raises:
        OutputError: a file of that name is there already, or the directory cannot be written.
    """
    rows = io.StringIO()
    csv.writer(rows).writerows(REVIEWS)
    return _write(directory, {"config.yaml": CONFIG_TEMPLATE, "reviews.csv": rows.getvalue()})


ON_NULL = """\
    on_null: render        # a value that is missing shows as nothing; rows with one are not asked by `skip` or `error`
"""
SCHEMA = """\
    schema:                # a typed column for it: {step}_label
      type: object
      properties:
        label: {{enum: {labels}}}
      required: [label]
"""
DRAFTED = """\
    schema:                # typed columns: {step}_{first} and so on; drafted, to be read and put right
      type: object
      properties:
{fields}
      required: {required}
      additionalProperties: false
"""
GOLD = """\

gold: {{{answer}: {known}}}    # what somebody found already is not shown to the model: a run says how far they agree
"""
# Columns that tell a model nothing: keys, and points in time.
IDENTIFIES = re.compile(
    r"(?i)(?:^|_|\b)(?:id|ids|uuid|guid|key|index|idx|unnamed.*)$|^row_?(?:number|num|no)?$"
)
# Columns with what an answer should be: the prompt must not show it, and answers are held to it.
KNOWN = re.compile(
    r"(?:^|_)(?:gold|golden|labels?|labelled|truth|groundtruth|targets?|by_hand|y_true|annotation|annotated)$"
    r"|^(?:gold|golden|true|human|manual|expected|correct|target|annotated)_(?:labels?|class|category|answer|value|rating|score)$"
)
DATES = re.compile(
    r"(?i)^(?:date|day|time|timestamp|created|updated|modified)(?:_.*)?$|_(?:at|on|date|time|ts)$"
)


def check_data(data: Path) -> None:
    """Make sure that a table can be read.

    Raises:
        InputError: it cannot.
    """
    open_source(InputConfig(path=str(data)))


@dataclass(frozen=True)
class Proposal:
    """What a prompt for a table would show of it.

    Attributes:
        shown: columns, the one with the longest texts first.
        why: a line on each column, for people: why it is shown, or left out.
        nulls: whether one of those that are shown lacks values.
        known: the column with what an answer should be, as far as one is called so.
        labels: its values, where they are few texts.
    """

    shown: list[str]
    why: list[str]
    nulls: bool
    known: str | None = None
    labels: tuple[str, ...] = ()


def propose(data: Path) -> Proposal:
    """Look at the first `LOOKED_AT` rows of a table, and choose what a prompt shows of it.

    Raises:
        InputError: it cannot be read.
    """
    source = open_source(InputConfig(path=str(data)))
    batch = next(iter(source.batches(max_rows=LOOKED_AT)), None)
    telling = _telling(source.schema)
    lengths = {name: _mean_length(batch, name) for name in telling}
    shown = sorted(telling, key=lambda name: -(lengths[name] or 0.0))
    why = [
        f"{_as_text(name)}: shown, {_said(source.schema.field(name), lengths[name])}"
        for name in shown[:COLUMNS_MOST]
    ]
    why += [f"{_as_text(name)}: left out, {COLUMNS_MOST} others are shown" for name in shown[COLUMNS_MOST:]]
    why += [
        f"{_as_text(field.name)}: left out, {_tells_nothing(field)}"
        for field in source.schema
        if field.name not in telling
    ]
    seen = [] if batch is None else [batch.column(name) for name in shown[:COLUMNS_MOST]]
    known = _known(source.schema)
    return Proposal(
        shown,
        why,
        any(column.null_count for column in seen),
        known,
        _labels_of(batch, known) if known else (),
    )


def _known(schema: pa.Schema) -> str | None:
    """Give the first column with what an answer should be, by its name; None where that would be all there is to show."""
    found = [field.name for field in schema if _is_known(field)]
    return found[0] if found and found[0] not in _telling(schema) else None


def _is_known(field: pa.Field[Any]) -> bool:
    name = re.sub(r"[\s-]+", "_", field.name.strip().lower())
    return KNOWN.search(name) is not None and not pa.types.is_nested(field.type)


def _labels_of(batch: pa.RecordBatch | None, name: str) -> tuple[str, ...]:
    """Give the different values of a column of texts, where they are few and come again."""
    if batch is None or not _is_text(batch.schema.field(name).type):
        return ()
    values = [value for value in batch.column(name).to_pylist() if value is not None and value.strip()]
    different = tuple(sorted(set(values)))
    return different if 2 <= len(different) <= min(LABELS_MOST, len(values) // 2) else ()


def _mean_length(batch: pa.RecordBatch | None, name: str) -> float | None:
    """Give the characters that a column of texts has on average; None for another, or where there is no text."""
    if batch is None or not _is_text(batch.schema.field(name).type):
        return None
    lengths = [len(text) for text in batch.column(name).to_pylist() if text is not None]
    return sum(lengths) / len(lengths) if lengths else None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _said(field: pa.Field[Any], length: float | None) -> str:
    return str(field.type) if length is None else f"texts of about {length:.0f} characters"


def write_for(
    directory: Path,
    data: Path,
    task: str,
    labels: Sequence[str] = (),
    proposal: Proposal | None = None,
    *,
    schema: dict[str, Any] | None = None,
) -> list[Path]:
    """Write a configuration for a table of the user's, with its real columns in the prompt.

    Args:
        directory: where to.
        data: the table.
        task: what is to be done with each row; taken as it stands, also when it is a template already.
        labels: what an answer may be; without any it is what the proposal found, else free text.
        proposal: what the prompt shows; by default all that seems to tell something, in the table's order.
        schema: of an answer, where it was drafted; its first property is what a column that is known by hand is held to.

    Raises:
        InputError: the table cannot be read.
        OutputError: a file of that name is there already, or the directory cannot be written.
    """
    source = open_source(InputConfig(path=str(data)))
    names = source.schema.names
    telling = _telling(source.schema) if proposal is None else proposal.shown
    step = next(name for name in STEP_NAMES if not any(column.startswith(name) for column in names))
    given = labels or (proposal.labels if proposal is not None else ())
    known = _known(source.schema)
    suffix = data.suffix if data.suffix in (".csv", ".tsv", ".jsonl") else ".parquet"
    text = FOR_DATA.format(
        input=json.dumps(_seen_from(directory, data), ensure_ascii=False),
        output=json.dumps(f"out/{data.stem}{suffix}", ensure_ascii=False),
        step=step,
        prompt=textwrap.indent(_prompt(task, telling), " " * 6),
        on_null=ON_NULL if proposal is not None and proposal.nulls else "",
        schema=_schema(step, given, schema),
        gold=GOLD.format(answer=_held(step, given, schema), known=json.dumps(known, ensure_ascii=False))
        if known is not None
        else "",
    )
    return _write(directory, {"config.yaml": text})


def _schema(step: str, labels: Sequence[str], drafted: dict[str, Any] | None) -> str:
    """Write the schema that was drafted, or one of labels, or none."""
    if drafted is not None:
        fields = [
            f"        {json.dumps(name)}: {json.dumps(field, ensure_ascii=False)}"
            for name, field in drafted["properties"].items()
        ]
        first = next(iter(drafted["properties"]))
        required = json.dumps(drafted["required"])
        return DRAFTED.format(step=step, first=first, fields="\n".join(fields), required=required)
    if labels:
        return SCHEMA.format(step=step, labels=json.dumps(list(labels), ensure_ascii=False))
    return ""


def _held(step: str, labels: Sequence[str], drafted: dict[str, Any] | None) -> str:
    """Name the column of the answer that what is known by hand is held to."""
    if drafted is not None:
        return f"{step}_{next(iter(drafted['properties']))}"
    return f"{step}_label" if labels else step


def _telling(schema: pa.Schema) -> list[str]:
    """Give the columns that tell a model something; where none seems to, all that a prompt can show."""
    names = [field.name for field in schema if _tells_nothing(field) is None]
    return names or [field.name for field in schema if not _is_binary(field.type)]


def _tells_nothing(field: pa.Field[Any]) -> str | None:
    """Say why a column tells a model nothing; None where it may tell something."""
    if _is_binary(field.type):
        return "it is binary"
    if _is_known(field):
        return "it says what the answer should be: `gold` holds the answers to it"
    if pa.types.is_temporal(field.type) or DATES.search(field.name):
        return "it is a point in time"
    return "it tells rows apart" if IDENTIFIES.search(field.name) else None


def _is_binary(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )


def _prompt(task: str, names: Sequence[str]) -> str:
    """Put the task above a row's columns, each behind its name."""
    task = task.strip()
    if is_template(task):
        return task
    shown = "\n".join(f"{_as_text(name)}: {as_variable(name)}" for name in names[:COLUMNS_MOST])
    more = (
        ""
        if len(names) <= COLUMNS_MOST
        else "\n{# further columns: "
        + ", ".join(_as_text(name).replace("#}", "") for name in names[COLUMNS_MOST:])
        + " #}"
    )
    return f"{task}\n\n{shown}{more}"


def _as_text(name: str) -> str:
    """Write a column's name so that a template takes it as text."""
    return " ".join(name.split()).replace("{", "(").replace("}", ")")


def _seen_from(directory: Path, data: Path) -> str:
    """Give the data's path as the configuration has it: relative to it, so that both can be moved or checked in."""
    return os.path.relpath(data.resolve(), directory.resolve())


def _write(directory: Path, texts: dict[str, str]) -> list[Path]:
    files = {directory / name: text for name, text in texts.items()}
    try:
        for path in files:
            if path.exists():
                raise OutputError(
                    f"{path} is there already", hint="name another directory: beatra-enrich init DIR"
                )
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}") from None
    return list(files)
