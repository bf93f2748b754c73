"""The embedded ledger in company, through crashes, and looked after."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from enrich.errors import LedgerError
from enrich.ledger.protocol import attempt_id
from enrich.ledger.sqlite import open_ledger
from tests.helpers.sqlite import (
    LOST,
    LaterClock,
    fill,
    make_ask,
    make_reply,
    opened,
    pages,
    start,
)

if TYPE_CHECKING:
    from pathlib import Path


LOAD = """
import asyncio, sys
sys.path[:0] = [{root!r}]
from tests.helpers.sqlite import make_ask, make_reply
from enrich.ledger.sqlite import open_ledger

async def one(ledger, n):
    await ledger.claim([make_ask(n)])
    await ledger.answer(make_ask(n).key, make_reply(n))
    print(n, flush=True)

async def main():
    ledger = await open_ledger(sys.argv[1])
    await ledger.open_run({{}})
    for start in range(0, 1_000_000, 16):
        await ledger.claim([make_ask(-1 - start)])
        await asyncio.gather(*(one(ledger, n) for n in range(start, start + 16)))

asyncio.run(main())
"""
CLAIM = """
import asyncio, random, sys
sys.path[:0] = [{root!r}]
from tests.helpers.sqlite import make_ask
from enrich.ledger.sqlite import open_ledger

async def main():
    ledger = await open_ledger(sys.argv[1])
    await ledger.open_run({{}})
    numbers = list(range(600))
    random.shuffle(numbers)
    for start in range(0, 600, 20):
        batch = numbers[start:start + 20]
        claims = await ledger.claim([make_ask(n) for n in batch])
        for n, claim in zip(batch, claims):
            print(n, claim.verdict, flush=True)
    print("done", flush=True)
    sys.stdin.read()
    await ledger.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 40, 333])
async def test_nothing_acknowledged_is_lost_to_kill_9(path: Path, after: int) -> None:
    """After a kill every acknowledged answer is there, and every open claim can be taken over at once."""
    with start(LOAD, path) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    async with opened(path) as ledger:
        for number in acknowledged:
            record = (await ledger.lookup([make_ask(number).key]))[make_ask(number).key]
            assert record.reply == make_reply(number)
        (claim,) = await ledger.claim([make_ask(-1)])
        assert (claim.verdict, claim.attempt, claim.body) == ("mine", 2, make_ask(-1).body)
        assert (await ledger.verify()).sound
    assert not list(path.parent.glob("*.run-*"))


async def test_two_processes_never_claim_the_same_request(path: Path) -> None:
    """Of two runs over the same requests, each request is sent by exactly one; they may open the file at once."""
    with start(CLAIM, path) as one, start(CLAIM, path) as two:
        verdicts: list[list[str]] = []
        for process in (one, two):
            assert process.stdout is not None
            lines = list(iter(process.stdout.readline, "done\n"))
            assert len(lines) == 600
            verdicts.append(
                [line.split()[1] for line in sorted(lines, key=lambda line: int(line.split()[0]))]
            )
        for pair in zip(*verdicts, strict=True):
            assert sorted(pair) == ["held", "mine"]
        one.communicate()
        two.communicate()


async def test_claims_need_a_run(path: Path) -> None:
    """Without a run nobody could tell whether a claim's owner lives."""
    async with opened(path, run=False) as ledger:
        with pytest.raises(RuntimeError, match="open run"):
            await ledger.claim([make_ask(1)])


async def test_a_scan_gives_everything_in_order(path: Path) -> None:
    """Requests, answers and the log of failed attempts come back whole, the raw rejected answer with them."""
    async with opened(path) as ledger:
        asks = await fill(ledger, range(5))
        await ledger.reject(asks[2].key, replace(LOST, code="no_choices"), final=False)
        await ledger.again(asks[2].key, LOST)
        batches = [batch async for batch in ledger.scan(2)]
        entries = [entry for batch in batches for entry in batch]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [entry.ask for entry in entries] == asks
    assert entries[0].record.reply == make_reply(0)
    assert entries[0].received_at is not None
    assert [(f.attempt, f.failure.code, f.answer) for f in entries[2].failures] == [
        (1, "no_choices", make_reply(2).body),
        (1, "connection_reset", None),
    ]
    assert entries[2].failures[0].attempt_id == attempt_id(asks[2].key, 1)


async def test_pruning_forgets_what_is_old_and_settled(path: Path) -> None:
    """Old answers and failures go and the file shrinks; what is sent stays, however old."""
    async with opened(path) as ledger:
        await fill(ledger, range(200), size=2_000)
        await ledger.claim([make_ask(500), make_ask(501)])
        await ledger.fail(make_ask(500).key, LOST, final=True)
        with pytest.raises(LedgerError, match="run 1 is using"):
            await ledger.prune(0.0)
        await ledger.close_run({})
        assert await ledger.prune(3_600.0) == 0
    before = pages(path)
    ledger = await open_ledger(path, clock=LaterClock())
    assert await ledger.prune(86_400.0) == 201
    totals = await ledger.totals()
    assert (totals.requests, totals.in_doubt) == (1, 1)
    assert (await ledger.verify()).sound
    await ledger.close()
    assert pages(path) < before / 4
