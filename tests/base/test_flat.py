from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from enrich.base.flat import numbers, present


@given(st.lists(st.integers(-100, 100) | st.none(), max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_what_lies_behind_a_slice_is_seen(values: list[int | None], start: int, length: int) -> None:
    """The numbers, and where there is none, wherever the slice begins within a byte of bits."""
    for kind in (pa.int8(), pa.int32(), pa.int64(), pa.float32(), pa.float64()):
        array: Any = pa.array(values, kind).slice(start, length)
        there = present(array).tolist()
        found = numbers(array).tolist()
        assert [
            value if is_there else None for value, is_there in zip(found, there, strict=True)
        ] == array.to_pylist()


def test_a_column_without_values_has_none() -> None:
    """Of the type that has nulls alone."""
    assert present(pa.nulls(3)).tolist() == [False] * 3
