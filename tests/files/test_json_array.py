"""JSON files that are one array."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files import json_array
from enrich.files.source import open_source

DATA = Path(__file__).parent.parent / "data"


def read(path: Path, content: str | bytes | None = None) -> list[dict[str, Any]]:
    """Give the rows of a file, written first where its content is given."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    opened = open_source(InputConfig(path=str(path)))
    return [row for batch in opened.batches() for row in batch.to_pylist()]


@pytest.mark.parametrize("name", ["duckdb_array.json", "duckdb_lines.json"])
def test_what_duckdb_writes(name: str) -> None:
    """DuckDB's `.json` has one object a line, or is one array: both are read."""
    assert read(DATA / name) == [{"id": i, "review": f"review {i}"} for i in range(3)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_arrays(tmp_path: Path, indent: int | None, mark: str) -> None:
    """An array is read however it is laid out, compressed too."""
    rows = [{"a": 1, "b": {"c": ["x", "]},"]}}, {"a": 2, "b": {"c": ["\n\u2028"]}}]
    text = mark + json.dumps(rows, indent=indent, ensure_ascii=False)
    assert read(tmp_path / "a.json", text) == rows
    assert read(tmp_path / "a.json.gz", gzip.compress(text.encode())) == rows


def test_an_element_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    """A text of some MB is an element like others, and blocks follow one another."""
    rows = [{"a": "x" * 3_000_000}, *({"a": f"{i}" * 100} for i in range(30_000))]
    assert read(tmp_path / "a.json", json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[{"a": 1}, 2]', "element 2 is no object"),
        ('[{"a": 1} {"a": 2}]', "after element 1 stands neither"),
        ('[{"a": 1},]', "behind element 1 stands no object"),
        ('[{"a": 1}', "after element 1 stands neither"),
        ('[{"a": 1}, {"a": ', "element 2 is no JSON"),
        ('[{"a": 1}, {"a": tru}' + " " * 200 + "]", "element 2 is no JSON"),
        ('[{"a": 1}] x', "text follows the end of the array"),
        ('[{"a": 1}, {"a": "x"}]', "element 2: "),
        ('[{"a": 1}, {"a": NaN}]', "element 2: "),
        ("[" + '{"a":' * 5000 + "1" + "}" * 5000 + "]", "element 1: nested deeper than 64 levels"),
        ("[]", "is empty: it has no row"),
        (b'[{"a": "\xff"}]', "is not UTF-8"),
    ],
)
def test_problems_are_located(tmp_path: Path, content: str | bytes, problem: str) -> None:
    """What keeps an array from being read is named by its element."""
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.json", content)
    assert problem in caught.value.message


@settings(max_examples=150)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from("ab"), st.text(max_size=9), min_size=1), min_size=1, max_size=6
    ),
    indent=st.sampled_from([None, 0, 3]),
    size=st.integers(1, 40),
)
def test_however_it_is_cut(rows: list[dict[str, str]], indent: int | None, size: int) -> None:
    """Reading in pieces of any size gives the elements."""

    class Pieces:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, _: int) -> bytes:
            piece, self.data = self.data[:size], self.data[size:]
            return piece

    stream: Any = Pieces(json.dumps(rows, indent=indent, ensure_ascii=False).encode())
    assert [json.loads(line) for line in json_array.array_lines(stream, "x")] == rows
