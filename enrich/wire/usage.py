"""What a completion cost, read from a `usage` in the words of many servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.records import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT = (("prompt_tokens",), ("input_tokens",))  # as OpenAI's newer API and Anthropic's call them too
COMPLETION = (("completion_tokens",), ("output_tokens",))
# Where servers say how much of the prompt came from a cache: OpenAI, vLLM and Azure; OpenAI's newer name; DeepSeek;
# Anthropic's name, which gateways pass on; Moonshot. And how much of the completion was thought.
CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),
    ("cache_read_input_tokens",),
    ("cached_tokens",),
)
REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)
_WHOLES = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "credits", "credits_usd_reference"}
)
MOST_DIGITS = 40  # characters of a number that is written as text
MAX_PLAUSIBLE = 10**9  # tokens or credits of one completion; more is a defect of the endpoint


def read_usage(value: Any, text: str | None) -> Usage:
    """Read the usage; nothing but zeros beside a text was not counted: it tells nothing."""
    if not isinstance(value, dict):
        return Usage()
    prompt, completion = _first_count(value, PROMPT), _first_count(value, COMPLETION)
    total = _count(value.get("total_tokens"))
    if "total_tokens" not in value and prompt is not None and completion is not None:
        total = prompt + completion
    parts = not value.keys() <= _WHOLES
    usage = Usage(
        prompt,
        completion,
        total,
        _amount(value.get("credits")),
        _first_count(value, CACHED) if parts else None,
        _first_count(value, REASONING) if parts else None,
        _amount(value.get("credits_usd_reference")),
    )
    counted = usage.prompt_tokens or usage.completion_tokens or usage.total_tokens or usage.credits
    if counted or not text:
        return usage
    further = (usage.cached_tokens, usage.reasoning_tokens, usage.credits_usd)
    return Usage(None, None, None, None, *further) if any(further) else Usage()


def tells(usage: dict[str, Any]) -> bool:
    """Say whether a usage holds more than zeros."""
    return any(_number(value) for value in usage.values())


def _first_count(usage: dict[str, Any], places: Sequence[tuple[str, ...]]) -> int | None:
    """Give the count at the first of some places that holds one; servers agree on none of them."""
    for place in places:
        held = usage.get(place[0])
        if held is None:  # as nearly always
            continue
        if len(place) > 1:
            held = held.get(place[1]) if isinstance(held, dict) else None
        count = _count(held)
        if count is not None:
            return count
    return None


def _number(value: Any) -> Any:
    """Give the number that a text holds; anything else as it is."""
    if not isinstance(value, str) or len(value) > MOST_DIGITS or not value.isascii():
        return value
    try:
        return float(value)
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    if type(value) is int:  # as nearly always
        return value if 0 <= value <= MAX_PLAUSIBLE else None
    amount = _amount(value)
    return int(amount) if amount is not None and amount.is_integer() else None


def _amount(value: Any) -> float | None:
    """Give a plausible number, be it written as text, else None: not a bool, not negative, not beyond all reason."""
    if value is None:
        return None
    value = _number(value)
    if type(value) not in (float, int):
        return None
    return float(value) if 0 <= value <= MAX_PLAUSIBLE else None
