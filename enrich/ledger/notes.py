"""Small things that a ledger remembers, each under a checksum: how often a step was asked anew, and notes.

What only helps is forgotten when it is damaged; what decides about money is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from enrich.base.texts import json_bytes
from enrich.errors import LedgerDamaged
from enrich.ledger.checks import generation_crc, note_crc
from enrich.ledger.rows import storable

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.ledger.transaction import Cursor, Transaction

MOST_PLAUSIBLE = 100_000  # times that a step was asked anew


def generation(tx: Transaction, step: bytes) -> int:
    """Give how often a step was asked anew.

    Raises:
        LedgerError: it is not what was written.
    """
    line = tx.run("generation", (step,)).fetchone()
    return _checked(step, *line) if line else 0


def bump(tx: Transaction, step: bytes) -> None:
    """Count that a step is asked anew once more.

    Raises:
        LedgerError: what was counted so far is not what was written.
    """
    line = tx.run("hold_generation", (step, 0, generation_crc(step, 0))).fetchone()
    count = _checked(step, *line) + 1
    tx.run("set_generation", (count, generation_crc(step, count), step))


def recall(tx: Transaction, name: str, *, vital: bool) -> bytes | None:
    """Give a note as it was written; None where there is none, or it is damaged and not vital.

    Raises:
        LedgerError: it is vital, and damaged.
    """
    name = storable(name)  # it may hold a path
    line = tx.run("recall", (name,)).fetchone()
    if line is None:
        return None
    value, crc = line
    if is_note(name.encode(), value, crc):
        return bytes(value)
    if vital:
        raise _untrusted(f"the note `{name}`")
    return None


def remember(tx: Transaction, name: str, value: str) -> None:
    """Write a note."""
    name, value = storable(name), storable(value)
    tx.run("remember", (name, value, note_crc(name.encode(), value.encode())))


def enlist(tx: Transaction, name: str, item: Any, *, further: bool) -> list[Any]:
    """Give a list that is kept, with this item where it is the first, or may join; nobody else changes it meanwhile.

    Raises:
        LedgerError: it is not what was written.
    """
    name = storable(name)
    empty = storable(json_bytes({"items": []}).decode())
    line = tx.run("hold_note", (name, empty, note_crc(name.encode(), empty.encode()))).fetchone()
    if line is None or not is_note(name.encode(), *line):
        raise _untrusted(f"the note `{name}`")
    items: list[Any] = orjson.loads(line[0])["items"]
    if not items or (further and item not in items):
        items.append(item)
        remember(tx, name, json_bytes({"items": items}).decode())
    return items


def contradictions(tx: Transaction) -> list[str]:
    """Say which of them are not what was written."""
    counts = tx.run("generations").fetchall()
    notes = tx.run("notes").fetchall()
    return [
        *(
            f"how often step {_shown(step)} was asked anew does not match its checksum"
            for step, count, crc in counts
            if not is_count(step, count, crc)
        ),
        *(
            f"the note {_shown(name)} does not match its checksum"
            for name, value, crc in notes
            if not is_note(name, value, crc)
        ),
    ]


def add_checksums(run: Callable[..., Cursor]) -> None:
    """Put checksums on what an earlier release wrote without, as far as it is plausible.

    Args:
        run: runs a named query, with its values.
    """
    for step, count, crc in run("generations").fetchall():
        if crc is None and type(step) is bytes and type(count) is int and 0 <= count < MOST_PLAUSIBLE:
            run("set_generation", (count, generation_crc(step, count), step))
    for name, value, crc in run("notes").fetchall():
        if crc is None and type(name) is type(value) is bytes:
            run("check_note", (note_crc(name, value), name.decode("utf-8", "replace")))


def is_count(step: Any, count: Any, crc: Any) -> bool:
    """Say whether a line of the table ``generation`` is what was written."""
    return type(step) is bytes and type(count) is int and crc == generation_crc(step, count)


def is_note(name: Any, value: Any, crc: Any) -> bool:
    """Say whether a line of the table ``memory`` is what was written."""
    return type(name) is type(value) is bytes and crc == note_crc(name, value)


def _checked(step: bytes, count: Any, crc: Any) -> int:
    if is_count(step, count, crc):
        return int(count)
    raise _untrusted(f"how often step {step.hex()} was asked anew")


def _shown(name: Any) -> str:
    if type(name) is not bytes:
        return str(name)
    return name.decode() if name.isascii() else name.hex()


def _untrusted(what: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"the ledger is damaged: {what} does not match its checksum, and decides about what is paid for",
        hint="`beatra-enrich ledger verify` says what is damaged, `beatra-enrich ledger repair … -o NEW` leaves it out.",
    )
