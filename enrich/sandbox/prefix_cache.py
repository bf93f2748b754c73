"""An emulated prompt cache: what a prompt has in common with an earlier one, from the begin on, costs a tenth."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import orjson

CHARS_PER_TOKEN = 4  # characters; as for the rest of the emulator
BLOCK_TOKENS = 128  # tokens: a prefix counts in whole blocks, as the documentation of OpenAI's cache has it
MOST_BLOCKS = 200_000  # remembered


class PrefixCache:
    """Remembers the prompts of each model, block by block.

    Args:
        least: tokens of a prefix from which on it is cached.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def read(self, body: dict[str, Any], model: str) -> int:
        """Give the tokens of a prompt that are read from the cache, and remember the prompt."""
        first = orjson.dumps([body.get("tools"), body.get("response_format")]).decode()
        text = first + "".join(f"\n{m['role']}\n{m['content']}" for m in body["messages"])
        size = BLOCK_TOKENS * CHARS_PER_TOKEN
        digest, found, unbroken = hashlib.blake2b(model.encode(), digest_size=16), 0, True
        for start in range(0, len(text) - size + 1, size):
            digest.update(text[start : start + size].encode(errors="surrogatepass"))
            block = digest.copy().digest()
            unbroken = unbroken and block in self._blocks
            found += unbroken
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > MOST_BLOCKS:
            self._blocks.popitem(last=False)
        tokens = found * BLOCK_TOKENS
        return tokens if tokens >= self._least else 0
