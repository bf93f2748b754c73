"""JSON Lines: one schema over all files, and never a number or a text changed by its type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import InputConfig
from enrich.files.common_types import CELLS, width
from enrich.files.source import open_source
from tests.helpers.inputs import (
    TEXTS,
    refusal,
    rows,
    source,
    write,
    write_jsonl,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_jsonl(tmp_path: Path) -> None:
    """Objects become rows: missing keys are null, nested values stay nested, texts stay texts."""
    first = {
        "a": 1,
        "day": "2024-01-31",
        "at": "2024-01-31T10:00:00Z",
        "n": {"x": [1, 2]},
        "t": ["2024-01-31"],
    }
    second = {"a": 2.5, "n": {"x": [], "y": "z"}, "new": True, "null": None}
    opened = source(write_jsonl(tmp_path / "a.jsonl", first, second))
    types = {f.name: str(f.type) for f in opened.schema}
    assert types == {
        "a": "double",
        "day": "string",
        "at": "string",
        "n": "struct<x: list<item: int64>, y: string>",
        "t": "list<item: string>",
        "new": "bool",
        "null": "string",
    }
    one, two = rows(opened)
    assert one == {**first, "n": {"x": [1, 2], "y": None}, "new": None, "null": None}
    assert two["n"] == {"x": [], "y": "z"}


def test_jsonl_schema_spans_blocks_and_files(tmp_path: Path) -> None:
    """One schema holds for all blocks of all files, whatever the first lines look like."""
    write_jsonl(tmp_path / "1.ndjson", *({"id": i, "text": "2024-01-31" * 20} for i in range(30_000)))
    write_jsonl(tmp_path / "2.ndjson", {"id": 0.5, "text": "words", "more": [1]})
    opened = source(tmp_path)
    assert [str(f.type) for f in opened.schema] == ["double", "string", "list<item: int64>"]
    assert opened.num_rows == len(rows(opened)) == 30_001
    assert rows(opened)[12_345] == {"id": 12_345.0, "text": "2024-01-31" * 20, "more": None}


def test_jsonl_long_lines_and_blank_lines(tmp_path: Path) -> None:
    """A line longer than a block is read, blank lines are no rows, a byte order mark is none of the data."""
    content = '\ufeff{"a": 1}\r\n\r\n{"a": 2, "b": "%s"}\n  \n{"a": 3}' % ("x" * 9_000_000)
    opened = source(write(tmp_path / "a.jsonl", content))
    assert [row["a"] for row in rows(opened)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"a": "x"}', "`a`|Field a|Column"),
        ('{"a": 1', "Missing"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1, "b": [-Infinity]}', "Infinity is no JSON"),
        ('{"a": 1} {"a": 2}', "not one whole JSON object"),
        ('{"a":\n1}', "is no JSON object"),
        ('{"a": 1, "b": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested deeper than 64 levels"),
        ('{"a": 1, "b": [' + "[]," * 100 + "x]}", "Invalid value"),
        ("[1]", "Column|object"),
        ("'a'", "is no JSON object: 'a'"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": 123456789012345678901234}', "cannot hold exactly"),
        ('{"a": 1e999}', "too big"),
        ('{"a": 1, "b": {"c": [[9007199254740993, 0.5]]}}', r"b\.c\.\[\]\.\[\]` is 9007199254740993"),
    ],
)
def test_jsonl_problems_are_located(tmp_path: Path, line: str, problem: str) -> None:
    """A line that is no JSON object, mixes types or would lose digits is named by its number."""
    content = '{"a": 1}\n\n' + '{"a": 2}\n' * 5 + line + "\n" + '{"a": 3}\n'
    error = refusal(write(tmp_path / "a.jsonl", content))
    assert "a.jsonl line " in error.message
    assert re.search(problem, error.message)


@pytest.mark.parametrize("shape", ['{{"k{0}": 1, "l{0}": 2}}\n', '{{"o": {{"k{0}": 1, "l{0}": 2}}}}\n'])
def test_rows_of_ever_other_keys_are_read_a_few_at_a_time(tmp_path: Path, shape: str) -> None:
    """Each key is a column for all rows, and 3,000 rows have 6,000: memory stays bounded, also where they lie in objects."""
    path = write(tmp_path / "a.jsonl", "".join(shape.format(number) for number in range(3_000)))
    source = open_source(InputConfig(path=str(path)))
    batches = list(source.batches())
    assert width(source.schema.types) == 6_000
    assert max(batch.num_rows for batch in batches) * 6_000 <= CELLS
    assert sum(batch.num_rows for batch in batches) == 3_000
    last = batches[-1].slice(batches[-1].num_rows - 1).to_pylist()[0]
    assert {name for name, value in last.get("o", last).items() if value is not None} == {"k2999", "l2999"}


def test_jsonl_conflict_in_a_later_block(tmp_path: Path) -> None:
    """A type that changes megabytes later is found at its line."""
    path = write(tmp_path / "a.jsonl", '{"a": "%s"}\n' % ("x" * 1000) * 6000 + '{"a": 5}\n')
    assert "a.jsonl line 6001: " in refusal(path).message


def test_jsonl_integers_are_exact(tmp_path: Path) -> None:
    """Integers of 64 bits are exact in a column of integers; texts that look like numbers are not looked at."""
    first = {"a": 2**63 - 1, "b": "x:12345678901234567890", "c": [-(2**63)]}
    assert rows(source(write_jsonl(tmp_path / "a.jsonl", first))) == [first]


def test_jsonl_must_be_utf8(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are located."""
    error = refusal(write(tmp_path / "a.jsonl", b'{"a": "x"}\n{"a": "\xe9"}\n'))
    assert "a.jsonl line 2: b'\\xe9' is not UTF-8" in error.message


JSON_VALUES: st.SearchStrategy[Any] = st.none() | TEXTS


@settings(max_examples=80)
@given(lines=st.lists(st.fixed_dictionaries({"t": TEXTS, "i": st.integers(-(2**63), 2**63 - 1), "n": JSON_VALUES,
       "l": st.lists(TEXTS, max_size=3), "s": st.fixed_dictionaries({"f": st.floats(allow_nan=False, allow_infinity=False)})}), min_size=1, max_size=6))  # fmt: skip
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    """What Python's json module writes is read back as the same values."""
    path = write_jsonl(tmp_path_factory.mktemp("t") / "a.jsonl", *lines)
    assert rows(source(path)) == lines
