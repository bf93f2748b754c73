"""Folders that are a table of Delta, Iceberg, Hudi or Lance: their files alone are not the table's rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.base.location import ObjectUrl, child, is_url
from enrich.errors import InputError
from enrich.files import storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDERS_ASKED = 64  # of a store: each is some requests


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table format.

    Attributes:
        name: as people say it.
        mark: the folder that lies in a table's own.
        pattern: of a file in that folder.
        query: what DuckDB or Python reads the current rows with.
    """

    name: str
    mark: str
    pattern: str
    query: str


KINDS = (
    _Kind("Delta", "_delta_log", "*", "duckdb: COPY (SELECT * FROM delta_scan('{0}')) TO 'rows.parquet'"),
    _Kind(
        "Iceberg",
        "metadata",
        "*.metadata.json",
        "duckdb: COPY (SELECT * FROM iceberg_scan('{0}')) TO 'rows.parquet'",
    ),
    _Kind("Hudi", ".hoodie", "*", "Spark: spark.read.format('hudi').load('{0}').write.parquet('rows')"),
    _Kind(
        "Lance",
        "_versions",
        "*.manifest",
        "Python: duckdb.from_arrow(lance.dataset('{0}')).to_parquet('rows.parquet')",
    ),
)


def refuse_tables(paths: Iterable[str]) -> None:
    """Refuse files of a table, paths or URLs: among them are rows that were overwritten or deleted, and not all that count.

    Raises:
        InputError: a folder above one of them is such a table's.
        OSError: a folder cannot be looked into.
    """
    for folder, path in _folders(paths):
        for kind in KINDS:
            if storage.has_file(child(folder, kind.mark), kind.pattern):
                raise InputError(
                    f"{path} is part of a {kind.name} table, {folder}: its files alone hold rows that were overwritten "
                    "or deleted",
                    hint=f"write the rows that count to a file of their own, for example with {kind.query.format(folder)}.",
                )


def _folders(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give each folder above these files once, with one of them."""
    seen: dict[str, str] = {}
    for path in paths:
        for folder in _above(path):
            if folder in seen:
                break  # and so are those above it
            seen[folder] = path
    asked = FOLDERS_ASKED if any(map(is_url, seen)) else None
    yield from itertools.islice(sorted(seen.items(), key=lambda item: len(item[0])), asked)


def _above(path: str) -> Iterator[str]:
    if is_url(path):
        url = ObjectUrl.parse(path)
        parts = url.key.split("/")[:-1]
        yield from (str(url.at("/".join(parts[:count]))) for count in range(len(parts), -1, -1))
    else:
        yield from (str(folder) for folder in Path(path).absolute().parents)
