"""A damaged file is found before anything is paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.base.clock import SystemClock
from enrich.errors import EnrichError, LedgerError
from enrich.ledger.sqlite import open_ledger
from tests.helpers.sqlite import (
    LOST,
    LaterClock,
    fill,
    make_ask,
    make_reply,
    opened,
    pages,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class OtherBoot(SystemClock):
    """The clocks of this machine after a restart."""

    def boot_id(self) -> str:
        """Name another boot."""
        return "another boot"


INDEX_LEAF = 0x0A  # the first byte of such a page, as SQLite's file format has it


def flip(path: Path, needle: bytes) -> None:
    """Damage the last byte of the only place where some bytes stand in a file."""
    content = path.read_bytes()
    assert content.count(needle) == 1
    overwrite(path, {content.index(needle) + len(needle) - 1: bytes([needle[-1] ^ 0x04])})


def overwrite(path: Path, changes: Mapping[int, bytes]) -> None:
    """Write other bytes at some places of a file."""
    content = bytearray(path.read_bytes())
    for place, other in changes.items():
        content[place : place + len(other)] = other
    path.write_bytes(content)


def place_in_index(path: Path, key: bytes) -> int:
    """Find where a key stands in an index, not in its table."""
    content = path.read_bytes()
    places = [at for at in range(len(content)) if content.startswith(key, at)]
    (place,) = (at for at in places if content[at // 4_096 * 4_096] == INDEX_LEAF)
    return place


def forget(path: Path, page: int) -> None:
    """Lose a page of a file as a failing disk does: nothing tells of it, not even the time of the file's last change."""
    lose(path, page)
    note = path.with_name(f"{path.name}.whole")
    word = json.loads(note.read_bytes())
    word["state"][-1] = path.stat().st_ctime_ns
    note.write_text(json.dumps(word), encoding="ascii")


def lose(path: Path, page: int) -> None:
    """Lose a page of a file and set its time back, as a copy does that goes wrong."""
    info = path.stat()
    overwrite(path, {page * 4_096: bytes(4_096)})
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


async def test_a_damaged_file_is_refused_when_it_is_opened(path: Path) -> None:
    """Also where nothing that is damaged would be looked at."""
    async with opened(path) as ledger:
        await fill(ledger, range(400), size=400)
    overwrite(path, {pages(path) // 2 * 4_096: bytes(4_096)})
    with pytest.raises(LedgerError, match=r"damaged: .*Page.*\nHint: `beatra-enrich ledger verify .* repair"):
        await open_ledger(path)


async def test_an_index_that_lost_a_key_is_found_before_anything_is_paid_for_twice(path: Path) -> None:
    """Such a key would look new: the file is refused although each page of it is in order."""
    async with opened(path) as ledger:
        key = (await fill(ledger, range(50)))[7].key
    overwrite(path, {place_in_index(path, key) + 15: bytes([key[15] ^ 1])})
    with pytest.raises(LedgerError, match=r"damaged: .*index"):
        await open_ledger(path)


async def test_a_file_that_nobody_touched_is_not_checked_again_for_a_day(path: Path) -> None:
    """Whoever closes a ledger vouches for it as it is then: to this machine, until it is started again, for a day."""
    async with opened(path) as ledger:
        await fill(ledger, range(400), size=400)
    forget(path, pages(path) // 2)
    async with opened(path, run=False):
        pass
    for later in (LaterClock(), OtherBoot()):
        with pytest.raises(LedgerError, match="damaged"):
            await open_ledger(path, clock=later)


async def test_a_file_that_was_written_over_in_place_is_checked(path: Path) -> None:
    """A backup put back under the old name, size and time is no file that nobody touched."""
    async with opened(path) as ledger:
        await fill(ledger, range(400), size=400)
    lose(path, pages(path) // 2)
    with pytest.raises(LedgerError, match="damaged"):
        await open_ledger(path)


@pytest.mark.parametrize("how", ["read", "write", "verify", "verify beside it"])
async def test_whoever_meets_damage_has_the_file_checked_before_the_next_run(path: Path, how: str) -> None:
    """The word of the last who closed it is taken back, whether a run, or `ledger verify`, came upon the damage."""
    async with opened(path) as ledger:
        asks = await fill(ledger, range(400), size=400)
    for page in range(12, pages(path)):
        forget(path, page)
    ledger = await open_ledger(path, read_only=how == "verify beside it")
    if "verify" in how:
        assert not (await ledger.verify()).sound
    else:
        meet = (
            ledger.lookup([a.key for a in asks]) if how == "read" else ledger.withdraw([a.key for a in asks])
        )
        with pytest.raises(LedgerError, match="damaged"):
            await meet
    await ledger.close()
    with pytest.raises(LedgerError, match="damaged"):
        await open_ledger(path)


async def test_a_damaged_answer_is_fetched_again(path: Path) -> None:
    """A flipped bit makes an answer unknown, not wrong: it is sent again under its key, and its bytes are kept."""
    async with opened(path) as ledger:
        asks = await fill(ledger, [1, 2, 3])
        await ledger.close_run({})
    flip(path, b'"answer": "2')
    async with opened(path) as ledger:
        found = await ledger.lookup([ask.key for ask in asks])
        assert [found[ask.key].state for ask in asks] == ["answered", "sent", "answered"]
        assert (await ledger.verify()).damaged_answers == (asks[1].key,)
        (claim,) = await ledger.claim([asks[1]])
        assert (claim.verdict, claim.attempt, claim.body) == ("mine", 2, asks[1].body)
        await ledger.answer(asks[1].key, make_reply(2))
        assert (await ledger.lookup([asks[1].key]))[asks[1].key].reply == make_reply(2)
        assert (await ledger.verify()).sound
        entry = [entry async for batch in ledger.scan(2) for entry in batch][1]
        assert [failed.failure.code for failed in entry.failures] == ["damaged_answer"]
        assert entry.failures[0].answer is not None


async def test_an_old_damaged_answer_is_in_doubt(path: Path) -> None:
    """Once the server has forgotten the key, a damaged answer is the operator's to decide."""
    async with opened(path) as ledger:
        (ask,) = await fill(ledger, [1])
        await ledger.close_run({})
    flip(path, b'"answer": "1')
    ledger = await open_ledger(path, clock=LaterClock())
    await ledger.open_run({})
    assert [c.verdict for c in await ledger.claim([ask])] == ["in_doubt"]
    assert (await ledger.totals()).answered == 1
    await ledger.close()


async def test_a_damaged_request_is_mended_from_the_input(path: Path) -> None:
    """The damaged body is never sent: the ask at hand has the same key, so it has the same body."""
    async with opened(path) as ledger:
        await ledger.claim([make_ask(1), make_ask(2)])
    flip(path, b'"prompt": "1')
    async with opened(path) as ledger:
        report = await ledger.verify()
        assert (report.damaged_requests, report.sound) == ((make_ask(1).key,), False)
        assert [c.body for c in await ledger.claim([make_ask(1)])] == [make_ask(1).body]
        assert (await ledger.verify()).sound


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a closed ledger of forty answers and ten open claims."""
    path = tmp_path_factory.mktemp("intact") / "ledger.db"

    async def make() -> None:
        async with opened(path) as ledger:
            await fill(ledger, range(40), size=300)
            await ledger.claim([make_ask(number, 300) for number in range(40, 50)])
            await ledger.again(make_ask(40, 300).key, LOST)
            await ledger.close_run({})

    asyncio.run(make())
    return path


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)
)
async def test_damage_anywhere_never_gives_a_wrong_answer(
    intact: Path, tmp_path: Path, damage: list[tuple[float, int]]
) -> None:
    """Whatever bytes of the file change: an answer is right or absent, and an error is one of ours."""
    path = tmp_path / uuid.uuid4().hex
    shutil.copy(intact, path)
    size = pages(path) * 4_096
    overwrite(path, {int(place * size): bytes([byte]) for place, byte in damage})
    asks = [make_ask(number, 300) for number in range(50)]
    with contextlib.suppress(EnrichError):
        async with opened(path, run=False) as ledger:
            with contextlib.suppress(EnrichError):
                found = await ledger.lookup([ask.key for ask in asks])
                for number, ask in enumerate(asks):
                    reply = found[ask.key].reply if ask.key in found else None
                    assert reply is None or reply.body == make_reply(number, 300).body
            await ledger.verify()
            await ledger.open_run({})
            for ask, claim in zip(asks, await ledger.claim(asks), strict=True):
                assert claim.verdict != "mine" or claim.body == ask.body


async def test_a_malformed_database_is_reported_not_raised(path: Path) -> None:
    """When SQLite itself cannot read on, the error is ours and `verify` says what it found."""
    async with opened(path) as ledger:
        asks = await fill(ledger, range(300), size=600)
        await ledger.close_run({})
    overwrite(path, {page * 4_096: b"\xff" * 200 for page in range(12, pages(path))})
    ledger = await open_ledger(path, read_only=True)
    with pytest.raises(LedgerError, match="damaged"):
        await ledger.lookup([ask.key for ask in asks])
    report = await ledger.verify()
    assert report.problems
    assert not report.sound
    await ledger.close()
