"""The URL of a database holds no password, and paths in it are relative to the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enrich.config.database_url import file_of, resolved_url
from enrich.config.load import complete_config
from enrich.errors import ConfigError

STEPS = [{"name": "s", "prompt": "{{ t }}"}]


def configured(rows: dict[str, Any], output: Any = "out.parquet", **flags: Any) -> Any:
    """Complete a configuration with this input."""
    document = {"input": rows, "output": output, "steps": STEPS}
    return complete_config(document, folder=Path("/job"), **flags)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@host/db",
        "postgres://me:hunter2@host/db",
        "postgresql://host/db?password=hunter2",
        "postgresql://me:hunter2@host:5432/db?sslmode=require",
        "postgresql://me:hun/ter2@host/db",
    ],
)
def test_a_password_is_refused_and_not_shown(url: str) -> None:
    """A URL in the configuration that holds a password is refused, with the places where it may be."""
    with pytest.raises(ConfigError) as caught:
        configured({"sql": "SELECT 1", "url": url})
    assert "PGPASSFILE" in str(caught.value)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"sql": "SELECT 1", "url": "mysql://host/db"}, "mysql://"),
        ({"sql": "SELECT 1", "url": "w.db"}, "duckdb://"),
        ({"sql": "SELECT 1", "url": "duckdb://w.db"}, "duckdb:///"),
        ({"sql": "SELECT 1", "path": "x.csv"}, "two inputs"),
        ({"path": "x.csv", "url": "duckdb:///w.db"}, "belongs to a query"),
        ({"sql": "SELECT 1", "format": "csv"}, "is for files"),
        ({"sql": "SELECT 1", "parms": [1]}, "params"),
        ({"columns": ["a"]}, "path: this key is required"),
    ],
)
def test_what_makes_no_sense_is_refused(rows: dict[str, Any], said: str) -> None:
    """Keys that belong to the other kind of input are not passed over."""
    with pytest.raises(ConfigError, match=said):
        configured(rows)


def test_paths_are_relative_to_the_configuration() -> None:
    """Of a database's file and of the files in a query alike; four slashes stand before an absolute path."""
    found = configured({"sql": "SELECT 1", "url": "duckdb:///data/w.db"})
    assert (found.input.url, found.input.folder) == ("duckdb:////job/data/w.db", "/job")
    assert file_of(found.input.url) == Path("/job/data/w.db")
    assert resolved_url("sqlite:////abs/w.db", Path("/job")) == "sqlite:////abs/w.db"
    assert resolved_url("postgresql://h/d", Path("/job")) == "postgresql://h/d"
    assert file_of("duckdb:///:memory:") is file_of("duckdb://") is file_of("postgresql://h/d") is None


def test_a_path_on_the_command_line_replaces_a_query() -> None:
    """`--input` names another input, not one more."""
    found = configured({"sql": "SELECT 1", "columns": ["a"]}, input="/x.csv")
    assert (found.input.path, found.input.sql, found.input.columns) == ("/x.csv", None, ["a"])
