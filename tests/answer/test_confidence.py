from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.answer.confidence import Token, confidence, mean_logprob, tokens_of
from enrich.schema.schema import load_schema

LABELS = load_schema({"properties": {"label": {"enum": ["positive", "negative", "neutral"]}}})


def told(*entries: tuple[str, float] | tuple[str, float, dict[str, float]]) -> dict[str, Any]:
    """Write tokens with their probabilities, and those of others, as a server does."""
    return {
        "content": [
            {
                "token": token,
                "logprob": math.log(chance),
                "bytes": list(token.encode()),
                "top_logprobs": [
                    {"token": t, "logprob": math.log(p)} for t, p in (others[0] if others else {}).items()
                ],
            }
            for token, chance, *others in entries
        ]
    }


def sure(logprobs: Any, text: str, values: dict[str, Any] | None = None, schema: Any = None) -> float | None:
    """Give the confidence in an answer."""
    return confidence(tokens_of(logprobs), text, values, schema)


def test_the_answer_s_own_tokens() -> None:
    """A text's probability is that of its tokens; what stands before it, or ends it, plays no part."""
    logprobs = told(("Hm", 0.1), (". ", 0.1), ("Very", 0.5), (" good", 0.8), ("<|end|>", 0.01))
    assert sure(logprobs, "Very good") == pytest.approx(0.4)
    assert sure(logprobs, "not there") == pytest.approx(0.1 * 0.1 * 0.5 * 0.8 * 0.01)
    assert mean_logprob(tokens_of(logprobs)) == pytest.approx(math.log(0.1 * 0.1 * 0.5 * 0.8 * 0.01) / 5)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([('{"label": "', 0.9), ("positive", 0.6, {"positive": 0.6, "negative": 0.2, "neutral": 0.2}), ('"}', 1.0)], 0.6),
        ([('{"label": "', 0.9), ("positive", 0.6, {"positive": 0.6, "negative": 0.2, "}": 0.2}), ('"}', 1.0)], 0.75),
        ([('{"label":', 1.0), (' "pos', 0.6, {' "pos': 0.6, ' "neg': 0.2, " null": 0.2}), ("itive", 0.5), ('"}', 1.0)], 0.375),
        (
            [('{"label": "', 1.0), ("ne", 0.5, {"ne": 0.5, "pos": 0.5}), ("gative", 0.6, {"gative": 0.6, "utral": 0.2, "w": 0.2}),
             ('"}', 1.0)],
            0.375,
        ),
        ([('{"label": "positive"}', 0.7)], 0.7),
        ([('{"label": "', 0.9), ("positive", 0.5), ('"}', 1.0)], 0.45),
        (
            [('{"label": "positive"} no: {"label": "', 0.5), ("positive", 0.6, {"positive": 0.6, "negative": 0.2}), ('"}', 1.0)],
            0.75,
        ),
    ],
)  # fmt: skip
def test_a_label_against_the_others(entries: Any, expected: float) -> None:
    """Of what else was told, only what goes on as another label does counts against it; where nothing was, it is the whole answer's."""
    text = "".join(entry[0] for entry in entries)
    value = "negative" if "gative" in text else "positive"
    assert sure(told(*entries), text, {"label": value}, LABELS) == pytest.approx(expected)


def test_characters_cut_in_two() -> None:
    """Tokens are bytes: a character may begin in one and end in the next."""
    first, second = "é".encode()[:1], "é".encode()[1:]
    content = [
        {"token": "?", "bytes": list(first), "logprob": math.log(0.5)},
        {"token": "?", "bytes": list(second), "logprob": math.log(0.5)},
    ]
    assert sure({"content": content}, "é") == pytest.approx(0.25)


@pytest.mark.parametrize(
    "logprobs",
    [None, "no", [], {}, {"content": None}, {"content": []}, {"content": [None, 1, {}, {"token": "a"}, {"token": "a", "logprob": None}]},
     {"content": [{"token": 5, "logprob": 0.0}]}, {"content": [{"token": "a", "logprob": "nan"}]}, {"tokens": ["a"]},
     {"content": [{"token": "a", "logprob": True}]}],
)  # fmt: skip
def test_what_tells_nothing(logprobs: Any) -> None:
    """Nulls, other kinds and nothing at all are no tokens: nothing is known."""
    assert tokens_of(logprobs) == []
    assert mean_logprob([]) is None
    assert sure(logprobs, "a") is None


def test_the_older_lists() -> None:
    """Tokens, their logarithms and the others may stand in lists beside each other; a number may be a text."""
    logprobs = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, "-1.5"],
        "top_logprobs": [None, {"b": -1.5, "c": -2}],
    }
    assert tokens_of(logprobs) == [Token(b"b", -1.5, ((b"b", -1.5), (b"c", -2.0)))]


@given(
    st.lists(
        st.tuples(
            st.text(max_size=3), st.floats(allow_nan=True), st.dictionaries(st.text(max_size=3), st.floats())
        )
    ),
    st.text(max_size=4),
)
def test_it_is_a_probability(entries: list[tuple[str, float, dict[str, float]]], text: str) -> None:
    """Whatever a server says, it is none or between 0 and 1."""
    content = [
        {"token": t, "logprob": p, "top_logprobs": [{"token": o, "logprob": q} for o, q in others.items()]}
        for t, p, others in entries
    ]
    whole = text + "".join(t for t, _, _ in entries)
    for values, schema in ((None, None), ({"label": "neutral"}, LABELS)):
        found = sure({"content": content}, whole, values, schema)
        assert found is None or 0 <= found <= 1
