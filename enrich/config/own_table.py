"""A table that a job reads is not the one that it replaces: rows that were not read, as those behind a limit, would be gone."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from enrich.config.catalog import catalog_name
from enrich.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config.job import JobConfig
    from enrich.config.tables import InputConfig

_NAME = r'(?:"(?:[^"]|"")+"|\[[^\]]+\]|`[^`]+`|\w+)'
_READ = re.compile(rf"\b(?:from|join)\s+({_NAME}(?:\s*\.\s*{_NAME})*)", re.IGNORECASE)
_PART = re.compile(_NAME)
_FILES = ("sqlite", "duckdb", "delta")  # databases whose URL ends with a path of this machine


def refuse_own_table(config: JobConfig) -> None:
    """Refuse to replace a table that is read; `output: same` writes into it, row by row.

    A query's tables are those behind FROM and JOIN. One without a schema is taken for that of any schema.

    Raises:
        OutputError: it is the same table.
    """
    rows, output = config.input, config.output
    if rows is None or output is None or output.table is None or output.mode != "replace":
        return
    there = _database(output.url or "")
    for database, table in _read(rows):
        if _database(database) == there and _is_same(table, _parts(output.table)):
            raise OutputError(
                f"the output would replace the table {output.table} that the input reads",
                hint="name another table, or write the answers back into its rows: `output: same`, with the input's `key`.",
            )


def _read(rows: InputConfig) -> Iterator[tuple[str, list[str]]]:
    """Give each table that an input reads, and where it lies."""
    if rows.catalog is not None and rows.table is not None:
        yield f"iceberg:{catalog_name(rows.catalog)}", _parts(rows.table)
    elif rows.table is not None:
        yield rows.url or "", _parts(rows.table)
    elif rows.sql is not None:
        for found in _READ.findall(rows.sql):
            yield rows.url or "", _parts(found)
    elif isinstance(rows.path, str):
        yield f"delta:{rows.path}", []


def _database(url: str) -> str:
    """Give what tells a database from others: of one in files, its real path."""
    scheme, _, rest = url.partition(":")
    if scheme not in _FILES or "://" in rest.removeprefix("//"):
        return url
    return f"{scheme}:{os.path.realpath('/' + rest.partition('?')[0].lstrip('/'))}"


def _parts(table: str) -> list[str]:
    """Take a name apart at its dots, as databases compare it: without quotes or case."""
    return [part.strip('"[]`').replace('""', '"').casefold() for part in _PART.findall(table)] or [table]


def _is_same(read: list[str], written: list[str]) -> bool:
    if not read:  # a table of Delta, which its path tells
        return True
    return all(one == other for one, other in zip(reversed(read), reversed(written), strict=False))
