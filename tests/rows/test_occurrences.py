from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from enrich.rows.occurrences import Occurrences


@given(st.lists(st.binary(max_size=2) | st.sampled_from([b"", b"\0", b"\0\0", b"k" * 16]), max_size=40))
def test_each_key_is_counted_by_itself(keys: list[bytes]) -> None:
    """Counting gives how often the key came before; keys that differ in a byte, or in length, are others."""
    seen: Counter[bytes] = Counter()
    with Occurrences() as occurrences:
        for key in keys:
            assert occurrences.count(key) == seen[key]
            seen[key] += 1


def test_two_runs_count_apart() -> None:
    """Nothing is kept from one run for the next, or shared with another at the same time."""
    with Occurrences() as one, Occurrences() as other:
        assert [one.count(b"k"), one.count(b"k"), other.count(b"k")] == [0, 1, 0]
    with Occurrences() as later:
        assert later.count(b"k") == 0
