"""The sections `input` and `output`: where the rows come from and go to."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from enrich.base.location import without_slash
from enrich.config.catalog import Catalog
from enrich.config.database_url import (
    FILES,
    WAREHOUSES,
    DatabaseUrl,
    file_of,
    is_delta_url,
    is_iceberg_url,
    with_table_file,
)
from enrich.config.same import with_query
from enrich.config.section import FilePath, Format, Location, Number, Section, Target
from enrich.config.since import SinceConfig
from enrich.config.table_names import CellRange, Key, TableName

# Python's codecs of texts that no file is written in: for host names, for source code, and for nothing at all.
_NO_FILES = frozenset(
    {
        "idna",
        "punycode",
        "undefined",
        "unicode-escape",
        "raw-unicode-escape",
        "unicode_escape",
        "raw_unicode_escape",
    }
)

BY_KEY = ("merge", "update")  # modes of an output
Parameter = str | bool | int | float | None


class CsvOptions(Section):
    """How a CSV file is written, where it differs from RFC 4180.

    Attributes:
        delimiter: one character; a comma, or a tab for TSV, unless given.
        quote: one character; an empty text means that nothing is quoted.
        escape: the character, such as a backslash, that takes their meaning from a quote, itself, or a line end within
            quotes (anywhere, and from delimiters too, where nothing is quoted); without one quotes are doubled.
        decimal: what stands before the fraction of a number; a comma in much of Europe.
        encoding: a Python codec.
        header: whether the first line names the columns; else they are `column_1`, `column_2`, ….
        null_values: texts that mean null when they are not quoted.
        types: Arrow types by column, such as `{zip: string}`; the others are told from the data.
        bad_rows: `reject` leaves out lines that do not fit; `error` stops before anything is sent.
        reject_file: where rejected lines go.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Field(max_length=1)] = '"'
    escape: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    header: bool = True
    null_values: list[str] = [""]
    types: dict[str, str] = {}
    bad_rows: Literal["error", "reject"] = "error"
    reject_file: FilePath | None = None

    @field_validator("encoding")
    @classmethod
    def _is_of_texts(cls, name: str) -> str:
        try:
            found = codecs.lookup(name) if name.isascii() and name.isprintable() else None
        except (LookupError, ValueError):
            found = None
        if found is None or not getattr(found, "_is_text_encoding", True) or found.name in _NO_FILES:
            raise ValueError(f"unknown encoding: {name!r:.60}; write for example utf-8, latin-1 or cp1252")
        return name

    @model_validator(mode="after")
    def _signs_can_be_told_apart(self) -> Self:
        for key in ("delimiter", "quote", "escape"):
            sign = getattr(self, key)
            if sign and (sign in "\n\r\0" or not sign.isascii()):
                raise ValueError(f"`{key}` is {sign!r}; it must be an ASCII character that ends no line")
        if self.delimiter is not None and self.delimiter == self.quote:
            raise ValueError(f"`delimiter` and `quote` are both {self.quote!r}")
        return self


def _path_or_query(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema that one of two keys is required."""
    schema["required"] = [name for name in schema["required"] if name != "path"]
    schema["anyOf"] = [{"required": ["path"]}, {"required": ["sql"]}, {"required": ["format", "table"]}]


class InputConfig(Section):
    """Where the rows come from.

    Attributes:
        path: a file, a glob, a directory (Hive partitions become columns), the `s3://`, `gs://`, `az://`, `abfs://`
            or `file://` URL of such, or a list of these.
        format: told from the suffix unless given.
        columns: read only these columns.
        partitions: read only these Hive partitions, such as `day=2026-11-22`: of one key any, of several keys all.
        csv: how a CSV or TSV file is written.
        sheet: of a workbook, by name or by number from 1; the first that is not hidden unless given.
        range: the cells of the sheet that hold the table, such as `B3:F200`, `B:F` or `B3`; all of them unless given.
        header_row: the row of the sheet that names the columns, as the workbook counts it; the range's first unless given.
            With 0 there is none, and columns are `column_1`, `column_2`, ….
        sql: instead of `path`: a query. It is asked once for each command, and its rows are copied to this machine.
        url: the database that is asked: `duckdb:///file`, `sqlite:///file`, `postgresql://user@host/name`, and for queries alone
            `snowflake://user@account/database/schema`, `bigquery://project/dataset` and, of Flight SQL, `grpc+tls://host:port`;
            without a password. Without a URL, DuckDB over files.
        params: values for the query, bound by the driver: a list, for `$1` of DuckDB and PostgreSQL or `?` of SQLite; or,
            of DuckDB, a mapping for `$name`.
        folder: what relative paths in a query of DuckDB are relative to; this file's folder unless given.
        version: of a Delta table, which is read as it was then; the last one unless given.
        catalog: of `format: iceberg`: where the table is found, by the name that pyiceberg knows it under, or as a mapping of
            pyiceberg's properties and a `name` (`default` unless given), without secrets; `default` unless given.
        table: with `url`, a table of that database, which is read whole, in the order of `key`, or behind `sql`; of
            `format: iceberg` its name, such as `shop.reviews`.
        snapshot: of such a table, which is read as it was then: a number, or the name of a branch or tag; the current one
            unless given.
        key: the column, or columns, that tell a table's rows apart; `output: same` writes back by them.
        since: only rows that are new or have changed since the last run that was published: the column that tells them, or
            for tables of Delta `version`, for those of Iceberg `snapshot`; or a mapping with `column` and `late`.
    """

    model_config = ConfigDict(json_schema_extra=_path_or_query)

    path: Location | list[Location]
    format: Format | None = None
    columns: list[str] | None = None
    partitions: list[str] = []
    csv: CsvOptions = CsvOptions()
    sheet: str | Annotated[int, Field(ge=1, strict=True)] | None = None
    range: CellRange | None = None
    header_row: Annotated[int, Field(ge=0, le=1_048_576), Number] | None = None
    sql: Annotated[str, Field(min_length=1)] | None = None
    url: DatabaseUrl | None = None
    params: list[Parameter] | dict[str, Parameter] = []
    folder: str | None = None
    version: Annotated[int, Field(ge=0), Number] | None = None
    catalog: Catalog | None = None
    table: TableName | None = None
    snapshot: Annotated[int, Field(ge=0, strict=True)] | str | None = None
    key: Key | None = None
    since: SinceConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _may_be_query(cls, value: Any) -> Any:
        value = with_query(value)
        elsewhere = isinstance(value, dict) and (
            value.get("sql") is not None or value.get("format") == "iceberg"
        )
        return {"path": [], **value} if elsewhere else value

    @model_validator(mode="after")
    def _is_whole_iceberg(self) -> Self:
        if self.format != "iceberg":
            for key in ("catalog", "snapshot"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{key}` is for tables of Iceberg; write it beside `format: iceberg`")
            if self.table is not None and self.url is None:
                raise ValueError("`table` needs the `url` of its database, or `format: iceberg`")
            return self
        if self.table is None or "." not in self.table:
            raise ValueError(
                "`format: iceberg` needs the `table` with its namespace, such as table: shop.reviews"
            )
        if self.path:
            raise ValueError("a table of Iceberg is found by `catalog` and `table`; take `path` out")
        return self

    @model_validator(mode="after")
    def _is_files_or_query(self) -> Self:
        if self.sql is not None and self.path:
            raise ValueError("`path` and `sql` are two inputs; take one out")
        if is_delta_url(self.url):
            raise ValueError("a table of Delta is read by its `path`, not by a query")
        if is_iceberg_url(self.url):
            raise ValueError("a table of Iceberg is read with `format: iceberg`, not by a query")
        if (self.url or "").startswith("bigquery:") and (self.since is not None or self.table is not None):
            raise ValueError(
                "of BigQuery only a query is read: take `table` and `since` out, and write `sql`"
            )
        for key in ("url", "params", "folder") if self.sql is None else ():
            if getattr(self, key):
                raise ValueError(f"`{key}` belongs to a query; write it under `sql`")
        for key in (
            ("format", "partitions", "sheet", "range", "header_row", "version")
            if self.sql is not None
            else ()
        ):
            if getattr(self, key) not in (None, []):
                raise ValueError(f"`{key}` is for files, and `sql` gives rows")
        return self

    @field_validator("partitions")
    @classmethod
    def _name_values(cls, partitions: list[str]) -> list[str]:
        for text in partitions:
            if not re.match(r"[^=/]+=", text):
                raise ValueError(f"`{text}` is not of the form key=value, such as day=2026-11-22")
        return partitions


class CsvOutput(Section):
    """How a CSV file is written.

    Attributes:
        guard_formulas: put a `'` before texts that a spreadsheet would run as a formula (they begin with `=`, `+`, `-`
            or `@`): `answers` in the steps' columns only, `true` in all, `false` in none.
    """

    guard_formulas: bool | Literal["answers"] = "answers"


def _path_or_table(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema that one of two keys is required."""
    schema["required"] = [name for name in schema["required"] if name != "path"]
    schema["anyOf"] = [
        {"required": ["path"]},
        {"required": ["table", "url"]},
        {"required": ["table", "format"]},
    ]


class OutputConfig(Section):
    """Where the rows go.

    Attributes:
        path: the file, or the URL of an object; only ever replaced whole. One that ends with `/` is a folder.
        partitioned: `path` is a folder, with one file for each partition (or file) of the input; a path that ends
            with `/` says the same.
        format: told from the suffix unless given; `parquet` in a folder.
        compression: a Parquet codec, or none.
        row_group_rows: rows in one Parquet row group.
        columns: the input's columns that are written, in this order; all of them unless given.
        csv: how a CSV or TSV file is written.
        table: of a database, such as `main.reviews`: the output goes there, in one transaction, when its file is whole. The
            file is `path`, or lies beside the ledger; it is what `show` and `report` read.
        url: the database: `duckdb:///file`, `sqlite:///file`, or `postgresql://user@host/name` without a password.
        mode: `replace` the table's rows; `append` to them, once for each input and job; `merge`, by `key`: of rows that are
            there, the steps' columns alone are written, and other rows are added; `update`: the same, and no row is added.
        key: the column, or columns, that tell each row from every other. With `append`, rows whose key is there are left
            out.
        catalog: of `format: iceberg`, as for the input; the table is made where it is not there.
    """

    model_config = ConfigDict(json_schema_extra=_path_or_table)

    path: Target
    partitioned: bool = False
    format: Format | None = None
    compression: str = "zstd"
    row_group_rows: Annotated[int, Field(ge=1), Number] = 131_072
    csv: CsvOutput = CsvOutput()
    columns: list[str] | None = None
    table: TableName | None = None
    url: DatabaseUrl | None = None
    mode: Literal["replace", "append", "merge", "update"] = "replace"
    key: Key | None = None
    catalog: Catalog | None = None

    @property
    def keys(self) -> list[str]:
        """The columns of the key, none where there is none."""
        return [self.key] if isinstance(self.key, str) else list(self.key or ())

    @property
    def told(self) -> str:
        """Where the rows are in the end, as messages say it."""
        return self.path if self.table is None else f"{self.table} in {self.url}"

    @model_validator(mode="after")
    def _is_whole_table(self) -> Self:
        if self.table is None:
            for key in ("url", "key", "catalog"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{key}` belongs to a table; name it with `table`")
            if self.mode != "replace":
                raise ValueError(f"`mode: {self.mode}` belongs to a table; name it with `table`")
            return self
        if self.url is not None and self.url.startswith(tuple(f"{one}://" for one in WAREHOUSES)):
            raise ValueError(
                f"{self.url.partition(':')[0]} is read, and not written; name a file or another database"
            )
        if self.url is None or (file_of(self.url) is None and self.url.startswith(FILES)):
            raise ValueError("`table` needs the `url` of its database, such as duckdb:///w.db")
        if self.partitioned:
            raise ValueError("a folder of outputs and a `table` are two outputs; take one out")
        if self.mode in BY_KEY and self.key is None:
            raise ValueError(f"`mode: {self.mode}` needs the `key` that tells rows apart, such as key: id")
        return self

    @model_validator(mode="after")
    def _is_whole_lake(self) -> Self:
        if is_iceberg_url(self.url) != (self.catalog is not None):
            raise ValueError("`catalog` is for tables of Iceberg; write it beside `format: iceberg`")
        if is_iceberg_url(self.url) and "." not in (self.table or ""):
            raise ValueError("a table of Iceberg has a namespace; write it as table: shop.reviews")
        if is_iceberg_url(self.url) and self.mode in BY_KEY:
            raise ValueError(f"a table of Iceberg takes `mode: replace` and `append`, not `{self.mode}`")
        if is_iceberg_url(self.url) and self.key is not None:
            raise ValueError("`key` is for databases and Delta; a table of Iceberg takes none")
        return self

    @model_validator(mode="before")
    @classmethod
    def _has_file(cls, value: Any) -> Any:
        return with_table_file(value, Path()) if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _is_folder(cls, value: Any) -> Any:
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or without_slash(path) == path:
            return value
        return {**value, "path": without_slash(path), "partitioned": True}
