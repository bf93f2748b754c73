"""Peers: the same rows through somebody else's client. Run in an environment that has it.

    python benchmarks/peers.py CLIENT BASE_URL ROWS CONCURRENCY

CLIENT is ``sdk-aiohttp`` or ``sdk-httpx`` (a pool of workers on the OpenAI SDK, on one transport or the other), ``litellm``
(the same on litellm) or ``async-batch-llm`` (which has a pool of its own), each with its stock settings. Prints one line
of JSON, an empty object where the client is not installed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

KEY = "sk-benchmark-0000"


async def pool(ask: Callable[[str], Awaitable[Any]], prompts: list[str], concurrency: int) -> int:
    """Send prompts through a pool of workers; gives how many were answered."""
    rest = iter(prompts)
    return sum(await asyncio.gather(*(_work(ask, rest) for _ in range(concurrency))))


async def _work(ask: Callable[[str], Awaitable[Any]], prompts: Iterator[str]) -> int:
    answered = 0
    for prompt in prompts:
        try:
            answer = await ask(prompt)
            answered += bool(answer.choices[0].message.content)
        except Exception:  # noqa: BLE001, S112  # each client has errors of its own; what matters is the row that is lost
            continue
    return answered


async def sdk(base_url: str, prompts: list[str], concurrency: int, transport: str) -> int:
    """Ask through the OpenAI SDK."""
    import openai

    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else openai.DefaultAsyncHttpxClient()
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, http_client=http) as client:

        async def ask(prompt: str) -> Any:
            return await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": prompt}], max_tokens=8
            )

        return await pool(ask, prompts, concurrency)


async def litellm(base_url: str, prompts: list[str], concurrency: int, _: str) -> int:
    """Ask through litellm."""
    import litellm as library

    async def ask(prompt: str) -> Any:
        return await library.acompletion(
            model="openai/auto",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=8,
            api_base=base_url,
            api_key=KEY,
        )

    return await pool(ask, prompts, concurrency)


async def async_batch_llm(base_url: str, prompts: list[str], concurrency: int, _: str) -> int:
    """Hand all prompts to async-batch-llm."""
    from async_batch_llm import llm, process_prompts

    strategy = llm("openai-compatible:auto", base_url=base_url, api_key=KEY)
    batch = await process_prompts(strategy, prompts, concurrency=concurrency)
    return sum(result.success for result in batch.results)


CLIENTS = {"sdk": sdk, "litellm": litellm, "async-batch-llm": async_batch_llm}


async def main(client: str, base_url: str, rows: int, concurrency: int) -> None:
    """Send so many rows and print how it went."""
    name, transport = ("sdk", client.removeprefix("sdk-")) if client.startswith("sdk-") else (client, "")
    package = "openai" if name == "sdk" else name
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        print("{}")
        return
    prompts = [
        f"Classify this review: review {n}: the coffee was fine, the chair was not, and the waiter smiled"
        for n in range(rows)
    ]
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    answered = await CLIENTS[name](base_url, prompts, concurrency, transport)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    label = f"{package} {version}{', ' * bool(transport)}{transport}"
    said = {"ok": answered, "failed": rows - answered, "seconds": seconds, "cpu": cpu, "client": label}
    print(json.dumps(said))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
