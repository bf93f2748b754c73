from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.answer.json_values import MAX_BRACES, NOT_JSON, Found, SaidTwiceError, exact, objects

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(st.dictionaries(st.text(), values))
def test_round_trip(value: dict[str, Any]) -> None:
    """What was written is read, alone and among words."""
    text = json.dumps(value)
    assert exact(text) == value
    assert [found.value for found in objects(f"So:\n{text}\nthat is it", repair=False)] == [value]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20))
def test_decimals(number: Decimal) -> None:
    """No digit of a number is lost."""
    read = exact(f'{{"n": {number:f}}}')["n"]
    assert (read if isinstance(read, Decimal) else Decimal(repr(read))) == number


@pytest.mark.parametrize(
    "text", ["NaN", "[1e999]", '{"a": Infinity}', "[" * 100_000, "", "nonsense", "{'a': 1}"]
)
def test_what_is_no_json(text: str) -> None:
    """What is not JSON, beyond a double, or nested without end is refused."""
    with pytest.raises(ValueError):  # noqa: PT011  # each reader has words of its own
        exact(text)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "a": true}}]', '{"a": 1, "\\u0061": 2}']
)
def test_two_things_at_once(text: str) -> None:
    """An object that gives a key two values says nothing; twice the same value is no harm."""
    with pytest.raises(SaidTwiceError):
        exact(text)
    assert exact('{"a": 1, "a": 1}') == {"a": 1}


def test_many_braces() -> None:
    """In a text of very many braces nobody looks for long."""
    found = list(objects("{ " * 5 * MAX_BRACES + '{"a": 1}', repair=True))
    assert found == [Found(None, NOT_JSON)]
