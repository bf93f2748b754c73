"""A peer: a pool of workers on the OpenAI SDK, with its aiohttp transport or its own. Run in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import TYPE_CHECKING

import openai

if TYPE_CHECKING:
    from collections.abc import Iterator


async def worker(client: openai.AsyncOpenAI, prompts: Iterator[str], counts: list[int]) -> None:
    """Send one prompt after the other, as the SDK's documentation does."""
    for prompt in prompts:
        try:
            answer = await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": prompt}], max_tokens=8
            )
            counts[0] += bool(answer.choices[0].message.content)
        except openai.APIError:
            counts[1] += 1


async def main(base_url: str, rows: int, concurrency: int, transport: str) -> None:
    """Send so many rows and print how it went."""
    prompts = (
        f"Classify this review: review {n}: the coffee was fine, the chair was not, and the waiter smiled"
        for n in range(rows)
    )
    counts = [0, 0]
    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else openai.DefaultAsyncHttpxClient()
    async with openai.AsyncOpenAI(api_key="sk-benchmark-0000", base_url=base_url, http_client=http) as client:
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        await asyncio.gather(*(worker(client, prompts, counts) for _ in range(concurrency)))
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        json.dumps(
            {
                "ok": counts[0],
                "failed": counts[1],
                "seconds": seconds,
                "cpu": cpu,
                "version": openai.__version__,
            }
        )
    )


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
