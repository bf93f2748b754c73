"""The emulated prompt cache: whole blocks of a prefix, from a length on, at a tenth of the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.sandbox import Sandbox, SandboxOptions
from tests.helpers.sandbox import Caller, ask

if TYPE_CHECKING:
    import aiohttp

LONG = "word " * 2_000  # 2,500 tokens


async def test_the_second_prompt_is_cheaper(session: aiohttp.ClientSession) -> None:
    """It names the tokens that were read, pays a tenth for them, and the books have both; another model begins anew."""
    async with Sandbox(SandboxOptions(cache=1_024)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = (await caller.chat(ask(LONG + "one", model="fast-1"))).json["usage"]
        second = (await caller.chat(ask(LONG + "two", model="fast-1"))).json["usage"]
        other = (await caller.chat(ask(LONG + "two", model="smart-1"))).json["usage"]
        short = (await caller.chat(ask("word " * 400, model="fast-1"))).json["usage"]
        cached = second["prompt_tokens_details"]["cached_tokens"]
        assert [u["prompt_tokens_details"]["cached_tokens"] for u in (first, other, short)] == [0, 0, 0]
        assert 2_300 < cached <= second["prompt_tokens"]
        assert cached % 128 == 0
        assert round(first["credits"] - second["credits"], 6) == round(0.9 * cached * 0.0001, 6)
        assert sandbox.books.to_dict()["totals"]["cached_tokens"] == cached


async def test_without_a_cache_nothing_is_said(caller: Caller) -> None:
    """The usage is what it was."""
    await caller.chat(ask(LONG))
    assert "prompt_tokens_details" not in (await caller.chat(ask(LONG + "x"))).json["usage"]
