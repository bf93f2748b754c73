"""Room on the disk: nothing new is sent on a full one, and answers are kept."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

import pytest

from enrich.errors import DiskFull
from enrich.ledger import room
from tests.helpers.sqlite import (
    LOST,
    make_ask,
    make_reply,
    opened,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from enrich.ledger.sqlite import SqliteLedger


async def test_nothing_new_is_sent_on_a_nearly_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims stop before the disk is full; answers to what is in flight are still kept."""
    async with opened(path) as ledger:
        await ledger.claim([make_ask(1)])
        monkeypatch.setattr(room, "LOW_WATER", 1 << 62)
        with pytest.raises(DiskFull, match=r"no room left.*\nHint: free some space"):
            await ledger.claim([make_ask(2)])
        await ledger.answer(make_ask(1).key, make_reply(1))
        assert len(await ledger.lookup([make_ask(1).key, make_ask(2).key])) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on a file system of four megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", place], check=True)


async def until_full(ledger: SqliteLedger) -> None:
    """Claim one request after the other."""
    for number in range(100, 10_000):
        await ledger.claim([make_ask(number, 2_000)])


async def test_a_full_disk_stops_claims_and_keeps_answers(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full the reserve goes, what is in flight is still kept, and nothing kept is lost."""
    monkeypatch.setattr(room, "LOW_WATER", 0)
    path = small_disk / "ledger.db"
    kept: list[int] = []
    async with opened(path) as ledger:
        await ledger.claim([make_ask(n, 2_000) for n in range(100)])
        with pytest.raises(DiskFull):
            await until_full(ledger)
        assert not path.with_name("ledger.db.reserve").exists()
        writes = [ledger.answer(make_ask(n, 2_000).key, make_reply(n, 2_000)) for n in range(100)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        kept = [number for number, result in enumerate(results) if result is None]
        assert len(kept) == 100
        with pytest.raises(DiskFull):
            await ledger.again(make_ask(100, 2_000).key, LOST)
    async with opened(path, run=False) as ledger:
        found = await ledger.lookup([make_ask(number, 2_000).key for number in kept])
        assert {record.state for record in found.values()} == {"answered"}
        with pytest.raises(DiskFull, match="No space left"):
            await ledger.open_run({})


LIMITED = """
import asyncio, resource, sys
sys.path[:0] = [{root!r}]
from tests.helpers.sqlite import make_ask
from enrich.errors import DiskFull
from enrich.ledger.sqlite import open_ledger

async def main():
    ledger = await open_ledger(sys.argv[1])
    await ledger.open_run({{}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
    try:
        for n in range(5_000):
            await ledger.claim([make_ask(n, 2_000)])
            print(n, flush=True)
    except DiskFull as error:
        print(error.message, flush=True)
    await ledger.close()

asyncio.run(main())
"""


async def test_a_limit_on_the_files_size_counts_as_a_full_disk(path: Path) -> None:
    """A quota stops the run as a full disk does, and what was acknowledged is there."""
    with start(LIMITED, path) as process:
        out, _ = process.communicate()
    *claimed, message = out.splitlines()
    assert "no room left" in message
    async with opened(path, run=False) as ledger:
        assert len(await ledger.lookup([make_ask(int(n), 2_000).key for n in claimed])) == len(claimed) > 100
