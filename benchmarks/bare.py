"""The yardstick: a pool of workers on bare aiohttp and uvloop that does the requests and nothing else.

    python bare.py BASE_URL ROWS CONCURRENCY [retry]

With ``retry`` a request that met a 429 is sent again after its ``Retry-After``, or after a second.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from typing import TYPE_CHECKING

import aiohttp
import orjson
import uvloop
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterator


async def worker(
    session: aiohttp.ClientSession, url: URL, prompts: Iterator[str], counts: list[int], *, retry: bool
) -> None:
    """Send one prompt after the other."""
    for prompt in prompts:
        body = orjson.dumps(
            {"model": "auto", "messages": [{"role": "user", "content": prompt}], "max_tokens": 8}
        )
        while True:
            async with session.post(url, data=body, allow_redirects=False) as response:
                data = await response.read()
                if response.status == 200:
                    counts[0] += len(orjson.loads(data)["choices"][0]["message"]["content"]) > 0
                    break
                counts[1] += 1
                if not retry:
                    break
            await asyncio.sleep(float(response.headers.get("Retry-After", "1")))


async def main(base_url: str, rows: int, concurrency: int, *, retry: bool) -> None:
    """Send so many rows and print how it went."""
    prompts = (
        f"Classify this review: review {n}: the coffee was fine, the chair was not, and the waiter smiled"
        for n in range(rows)
    )
    counts = [0, 0]
    url = URL(base_url + "/chat/completions")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        headers={"Authorization": "Bearer sk-benchmark-0000", "Content-Type": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        await asyncio.gather(
            *(worker(session, url, prompts, counts, retry=retry) for _ in range(concurrency))
        )
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"ok": counts[0], "failed": counts[1], "seconds": seconds, "cpu": cpu}))


uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), retry="retry" in sys.argv))
