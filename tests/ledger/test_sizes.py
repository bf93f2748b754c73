"""How much is read at once follows the size of what was read, and never leaves the bound for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enrich.ledger.sizes import BYTES, FIRST, Sizes

LINES = st.lists(st.integers(0, 1 << 27), max_size=20)


def test_before_anything_was_read_lines_may_be_large() -> None:
    """The first step reads few: a line may be a megabyte."""
    assert Sizes().share_of(10_000) == BYTES // FIRST


def test_large_lines_count_at_once_and_small_ones_by_and_by() -> None:
    """After one large line the next step is a small one; it takes several small ones to go on in long steps."""
    sizes = Sizes()
    sizes.learn([BYTES])
    assert sizes.share_of(10_000) == 1
    steps = []
    for _ in range(40):
        sizes.learn([100])
        steps.append(sizes.share_of(10_000))
    assert steps == sorted(steps)
    assert steps[0] < 4
    assert steps[-1] == 10_000


@given(st.lists(LINES, max_size=20), st.integers(0, 100_000))
def test_there_is_always_progress_within_the_bound(read: list[list[int]], lines: int) -> None:
    """Whatever was read, at least one line is read next if there is any, and no more than there are."""
    sizes = Sizes()
    for batch in read:
        sizes.learn(batch)
        share = sizes.share_of(lines)
        assert min(1, lines) <= share <= lines
        if batch:  # lines of the mean size of the last step would not leave the bound, but for a single one
            assert share <= 1 or share * sum(batch) / len(batch) <= BYTES
