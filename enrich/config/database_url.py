"""The URL of a database: where it is, and never who may open it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from enrich.base.location import without_slash
from enrich.config.catalog import DEFAULT_NAME, catalog_name
from enrich.config.ledger_url import holds_password

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = ("duckdb", "sqlite")  # schemes of databases that are a file; nothing behind `:///` is one in memory
ICEBERG = "iceberg:"  # begins the URL of a catalogue, which its name follows
SERVERS = ("postgresql", "postgres")
FLIGHT = ("grpc+tcp", "grpc+tls")  # of servers of Flight SQL, as their driver writes them
WAREHOUSES = (*FLIGHT, "snowflake", "bigquery")  # they are read, and not written
CREDENTIALS = "export PGPASSWORD=…, or keep it in the file that PGPASSFILE names"
ELSEWHERE = {
    "snowflake": "export SNOWFLAKE_PASSWORD=…",
    "bigquery": "let GOOGLE_APPLICATION_CREDENTIALS name it",
    **dict.fromkeys(FLIGHT, "export FLIGHTSQL_PASSWORD=… or FLIGHTSQL_TOKEN=…"),
}


def database_url(url: str) -> str:
    """Hold a URL to what can be opened.

    Raises:
        ValueError: there is no such kind of database, or the URL holds a password; the text holds none.
    """
    if is_delta_url(url) or is_iceberg_url(url):
        return url
    scheme, slashes, rest = url.partition("://")
    if not slashes or scheme not in (*FILES, *SERVERS, *WAREHOUSES):
        known = ", ".join(f"{one}://" for one in ("duckdb", "sqlite", "postgresql", *WAREHOUSES))
        raise ValueError(
            f"{scheme[:20] + '://' if slashes else 'the URL'} is no database that is known here; use {known}"
        )
    if scheme not in FILES and holds_password(url):
        how = ELSEWHERE.get(scheme, CREDENTIALS)
        raise ValueError(
            f"{scheme}://… carries a password, which would come into logs and reports; take it out and {how}"
        )
    if scheme in FILES and (rest[:1] not in ("", "/") or "\0" in rest):
        raise ValueError(
            f"{url} names no file; write {scheme}:///folder/name.db, or {scheme}:////folder/name.db"
        )
    return url


def file_of(url: str) -> Path | None:
    """Give the file that a URL names; None of a server, and of a database in memory."""
    match = re.fullmatch(rf"({'|'.join(FILES)}):///(.+)", url, re.DOTALL)
    return Path(match[2]) if match and match[2] != ":memory:" else None


def resolved_url(url: str, base: Path) -> str:
    """Make the path in a URL absolute: three slashes stand before a relative one."""
    file = file_of(url)
    return url if file is None else f"{url.partition(':')[0]}:///{base / file.expanduser()}"


def is_delta_url(url: str | None) -> bool:
    """Say whether a URL names a folder that is a table of Delta."""
    return url is not None and url.startswith("delta:")


def is_iceberg_url(url: str | None) -> bool:
    """Say whether a URL names a catalogue of Iceberg."""
    return url is not None and url.startswith(ICEBERG)


def with_table_file(output: dict[str, Any], base: Path) -> dict[str, Any]:
    """Give an output that goes into a table the file that it is first; `format: delta` and `iceberg` make it such a table."""
    path = output.get("path")
    if output.get("format") == "iceberg":
        output = {k: v for k, v in output.items() if k != "format"}
        catalog = output.get("catalog", DEFAULT_NAME)
        output = {"catalog": catalog, "url": ICEBERG + _name(catalog), **output}
    if output.get("format") == "delta" and isinstance(path, str):
        place = without_slash(path)
        output = {k: v for k, v in output.items() if k not in ("path", "format")}
        output = {"table": Path(place).name.replace(".", "_") or "table", "url": f"delta:{place}", **output}
    if not isinstance(output.get("table"), str) or "path" in output:
        return output
    return {"path": str(base / table_file(output)), **output}


def _name(catalog: Any) -> str:
    return catalog_name(catalog) if isinstance(catalog, str | dict) else DEFAULT_NAME


def table_file(output: Mapping[str, Any]) -> str:
    """Give the path of the file that an output to a table is first, relative to the configuration."""
    table = str(output["table"])
    place = output.get("catalog") or output.get("url")
    told = hashlib.sha256(f"{place} {table}".encode()).hexdigest()[:8]
    return f".beatra/{re.sub('[^A-Za-z0-9._-]', '_', table)[:100]}-{told}.arrow"


DatabaseUrl = Annotated[str, AfterValidator(database_url)]
