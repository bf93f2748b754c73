"""JSON files that hold a whole table in one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pytest

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.source import open_source

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, content: str) -> list[dict[str, Any]]:
    """Give the rows of a file with this content."""
    path.write_text(content)
    return [row for batch in open_source(InputConfig(path=str(path))).batches() for row in batch.to_pylist()]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("orient", ["split", "table", "columns", "index"])
def test_what_pandas_writes(tmp_path: Path, orient: str, indent: int | None) -> None:
    """A table in one object is no row: it is refused, and the shape that has rows is named."""
    frame = pd.DataFrame({"a": ["x, {y", "z"], "b": [1, 2]})
    content = frame.to_json(orient=cast("Any", orient), indent=indent)
    for suffix in ("json", "jsonl"):
        with pytest.raises(InputError, match=f"orient='{orient}'") as caught:
            read(tmp_path / f"a.{suffix}", content)
        assert "orient='records', lines=True" in caught.value.hint
    assert len(read(tmp_path / "a.json", frame.to_json(orient="records"))) == len(frame)


@pytest.mark.parametrize(
    "row",
    [
        '{"columns": ["a"], "data": [["1"]]}',
        '{"schema": {"fields": ["a"]}}',
        '{"scores": {"0": 0.1, "1": 0.9}}',
        '{"0": {"a": 1}}',
    ],
)
def test_rows_that_look_alike(tmp_path: Path, row: str) -> None:
    """Several such objects are rows, each a line."""
    assert len(read(tmp_path / "a.jsonl", f"{row}\n{row}\n")) == 2
    assert len(read(tmp_path / "b.jsonl", f"{row}\r\n\r\n{row}")) == 2
