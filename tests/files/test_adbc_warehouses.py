"""Warehouses and servers of Flight SQL: asked by their drivers, without a password in the configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import flight
from pydantic import ValidationError

from enrich.config import InputConfig, OutputConfig
from enrich.errors import ConfigError, InputError
from enrich.files.source import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator


def fields(message: bytes) -> dict[int, bytes]:
    """Take a protobuf message apart that has fields of bytes alone."""
    found, place = {}, 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        tag, length = number(), number()
        found[tag >> 3] = message[place : place + length]
        place += length
    return found


class Server(flight.FlightServerBase):
    """Speaks as much of Flight SQL as a query needs, over a DuckDB in memory."""

    def __init__(self) -> None:
        super().__init__("grpc+tcp://127.0.0.1:0")
        self.asked: list[str] = []

    def _rows(self, sql: str) -> Any:
        return duckdb.connect().sql(sql).to_arrow_table()

    def get_flight_info(self, _: Any, descriptor: Any) -> Any:
        """Take a query: its text is the ticket."""
        wrapped = fields(descriptor.command)
        assert wrapped[1].endswith(b"CommandStatementQuery")
        sql = fields(wrapped[2])[1].decode()
        self.asked.append(sql)
        ends = [flight.FlightEndpoint(sql.encode(), [])]
        return flight.FlightInfo(self._rows(sql).schema, descriptor, ends, -1, -1)

    def do_get(self, _: Any, ticket: Any) -> Any:
        """Give the rows."""
        return flight.RecordBatchStream(self._rows(ticket.ticket.decode()))


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server on loopback."""
    with Server() as found:
        yield found


def test_a_query_over_flight_sql(server: Server) -> None:
    """Its rows come with their types, streamed over gRPC; what is wrong is told in the server's words."""
    url = f"grpc+tcp://127.0.0.1:{server.port}"
    sql = "SELECT range AS id, 'review ' || range AS t, DATE '2026-11-29' AS day FROM range(20000)"
    opened = open_source(InputConfig.model_validate({"sql": sql, "url": url}))
    table = pa.Table.from_batches(opened.batches(), opened.schema)
    assert table.num_rows == 20_000
    assert table.slice(19_999).to_pylist()[0]["t"] == "review 19999"
    assert table.schema.field("day").type == pa.date32()
    assert sql in server.asked
    with pytest.raises(InputError, match="nope"):
        open_source(InputConfig.model_validate({"sql": "SELECT nope", "url": url}))


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("snowflake://me@account/db/public?warehouse=W", "adbc_driver_snowflake", "adbc-snowflake"),
        ("bigquery://project/set", "adbc_driver_bigquery", "adbc-bigquery"),
        ("grpc+tls://host:443", "adbc_driver_flightsql", "adbc-flightsql"),
    ],
)
def test_a_missing_driver_says_what_installs_it(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the message is the command that brings it."""
    for name in (module, f"{module}.dbapi"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as caught:
        open_source(InputConfig.model_validate({"sql": "SELECT 1 AS id", "url": url}))
    assert caught.value.hint == f"pip install 'beatra-enrich[{extra}]'"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("snowflake://me:hush@account/db", "SNOWFLAKE_PASSWORD"),
        ("grpc+tls://me:hush@host:443", "FLIGHTSQL_PASSWORD"),
    ],
)
def test_passwords_stay_out_of_the_configuration(url: str, said: str) -> None:
    """A URL that holds one is refused, with the variable that takes it."""
    with pytest.raises(ValidationError) as caught:
        InputConfig.model_validate({"sql": "SELECT 1", "url": url})
    (error,) = caught.value.errors(include_input=False)
    assert said in error["msg"]
    assert "hush" not in error["msg"]


def test_they_are_not_written() -> None:
    """An output there is refused at once."""
    with pytest.raises(ValidationError, match="snowflake is read, and not written"):
        OutputConfig.model_validate({"table": "t", "url": "snowflake://me@account/db"})
    with pytest.raises(ValidationError, match="of BigQuery only a query is read"):
        InputConfig.model_validate({"table": "t", "url": "bigquery://project/set"})
