"""Rows of the output in the terminal: a table that fits, or each row with its prompt and its answer."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from enrich.answer.columns import step_fields
from enrich.base.location import is_url
from enrich.config import InputConfig
from enrich.errors import ConfigError, InputError, OutputError
from enrich.files.sink import read_manifest
from enrich.files.source import open_source
from enrich.files.where import Where
from enrich.prompt.request import RequestBuilder
from enrich.prompt.template import RowError
from enrich.records import FAILED
from enrich.schema.choice import written_names
from enrich.schema.schema import step_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.config import Config, StepConfig
    from enrich.files.source import Source

CELL_LINES = 3  # lines of one cell of the table
NARROWEST = (
    8  # characters that a column of the table has at least; columns for which there is no room are named
)
SHORT = 16  # characters up to which a column stays in one piece
INDENT = "    "


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows and columns are shown.

    Attributes:
        rows: how many, at most.
        failed: only rows without a usable answer.
        where: only rows for which this expression is true, such as ``stars < 3``; see `Where`.
        columns: only these; default: what the prompts use, and what was answered.
    """

    rows: int = 10
    failed: bool = False
    where: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of one row: what was asked and what came of it.

    Attributes:
        prompt: as the configuration makes it of this row now; empty where it makes none.
        columns: the answer's columns, or why there is no answer.
    """

    step: str
    prompt: str
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row of the output.

    Attributes:
        number: its place in the output, from 1.
    """

    number: int
    values: Mapping[str, Any]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows of an output.

    Attributes:
        total: rows that the output has.
        sandbox: whether its answers are made up.
    """

    output: str
    total: int
    columns: tuple[str, ...]
    rows: tuple[ShownRow, ...]
    sandbox: bool

    def json_lines(self) -> Iterator[str]:
        """Give each row as one JSON object, its number as ``row``."""
        for row in self.rows:
            chosen = {name: row.values[name] for name in self.columns}
            yield json.dumps({"row": row.number, **chosen}, ensure_ascii=False, default=str)

    def head(self) -> str:
        """Say what is shown."""
        made_up = "; sandbox: answers are made up" if self.sandbox else ""
        return f"{self.output}: {len(self.rows):,} of {self.total:,} rows{made_up}"

    def blocks(self) -> Iterator[str]:
        """Give each row with its prompts and answers, one below the other."""
        for row in self.rows:
            yield f"row {row.number:,}"
            for turn in row.turns:
                if turn.prompt:
                    yield f"  {turn.step} was asked"
                    yield textwrap.indent(turn.prompt, INDENT)
                for name, value in turn.columns.items():
                    text = _text(value)
                    yield f"  {name}" if "\n" in text else f"  {name}: {text}"
                    if "\n" in text:
                        yield textwrap.indent(text, INDENT)
            yield ""


def show_job(config: Config, wanted: Wanted) -> Shown:
    """Read rows of a job's output; sends nothing.

    Raises:
        OutputError: there is no output yet.
        InputError: the output cannot be read, or is not this job's.
        ConfigError: a column or the expression cannot be used.
    """
    source = _open(config)
    names = source.schema.names
    builders = [RequestBuilder(step, "", step_schema(step)) for step in config.steps]
    columns = wanted.columns or _usual(builders, names, failed=wanted.failed)
    for name in columns:
        if name not in names:
            raise ConfigError(
                f"--columns {name}: the output has no such column", hint=f"there is {', '.join(names)}."
            )
    usual = _usual_names(builders, names)
    statuses = [f"{step.name}_status" for step in config.steps]
    if wanted.failed:
        _check_statuses(statuses, usual)
    rows: list[ShownRow] = []
    for number, values in _rows(source, wanted.where):
        if len(rows) == wanted.rows:
            break
        told = {
            **dict.fromkeys(name for name in usual),
            **values,
            **{n: values[w] for n, w in usual.items() if w},
        }
        if wanted.failed and not any(told[status] in FAILED for status in statuses):
            continue
        rows.append(ShownRow(number, values, tuple(_turn(builder, told) for builder in builders)))
    sandbox = (
        bool((read_manifest(config.output.path) or {}).get("sandbox"))
        if not config.output.partitioned
        else False
    )
    return Shown(config.output.path, source.num_rows, tuple(columns), tuple(rows), sandbox)


def _open(config: Config) -> Source:
    path = config.output.path
    if not is_url(path) and not Path(path).exists():
        raise OutputError(
            f"there is no output yet: {path}",
            hint="beatra-enrich run CONFIG makes it; beatra-enrich collect CONFIG writes what is answered so far.",
        )
    source = open_source(InputConfig(path=path, format=config.output.format))
    for step in config.steps:
        written = written_names(step, step_schema(step))
        if written and not set(written.values()).intersection(source.schema.names):
            first = written.get(f"{step.name}_status") or next(iter(written.values()))
            raise InputError(
                f"{path} has no column {first}: it is not this job's, or was made before step {step.name}",
                hint="run the job again: nothing is sent twice.",
            )
    return source


def _usual_names(builders: Sequence[RequestBuilder], names: Sequence[str]) -> dict[str, str | None]:
    """Give the columns of all steps as templates name them, and under which name the output has each, if at all."""
    usual: dict[str, str | None] = {}
    for builder in builders:
        usual |= dict.fromkeys(field.name for field in step_fields(builder.step.name, builder.schema))
        written = written_names(builder.step, builder.schema)
        usual |= {name: column for name, column in written.items() if column in names}
    return usual


def _check_statuses(statuses: Sequence[str], usual: Mapping[str, str | None]) -> None:
    """Refuse to look for failed rows in an output that does not say which they are.

    Raises:
        ConfigError: it does not.
    """
    for status in statuses:
        if usual[status] is None:
            raise ConfigError(
                f"--failed: the output has no column {status}",
                hint="`columns` of the step leaves it out; beatra-enrich collect CONFIG with another choice adds it for nothing.",
            )


def _usual(builders: Sequence[RequestBuilder], names: Sequence[str], *, failed: bool) -> list[str]:
    """Choose what says most: the columns that the prompts use, the answers, and how the rows stand."""
    answers: list[str] = []
    for builder in builders:
        step = builder.step.name
        fields = [f"{step}_{field.name}" for field in builder.schema.fields] if builder.schema else [step]
        shown = [f"{step}_status", f"{step}_error"] if failed else [*fields, f"{step}_status"]
        written = written_names(builder.step, builder.schema)
        answers += [written[name] for name in shown if name in written]
    used = frozenset[str]().union(*(builder.columns for builder in builders))
    inputs = [name for name in names if name in used and name not in answers]
    own = {f"{b.step.name}" for b in builders} | set(answers)
    return [*(name for name in inputs if name not in own), *(name for name in answers if name in names)]


def _rows(source: Source, where: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the rows of which the expression is true, with their numbers from 1."""
    condition = Where(where, source.schema) if where is not None else None
    number = 0
    for batch in source.batches(max_rows=256):
        places = np.arange(number + 1, number + batch.num_rows + 1)
        number += batch.num_rows
        if condition is not None:
            met = condition.mask(batch)
            places, batch = places[met], batch.filter(pa.array(met))  # noqa: PLW2901  # what is left of it
        yield from zip(places.tolist(), batch.to_pylist(), strict=True)


def _turn(builder: RequestBuilder, values: Mapping[str, Any]) -> Turn:
    step = builder.step
    return Turn(step.name, _prompt(builder, values), _answer(step, builder, values))


def _prompt(builder: RequestBuilder, values: Mapping[str, Any]) -> str:
    try:
        if not builder.wanted(values):
            return ""
        messages = builder.messages_of(values)
    except RowError:
        return ""  # the row's error says why
    return "\n".join(f"{message['role']}: {_text(message['content'])}" for message in messages)


def _answer(step: StepConfig, builder: RequestBuilder, values: Mapping[str, Any]) -> dict[str, Any]:
    status, name = values[f"{step.name}_status"], step.name
    found = {f"{name}_status": status} if status is not None else {}
    if values[f"{name}_error"]:
        found[f"{name}_error"] = values[f"{name}_error"]
    if values[name] is not None:
        found[name] = values[name]
    if status in ("ok", None) and builder.schema is not None:
        found |= {f"{name}_{field.name}": values[f"{name}_{field.name}"] for field in builder.schema.fields}
    return found


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def table_text(shown: Shown, width: int) -> str:
    """Write rows as a table that is no wider than the terminal; columns for which there is no room are named below.

    Args:
        shown: the rows.
        width: characters of a line.
    """
    import io

    from rich.console import Console
    from rich.table import Table

    most = max(1, (width - 6) // (NARROWEST + 2))
    columns, left_out = _fitting(shown.columns, most)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("row", justify="right", no_wrap=True)
    for name in columns:
        values = [row.values[name] for row in shown.rows]
        numeric = all(isinstance(value, int | float | None) for value in values)
        short = max(map(len, [name, *map(_text, values)])) <= SHORT
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=short)
    cell = max(NARROWEST, (width - 6) // max(1, len(columns))) * CELL_LINES
    for row in shown.rows:
        texts = (" ".join(_text(row.values[name]).split()) for name in columns)
        table.add_row(
            f"{row.number:,}", *(textwrap.shorten(t, cell, placeholder=" …") or t[:cell] for t in texts)
        )
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, markup=False, emoji=False).print(table)
    text = "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
    return f"{text}\n(not shown: {', '.join(left_out)}; --columns chooses)" if left_out else text


def _fitting(columns: Sequence[str], most: int) -> tuple[list[str], list[str]]:
    """Choose the columns for which there is room: the first, and as many of the last, where the answers stand."""
    if len(columns) <= most:
        return list(columns), []
    chosen = {*columns[:1], *columns[-(most - 1) :]} if most > 1 else set(columns[-1:])
    return [name for name in columns if name in chosen], [name for name in columns if name not in chosen]
