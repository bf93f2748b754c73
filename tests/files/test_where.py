"""The expressions of `--where`: what they say of a row, and what is refused before any row is looked at."""

from __future__ import annotations

import sys
from decimal import Decimal

import pyarrow as pa
import pytest

from enrich.errors import ConfigError, InputError
from enrich.files.where import Where

ROWS = pa.record_batch(
    {
        "score": pa.array([0.1, None, 0.5]),
        "label": pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), pa.array(["neg", "pos"])),
        "moment": pa.array([1, 2, 3], pa.timestamp("s", "UTC")),
        "tags": pa.array([["a"], [], None]),
        "price": pa.array([Decimal("1.00"), Decimal("2.00"), None], pa.decimal128(10, 2)),
        "of": pa.array([{"x": 1}, None, {"x": 3}]),
        "Odd Name": pa.array([1, 2, 3]),
        "same": pa.array([1, 2, 3]),
        "Same": pa.array([1, 2, 3]),
        "none": pa.nulls(3),
        "half": pa.array([1, 2, 3], pa.float16()),
    }
)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("score < 0.2", [0]),
        ("SCORE < 0.2", [0]),
        ("output.score < 0.2 -- low", [0]),
        ("not score < 0.2", [2]),
        ("score is null", [1]),
        ("label == 'neg'", [0]),
        ("label in ('pos', 'other')", [1]),
        ("label like '%e%' or score > 0.4", [0, 2]),
        ("moment >= '1970-01-01 00:00:02'", [1, 2]),
        ("len(tags) = 0", [1]),
        ("len([t for t in tags if t = 'a']) > 0", [0]),
        ("list_any_value(list_filter(tags, lambda t: t = 'a')) is not null", [0]),
        ("price < 1.5", [0]),
        ("of.x = 3", [2]),
        ('"Odd Name" = 2', [1]),
        ("none is null", [0, 1, 2]),
        ("true", [0, 1, 2]),
        ("1 / 0 = 1", []),
    ],
)
def test_a_row_is_chosen_where_it_is_true(text: str, met: list[int]) -> None:
    """Of numbers, texts, categories, times in UTC, lists and structs; where it is null it is not true."""
    assert Where(text, ROWS.schema).mask(ROWS).nonzero()[0].tolist() == met


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("scor < 1", "no column `scor`", "did you mean `score`?"),
        ("same = 1", "`same` and `Same` differ in capitals alone", "rename"),
        ("label < 3", "Cannot compare values of type VARCHAR", "`label` is string"),
        ("score < 'low'", "Could not convert string 'low' to DOUBLE", "`score` is double"),
        ("tags.x = 1", "Cannot extract field", "`tags` is list"),
        ("half > 1", "Unsupported", "`half` is halffloat"),
        ("score", "neither true nor false", "--where"),
        ("score <", "syntax error", "double quotes"),
        ("", "syntax error", "--where"),
        ("{{ score }} < 1", "syntax error", "--where"),
        ("1 = 1) or (2 = 2", "syntax error", "--where"),
        ("avg(score) < 1", "aggregates", "`score` is double"),
        ("row_number() over () < 2", "window functions", "--where"),
        ("score < (select 1)", "a row is looked at by itself", "--where"),
        ("score < $1", "a row is looked at by itself", "--where"),
        ("columns(*) = 1", "a row is looked at by itself", "--where"),
        ("score < 1 limit 1", "one expression is wanted", "--where"),
        ("score < 1; select 1", "one expression is wanted", "--where"),
        ("score < 1 union select 1", "one expression is wanted", "--where"),
        ("read_text('secret.txt') = 'x'", "read_text", "--where"),
        ("nothing_of_the_kind(score)", "does not exist", "`score` is double"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(text: str, said: str, hint: str) -> None:
    """Unknown columns, types that do not go together, more than one expression: before any value is looked at."""
    with pytest.raises(ConfigError) as error:
        Where(text, ROWS.schema)
    assert said in error.value.message
    assert hint in (error.value.hint or "")
    assert "\n" not in error.value.message


def test_a_value_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only shows in the rows ends as bad input does, with what helps; without DuckDB the extra is named."""
    condition = Where("cast(label as int) < 3", ROWS.schema)
    with pytest.raises(InputError, match="'neg' to INT32") as told:
        condition.mask(ROWS)
    assert "try_cast" in (told.value.hint or "")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match="not installed") as missing:
        Where("score < 1", ROWS.schema)
    assert missing.value.hint == "pip install 'beatra-enrich[duckdb]'"


def test_it_names_its_columns_and_is_good_for_many_batches() -> None:
    """The columns that it needs, in the schema's order; a batch without rows is one too."""
    condition = Where("\"Odd Name\" > 1 and label = 'pos'", ROWS.schema)
    assert condition.columns == ("label", "Odd Name")
    for _ in range(3):
        assert condition.mask(ROWS).tolist() == [False, True, False]
    assert condition.mask(ROWS.slice(0, 0)).tolist() == []
