"""What an answer cost."""

from __future__ import annotations

from typing import Any

import pytest

from enrich.records import Usage
from enrich.wire.usage import read_usage

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "credits": 0.25}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ("7", Usage()),
        ([], Usage()),
        (
            {"prompt_tokens": True, "completion_tokens": "5 or so", "total_tokens": -1, "credits": False},
            Usage(),
        ),
        (
            {"prompt_tokens": 1.5, "completion_tokens": 10**400, "total_tokens": 10**12, "credits": "free"},
            Usage(),
        ),
        ({"prompt_tokens": 12.0, "credits": 0}, Usage(prompt_tokens=12, credits=0.0)),
        ({"prompt_tokens": None, "credits": -0.5}, Usage()),
    ],
)
def test_implausible_usage(usage: Any, expected: Usage) -> None:
    """The answer is kept whatever its usage is; what no count or charge can be is as good as not sent."""
    assert read_usage(usage, "a") == expected


def test_usage_missing() -> None:
    """Without usage the answer is kept and its cost is unknown."""
    assert read_usage(None, "a") == Usage()


@pytest.mark.parametrize(
    ("usage", "text", "told"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, "a", Usage()),
        ({"prompt_tokens": 0, "completion_tokens": 0, "credits": 0.0}, "a", Usage()),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, "", Usage(0, 0, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 2}, "a", Usage(0, 2, 2)),
    ],
)
def test_usage_of_zeros(usage: dict[str, Any], text: str, told: Usage) -> None:
    """Nothing but zeros beside a text is no usage."""
    assert read_usage(usage, text) == told


CACHED_AND_THOUGHT = [
    ({"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}, 4, 2),
    ({"input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 2}}, 4, 2),
    ({"prompt_cache_hit_tokens": 4, "reasoning_tokens": 2}, 4, 2),
    ({"cache_read_input_tokens": 4, "prompt_tokens_details": {"cached_tokens": None}}, 4, None),
    ({"cached_tokens": 4, "prompt_tokens_details": None, "completion_tokens_details": None}, 4, None),
    ({"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}, 0, 0),
    ({"prompt_tokens_details": {"cached_tokens": 4.0}, "completion_tokens_details": {"reasoning_tokens": "2"}}, 4, 2),
    ({"prompt_tokens_details": {"cached_tokens": "many"}, "completion_tokens_details": "none"}, None, None),
    ({"prompt_tokens_details": {"cached_tokens": True}, "completion_tokens_details": {"reasoning_tokens": -1}}, None, None),
    ({"prompt_tokens_details": [4], "completion_tokens_details": {"reasoning_tokens": 1.5}}, None, None),
    ({"prompt_tokens_details": {}, "completion_tokens_details": {"audio_tokens": 3}}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("further", "cached", "thought"), CACHED_AND_THOUGHT)
def test_cached_and_reasoning_tokens(
    further: dict[str, Any], cached: int | None, thought: int | None
) -> None:
    """They are read wherever servers put them; what is no count is as good as not sent, and 0 is a count."""
    usage = read_usage({**USAGE, **further}, "a")
    assert (usage.cached_tokens, usage.reasoning_tokens) == (cached, thought)
    assert (usage.prompt_tokens, usage.credits) == (3, 0.25)


@pytest.mark.parametrize(
    ("reference", "told"),
    [(0.0031, 0.0031), (1, 1.0), (0, 0.0), ("0.0031", 0.0031), ("1e-7", 1e-7), (None, None), ("free", None), ("nan", None),
     (-1, None), (True, None), ({"usd": 1}, None), ("9" * 5000, None)],
)  # fmt: skip
def test_the_charge_in_dollars(reference: Any, told: float | None) -> None:
    """It is read from a number or a text that holds one."""
    usage = {**USAGE, "credits_usd_reference": reference}
    assert read_usage(usage, "a").credits_usd == told


def test_usage_of_zeros_with_a_charge_in_dollars() -> None:
    """Counts of nothing beside a text tell nothing; the charge beside them is kept."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "credits_usd_reference": 0.5, "cached_tokens": 0}
    assert read_usage(usage, "a") == Usage(cached_tokens=0, credits_usd=0.5)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": "3", "completion_tokens": "5", "credits": "0.25"}, Usage(3, 5, 8, 0.25)),
        ({"input_tokens": 3, "output_tokens": 5}, Usage(3, 5, 8)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": None}, Usage(3, 5)),
        ({"prompt_tokens": 3}, Usage(3)),
    ],
)
def test_usage_in_other_words(usage: dict[str, Any], told: Usage) -> None:
    """Numbers in quotes, other names, and a total that is left out are understood; nothing is made up."""
    assert read_usage(usage, "a") == told
