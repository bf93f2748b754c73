from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.base.clock import SystemClock
from enrich.errors import DiskFull, EnrichError, LedgerError
from enrich.ledger import read_ahead, room, sqlite, sqlite_file
from enrich.ledger.commit import GroupCommit
from enrich.ledger.locks import RunLocks
from enrich.ledger.protocol import attempt_id
from enrich.ledger.sqlite import SqliteLedger, open_ledger
from enrich.records import Ask, Failure, Fate, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

LOST = Failure("connection_reset", "lost", Fate.UNKNOWN)


class OtherBoot(SystemClock):
    """The clocks of this machine after a restart."""

    def boot_id(self) -> str:
        """Name another boot."""
        return "another boot"


INDEX_LEAF = 0x0A  # the first byte of such a page, as SQLite's file format has it


class LaterClock(SystemClock):
    """The clocks of this machine, two days on."""

    def wall(self) -> float:
        """Give the wall seconds."""
        return super().wall() + 2 * 86_400


def make_ask(number: int, size: int = 20) -> Ask:
    """Make a request whose key is a function of its number."""
    body = b'{"prompt": "%d %b"}' % (number, b"q" * size)
    return Ask(uuid.uuid5(uuid.NAMESPACE_URL, str(number)).bytes, body, "auto")


def make_reply(number: int, size: int = 20) -> Reply:
    """Make the answer to a numbered request."""
    return Reply(b'{"answer": "%d %b"}' % (number, b"a" * size), f"req-{number}", 1.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a ledger that is not there yet."""
    return tmp_path / "state" / "ledger.db"


@contextlib.asynccontextmanager
async def opened(path: Path, *, run: bool = True) -> AsyncIterator[SqliteLedger]:
    """Open a ledger, with a run unless told otherwise; the run ends dead."""
    ledger = await open_ledger(path)
    try:
        if run:
            await ledger.open_run({})
        yield ledger
    finally:
        await ledger.close()


async def fill(ledger: SqliteLedger, numbers: Sequence[int], size: int = 20) -> list[Ask]:
    """Claim and answer some requests."""
    asks = [make_ask(number, size) for number in numbers]
    await ledger.claim(asks)
    await asyncio.gather(
        *(ledger.answer(a.key, make_reply(n, size)) for a, n in zip(asks, numbers, strict=True))
    )
    return asks


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


def pages(path: Path) -> int:
    """Count the pages of a database."""
    return path.stat().st_size // 4_096


# --- the file ------------------------------------------------------------------------------------------------


async def test_only_the_owner_can_read_what_is_kept(path: Path) -> None:
    """The directory, the database, its side files, the lock and the reserve are private."""
    async with opened(path) as ledger:
        await fill(ledger, [1])
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    names = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.run-1", "ledger.db.reserve"}
    assert modes == dict.fromkeys(names, 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_closed_ledger_is_one_file_its_reserve_and_a_note(path: Path) -> None:
    """Neither locks nor write-ahead logs stay behind; what was written is in the file; a note says that it is whole."""
    async with opened(path) as ledger:
        asks = await fill(ledger, [1, 2])
        await ledger.close_run({})
    assert {file.name for file in path.parent.iterdir()} == {
        "ledger.db",
        "ledger.db.reserve",
        "ledger.db.whole",
    }
    async with opened(path, run=False) as ledger:
        assert len(await ledger.lookup([ask.key for ask in asks])) == 2


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Somebody else's file is named, and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are notes, not a ledger\n" * 200)
    with pytest.raises(LedgerError, match=r"notes\.txt is no ledger.*\nHint: set `ledger:`"):
        await open_ledger(path)
    assert path.read_bytes() == b"these are notes, not a ledger\n" * 200


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """An SQLite file that holds other tables is left alone."""
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="no ledger"):
        await open_ledger(path)
    assert path.read_bytes() == before


async def test_a_newer_ledger_is_refused(path: Path) -> None:
    """A ledger from a later release is not touched; the hint says how to get that release."""
    async with opened(path, run=False):
        pass
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=r"version 99.*\nHint: pip install --upgrade"):
        await open_ledger(path)


async def test_an_older_ledger_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further schema script is run once, over what is there."""
    async with opened(path) as ledger:
        asks = await fill(ledger, [1])
    newer = (*sqlite_file.SCHEMAS, "ALTER TABLE run ADD COLUMN note TEXT; -- why\nCREATE TABLE extra (x)")
    monkeypatch.setattr(sqlite_file, "SCHEMAS", newer)
    for _ in range(2):
        async with opened(path) as ledger:
            assert len(await ledger.lookup([asks[0].key])) == 1
    with contextlib.closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert con.execute("SELECT count(*) FROM extra").fetchone() == (0,)


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger is brought up to date whole or not at all."""
    async with opened(path, run=False):
        pass
    monkeypatch.setattr(
        sqlite_file, "SCHEMAS", (*sqlite_file.SCHEMAS, "CREATE TABLE extra (x); CREATE TABLE run (x)")
    )
    with pytest.raises(LedgerError, match="cannot be used"):
        await open_ledger(path)
    with contextlib.closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA user_version").fetchone() == (len(sqlite_file.SCHEMAS) - 1,)
        assert con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)


@pytest.mark.parametrize(
    "place", ["/proc/ledger.db", "/proc/none/ledger.db", "{tmp}", "{tmp}/file/ledger.db"]
)
async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    """Whatever keeps the file from being made, the message names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="ledger"):
        await open_ledger(place.format(tmp=tmp_path))


async def test_a_locked_ledger_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that sits on the file is waited for, then named as the cause."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.05)
    async with opened(path) as ledger:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as con:
            con.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(
                ledger.claim([make_ask(1)]), ledger.remember("a", {}), return_exceptions=True
            )
        assert all(isinstance(result, LedgerError) for result in results)
        assert "locked by another program" in str(results[0])
        assert [c.verdict for c in await ledger.claim([make_ask(1)])] == ["mine"]


# --- group commit --------------------------------------------------------------------------------------------


async def test_one_commit_carries_everything_that_is_queued(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand answers that come at once cost a handful of commits."""
    sizes: list[int] = []
    transact = SqliteLedger._transact

    def counted(self: SqliteLedger, works: Sequence[sqlite.Work]) -> list[object]:
        sizes.append(len(works))
        return transact(self, works)

    monkeypatch.setattr(SqliteLedger, "_transact", counted)
    async with opened(path) as ledger:
        await fill(ledger, range(1_000))
    assert sum(sizes) == 1_002
    assert len(sizes) < 100


async def test_work_that_cannot_be_done_fails_alone(path: Path) -> None:
    """One impossible write does not take the others of its commit with it."""
    async with opened(path) as ledger:
        twice = [make_ask(7), make_ask(7)]
        writes = [ledger.claim([make_ask(1)]), ledger.claim(twice), ledger.claim([make_ask(2)])]
        results = await asyncio.gather(
            *writes, ledger.answer(b"?" * 16, make_reply(1)), return_exceptions=True
        )
        assert isinstance(results[1], EnrichError)
        assert "twice" in str(results[1])
        assert isinstance(results[3], EnrichError)
        assert "never claimed" in str(results[3])
        assert len(await ledger.lookup([make_ask(n).key for n in (1, 2, 7)])) == 2


async def test_an_unexpected_error_reaches_everybody_who_waits() -> None:
    """A defect in the writer's thread leaves nobody hanging, and the next jobs are carried out."""

    def commit(jobs: Sequence[int]) -> list[float]:
        return [1 / job for job in jobs]

    group: GroupCommit[int] = GroupCommit(commit, "test")
    with pytest.raises(ZeroDivisionError):
        await group.submit(0)
    assert await group.submit(2) == 0.5
    await group.close()
    with pytest.raises(RuntimeError, match="closed"):
        group.submit(1)


# --- crashes and company -------------------------------------------------------------------------------------

LOAD = """
import asyncio, sys
sys.path[:0] = [{tests!r}]
from test_sqlite import make_ask, make_reply
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
sys.path[:0] = [{tests!r}]
from test_sqlite import make_ask
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


def start(script: str, path: Path) -> subprocess.Popen[str]:
    """Start a script of ours in a process of its own."""
    code = script.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


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


async def test_lock_files_of_dead_runs_are_cleared_away(path: Path) -> None:
    """Whoever opens a ledger removes what a killed run left beside it."""
    async with opened(path) as ledger:
        await fill(ledger, [1])
    lock = path.with_name("ledger.db.run-1")
    lock.touch()
    async with opened(path, run=False):
        assert not lock.exists()


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


async def test_tables_that_are_not_a_ledgers_are_refused(path: Path) -> None:
    """A damaged or changed schema is found, not stumbled over."""
    async with opened(path, run=False):
        pass
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        con.execute("ALTER TABLE run RENAME COLUMN info TO inf0")
    with pytest.raises(LedgerError, match="damaged: its tables"):
        await open_ledger(path)


async def test_a_ledger_made_when_a_comment_read_otherwise_is_one(path: Path) -> None:
    """What a release says of its tables, beside the tables, is no part of them."""
    async with opened(path, run=False):
        pass
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        con.execute("PRAGMA writable_schema = ON")
        changed = con.execute(
            "UPDATE sqlite_master SET sql = replace(sql, '-- JSON', '-- some\n   -- JSON ')"
        )
        assert changed.rowcount
    async with opened(path) as ledger:
        assert (await ledger.verify()).sound


async def test_a_lock_file_in_the_way_costs_a_number_only(path: Path) -> None:
    """Lock files of a ledger that was deleted do not confuse a new one."""
    async with opened(path) as ledger:
        stranger = RunLocks(path)
        assert stranger.hold(2)
        async with opened(path, run=False) as other:
            assert await other.open_run({}) == 3
        stranger.release()
        with pytest.raises(RuntimeError, match="still open"):
            await ledger.open_run({})


async def test_reading_on_finds_everything_in_little_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes finds its requests in stretches of a few bytes; what was taken back meanwhile is not served."""
    monkeypatch.setattr(read_ahead, "MANY", 8)
    monkeypatch.setattr(read_ahead, "FEW_LINES", 16)
    monkeypatch.setattr(read_ahead, "ANSWER_BYTES", 2_000)
    async with opened(path) as ledger:
        keys = [ask.key for ask in await fill(ledger, range(400), size=100)]
        kept = []
        for start in range(0, 200, 10):
            known = await ledger.lookup(keys[start : start + 10])
            assert [known[key].reply for key in keys[start : start + 10]] == [
                make_reply(number, 100) for number in range(start, start + 10)
            ]
            kept.append(len(ledger._ahead._lines))
        assert 10 < max(kept) < 60
        await ledger.reject(keys[205], Failure("response_cut", "", Fate.UNKNOWN), final=False)
        known = await ledger.lookup(keys[200:210])
        assert known[keys[205]].reply is None
        assert known[keys[206]].reply == make_reply(206, 100)


async def test_claims_need_a_run(path: Path) -> None:
    """Without a run nobody could tell whether a claim's owner lives."""
    async with opened(path, run=False) as ledger:
        with pytest.raises(RuntimeError, match="open run"):
            await ledger.claim([make_ask(1)])


# --- damage --------------------------------------------------------------------------------------------------


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


# --- room on the disk ----------------------------------------------------------------------------------------


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
sys.path[:0] = [{tests!r}]
from test_sqlite import make_ask
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


# --- looking after it ----------------------------------------------------------------------------------------


async def test_totals_sum_to_the_requests(path: Path) -> None:
    """Every request is counted in exactly one state."""
    async with opened(path) as ledger:
        await fill(ledger, [1, 2, 3])
        await ledger.claim([make_ask(4), make_ask(5)])
        await ledger.fail(make_ask(4).key, LOST, final=True)
        totals = await ledger.totals()
    assert (totals.requests, totals.answered, totals.failed, totals.sent) == (5, 3, 1, 1)
    ledger = await open_ledger(path, clock=LaterClock())
    assert await ledger.settle_doubt([make_ask(5).key], "skip") == 1
    totals = await ledger.totals()
    assert (totals.sent, totals.in_doubt, totals.skipped) == (0, 0, 1)
    await ledger.close()


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
