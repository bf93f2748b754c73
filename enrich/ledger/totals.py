"""What a ledger holds, in numbers: counted and added up by the database, a stretch of answers at a time."""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from enrich.ledger.protocol import Listed, Totals
from enrich.ledger.rows import END_OF_TIME, must_ascend
from enrich.records import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enrich.ledger.transaction import Transaction

STRETCH: Final = 8_192  # numbers of answers added up in one statement
MOST_SPENT: Final = 1e9  # tokens or credits of one answer; more is a defect of the endpoint
_NUMBERS: Final = frozenset((int, float))


def count(tx: Transaction, values: Mapping[str, Any]) -> Totals:
    """Count the requests per state, and add up what the answers cost.

    Args:
        tx: to read in.
        values: what a query needs to tell how old a request is.
    """
    requests, attempts, damaged = tx.run("totals").fetchone()
    (last,) = tx.run("last_answer").fetchone()
    answered = 0
    sums = np.zeros(4)
    unread: list[int] = []
    for start in range(0, last, STRETCH):
        answers, odd, costs, others = tx.run("spent", (start, start + STRETCH)).fetchone()
        answered += answers
        damaged += odd
        text = others.decode() if isinstance(others, bytes) else others or ""
        numbers = [int(number) for number in text.split(",") if number]
        try:
            sums += _added_up(costs) if costs else 0
        except orjson.JSONDecodeError:  # a number beyond all numbers, or a text that is none: read one by one
            numbers = [number for (number,) in tx.run("answer_numbers", (start, start + STRETCH)).fetchall()]
        unread += numbers
    failed, in_doubt, skipped = tx.run("unanswered", values).fetchone() if answered < requests else (0, 0, 0)
    return Totals(
        requests=requests,
        answered=answered,
        failed=failed,
        sent=requests - answered - failed - in_doubt - skipped,
        in_doubt=in_doubt,
        skipped=skipped,
        attempts=int(attempts or 0),
        tokens=(int(sums[0]), int(sums[1]), int(sums[2])),
        credits=float(sums[3]),
        unread=tuple(unread),
        damaged=damaged,
    )


def listed(
    tx: Transaction, values: Mapping[str, Any], after: int, states: str
) -> tuple[list[Listed], list[int]]:
    """Give the requests that follow a number in a few words, and the places of those whose answer must be read whole to tell its cost.

    Args:
        tx: to read in.
        values: what a query needs to tell how old a request is.
        after: the number.
        states: how they may stand, with blanks between.
    """
    asked = {"after": after, "states": states, "all": not set(STATES).difference(states.split())}
    lines = tx.run("listing", {**values, **asked, "limit": STRETCH}).fetchall()
    if not lines:
        return [], []
    numbers, keys, standings, models, attempts, sent_at, ends, errors, streamed, odd = zip(
        *lines, strict=True
    )
    must_ascend(numbers, after)
    costs, unread = _named(ends, streamed)
    text = functools.cache(_text)  # a million lines have few texts
    columns = (
        numbers,
        keys,
        map(text, standings),
        map(text, models),
        attempts,
        sent_at,
        *zip(*costs, strict=True),
    )
    said = (None if error is None else _text(error) or None for error in errors)
    found = list(map(Listed._make, zip(*columns, said, itertools.repeat(()), strict=False)))
    for place in _damaged(keys, attempts, sent_at, odd):
        found[place] = _mended(found[place])
    return found, unread


def _named(
    ends: Sequence[bytes | None], streamed: Sequence[Any]
) -> tuple[list[tuple[int | None, float | None]], list[int]]:
    """Read what answers name of tokens and credits, and give the places of those that cannot be read so.

    Args:
        ends: of each body, from ``"usage"`` on; None without one. Behind a brace that is JSON where the usage belongs
            to the whole answer, and else it is none.
        streamed: whether it is a stream.
    """
    costs: list[tuple[int | None, float | None]] = [(None, None)] * len(ends)
    unread = [place for place, is_stream in enumerate(streamed) if is_stream]
    places = [place for place, end in enumerate(ends) if end is not None]
    named = [end for end in ends if end is not None]
    try:
        read = orjson.loads(b"[{" + b",{".join(named) + b"]") if named else []
    except ValueError:
        read = []
    if len(read) != len(named):
        read = [_one(end) for end in named]
    for place, told in zip(places, read, strict=True):
        try:
            usage = told["usage"]
            tokens, credits_ = usage["total_tokens"], usage.get("credits")
        except (TypeError, KeyError, AttributeError):  # a list, another server's words, or no JSON
            unread.append(place)
            continue
        if type(tokens) is not int or not 0 <= tokens <= MOST_SPENT:
            tokens = None
        if not (type(credits_) in _NUMBERS and 0 <= credits_ <= MOST_SPENT):
            credits_ = None
        costs[place] = (tokens, credits_)
    return costs, unread


def _one(end: bytes) -> Any:
    """Read what a single body says from its usage on; a number of thousands of digits is one beyond all numbers."""
    try:
        return json.loads(b"{" + end, parse_int=lambda digits: (int if len(digits) < 20 else float)(digits))
    except (ValueError, RecursionError):
        return None


def _damaged(
    keys: Sequence[Any], attempts: Sequence[Any], sent_at: Sequence[Any], odd: Sequence[Any]
) -> list[int]:
    """Give the places of lines with a value that is not of the type that was written, or beyond reason."""
    whole = (
        not any(odd)
        and set(map(type, keys)) == {bytes}
        and set(map(len, keys)) == {16}
        and set(map(type, attempts)) == {int}
        and set(map(type, sent_at)) == {float}
        and min(sent_at) >= 0
        and max(sent_at) < END_OF_TIME
    )
    if whole:
        return []
    return [
        place
        for place, (key, count, at, is_odd) in enumerate(zip(keys, attempts, sent_at, odd, strict=True))
        if is_odd or not (_is_key(key) and type(count) is int and _is_time(at))
    ]


def _is_key(value: Any) -> bool:
    return type(value) is bytes and len(value) == 16


def _is_time(value: Any) -> bool:
    return type(value) is float and 0 <= value < END_OF_TIME


def _mended(line: Listed) -> Listed:
    """Give a line that says it is damaged, with values that can be shown."""
    return line._replace(
        key=line.key if _is_key(line.key) else bytes(16),
        attempts=line.attempts if type(line.attempts) is int else 1,
        sent_at=line.sent_at if _is_time(line.sent_at) else 0.0,
        damaged=("facts",),
    )


def _text(value: Any) -> str:
    if type(value) is bytes:
        return value.decode("utf-8", "replace")
    return value if type(value) is str else ""


def _added_up(costs: bytes) -> Any:
    """Add up a JSON array of arrays: what each answer names of tokens and credits; what is no number is left out."""
    rows = orjson.loads(costs)
    try:
        table = np.array(rows, dtype=float)
    except (TypeError, ValueError):
        table = np.array([[v if type(v) in (int, float) else None for v in row] for row in rows], dtype=float)
    return np.where((table >= 0) & (table <= MOST_SPENT), table, 0).sum(axis=0)
