"""Answers stay in memory until something asks for them: a kill loses what was paid for."""

from __future__ import annotations

from typing import Any

from enrich.ledger.sqlite import SqliteLedger


def apply() -> None:
    """Break this process's ledger."""
    answer, lookup = SqliteLedger.answer, SqliteLedger.lookup
    waiting: list[Any] = []

    async def keep_for_later(_: SqliteLedger, *args: Any, **_within: Any) -> None:
        waiting.append(args)

    async def write_and_look_up(self: SqliteLedger, keys: Any) -> Any:
        while waiting:
            await answer(self, *waiting.pop())
        return await lookup(self, keys)

    SqliteLedger.answer = keep_for_later  # type: ignore[assignment, method-assign]  # the point of it
    SqliteLedger.lookup = write_and_look_up  # type: ignore[assignment, method-assign]  # the point of it
