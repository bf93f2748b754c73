"""The queries of ``sqlite.sql`` on one connection, lists of values put into statements of few sizes."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final

from enrich.ledger.rules import KEY_PLACE
from enrich.ledger.sqlite_file import SQL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from enrich.ledger.locks import RunLocks
    from enrich.ledger.transaction import Values

    AnswerLine = tuple[Any, ...]  # as `Rules.answer_line` gives it

IN_LIST_SIZES: Final = (1, 16, 128, 512)  # values per statement; few sizes keep every statement prepared
INSERT_SIZES: Final = (64, 16, 4, 1)  # lines per statement, likewise


class SqliteTransaction:
    """The queries of ``sqlite.sql`` on one connection."""

    __slots__ = ("_locks", "connection")

    def __init__(self, connection: sqlite3.Connection, locks: RunLocks) -> None:
        self.connection = connection
        self._locks = locks

    def run(self, name: str, values: Values = ()) -> sqlite3.Cursor:
        """Run a query once."""
        return self.connection.execute(SQL[name], values)

    def many(self, name: str, values: Sequence[Sequence[Any]]) -> int:
        """Run a query for each of these; gives how many lines it touched."""
        return self.connection.executemany(SQL[name], values).rowcount

    def select(self, name: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query over a list of any length, in statements of a few sizes filled up with NULL."""
        lines: list[tuple[Any, ...]] = []
        for start in range(0, len(values), IN_LIST_SIZES[-1]):
            chunk = values[start : start + IN_LIST_SIZES[-1]]
            size = next(size for size in IN_LIST_SIZES if size >= len(chunk))
            lines += self.connection.execute(_in_list(name, size), [*chunk, *[None] * (size - len(chunk))])
        return lines

    def insert_requests(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Write down new requests; gives the keys that were new."""
        (last,) = self.run("last_request").fetchone()
        if self._insert("insert_request", lines) == len(lines):
            return {line[KEY_PLACE] for line in lines}
        return {key for (key,) in self.run("keys_since", (last,))}

    def insert_answers(self, lines: Sequence[AnswerLine]) -> set[bytes]:
        """Write down answers, leaving those that are there alone; gives the keys of no request."""
        if self._insert("insert_answer", lines) == len(lines):
            return set()
        keys = {line[-1] for line in lines}
        return {key for key in keys if self.run("has_request", (key,)).fetchone() is None}

    def _insert(self, name: str, lines: Sequence[tuple[Any, ...]]) -> int:
        """Insert lines, many in one statement; gives how many were new. Each statement is a turn with Python's lock."""
        count = start = 0
        while start < len(lines):
            size = next(size for size in INSERT_SIZES if size <= len(lines) - start)
            values = list(itertools.chain.from_iterable(lines[start : start + size]))
            count += self.connection.execute(_rows(name, size, len(lines[0])), values).rowcount
            start += size
        return count

    def is_alive(self, run: int) -> bool:
        """Say whether another process holds a run's lock."""
        return self._locks.is_alive(run)


@functools.cache
def _rows(name: str, size: int, width: int) -> str:
    row = f"({','.join('?' * width)})"
    return SQL[name].replace(":rows", ",".join([row] * size))


@functools.cache
def _in_list(name: str, size: int) -> str:
    return SQL[name].replace(":list", ",".join("?" * size))
