"""The emulator's answers are a function of the request."""

from __future__ import annotations

import pytest

from enrich.sandbox.answers import CHARS_PER_TOKEN
from tests.helpers.sandbox import (
    Caller,
    ask,
)


async def test_answers_are_a_function_of_the_body(caller: Caller) -> None:
    """The same body gives the same text under any key, another body another text; ids are never the same."""
    first, second = await caller.chat(), await caller.chat()
    other = await caller.chat(ask("Is that good?"))
    assert first.text == second.text != other.text
    assert first.json["id"] != second.json["id"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_token_limit_cuts_the_answer(caller: Caller, field: str) -> None:
    """An answer that runs out of tokens says so and is charged for what there is."""
    reply = await caller.chat({**ask(), field: 4})
    assert len(reply.text) == 4 * CHARS_PER_TOKEN
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert reply.json["usage"]["completion_tokens"] == 4


async def test_a_stop_sequence_ends_the_answer(caller: Caller) -> None:
    """What stands before the stop sequence is the answer, and it counts as finished."""
    reply = await caller.chat(ask(stop=" Answer"))
    assert reply.text == "[sandbox]"
    assert reply.json["choices"][0]["finish_reason"] == "stop"
