"""Snowflake, BigQuery and servers of Flight SQL, by their ADBC drivers: they are read, and not written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from enrich.files.adbc_database import AdbcDatabase
from enrich.files.drivers import driver

if TYPE_CHECKING:
    import pyarrow as pa

SNOWFLAKE = "adbc.snowflake.sql."  # begins the names of the driver's options
BIGQUERY = "adbc.bigquery.sql."


class _Warehouse(AdbcDatabase):
    """What is read alone: nothing is put there."""

    casts = True
    folds = False

    def takes(self, kind: pa.DataType) -> bool:  # noqa: ARG002  # nothing is put there
        """Take nothing."""
        return False

    def spelled(self, kind: pa.DataType) -> str | None:  # noqa: ARG002  # nothing is put there
        """Give no type."""
        return None

    def columns(self, table: str) -> dict[str, str] | None:  # noqa: ARG002  # nothing is put there
        """Tell of no table."""
        return None


class FlightSqlDatabase(_Warehouse):
    """A server of Flight SQL; the user is in the URL, what lets in is in the environment."""

    def __init__(self, url: str) -> None:
        extra, what = "adbc-flightsql", "a server of Flight SQL"
        flight = driver("adbc_driver_flightsql", extra, what)
        parts = urlsplit(url)
        options: dict[str, str] = {}
        if token := os.environ.get("FLIGHTSQL_TOKEN"):
            options[flight.DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {token}"
        elif parts.username:
            options["username"] = unquote(parts.username)
            options["password"] = os.environ.get("FLIGHTSQL_PASSWORD", "")
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        super().__init__("adbc_driver_flightsql", extra, what, place, db_kwargs=options, autocommit=True)


class SnowflakeDatabase(_Warehouse):
    """`snowflake://user@account/database/schema?warehouse=W&role=R`; the password is in SNOWFLAKE_PASSWORD."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        database, _, schema = parts.path.strip("/").partition("/")
        options: dict[str, Any] = {
            "username": unquote(parts.username or ""),
            "password": os.environ.get("SNOWFLAKE_PASSWORD", ""),
            f"{SNOWFLAKE}account": parts.hostname or "",
            f"{SNOWFLAKE}db": database,
            f"{SNOWFLAKE}schema": schema,
            **{f"{SNOWFLAKE}{key}": value for key, value in parse_qsl(parts.query)},
        }
        kept = {key: value for key, value in options.items() if value}
        super().__init__(
            "adbc_driver_snowflake", "adbc-snowflake", "a Snowflake database", db_kwargs=kept, autocommit=True
        )


class BigQueryDatabase(_Warehouse):
    """`bigquery://project/dataset`; who asks is told by Google's own places, such as GOOGLE_APPLICATION_CREDENTIALS."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options = {f"{BIGQUERY}project_id": parts.netloc, f"{BIGQUERY}dataset_id": parts.path.strip("/")}
        kept = {key: value for key, value in options.items() if value}
        super().__init__(
            "adbc_driver_bigquery", "adbc-bigquery", "a BigQuery data set", db_kwargs=kept, autocommit=True
        )
