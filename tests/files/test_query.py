"""The rows of a query: what the database has, the same every time, and nothing is changed there."""

from __future__ import annotations

import datetime as dt
import gc
import sqlite3
import sys
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.config import InputConfig
from enrich.errors import ConfigError, InputError
from enrich.files.source import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from enrich.files.source import Source
    from tests.helpers.postgres import Server


def asked(sql: str, url: str | None = None, **options: Any) -> Source:
    """Open a query as the input."""
    return open_source(InputConfig.model_validate({"sql": sql, "url": url, **options}))


def table(source: Source) -> pa.Table:
    """Read all rows."""
    return pa.Table.from_batches(source.batches(), source.schema)


@pytest.fixture
def postgres(postgres_server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Connect to a database of the test's own."""
    with psycopg.connect(postgres_server.create(f"q{uuid.uuid4().hex}"), autocommit=True) as connection:
        yield connection


def url_of(connection: psycopg.Connection[Any]) -> str:
    """Give the URL of a connection's database."""
    info = connection.info
    return f"postgresql://{info.user}@{info.host}:{info.port}/{info.dbname}"


@pytest.fixture(params=["duckdb", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[str], None]]:
    """Give a database of each kind: its URL, and what does something in it."""
    if request.param == "postgresql":
        connection: psycopg.Connection[Any] = request.getfixturevalue("postgres")
        return url_of(connection), lambda sql: (connection.execute(sql.encode()), None)[1]
    file = tmp_path / "w.db"

    def do(sql: str) -> None:
        if request.param == "duckdb":
            with duckdb.connect(str(file)) as connection:
                connection.execute(sql).fetchall()
        else:
            lite = sqlite3.connect(file, isolation_level=None)
            lite.execute(sql)
            lite.close()

    return f"{request.param}:///{file}", do


def test_files_without_a_database(tmp_path: Path) -> None:
    """Without a URL, DuckDB asks files, by paths relative to a folder; values are bound by their order or by name."""
    pq.write_table(pa.table({"id": [1, 2, 3], "t": ["a", "b", "c"]}), tmp_path / "x.parquet")
    sql = "SELECT t, id FROM 'x.parquet' WHERE id >= $1 ORDER BY id DESC"
    found = asked(sql, folder=str(tmp_path), params=[2])
    assert table(found).to_pylist() == [{"t": "c", "id": 3}, {"t": "b", "id": 2}]
    named = asked("SELECT t FROM 'x.parquet' WHERE t = $t", folder=str(tmp_path), params={"t": "b"})
    assert table(named).to_pylist() == [{"t": "b"}]


def test_values_are_bound_and_never_pasted(place: tuple[str, Callable[[str], None]]) -> None:
    """A value is a value, whatever it holds."""
    url, do = place
    do("CREATE TABLE r (id BIGINT, t TEXT)")
    do("INSERT INTO r VALUES (1, 'x''; DROP TABLE r; --'), (2, 'b')")
    sign = "?" if url.startswith("sqlite") else "$1"
    found = asked(f"SELECT id FROM r WHERE t = {sign}", url, params=["x'; DROP TABLE r; --"])  # noqa: S608  # the sign of a value
    assert table(found).to_pylist() == [{"id": 1}]


def test_read_twice_is_the_same_twice(place: tuple[str, Callable[[str], None]]) -> None:
    """What changes in the database after it was asked changes nothing of what was read; asked anew, it does."""
    url, do = place
    do("CREATE TABLE r (id BIGINT, t TEXT)")
    do("INSERT INTO r VALUES (1, 'a'), (2, 'b')")
    first = asked("SELECT * FROM r ORDER BY id", url)
    do("UPDATE r SET t = 'changed'")
    do("INSERT INTO r VALUES (3, 'c')")
    again = asked("SELECT * FROM r ORDER BY id", url)
    assert table(first).column("t").to_pylist() == ["a", "b"]
    assert table(again).column("t").to_pylist() == ["changed", "changed", "c"]
    same = asked("SELECT * FROM r ORDER BY id", url)
    assert first.files[0].version != again.files[0].version == same.files[0].version


@pytest.mark.parametrize("sql", ["DELETE FROM r RETURNING id", "DROP TABLE r"])
def test_nothing_is_changed(place: tuple[str, Callable[[str], None]], sql: str) -> None:
    """A database is only read, whatever the query says."""
    url, do = place
    do("CREATE TABLE r (id BIGINT)")
    do("INSERT INTO r VALUES (1)")
    with pytest.raises(InputError, match=r"input\.sql"):
        asked(sql, url)
    assert table(asked("SELECT id FROM r", url)).num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1 AS q) TO 'written.csv'",
        "COPY (SELECT 1 AS q) TO 'written.csv'; SELECT 'r' AS review",
        "ATTACH 'written.csv' AS o; SELECT 1 AS q",
        "SELECT 1 AS q; SELECT 2 AS q",
    ],
)
def test_a_query_over_files_writes_none(sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database too it is one SELECT: another statement is refused before it does anything."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="only one SELECT is asked"):
        asked(sql)
    assert list(tmp_path.iterdir()) == []


def test_what_the_database_says_is_told(place: tuple[str, Callable[[str], None]]) -> None:
    """A query that cannot be asked is an error in the input, in the database's words."""
    url, do = place
    do("CREATE TABLE r (id BIGINT)")
    with pytest.raises(InputError, match="nope") as caught:
        asked("SELECT * FROM nope", url)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="`id`"):
        asked("SELECT id, id FROM r", url)


@pytest.mark.parametrize("scheme", ["duckdb", "sqlite"])
def test_a_database_that_is_not_there(tmp_path: Path, scheme: str) -> None:
    """A missing file is told, and not made."""
    with pytest.raises(InputError, match=r"nope\.db"):
        asked("SELECT 1 AS a", f"{scheme}:///{tmp_path}/nope.db")
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there() -> None:
    """A server that takes no connection is told, with the URL."""
    with pytest.raises(InputError, match=r"postgresql://me@127\.0\.0\.1:1/x cannot be opened"):
        asked("SELECT 1 AS a", "postgresql://me@127.0.0.1:1/x")


def test_the_copy_goes_with_the_source() -> None:
    """A copy is its owner's alone, and there as long as it is used."""
    found = asked("SELECT 4711 AS a")
    copy = Path(found.files[0].path)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.parent == Path(tempfile.gettempdir())
    del found
    gc.collect()
    assert not copy.exists()


def test_columns_and_a_limit() -> None:
    """What holds for files holds for queries: some columns, and the first rows."""
    found = open_source(
        InputConfig.model_validate(
            {"sql": "SELECT range AS a, range * 2 AS b FROM range(100000)", "columns": ["b"]}
        ),
        limit=3,
    )
    assert table(found).to_pylist() == [{"b": 0}, {"b": 2}, {"b": 4}]


def test_types_of_postgresql(postgres: psycopg.Connection[Any]) -> None:
    """What each of PostgreSQL's types becomes, with the value that the database itself tells."""
    some = uuid.uuid4()
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    columns: list[tuple[str, str, pa.DataType, Any]] = [
        ("smallint", "2", pa.int16(), 2),
        ("integer", "2", pa.int32(), 2),
        ("bigint", str(2**60), pa.int64(), 2**60),
        ("numeric(10,2)", "1.5", pa.decimal128(10, 2), Decimal("1.50")),
        ("numeric(50,3)", "1.5", pa.decimal256(50, 3), Decimal("1.500")),
        ("numeric", "1.250", pa.string(), "1.250"),
        ("real", "0.5", pa.float32(), 0.5),
        ("double precision", "0.1", pa.float64(), 0.1),
        ("boolean", "true", pa.bool_(), True),
        ("text", "'00501'", pa.string(), "00501"),
        ("varchar(9)", "'x'", pa.string(), "x"),
        ("bytea", r"'\x00ff'", pa.binary(), b"\0\xff"),
        ("date", "'2026-01-02'", pa.date32(), dt.date(2026, 1, 2)),
        ("time", "'01:02:03.000004'", pa.time64("us"), dt.time(1, 2, 3, 4)),
        ("timestamp", "'2026-01-02 03:04:05.000006'", pa.timestamp("us"), moment.replace(tzinfo=None)),
        ("timestamptz", "'2026-01-02 05:04:05.000006+02'", pa.timestamp("us", "UTC"), moment),
        ("interval", "'1 month 2 days 3 seconds'", pa.month_day_nano_interval(), (1, 2, 3 * 10**9)),
        ("uuid", f"'{some}'", pa.uuid(), some),
        ("jsonb", """'{"a": [1]}'""", pa.json_(), '{"a": [1]}'),
        ("integer[]", "array[1, null]", pa.list_(pa.int32()), [1, None]),
    ]
    told = ", ".join(f"{value}::{kind} AS c{i}" for i, (kind, value, *_) in enumerate(columns))
    nulls = ", ".join(f"NULL::{kind}" for kind, *_ in columns)
    postgres.execute(f"CREATE TABLE r AS SELECT {told}".encode())
    postgres.execute(f"INSERT INTO r SELECT {nulls}".encode())
    found = table(asked("SELECT * FROM r", url_of(postgres)))
    for (kind, _, expected, value), field in zip(columns, found.schema, strict=True):
        got = found.column(field.name).to_pylist()
        assert (field.type, got[0] if not isinstance(got[0], tuple) else tuple(got[0]), got[1]) == (
            expected,
            value,
            None,
        ), kind


def test_types_of_duckdb() -> None:
    """What each of DuckDB's types becomes."""
    columns: list[tuple[str, pa.DataType, Any]] = [
        ("2::UTINYINT", pa.uint8(), 2),
        ("(2::HUGEINT ** 0)::BIGINT", pa.int64(), 1),
        ("1.5::DECIMAL(10, 2)", pa.decimal128(10, 2), Decimal("1.50")),
        ("'00501'", pa.string(), "00501"),
        ("DATE '2026-01-02'", pa.date32(), dt.date(2026, 1, 2)),
        (
            "TIMESTAMPTZ '2026-01-02 05:04:05+02'",
            pa.timestamp("us", "UTC"),
            dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        ),
        ("TIME '01:02:03'", pa.time64("us"), dt.time(1, 2, 3)),
        ("[1, NULL]", pa.list_(pa.field("l", pa.int32())), [1, None]),
        ("{'a': 1}", pa.struct([("a", pa.int32())]), {"a": 1}),
        ("'a'::ENUM ('a', 'b')", pa.dictionary(pa.uint8(), pa.string()), "a"),
        ("true", pa.bool_(), True),
        ("'\\x00'::BLOB", pa.binary(), b"\0"),
    ]
    sql = ", ".join(f"{value} AS c{i}" for i, (value, *_) in enumerate(columns))
    found = table(asked(f"SELECT {sql}"))
    for (told, expected, value), field in zip(columns, found.schema, strict=True):
        assert found.column(field.name).to_pylist() == [value], told
        assert field.type == expected, told


def test_types_of_sqlite(tmp_path: Path) -> None:
    """SQLite's values are what is stored: integers, numbers, texts and bytes."""
    lite = sqlite3.connect(tmp_path / "w.db", isolation_level=None)
    lite.execute("CREATE TABLE r (i INTEGER, x REAL, t TEXT, b BLOB, d DATE, f BOOLEAN)")
    lite.execute("INSERT INTO r VALUES (9007199254740993, 0.1, '00501', x'00', '2026-01-02', TRUE)")
    lite.close()
    found = table(asked("SELECT * FROM r", f"sqlite:///{tmp_path}/w.db"))
    assert found.schema.types == [pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.string(), pa.int64()]
    assert list(found.to_pylist()[0].values()) == [9007199254740993, 0.1, "00501", b"\0", "2026-01-02", 1]


@pytest.mark.parametrize(
    ("module", "extra", "url"),
    [
        ("duckdb", "duckdb", "duckdb://"),
        ("adbc_driver_postgresql.dbapi", "adbc-postgresql", "postgresql://h/d"),
        ("adbc_driver_sqlite.dbapi", "adbc-sqlite", "sqlite:///x.db"),
    ],
)
def test_a_missing_driver_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, url: str
) -> None:
    """Without the extra the message is the command that brings it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match="is not installed") as caught:
        asked("SELECT 1", url)
    assert caught.value.hint == f"pip install 'beatra-enrich[{extra}]'"


def test_names_for_values_where_there_are_none() -> None:
    """A mapping for a database that binds by order is refused, and not put into some order."""
    with pytest.raises(ConfigError, match="by their order"):
        asked("SELECT 1", "sqlite:///x.db", params={"a": 1})
