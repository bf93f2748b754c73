"""Hold an output's answers to the values that were given by hand: read once, row by row, then only counted."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from enrich.base.words import counted
from enrich.config import InputConfig
from enrich.errors import ConfigError, InputError, did_you_mean
from enrich.files.source import open_source
from enrich.measure.scores import NULL, Disagreement, Score, label_figures, number_figures, text_figures
from enrich.report.rows import firsts
from enrich.report.texts import VALUE_CHARACTERS, cut
from enrich.schema.choice import INDEX, choose, written_names
from enrich.schema.places import first_column
from enrich.schema.schema import step_schema

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from enrich.config import Config, GoldConfig, StepConfig
    from enrich.files.source import Source
    from enrich.measure.scores import Figure, Kind

MOST_LABELS = 50  # different values up to which a column of texts counts as one of labels
MOST_COUNTED = 20  # different whole numbers up to which they are also counted as labels
MOST_STRANGE = 5  # told of values by hand that the schema does not have
MOST_ROWS = 100  # told of those that disagree


def shown_to_model(config: Config, columns: Container[str]) -> str:
    """Say which gold columns the prompts read, for people; nothing where they read none.

    Args:
        config: the job.
        columns: of the input, that the prompts read.
    """
    gold = config.gold
    known = gold.columns.values() if gold is not None and gold.file is None else ()
    shown = ", ".join(f"`{name}`" for name in dict.fromkeys(known) if name in columns)
    return (
        f"the prompts read the gold column {shown}: the model is shown the answer it is held to"
        if shown
        else ""
    )


def check_gold(config: Config, output: pa.Schema) -> None:
    """See that the gold columns and the answers that they belong to are there, before anything is sent.

    Args:
        config: the job.
        output: the columns that it writes.

    Raises:
        ConfigError: one is not.
        InputError: the further table cannot be read.
    """
    if (gold := config.gold) is None:
        return
    owners = owners_of(config)
    for answer in gold.columns:
        if answer not in owners:
            raise ConfigError(
                f"gold: `{answer}` is no column of answers that the output has",
                hint=did_you_mean(answer, [*owners]),
            )
        if owners[answer].explodes:
            raise ConfigError(
                f"gold: `{answer}` belongs to a step that makes many rows of one",
                hint="score the answers of a step without `explode`.",
            )
    if gold.file is not None and gold.key is not None:
        _require((gold.key,), output.names, "the output")
        open_source(
            InputConfig(path=gold.file, columns=list(dict.fromkeys([gold.key, *gold.columns.values()])))
        )
    else:
        _require(gold.columns.values(), output.names, "the output")


def foreign_labels(config: Config, source: Source) -> list[str]:
    """Say which values given by hand no answer can have, for people: the step's schema does not know them.

    Args:
        config: the job, with gold columns that are there.
        source: its input.

    Raises:
        InputError: the further table cannot be read, or has two different rows for a key.
    """
    if (gold := config.gold) is None:
        return []
    owners = owners_of(config)
    closed = {
        answer: known for answer in gold.columns if (known := allowed_labels(owners[answer].step, answer))
    }
    if gold.file is not None:
        found = GoldTable(gold).values({gold.columns[answer] for answer in closed})
    else:
        found = _values_of(
            source, [name for answer in closed if (name := gold.columns[answer]) in source.schema.names]
        )
    return [
        f"`{gold.columns[answer]}` says {', '.join(repr(label) for label in strange[:MOST_STRANGE])}"
        f"{', …' if len(strange) > MOST_STRANGE else ''} ({counted(sum(rows[label] for label in strange), 'row')}), which "
        f"`{answer}` cannot be: its schema has {', '.join(known)}"
        for answer, known in closed.items()
        for rows in [found.get(gold.columns[answer], Counter())]
        if (strange := [label for label in rows if label not in known])
    ]


def _values_of(source: Source, names: Sequence[str]) -> dict[str, Counter[str]]:
    """Count the values of columns of the input, as they are compared; what is missing is none."""
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    for batch in source.batches(columns=list(found)) if found else ():
        for name, counts in found.items():
            counts.update(text_of(value) for value in batch.column(name).to_pylist() if not is_missing(value))
    return found


def allowed_labels(step: StepConfig, name: str) -> list[str]:
    """Give the labels that a step's schema has for a written column; none where it may be any text."""
    schema = step_schema(step)
    field = next((c.of for c in choose(step, schema) if c.is_value and c.field.name == name), None)
    return [] if schema is None or field is None else list(schema.columns[field].categories)


def _require(names: Iterable[str], there: Sequence[str], where: str) -> None:
    for name in names:
        if name not in there:
            raise ConfigError(
                f"gold: {where} has no column `{name}`",
                hint=did_you_mean(name, there)
                or "an input column that `output.columns` leaves out is not in it.",
            )


def gold_scores(config: Config) -> tuple[Score, ...]:
    """Score the output of a job, as it stands, against its gold columns.

    Returns:
        One for each column that `gold` names; nothing where there is none.

    Raises:
        InputError, ConfigError: the output or the further table cannot be read, or is not this job's.
    """
    if (gold := config.gold) is None:
        return ()
    source = open_source(InputConfig(path=config.output.path, format=config.output.format))
    owners = owners_of(config)
    columns = _with_first_answers(gold.columns, source.schema.names)
    owners |= {first_column(name): owner for name, owner in owners.items()}
    read = [
        GoldColumn(answer, known, owners[answer].status, source.schema.field(answer).type)
        for answer, known in columns.items()
        if answer in owners and answer in source.schema.names
    ]
    known_values = None if gold.file is None else GoldTable(gold)
    index = next((owner.index for owner in owners.values() if owner.index in source.schema.names), None)
    own = gold.columns.values() if known_values is None else [gold.key]
    wanted = [name for name in dict.fromkeys([*columns, *own]) if name is not None]
    _require(wanted, source.schema.names, "the output")
    statuses = [column.status for column in read if column.status]
    row = 0
    for batch in source.batches(
        columns=list(dict.fromkeys([*wanted, *statuses, *([index] if index else [])]))
    ):
        part = firsts(batch, index) if index else batch
        for column in read:
            known = (
                part.column(column.gold).to_pylist()
                if known_values is None
                else known_values.of(part.column(gold.key or ""), column.gold)
            )
            column.add(part, known, row)
        row += part.num_rows
    return tuple(column.score() for column in read)


def _with_first_answers(columns: Mapping[str, str], written: Sequence[str]) -> dict[str, str]:
    """Score what the first of several answers said as well: so much did voting help."""
    firsts = {
        first_column(answer): known for answer, known in columns.items() if first_column(answer) in written
    }
    return {**columns, **firsts}


@dataclass(frozen=True, slots=True)
class Owner:
    """What a written column of answers belongs to.

    Attributes:
        status: the written column with the step's status; None where it is not written.
        index: the written column with the place of an element, of a step that explodes.
        confidence: the written column with the answer's confidence.
    """

    step: StepConfig
    status: str | None
    index: str | None
    explodes: bool
    confidence: str | None


def owners_of(config: Config) -> dict[str, Owner]:
    """Give the step behind every column of answers that is written."""
    found = {}
    for step in config.steps:
        schema = step_schema(step)
        written = written_names(step, schema)
        owner = Owner(
            step,
            written.get(f"{step.name}_status"),
            written.get(f"{step.name}_{INDEX}"),
            step.explode is not None,
            written.get(f"{step.name}_confidence"),
        )
        answers = [column for column in choose(step, schema) if column.is_value or column.of == "text"]
        found.update(dict.fromkeys([column.field.name for column in answers], owner))
    return found


class GoldTable:
    """The further table with the known values, by its key."""

    def __init__(self, gold: GoldConfig) -> None:
        columns = list(dict.fromkeys([gold.key or "", *gold.columns.values()]))
        self._values: dict[str, dict[str, Any]] = {}
        for batch in open_source(InputConfig(path=gold.file or "", columns=columns)).batches():
            for line in batch.to_pylist():
                key = text_of(line[gold.key or ""])
                if self._values.setdefault(key, line) != line:
                    raise InputError(
                        f"gold: {gold.file} has two different rows for `{gold.key}` {key!r:.80}",
                        hint="keep one of them.",
                    )

    def values(self, names: Container[str]) -> dict[str, Counter[str]]:
        """Count the known values of columns, as they are compared."""
        found: dict[str, Counter[str]] = {}
        for line in self._values.values():
            for name, value in line.items():
                if name in names and not is_missing(value):
                    found.setdefault(name, Counter())[text_of(value)] += 1
        return found

    def of(self, keys: Any, column: str) -> list[Any]:
        """Give the known values of rows with these keys; None where there is none."""
        found = [self._values.get(text_of(key)) for key in keys.to_pylist()]
        return [None if line is None else line[column] for line in found]


@dataclass(slots=True)
class GoldColumn:
    """One column of answers, and what its rows add up to."""

    answer: str
    gold: str
    status: str | None
    type: Any
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    numbers: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    apart: list[Disagreement] = field(default_factory=list)
    wrong: int = 0
    missed: int = 0
    unanswered: int = 0
    without: int = 0
    right: dict[int, bool] | None = None

    def add(self, batch: pa.RecordBatch, known: Sequence[Any], first: int) -> None:
        """Add the rows of one batch, before which there were so many."""
        answers = batch.column(self.answer).to_pylist()
        usable = [answer is not None for answer in answers]
        if self.status is not None:
            usable = [status == "ok" for status in batch.column(self.status).cast(pa.string()).to_pylist()]
        self.take(known, answers, usable, range(first + 1, first + 1 + batch.num_rows))

    def take(
        self, known: Sequence[Any], answers: Sequence[Any], usable: Sequence[bool], rows: Sequence[int]
    ) -> None:
        """Add rows: the value by hand, the answer, whether that is usable, and the row's number from 1.

        Which of them agree stands in ``right`` afterwards, by these numbers, where that is kept.
        """
        numeric = self._numeric
        for place, value in enumerate(known):
            gold = number_of(value) if numeric else value
            if is_missing(gold):
                self.without += 1
                continue
            if usable[place]:
                self._compare(gold, answers[place], rows[place])
            else:
                self.unanswered += 1

    def _compare(self, gold: Any, answer: Any, row: int) -> None:
        pair = (text_of(gold), text_of(answer))
        self.pairs[pair] += 1
        if self.right is not None:
            self.right[row] = pair[0] == pair[1]
        if self._numeric and is_missing(answer):
            self.missed += 1
        elif self._numeric:
            self.numbers[0].append(float(gold))
            self.numbers[1].append(float(answer))
        if pair[0] != pair[1]:
            self.wrong += 1
            if len(self.apart) < MOST_ROWS:
                self.apart.append(Disagreement(row, *(cut(text, VALUE_CHARACTERS) for text in pair)))

    @property
    def _numeric(self) -> bool:
        kind = self.type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

    def score(self) -> Score:
        """Sum up."""
        kind, figures, labels, pairs = self._figures()
        return Score(
            self.answer,
            self.gold,
            kind,
            sum(self.pairs.values()),
            self.unanswered,
            self.without,
            figures,
            labels,
            pairs,
            tuple(self.apart),
            self.wrong,
        )

    def _figures(self) -> tuple[Kind, Mapping[str, Figure], Any, Mapping[tuple[str, str], int]]:
        values = {name for pair in self.pairs for name in pair}
        if self._numeric:
            figures = number_figures(*self.numbers, self.missed)
            if len(values) > MOST_COUNTED or not all(_is_whole(value) for value in values):
                return "number", figures, (), {}
            counted, labels = label_figures(self.pairs)
            return "number", {**figures, "kappa": counted["kappa"]}, labels, self.pairs
        known = {gold for gold, _ in self.pairs}
        few = len(values) <= MOST_LABELS and len(known) <= max(2, sum(self.pairs.values()) // 2)
        if few or pa.types.is_boolean(self.type):
            figures, labels = label_figures(self.pairs)
            return "label", figures, labels, self.pairs
        return "text", text_figures(self.pairs), (), {}


def _is_whole(text: str) -> bool:
    return text == NULL or text.removeprefix("-").isdecimal()


def is_missing(value: Any) -> bool:
    """Say whether nothing is known: null, not a number, or an empty text."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def number_of(value: Any) -> float | None:
    """Give a known value as a number; None for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def text_of(value: Any) -> str:
    """Write a value as it is compared: a number alike whatever its type, what is nested as JSON."""
    if value is None:
        return NULL
    if isinstance(value, bool | dict | list):
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
