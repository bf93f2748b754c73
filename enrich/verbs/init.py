"""The starter job that `init` writes: a configuration and rows that run at once on the sandbox."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import textwrap
from typing import TYPE_CHECKING

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
{schema}
limits:
  concurrency: 16          # the most requests in flight

tolerate: 0                # failed rows (a count, or a share such as 1%) that still count as success
"""
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


SCHEMA = """\
    schema:                # a typed column for it: {step}_label
      type: object
      properties:
        label: {{enum: {labels}}}
      required: [label]
"""
# Columns that tell a model nothing: keys, and points in time.
IDENTIFIES = re.compile(
    r"(?i)(?:^|_|\b)(?:id|ids|uuid|guid|key|index|idx|unnamed.*)$|^row_?(?:number|num|no)?$"
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


def write_for(directory: Path, data: Path, task: str, labels: Sequence[str] = ()) -> list[Path]:
    """Write a configuration for a table of the user's, with its real columns in the prompt.

    Args:
        directory: where to.
        data: the table.
        task: what is to be done with each row; taken as it stands, also when it is a template already.
        labels: what an answer may be; without any it is free text.

    Raises:
        InputError: the table cannot be read.
        OutputError: a file of that name is there already, or the directory cannot be written.
    """
    source = open_source(InputConfig(path=str(data)))
    names = source.schema.names
    step = next(name for name in STEP_NAMES if not any(column.startswith(name) for column in names))
    suffix = data.suffix if data.suffix in (".csv", ".tsv", ".jsonl") else ".parquet"
    text = FOR_DATA.format(
        input=json.dumps(_seen_from(directory, data), ensure_ascii=False),
        output=json.dumps(f"out/{data.stem}{suffix}", ensure_ascii=False),
        step=step,
        prompt=textwrap.indent(_prompt(task, _telling(source.schema)), " " * 6),
        schema=SCHEMA.format(step=step, labels=json.dumps(list(labels), ensure_ascii=False))
        if labels
        else "",
    )
    return _write(directory, {"config.yaml": text})


def _telling(schema: pa.Schema) -> list[str]:
    """Give the columns that tell a model something, all of them where none seems to."""
    names = [
        field.name
        for field in schema
        if not (pa.types.is_temporal(field.type) or IDENTIFIES.search(field.name) or DATES.search(field.name))
    ]
    return names or list(schema.names)


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
