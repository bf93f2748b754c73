"""What a ledger holds, in numbers: counted and added up by the database, a stretch of answers at a time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from enrich.ledger.protocol import Listed, Totals
from enrich.ledger.rows import END_OF_TIME
from enrich.records import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enrich.ledger.protocol import Part
    from enrich.ledger.transaction import Transaction

STRETCH: Final = 8_192  # numbers of answers added up in one statement
MOST_SPENT: Final = 1e9  # tokens or credits of one answer; more is a defect of the endpoint


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
    """Give the requests that follow a number in a few words, and the places of those with an answer that is no plain JSON.

    Args:
        tx: to read in.
        values: what a query needs to tell how old a request is.
        after: the number.
        states: how they may stand, with blanks between.
    """
    found: list[Listed] = []
    unread: list[int] = []
    asked = {"after": after, "states": states, "all": not set(STATES).difference(states.split())}
    text = functools.cache(_text)  # a million lines have few texts
    for line in tx.run("listing", {**values, **asked, "limit": STRETCH}).fetchall():
        number, key, standing, model, attempts, sent_at, tokens, credits_, error, is_unread, odd = line
        if is_unread:
            unread.append(len(found))
        if tokens is not None and type(tokens) is not int:
            tokens = None
        if credits_ is not None and not (type(credits_) in (float, int) and credits_ <= MOST_SPENT):
            credits_ = None
        damaged: tuple[Part, ...] = ()
        if odd or not 0 <= sent_at < END_OF_TIME:
            damaged = ("facts",)
            key = key if type(key) is bytes and len(key) == 16 else bytes(16)
            attempts = attempts if type(attempts) is int else 1
            sent_at = sent_at if type(sent_at) is float and 0 <= sent_at < END_OF_TIME else 0.0
        said = None if error is None else _text(error) or None
        columns = (number, key, text(standing), text(model), attempts, sent_at, tokens, credits_)
        found.append(Listed(*columns, said, damaged))
    return found, unread


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
