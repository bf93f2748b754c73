"""A provider's bill as it comes: a table whose columns are found by name, or told, and whose lines become charges."""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from enrich.base.moments import Unreadable
from enrich.config import InputConfig
from enrich.errors import ConfigError, InputError, did_you_mean
from enrich.files.source import open_source
from enrich.prompt.cells import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.files.source import Source

# What a line of a bill may hold, and what columns of that are called by those who write bills.
KNOWN: dict[str, tuple[str, ...]] = {
    "request_id": ("request_id", "x_request_id", "requestid", "id", "completion_id", "generation_id"),
    "key": ("idempotency_key", "idempotencykey", "key"),
    "time": ("time", "timestamp", "created_at", "created", "datetime", "date", "start_time", "charged_at"),
    "model": ("model", "model_id", "model_name", "served_by"),
    "prompt_tokens": ("prompt_tokens", "input_tokens", "tokens_in", "tokens_prompt"),
    "completion_tokens": ("completion_tokens", "output_tokens", "tokens_out", "tokens_completion"),
    "total_tokens": ("total_tokens", "tokens"),
    "credits": ("credits", "credits_charged", "charged_credits"),
    "credits_usd": ("credits_usd", "credits_usd_reference", "cost_usd", "usd", "amount_usd"),
}
AMOUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "credits", "credits_usd")
MOST_SECONDS = 1e11  # beyond it a number is a time in milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of a bill.

    Attributes:
        line: its number in the bill, from 1.
        at: wall-clock seconds since the epoch.
        amounts: what it names of `AMOUNTS`.
    """

    line: int
    request_id: str | None
    key: str | None
    at: float | None
    model: str | None
    amounts: dict[str, float]


def read_bill(path: str, told: Mapping[str, str]) -> tuple[dict[str, str], Iterator[Charge]]:
    """Open a bill.

    Args:
        path: a CSV, TSV, Parquet, JSON Lines or Arrow file, or the URL of one.
        told: the bill's columns for what `KNOWN` names.

    Returns:
        The columns that are read, and the charges.

    Raises:
        InputError: it cannot be read, or a cell of it.
        ConfigError: a column that was told is not there, or there is none to match lines by.
    """
    source = open_source(InputConfig(path=path))
    columns = _columns(source.schema.names, told)
    by_likeness = "time" in columns and any(name in columns for name in AMOUNTS[:3])
    if not ("request_id" in columns or "key" in columns or by_likeness):
        raise ConfigError(
            f"{path}: no column of it tells which request a line is about (it has {', '.join(source.schema.names)})",
            hint="name one: --map request_id=COLUMN, or key=COLUMN, or time=COLUMN and total_tokens=COLUMN.",
        )
    return columns, _charges(path, source, columns)


def _columns(names: Sequence[str], told: Mapping[str, str]) -> dict[str, str]:
    for what, column in told.items():
        if what not in KNOWN:
            raise ConfigError(
                f"--map {what}={column}: `{what}` is nothing that a bill holds",
                hint=did_you_mean(what, KNOWN),
            )
        if column not in names:
            raise ConfigError(
                f"--map {what}={column}: the bill has no column `{column}`", hint=did_you_mean(column, names)
            )
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(names)}
    found = {what: next((plain[a] for a in aliases if a in plain), None) for what, aliases in KNOWN.items()}
    return {**{what: column for what, column in found.items() if column is not None}, **told}


def _charges(path: str, source: Source, columns: Mapping[str, str]) -> Iterator[Charge]:
    wanted = list(dict.fromkeys(columns.values()))
    rows = chain.from_iterable(map(rows_of, source.batches(columns=wanted, written=True)))
    for number, row in enumerate(rows, 1):
        values = {what: row[column] for what, column in columns.items()}
        try:
            yield Charge(
                number,
                _text(values.get("request_id")),
                _text(values.get("key")),
                seconds_of(values.get("time")),
                _text(values.get("model")),
                {name: amount for name in AMOUNTS if (amount := _number(values.get(name))) is not None},
            )
        except ValueError as error:
            raise InputError(
                f"{path}: line {number:,} of the bill: {error}",
                hint="correct it, or map another column: --map.",
            ) from None


def _text(value: Any) -> str | None:
    if isinstance(value, Unreadable):
        raise ValueError(f"a value {value.reason}")  # noqa: TRY004  # it is the value, not its type
    text = "" if value is None else str(value).strip() if value or value == 0 else ""
    return text or None


def _number(value: Any) -> float | None:
    """Read an amount; text may have commas between thousands."""
    text = _text(value)
    if text is None:
        return None
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no amount") from None
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]!r} is no amount")
    return number


def seconds_of(value: Any) -> float | None:
    """Read a time as seconds since the epoch; one without a zone is UTC.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    text = _text(value)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return number / 1_000 if abs(number) > MOST_SECONDS else number
    try:
        found = dt.datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time") from None
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
