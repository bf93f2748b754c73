"""How many tokens a request may use at worst."""

from __future__ import annotations

from enrich.pace.lengths import FIRST_ANSWER, Lengths


def test_before_the_first_answer_a_byte_is_a_token() -> None:
    """No tokenizer makes more; an answer without a limit is taken for a long one."""
    assert Lengths().worst(500, 20) == (500, 20)
    assert Lengths().worst(500, None) == (500, FIRST_ANSWER)


def test_what_was_seen_bounds_what_comes() -> None:
    """Many answers leave a margin of half as much again; what is longer than any body counts as a token a byte."""
    lengths = Lengths()
    for _ in range(10_000):
        lengths.learn(400, 100, 30)
    prompt, answer = lengths.worst(500, None)
    assert 1.5 * 100 + 100 <= prompt <= 1.6 * 100 + 100
    assert 45 <= answer <= 48


def test_it_is_taken_over_as_it_was() -> None:
    """Another process that is told it bounds alike."""
    lengths = Lengths()
    lengths.learn(400, 100, 30)
    assert Lengths(**lengths.to_dict()) == lengths
