"""`--where`: rows chosen by what their columns hold, in DuckDB's expression language, typed, one batch at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from enrich.errors import ConfigError, InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "output"  # what an expression may call the rows
EXAMPLE = 'write for example --where "stars < 3"'
NO_EXTENSIONS = {  # neither files nor the network: an expression sees its row and no more
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
}

NO_COLUMN = pa.field("\0", pa.bool_())  # where the expression names none


class Where:
    """An expression that is true or false of a row.

    Args:
        text: in SQL as DuckDB reads it, such as ``score < 0.2 and label = 'neg'``.
        schema: of the rows.

    Attributes:
        columns: those of the schema that it names, in the schema's order.

    Raises:
        ConfigError: it cannot be read, names what is not there, compares what has no order, or is neither true nor
            false; or DuckDB is not installed.
    """

    def __init__(self, text: str, schema: pa.Schema) -> None:
        duckdb = _duckdb()
        self.text = text
        self._errors = duckdb.Error
        self._duckdb = duckdb.connect(":memory:", config=NO_EXTENSIONS)
        self._duckdb.execute("SET TimeZone = 'UTC'").fetchall()
        named = _named(self._tree(), schema)
        self.columns = tuple(name for name in schema.names if name in named)
        self._schema = pa.schema([schema.field(name) for name in self.columns] or [NO_COLUMN])
        self._check()

    def mask(self, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.bool]]:
        """Say of each row whether the expression is true; where it is null, it is not.

        Raises:
            InputError: it cannot be evaluated on these values, as a text that is to be a number.
        """
        table = self._table([batch.column(name) for name in self.columns], batch.num_rows)
        try:
            found = self._evaluated(table).to_pylist()
        except self._errors as error:
            raise InputError(
                f"--where {self.text}: {_first_line(error)}",
                hint="try_cast(… as double) gives null where there is no number, try(…) where anything fails.",
            ) from None
        return np.fromiter((value is True for value in found), np.bool, len(found))

    def _table(self, columns: list[Any], rows: int) -> pa.Table:
        return pa.Table.from_arrays(columns or [pa.nulls(rows, pa.bool_())], schema=self._schema)

    def _evaluated(self, table: pa.Table) -> pa.ChunkedArray[Any]:
        rows = self._duckdb.from_arrow(table).set_alias(TABLE)
        found: pa.Table = rows.project(f"({self.text}\n) AS met").to_arrow_table()
        return found.column(0)

    def _tree(self) -> dict[str, Any]:
        """Parse the expression, and nothing but one: what else a statement may hold is refused."""
        query = f"SELECT 1 FROM {TABLE} WHERE {self.text}\n"  # noqa: S608  # parsed, and looked at
        (told,) = self._duckdb.execute("SELECT json_serialize_sql($1)", [query]).fetchall()[0]
        parsed = json.loads(told)
        if parsed["error"]:
            raise ConfigError(
                f"--where {self.text}: {parsed['error_message']}",
                hint=f"{EXAMPLE}; names that SQL takes for words of its own stand in double quotes.",
            )
        node = parsed["statements"][0]["node"]
        tree: dict[str, Any] | None = node.get("where_clause")
        further = ("modifiers", "group_expressions", "having", "sample", "qualify")
        if len(parsed["statements"]) > 1 or tree is None or any(node[name] for name in further):
            raise ConfigError(
                f"--where {self.text}: one expression is wanted, and no more", hint=f"{EXAMPLE}."
            )
        if any(part.get("class") in ("SUBQUERY", "PARAMETER", "STAR") for part in _parts(tree)):
            raise ConfigError(
                f"--where {self.text}: a row is looked at by itself, without queries, parameters and `*`",
                hint=f"{EXAMPLE}.",
            )
        return tree

    def _check(self) -> None:
        """Have the types checked, on a row of nulls: also of what is only found to be wrong when it is computed."""
        row = self._table([pa.nulls(1, field.type) for field in self._schema], 1)
        try:
            rows = self._duckdb.from_arrow(row).set_alias(TABLE)
            rows.filter(f"({self.text}\n)").fetchall()
            (kind,) = rows.project(f"({self.text}\n) AS met").types
        except self._errors as error:
            raise ConfigError(f"--where {self.text}: {_first_line(error)}", hint=self._types()) from None
        if str(kind) != "BOOLEAN":
            raise ConfigError(
                f"--where {self.text}: it is {str(kind).lower()}, and neither true nor false",
                hint=f"{EXAMPLE}.",
            )

    def _types(self) -> str:
        told = ", ".join(f"`{name}` is {_kind(self._schema.field(name).type)}" for name in self.columns)
        return f"{told or EXAMPLE}."


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise ConfigError(
            "--where is in DuckDB's language, and DuckDB is not installed",
            hint="pip install 'beatra-enrich[duckdb]'",
        ) from None
    return duckdb


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Give every node of a parsed expression."""
    if isinstance(tree, dict):
        yield tree
        for part in tree.values():
            yield from _parts(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _parts(part)


def _named(tree: dict[str, Any], schema: pa.Schema) -> set[str]:
    """Give the columns that an expression names; of names DuckDB sees no capitals.

    Raises:
        ConfigError: a column is not there, or there are two that differ in capitals alone.
    """
    bound = {name for part in _parts(tree) if part.get("class") == "LAMBDA" for name in _bound(part)}
    found: set[str] = set()
    for part in _parts(tree):
        if part.get("class") != "COLUMN_REF" or part["column_names"][0] in bound:
            continue
        names = part["column_names"]
        name = names[1] if names[0].casefold() == TABLE and len(names) > 1 else names[0]
        same = [other for other in schema.names if other.casefold() == name.casefold()]
        if not same:
            raise ConfigError(f"--where: no column `{name}`", hint=did_you_mean(name, schema.names))
        if len(same) > 1:
            raise ConfigError(
                f"--where: {' and '.join(f'`{other}`' for other in same)} differ in capitals alone, which DuckDB does "
                "not tell apart",
                hint="rename one of them.",
            )
        found.add(same[0])
    return found


def _bound(part: dict[str, Any]) -> Iterator[str]:
    """Give the names that a lambda binds itself."""
    for inner in _parts(part.get("lhs")):
        if inner.get("class") == "COLUMN_REF":
            yield inner["column_names"][0]


def _kind(kind: Any) -> pa.DataType:
    """Give the type of a column's values; categories are texts."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind  # type: ignore[no-any-return]  # a type


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
