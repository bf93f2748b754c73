"""What the rules need of a database: its named queries, inside one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Values = Mapping[str, Any] | Sequence[Any]


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...  # noqa: D102  # as in the DB-API
    def fetchone(self) -> Any: ...  # noqa: D102  # as in the DB-API
    def fetchall(self) -> list[Any]: ...  # noqa: D102  # as in the DB-API


class Transaction(Protocol):
    """The named queries of one database, inside one transaction."""

    def run(self, name: str, values: Values = ()) -> Cursor:
        """Run a query once."""

    def many(self, name: str, values: Sequence[Sequence[Any]]) -> int:
        """Run a query for each of these; gives how many lines it touched."""

    def select(self, name: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query over a list of values."""

    def insert_requests(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Write down new requests, leaving known keys alone; gives the keys that were new."""

    def is_alive(self, run: int) -> bool:
        """Say whether another process is still working on a run."""
