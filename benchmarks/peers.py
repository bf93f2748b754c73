"""Peers: a pool of workers on somebody else's client. Run in an environment that has it.

    python benchmarks/peers.py CLIENT BASE_URL ROWS CONCURRENCY

CLIENT is ``sdk-aiohttp`` or ``sdk-httpx`` (the OpenAI SDK on one transport or the other) or ``litellm``, each with its
stock settings. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Ask = Callable[[str], Awaitable[Any]]

KEY = "sk-benchmark-0000"


@contextlib.asynccontextmanager
async def sdk(base_url: str, transport: str) -> AsyncIterator[Ask]:
    """Give a way to ask through the OpenAI SDK."""
    import openai

    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else openai.DefaultAsyncHttpxClient()
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, http_client=http) as client:

        async def ask(prompt: str) -> Any:
            return await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": prompt}], max_tokens=8
            )

        yield ask


@contextlib.asynccontextmanager
async def litellm(base_url: str, _: str) -> AsyncIterator[Ask]:
    """Give a way to ask through litellm."""
    import litellm as library

    async def ask(prompt: str) -> Any:
        return await library.acompletion(
            model="openai/auto",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=8,
            api_base=base_url,
            api_key=KEY,
        )

    yield ask


async def worker(ask: Ask, prompts: Iterator[str], counts: list[int]) -> None:
    """Send one prompt after the other."""
    for prompt in prompts:
        try:
            answer = await ask(prompt)
            counts[0] += bool(answer.choices[0].message.content)
        except Exception:  # noqa: BLE001  # each client has errors of its own; what matters is the row that is lost
            counts[1] += 1


async def main(client: str, base_url: str, rows: int, concurrency: int) -> None:
    """Send so many rows and print how it went."""
    name, _, transport = client.partition("-")
    opened = {"sdk": sdk, "litellm": litellm}[name]
    prompts = (
        f"Classify this review: review {n}: the coffee was fine, the chair was not, and the waiter smiled"
        for n in range(rows)
    )
    counts = [0, 0]
    async with opened(base_url, transport) as ask:
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        await asyncio.gather(*(worker(ask, prompts, counts) for _ in range(concurrency)))
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    package = {"sdk": "openai"}.get(name, name)
    label = f"{package} {importlib.metadata.version(package)}{', ' * bool(transport)}{transport}"
    print(json.dumps({"ok": counts[0], "failed": counts[1], "seconds": seconds, "cpu": cpu, "client": label}))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
