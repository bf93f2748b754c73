"""The queries of ``postgres.sql`` on one connection, answers gathered into statements of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.ledger.postgres_database import query
from enrich.ledger.rules import KEY_PLACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from enrich.ledger.postgres_database import Connection
    from enrich.ledger.transaction import Values


class PostgresTransaction:
    """The queries of ``postgres.sql`` on one connection.

    Args:
        connection: to run them on.
        locking: hold the requests that are looked at until the transaction ends.

    Attributes:
        missing: the keys of answers to requests that were never claimed.
    """

    __slots__ = ("_answers", "_connection", "_locking", "missing")

    def __init__(self, connection: Connection, *, locking: bool) -> None:
        self._connection = connection
        self._locking = locking
        self._answers: list[tuple[Any, ...]] = []
        self.missing: set[bytes] = set()

    def run(self, name: str, values: Values = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a query once."""
        self.flush_answers()
        return self._execute(name, values)

    def many(self, name: str, values: Sequence[Sequence[Any]]) -> int:
        """Run a query for each of these; gives how many lines it touched."""
        self.flush_answers()
        with self._connection.cursor() as cursor:
            cursor.executemany(query(name), values)
            return cursor.rowcount

    def select(self, name: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query over a list of values."""
        if not values:
            return []
        if self._locking and name == "known_keys":
            name = "known_keys_locked"
        return self.run(name, (list(values),)).fetchall()

    def insert_requests(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Write down new requests, in the order of their keys so that two processes never wait for each other."""
        if not lines:
            return set()
        return {key for (key,) in self.run("insert_requests", _request_columns(lines)).fetchall()}

    def insert_with_answers(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Do the same and write the answers taken so far, as one statement."""
        if not (lines and self._answers):
            return self.insert_requests(lines)
        answers, self._answers = self._answers, []
        values = (*_request_columns(lines), *_columns(answers))
        written, new = self._execute("insert_both", values).fetchall()[0]
        self._check_written(answers, written)
        return set(new or ())

    def is_alive(self, run: int) -> bool:
        """Say whether a run's lease holds."""
        row = self.run("is_alive", (run,)).fetchone()
        return bool(row and row[0])

    def add_answer(self, line: tuple[Any, ...]) -> None:
        """Take an answer's line; it is written before anything else of this transaction."""
        self._answers.append(line)

    def flush_answers(self) -> None:
        """Write the answers taken so far, as one statement."""
        if not self._answers:
            return
        lines, self._answers = self._answers, []
        self._check_written(lines, self._execute("insert_answers", _columns(lines)).rowcount)

    def _check_written(self, lines: Sequence[tuple[Any, ...]], written: int) -> None:
        """Find out which answers were to requests that were never claimed, where some were not written."""
        if written < len(lines):
            keys = {line[-1] for line in lines}
            self.missing |= keys - {key for (key,) in self._execute("has_requests", (list(keys),)).fetchall()}

    def _execute(self, name: str, values: Values) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._connection.execute(query(name), values, binary=True)


def _request_columns(lines: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Turn requests' lines into what all have in common and columns of the rest, in the order of their keys."""
    ordered = sorted(lines, key=lambda line: line[KEY_PLACE])
    return (*ordered[0][:KEY_PLACE], *_columns([line[KEY_PLACE:] for line in ordered]))


def _columns(lines: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*lines, strict=True)]
