"""The shared ledger's tables: older ones are brought up to date with all they hold, newer ones are left alone.

It is long because it holds the tables of earlier versions as they were made then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from enrich.base.clock import SystemClock
from enrich.config import Config, without_password
from enrich.errors import LedgerError, LedgerFailing
from enrich.ledger import postgres_database
from enrich.ledger.postgres import open_ledger
from enrich.ledger.postgres_database import SCHEMAS
from enrich.ledger.protocol import DOUBT_AFTER
from enrich.pace.lease import LeaseRequest, SharedWindow
from enrich.report.page import report_job
from enrich.verbs.status import status_job
from tests.helpers.ledgers import LOST, REFUSED, REPLY, make_ask
from tests.helpers.loopback import free_port
from tests.helpers.postgres import owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.postgres import Server


@pytest.fixture
def url(postgres_server: Server) -> str:
    """An empty database."""
    return postgres_server.create(f"tables_{uuid.uuid4().hex}")


def version(url: str) -> int:
    """Read the version that a database's tables have."""
    with psycopg.connect(url) as connection:
        (number,) = connection.execute("SELECT number FROM beatra.version").fetchall()[0]
    return int(number)


BACK_TO_THE_FIRST = """
ALTER TABLE beatra.request DROP COLUMN seal, DROP COLUMN step;
DROP TABLE beatra.held, beatra.spending;
ALTER TABLE beatra.generation DROP COLUMN crc;
ALTER TABLE beatra.memory DROP COLUMN crc;
ALTER TABLE beatra.run DROP COLUMN accounts;
DROP INDEX IF EXISTS beatra.run_lease;
DO $$ DECLARE f regprocedure; BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'beatra'::regnamespace LOOP
        EXECUTE 'DROP FUNCTION ' || f;
    END LOOP;
END $$;
DROP TABLE beatra.pace, beatra.lane;
DELETE FROM beatra.memory WHERE name = 'salt';
UPDATE beatra.version SET number = 1;
"""


async def fill_an_old_one(url: str) -> int:
    """Make a ledger as the first version's program left it; gives the number of its run."""
    ledger = await open_ledger(url)
    run = await ledger.open_run({})
    await ledger.claim([make_ask(name) for name in ("answered", "failed", "sent")])
    await ledger.answer(make_ask("answered").key, REPLY)
    await ledger.fail(make_ask("failed").key, REFUSED, final=True)
    await ledger.again(make_ask("sent").key, LOST)
    await ledger.remember("pace:there", {"rate": 12.0})
    await ledger.generation(b"s" * 16, bump=True)
    await ledger.close_run({"rows": 3})
    await ledger.close()
    with psycopg.connect(url) as connection:
        connection.execute(BACK_TO_THE_FIRST)
    assert version(url) == 1
    return run


async def test_an_older_ledger_is_brought_up_to_date(url: str) -> None:
    """Everything that the first version's tables hold is served after the move, and new runs share a limit there."""
    run = await fill_an_old_one(url)
    for _ in range(2):
        ledger = await open_ledger(url)
        assert version(url) == len(SCHEMAS)
        known = await ledger.lookup([make_ask(name).key for name in ("answered", "failed", "sent")])
        answered, failed, sent = known.values()
        assert (answered.reply, failed.failure, sent.failure) == (REPLY, REFUSED, LOST)
        assert [record.state for record in known.values()] == ["answered", "failed", "sent"]
        assert {record.run for record in known.values()} == {run}
        assert await ledger.recall("pace:there") == {"rate": 12.0}
        assert await ledger.generation(b"s" * 16) == 1
        last = await ledger.last_run()
        assert last is not None
        assert last.summary == {"rows": 3}
        assert (await ledger.verify()).sound
        await ledger.close()
    ledger = await open_ledger(url)
    await ledger.open_run({})
    (claim,) = await ledger.claim([make_ask("sent")])
    assert (claim.verdict, claim.attempt) == ("mine", 3)
    account = await ledger.fingerprint("https://there", "sk-key")
    lease = await ledger.lease(account, LeaseRequest((SharedWindow(False, 60, 60, 1.0),), 1))
    assert (lease.count, lease.runs) == (1, 1)
    await ledger.close()


LEASE_OF_THE_FOURTH = """
SELECT l.start, l.episode, l.known, l.sent FROM beatra.lease(%s, 1, NULL, 0, '{f}'::boolean[], '{60}'::float8[], '{60}'::float8[],
    '{1}'::float8[], 3, 0::float8, 0::float8, %s::bigint, true, false, 0::float8, '', 0::bigint, 12::float8, 0::float8,
    1000000::float8, 0::float8, 0::float8, false) AS l
"""


async def test_what_runs_shared_is_kept_where_the_tables_lose_columns(url: str) -> None:
    """Slots that the fourth version gave out stay taken, and what it heard of the limit stays known."""
    account = b"a" * 16
    with psycopg.connect(url, autocommit=True, options="-c search_path=beatra") as old:
        old.execute("CREATE SCHEMA beatra; CREATE TABLE beatra.version (number INTEGER NOT NULL)")
        for script in SCHEMAS[:4]:
            old.execute(script.encode())
        old.execute("INSERT INTO beatra.version VALUES (4)")
        ((start, *known),) = old.execute(LEASE_OF_THE_FOURTH, (account, 2)).fetchall()
        assert known == [1, 12.0, 2]
        ledger = await open_ledger(url)
        assert version(url) == len(SCHEMAS)
        await ledger.open_run({})
        lease = await ledger.lease(account, LeaseRequest((SharedWindow(False, 60, 60, 1.0),), 1, sent=1))
        assert (lease.count, lease.episode, lease.known, lease.sent) == (1, 1, 12.0, 3)
        assert lease.start >= start + 1
        await ledger.close()
        with pytest.raises(psycopg.errors.UndefinedFunction):
            old.execute(LEASE_OF_THE_FOURTH, (account, 2))


async def test_a_ledger_that_moves_on_under_a_run_stops_it(url: str) -> None:
    """The run of an earlier release ends in one line that names the way out, and can be resumed."""
    ledger = await open_ledger(url)
    await ledger.open_run({})
    with psycopg.connect(url, autocommit=True) as later:
        later.execute(
            "ALTER FUNCTION beatra.lease RENAME TO other; ALTER TABLE beatra.answer RENAME body TO other"
        )
    says = "a later beatra-enrich has brought the tables .* up to date: .*\nHint: pip install --upgrade"
    for failing in (ledger.lease(b"a", LeaseRequest()), ledger.lookup([b"k" * 16])):
        with pytest.raises(LedgerFailing, match=says):
            await failing
    await ledger.close()


async def test_tables_are_left_alone_while_an_earlier_release_uses_them(url: str) -> None:
    """Nobody's run is broken by who looks on with a later release; once it has ended, or is dead, the tables move on."""
    run = await fill_an_old_one(url)
    with psycopg.connect(url, autocommit=True) as old:
        old.execute(
            "UPDATE beatra.run SET ended_at = NULL, lease_until = clock_timestamp() + interval '1 hour'"
        )
        with pytest.raises(LedgerError, match=rf"run {run} of an earlier beatra-enrich is at work"):
            await open_ledger(url)
        assert version(url) == 1
        old.execute("UPDATE beatra.run SET lease_until = clock_timestamp()")
    await (await open_ledger(url)).close()
    assert version(url) == len(SCHEMAS)


async def test_a_newer_ledger_is_refused(url: str) -> None:
    """The tables of a later release are not touched; the hint says how to get that release."""
    ledger = await open_ledger(url)
    await ledger.close()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE beatra.version SET number = 99")
    says = rf"version 99; this program knows up to {len(SCHEMAS)}\nHint: pip install --upgrade"
    with pytest.raises(LedgerError, match=says):
        await open_ledger(url)
    assert version(url) == 99


async def test_a_move_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are brought up to date whole or not at all: an older program can go on with them."""
    await fill_an_old_one(url)
    with monkeypatch.context() as patched:
        patched.setattr(
            postgres_database,
            "SCHEMAS",
            (*SCHEMAS, "CREATE TABLE extra (x INTEGER); CREATE TABLE run (x INTEGER)"),
        )
        with pytest.raises(LedgerError, match="cannot be used"):
            await open_ledger(url)
    assert version(url) == 1
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT to_regclass('beatra.extra'), to_regclass('beatra.lane')"
        ).fetchall()
    assert found == [(None, None)]


async def test_a_database_that_stays_away_stops_the_run(
    url: str, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written, read or leased any more stops a run that can be resumed: it is no mistake in the job."""
    ledger = await open_ledger(url)
    await ledger.open_run({})
    await ledger.lease(b"account", LeaseRequest())
    monkeypatch.setattr(postgres_database, "DATABASE_PATIENCE", 0.0)
    postgres_server.stop()
    try:
        for failing in (
            ledger.claim([make_ask()]),
            ledger.lookup([b"k" * 16]),
            ledger.lease(b"a", LeaseRequest()),
        ):
            with pytest.raises(LedgerFailing, match="check the `ledger` URL"):
                await failing
    finally:
        postgres_server.start()
    await ledger.close()


async def test_who_may_not_make_tables_may_use_them(url: str, postgres_server: Server) -> None:
    """The rights to the tables that are there are enough; who lacks them is told which they are."""
    await (await open_ledger(url)).close()
    worker = url.replace("beatra@", f"worker_{uuid.uuid4().hex}@")
    name = urlsplit(worker).username
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        for right in (None, "USAGE ON SCHEMA", "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA"):
            if right is not None:
                with pytest.raises(
                    LedgerError, match=r"permission denied for .*\nHint: .* needs USAGE on the schema"
                ):
                    await open_ledger(worker)
                connection.execute(f"GRANT {right} beatra TO {name}".encode())
    ledger = await open_ledger(worker)
    await ledger.open_run({})
    assert [claim.verdict for claim in await ledger.claim([make_ask()])] == ["mine"]
    await ledger.answer(make_ask().key, REPLY)
    assert (await ledger.lease(b"account", LeaseRequest((SharedWindow(False, 60, 60, 1.0),), 1))).count == 1
    await ledger.close_run({})
    assert await ledger.prune(-60.0) == 1
    await ledger.close()


async def test_looking_makes_no_ledger(url: str, tmp_path: Path) -> None:
    """Status and report say that there is none yet, and leave the database as it was."""
    document = {
        "input": "in.csv",
        "output": "out.csv",
        "ledger": url,
        "steps": [{"name": "s", "prompt": "?"}],
    }
    config = Config.model_validate(document)
    for looking in (status_job(config), report_job(config, str(tmp_path / "report.html"))):
        with pytest.raises(LedgerError, match=r"there is no ledger in .* yet"):
            await looking
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regnamespace('beatra')").fetchall() == [(None,)]


async def test_a_database_that_cannot_hold_every_text_is_refused(url: str, postgres_server: Server) -> None:
    """Better at once than when the first error message in another script comes; the hint says how to make one."""
    name = f"latin_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0".encode())
    with pytest.raises(
        LedgerError, match=r"has the encoding LATIN1.*\nHint: CREATE DATABASE … ENCODING 'UTF8'"
    ):
        await open_ledger(postgres_server.database(name))


@pytest.mark.parametrize("fast", [-900.0, 900.0])
async def test_the_databases_clock_decides(url: str, monkeypatch: pytest.MonkeyPatch, fast: float) -> None:
    """What a machine sent whose clock differs by minutes is taken over, and in doubt at its time, not at once."""
    ledger = await open_ledger(url)
    await ledger.open_run({})
    await ledger.claim([make_ask("now")])
    await ledger.close()
    elsewhere = {"wall": lambda _: time.time() + fast, "boot_id": lambda _: "another machine"}
    for name, reading in elsewhere.items():
        monkeypatch.setattr(SystemClock, name, reading)
    ledger = await open_ledger(url)
    await ledger.open_run({})
    (claim,) = await ledger.claim([make_ask("now")])
    assert (claim.verdict, claim.attempt) == ("mine", 2)
    assert claim.record is not None
    assert abs(claim.record.sent_at - time.time()) < 60
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE beatra.request SET sent_at = sent_at - %s", (DOUBT_AFTER,))
    assert (await ledger.totals()).in_doubt == 1
    await ledger.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hush@127.0.0.1:9/x", "postgresql://me@127.0.0.1:9/x"),
        ("postgresql://me:hu#s?h@127.0.0.1:9/x", "postgresql://me@127.0.0.1:9/x"),
        ("postgresql://127.0.0.1:9/x?user=me&password=hush", "postgresql://127.0.0.1:9/x"),
        (
            "postgresql://me@127.0.0.1:9,127.0.0.1:8/x?sslpassword=hush",
            "postgresql://me@127.0.0.1:9,127.0.0.1:8/x",
        ),
        ("postgresql://me@[::1]:9/x", "postgresql://me@[::1]:9/x"),
        ("postgresql://me:hu/sh@127.0.0.1:9/x", "postgresql://…"),
        ("postgresql://me:hu@sh@127.0.0.1:9/x", "postgresql://…"),
        ("postgresql://me:hu?s/h@127.0.0.1:9/x", "postgresql://…"),
        ("postgresql://me:hush@[::1/x", "postgresql://…"),
        ("postgresql://127.0.0.1:hush/x", "postgresql://…"),
        ("postgresql://me:hu%zzsh@127.0.0.1:9/x", "postgresql://me@127.0.0.1:9/x"),
        ("postgresql://127.0.0.1:9/x?hush=1", "postgresql://127.0.0.1:9/x"),
    ],
)
async def test_a_password_is_never_shown(url: str, shown: str) -> None:
    """Nor a part of one that should have been escaped: then the hint says how."""
    assert without_password(url) == shown
    with pytest.raises(LedgerError) as raised:
        await open_ledger(url)
    assert shown in raised.value.message
    assert not any(part in str(raised.value) for part in ("hu", "sh/", "sh@", "s/h"))
    assert ("%2F" in raised.value.hint) == ("taken apart" in raised.value.message)


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="there is no pgbouncer on this machine")
async def test_a_pooler_in_between(url: str, postgres_server: Server, tmp_path: Path) -> None:
    """Through PgBouncer in session mode, as it comes, a ledger is used as ever."""
    database = urlsplit(url).path[1:]
    with bouncing(postgres_server, tmp_path, database) as port:
        ledger = await open_ledger(f"postgresql://beatra@127.0.0.1:{port}/{database}")
        await ledger.open_run({})
        for number in range(10):  # from some point on its statements are prepared
            await ledger.claim([make_ask(str(number))])
            await ledger.answer(make_ask(str(number)).key, REPLY)
            await ledger.lease(b"account", LeaseRequest((SharedWindow(False, 60, 60, 1.0),), 1))
        assert (await ledger.totals()).answered == 10
        await ledger.close()


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="there is no pgbouncer on this machine")
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_hands_sessions_around_is_refused(
    url: str, postgres_server: Server, tmp_path: Path, mode: str
) -> None:
    """As the ledger is opened, in one line that names the pooler's mode; nothing is made in the database."""
    database = urlsplit(url).path[1:]
    with bouncing(postgres_server, tmp_path, database, mode) as port:
        for _ in range(3):
            with pytest.raises(LedgerError, match="through a pooler in transaction mode") as raised:
                await open_ledger(f"postgresql://beatra@127.0.0.1:{port}/{database}")
            assert "pool_mode = session" in raised.value.hint
    with pytest.raises(LedgerError, match="there is no ledger"):
        await open_ledger(url, make=False)


@contextlib.contextmanager
def bouncing(server: Server, folder: Path, database: str, mode: str = "session") -> Iterator[int]:
    """Run a pooler before a server; gives its port."""
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n{database} = host=127.0.0.1 port={server.port} user=beatra\n[pgbouncer]\nlisten_port={port}\n"
        f"listen_addr=127.0.0.1\nauth_type=any\npool_mode={mode}\nunix_socket_dir=\n",
        encoding="utf-8",
    )
    command = ["pgbouncer", "/dev/stdin"]  # its user may not read the folder
    with (
        settings.open() as given,
        subprocess.Popen(
            command, stdin=given, stderr=subprocess.PIPE, text=True, user=owner(), cwd="/"
        ) as pooler,
    ):
        assert pooler.stderr is not None
        try:
            for line in pooler.stderr:
                if "process up" in line:
                    break
            yield port
        finally:
            pooler.terminate()


SILENCE = """
import asyncio, subprocess
from enrich.errors import LedgerFailing
from enrich.ledger import postgres, postgres_database
from tests.helpers.postgres import running

async def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    postgres_database.UNHEARD, postgres_database.DATABASE_PATIENCE = 1_000, 0.0
    with running(durable=False) as server:
        ledger = await postgres.open_ledger(server.url)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        try:
            await ledger.lookup([b"k" * 16])
        except LedgerFailing:
            print("noticed")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        await ledger.close()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="it needs a network of its own")
def test_a_network_that_drops_everything_is_noticed() -> None:
    """Nobody answers and nobody refuses: a run does not wait for a quarter of an hour, as TCP would."""
    command = ["unshare", "--net", sys.executable, "-c", SILENCE]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=root)
    assert ended.stdout == "noticed\n", ended.stderr


async def test_an_account_is_named_without_its_key(url: str, postgres_server: Server) -> None:
    """The same key on the same endpoint is one account; elsewhere, or in another ledger, its name is another."""
    ledger, other = (
        await open_ledger(url),
        await open_ledger(postgres_server.create(f"salt_{uuid.uuid4().hex}")),
    )
    name = await ledger.fingerprint("https://there/v1", "sk-secret")
    assert await ledger.fingerprint("https://there/v1", "sk-secret") == name
    assert await ledger.fingerprint("https://there/v1", "sk-another") != name
    assert await ledger.fingerprint("https://elsewhere/v1", "sk-secret") != name
    assert await other.fingerprint("https://there/v1", "sk-secret") != name
    for opened in (ledger, other):
        await opened.close()
