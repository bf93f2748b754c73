"""The proofs are worth something: each of three deliberately broken variants of the program fails one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.warm import MUTATION, Warm
from tests.test_crash import killed_at_random, trace_of_a_run, traced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SEED = 76  # whose first kills come after 15 to 30 answers


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


def test_answers_in_memory_only_are_noticed(warm: Warm, tmp_path: Path) -> None:
    """Random kills find that fewer answers are on disk than were paid for."""
    found = killed_at_random(warm, tmp_path, 3, dropping=False, seed=SEED, env={MUTATION: "memory_only"})
    assert any("were paid for" in line for line in found), found


def test_a_new_key_per_attempt_is_noticed(warm: Warm, tmp_path: Path) -> None:
    """Random kills and dropped connections find bodies that were charged twice, and sent under two keys."""
    found = killed_at_random(warm, tmp_path, 3, dropping=True, env={MUTATION: "new_keys"})
    assert any("was charged 2 times" in line for line in found)
    assert any("was sent under 2 keys" in line for line in found)


@traced
def test_a_commit_without_a_sync_is_noticed(warm: Warm, tmp_path: Path) -> None:
    """The trace shows requests that were sent before their intent was on disk."""
    sent, early = trace_of_a_run(warm, tmp_path / "job", env={MUTATION: "no_fsync"})
    assert sent >= 8
    assert early
