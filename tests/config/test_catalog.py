"""Catalogues of Iceberg in the configuration: named, placed, and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from enrich.config import InputConfig, OutputConfig
from enrich.config.catalog import catalog_file, resolved_catalog


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token", "hush"),
        ("credential", "me:hush"),
        ("s3.secret-access-key", "hush"),
        ("s3.session-token", "hush"),
        ("adls.account-key", "hush"),
        ("uri", "postgresql+psycopg2://me:hush@host/lake"),
    ],
)
def test_secrets_are_refused_and_not_told(key: str, value: str) -> None:
    """What may open a catalogue comes from the environment; the message says by which name, and not what it was."""
    with pytest.raises(ValidationError) as caught:
        InputConfig.model_validate(
            {"format": "iceberg", "catalog": {"name": "prod", key: value}, "table": "a.b"}
        )
    (error,) = caught.value.errors(include_input=False)
    assert "PYICEBERG_CATALOG__PROD__" in error["msg"]
    assert "hush" not in error["msg"]


def test_places_are_relative_to_the_configuration() -> None:
    """A warehouse, and the file of a catalogue of SQLite, lie where the configuration lies; URLs stay."""
    given = {"uri": "sqlite:///lake.db", "warehouse": "w", "name": "lake"}
    found = resolved_catalog(given, Path("/job"))
    assert found == {"uri": "sqlite:////job/lake.db", "warehouse": "/job/w", "name": "lake"}
    assert isinstance(found, dict)
    assert catalog_file(found) == Path("/job/lake.db")
    elsewhere = {"uri": "http://localhost:8181", "warehouse": "s3://lake"}
    assert resolved_catalog(elsewhere, Path("/job")) == elsewhere
    assert catalog_file("prod") is None


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"format": "iceberg"}, "needs the `table`"),
        ({"format": "iceberg", "table": "t"}, "namespace"),
        ({"format": "iceberg", "table": "a.t", "path": "x"}, "take `path` out"),
        ({"path": "x.csv", "catalog": "prod"}, "`catalog` is for tables of Iceberg"),
        ({"path": "x.csv", "snapshot": 1}, "`snapshot` is for tables of Iceberg"),
    ],
)
def test_half_an_input_is_refused(document: dict[str, object], said: str) -> None:
    """What does not go together is told as such."""
    with pytest.raises(ValidationError, match=said):
        InputConfig.model_validate(document)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"format": "iceberg", "table": "t"}, "namespace"),
        (
            {"format": "iceberg", "table": "a.t", "mode": "merge", "key": "id"},
            "takes `mode: replace` and `append`",
        ),
        (
            {"format": "iceberg", "table": "a.t", "mode": "append", "key": "id"},
            "`key` is for databases and Delta",
        ),
        ({"table": "a.t", "url": "duckdb:///w.db", "catalog": "prod"}, "`catalog` is for tables of Iceberg"),
    ],
)
def test_half_an_output_is_refused(document: dict[str, object], said: str) -> None:
    """What does not go together is told as such."""
    with pytest.raises(ValidationError, match=said):
        OutputConfig.model_validate(document)
