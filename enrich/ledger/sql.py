"""Reads the named queries of this package's ``.sql`` files: each stands below a line ``-- name: …``."""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(file: str) -> dict[str, str]:
    """Read one file of named queries.

    Args:
        file: its name inside ``enrich.ledger``, such as ``sqlite.sql``.

    Returns:
        Name → SQL text, comments included, without the closing semicolon of its last statement.
    """
    text = resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: sql.strip().removesuffix(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def statements(script: str) -> Iterator[str]:
    """Split a script into its statements, for drivers that run one at a time."""
    statement = ""
    for line in f"{script};".splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
