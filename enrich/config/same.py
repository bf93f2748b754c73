"""`output: same`: what is answered goes back into the table that was read, by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enrich.config.table_names import quoted, quoted_table
from enrich.errors import ConfigError

SAME = "same"


def with_same(document: dict[str, Any]) -> dict[str, Any]:
    """Write an output that is the input's table in full.

    Raises:
        ConfigError: the input is no table that can be written, or has no key.
    """
    if document.get("output") != SAME:
        return document
    rows = document.get("input")
    rows = {"path": rows} if isinstance(rows, str) else rows
    place = _place(rows) if isinstance(rows, dict) else None
    if place is None or not isinstance(rows, dict):
        raise ConfigError(
            "`output: same` writes back to the table that is read, and `input` names none that takes it",
            hint="write input: {table: reviews, url: duckdb:///w.db, key: id}, or the path of a table of Delta and its key.",
        )
    if not rows.get("key"):
        raise ConfigError(
            "`output: same` needs the key that tells the table's rows apart", hint="write it as input.key."
        )
    return {**document, "output": {**place, "mode": "update", "key": rows["key"]}}


def _place(rows: dict[str, Any]) -> dict[str, Any] | None:
    if "table" in rows and "url" in rows:
        return {"table": rows["table"], "url": rows["url"]}
    path = rows.get("path")
    if isinstance(path, str) and (rows.get("format") == "delta" or Path(path, "_delta_log").is_dir()):
        return {"path": path, "format": "delta"}
    return None


def with_query(rows: Any) -> Any:
    """Write an input that is a table of a database as the query of its rows, in the order of its key."""
    if not isinstance(rows, dict) or rows.get("sql") is not None or "url" not in rows:
        return rows
    table, names, key = rows.get("table"), rows.get("columns"), rows.get("key") or []
    if not isinstance(table, str) or not table:
        return rows
    chosen = ", ".join(quoted(str(name)) for name in names) if isinstance(names, list) and names else "*"
    order = ", ".join(quoted(str(name)) for name in ([key] if isinstance(key, str) else key))
    behind = f" ORDER BY {order}" if order else ""
    return {**rows, "sql": f"SELECT {chosen} FROM {quoted_table(table)}{behind}"}  # noqa: S608  # quoted
