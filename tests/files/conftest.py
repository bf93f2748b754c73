"""What tests of inputs and outputs share: a table of many types, and where outputs go."""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "out"


@pytest.fixture
def table() -> pa.Table:
    """A table with every kind of type that must come through untouched."""
    return pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int16()),
            "text": pa.array(["a", None, "ü\n"], pa.large_string()),
            "money": pa.array(
                [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")], pa.decimal128(20, 2)
            ),
            "at": pa.array([0, 1, None], pa.timestamp("us", "Europe/Berlin")),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
            "nested": pa.array([{"a": [1, 2], "b": {"c": "x"}}, None, {"a": None, "b": None}]),
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
            "a.b": pa.array([True, None, False]),
        }
    ).replace_schema_metadata({"origin": "a test"})
