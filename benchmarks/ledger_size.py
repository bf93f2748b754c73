"""How much room a request takes: in the ledgers with all their indexes, in the write-ahead log, in an export.

    python benchmarks/ledger_size.py [--rows 50000]

Requests and answers are of made-up words as frequent as English ones, in the API's JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import psycopg

from enrich import __version__
from enrich.ledger import postgres, sqlite
from enrich.records import Ask, Reply
from enrich.verbs.ledger import export_ledger
from tests.helpers.postgres import running

if TYPE_CHECKING:
    from enrich.ledger.protocol import Ledger

WORDS = 5_000  # different ones
PROMPT, ANSWER = 60, 40  # words
GROUP = 1_000  # requests that are claimed and answered together
RELATIONS = """
SELECT c.relname, pg_relation_size(c.oid) + coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'beatra' AND c.relkind IN ('r', 'i') ORDER BY 2 DESC
"""


class Text:
    """Words, drawn as often as their rank says."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlcumwfgypbvkxjqz"
        weights = [1 / (rank + 2) for rank in range(len(letters))]
        self._words = [
            "".join(self._random.choices(letters, weights, k=self._random.randint(2, 9)))
            for _ in range(WORDS)
        ]
        self._weights = [1 / (rank + 1) for rank in range(WORDS)]

    def words(self, count: int) -> str:
        """Give so many words."""
        return " ".join(self._random.choices(self._words, self._weights, k=count))

    def request(self) -> Ask:
        """Make a request."""
        messages = [
            {"role": "system", "content": "You are a concise analyst."},
            {"role": "user", "content": f"Classify this review: {self.words(PROMPT)}"},
        ]
        body = orjson.dumps({"model": "auto", "messages": messages, "temperature": 0, "max_tokens": 64})
        return Ask(uuid.uuid5(uuid.NAMESPACE_URL, body.decode()).bytes, body, "auto")

    def reply(self) -> Reply:
        """Make its answer."""
        request_id = str(uuid.UUID(int=self._random.getrandbits(128)))
        message = {"role": "assistant", "content": self.words(ANSWER)}
        usage = {
            "prompt_tokens": 90,
            "completion_tokens": 55,
            "total_tokens": 145,
            "credits": 0.0123,
            "credits_usd_reference": 0.000123,
        }
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        body = orjson.dumps(
            {
                "id": f"chatcmpl-{request_id}",
                "object": "chat.completion",
                "model": "fast-1",
                "choices": choices,
                "usage": usage,
            }
        )
        return Reply(body, request_id, 812.5)


async def fill(ledger: Ledger, rows: int) -> tuple[int, int]:
    """Claim and answer so many requests; gives the bytes of their bodies and of the answers'."""
    text = Text(1)
    sent = came = 0
    await ledger.open_run({})
    for _ in range(0, rows, GROUP):
        asks = [text.request() for _ in range(GROUP)]
        replies = [text.reply() for _ in asks]
        await ledger.claim(asks)
        await asyncio.gather(
            *(ledger.answer(ask.key, reply) for ask, reply in zip(asks, replies, strict=True))
        )
        sent += sum(len(ask.body) for ask in asks)
        came += sum(len(reply.body) for reply in replies)
    await ledger.close()
    return sent, came


def show(what: str, size: int, rows: int) -> None:
    """Print one line."""
    print(f"{what:<44}{size / rows:>10.0f}", flush=True)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure the size of a ledger.")
    parser.add_argument("--rows", type=int, default=50_000)
    rows = parser.parse_args().rows // GROUP * GROUP
    print(
        f"beatra-enrich {__version__}, Python {platform.python_version()}, {rows:,} requests\n{'':<44}{'B a row':>10}"
    )
    with tempfile.TemporaryDirectory() as folder, running() as server:
        path = Path(folder) / "ledger.db"
        sent, came = await fill(await sqlite.open_ledger(path), rows)
        show("request body", sent, rows)
        show("answer body", came, rows)
        show("SQLite: the file", path.stat().st_size, rows)
        out = Path(folder) / "ledger.parquet"
        await export_ledger(str(path), str(out))
        show("export to Parquet", out.stat().st_size, rows)
        path.unlink()
        url = server.create("size")
        ledger = await postgres.open_ledger(url)
        with psycopg.connect(url, autocommit=True) as connection:
            before = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
            await fill(ledger, rows)
            wal = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", before).fetchone()
            connection.execute("VACUUM")
            relations = [line for line in connection.execute(RELATIONS).fetchall() if line[1] >= rows]
            show("PostgreSQL: all tables and indexes", sum(size for _, size in relations), rows)
            for name, size in relations:
                show(f"  {name}", size, rows)
            assert wal is not None
            show("PostgreSQL: write-ahead log", int(wal[0]), rows)


if __name__ == "__main__":
    asyncio.run(main())
