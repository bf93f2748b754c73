"""A damaged ledger: what was paid for is fetched again for nothing or in doubt, never served wrong, never paid twice."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from typing import TYPE_CHECKING

import pytest

from enrich.config import load_config
from enrich.runs.options import RunOptions
from enrich.runs.retry import retry_job
from enrich.runs.run import run_job
from tests.helpers.chaos import make_job, place, violations
from tests.helpers.endpoint import BookedEndpoint, Raw
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.endpoint import Seen

ROWS = 12
FLIPS = 8  # in the default suite
MANY_FLIPS = 400


class LaterClock:
    """The time so many hours from now, on a machine that was not switched off."""

    def __init__(self, hours: float) -> None:
        self._seconds = hours * 3600

    def wall(self) -> float:
        """Give the seconds since the epoch."""
        return 1.7e9 + self._seconds

    def boottime(self) -> float:
        """Give the seconds since the start."""
        return 1e5 + self._seconds

    def boot_id(self) -> str:
        """Give the start's name."""
        return "one"


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


def finished(warm: Warm, folder: Path, endpoint: BookedEndpoint) -> Job:
    """Make a job and run it to its end."""
    job = make_job(folder / "job", ROWS)
    assert warm.run(job.folder, "run", job.config, "-q", env=place(endpoint)).code == 0
    return job


def flip(path: Path, place: int, bit: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def damage(warm: Warm, folder: Path, flips: int) -> tuple[int, int]:
    """Flip single bits anywhere in a finished ledger, a fresh copy each time; gives how many runs ended 0, and 2."""
    chance = random.Random(1)
    codes = {0: 0, 2: 0}
    with BookedEndpoint() as endpoint:
        job = finished(warm, folder, endpoint)
        sound = job.ledger.read_bytes()
        for _ in range(flips):
            job.output.unlink(missing_ok=True)
            for path in job.ledger.parent.glob(f"{job.ledger.name}*"):
                path.unlink()
            job.ledger.write_bytes(sound)
            where = chance.randrange(len(sound))
            flip(job.ledger, where, chance.randrange(8))
            ended = warm.run(job.folder, "run", job.config, "-q", env=place(endpoint))
            assert ended.code in codes, (where, ended)
            codes[ended.code] += 1
            if ended.code == 0:
                assert violations(job, endpoint) == [], where
            else:
                assert str(job.ledger) in ended.err
                assert "Hint:" in ended.err
                assert not job.output.exists()
            assert len(endpoint.charges) == ROWS
    return codes[0], codes[2]


def test_a_flipped_bit_is_never_served(warm: Warm, tmp_path: Path) -> None:
    """Whichever bit flips: the output is right and nothing was paid for it, or the ledger is refused."""
    right, refused = damage(warm, tmp_path, FLIPS)
    assert right + refused == FLIPS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_flipped_bits_are_never_served(warm: Warm, tmp_path: Path) -> None:
    """The same, for many bits."""
    right, _ = damage(warm, tmp_path, MANY_FLIPS)
    assert right > MANY_FLIPS / 4  # most of a ledger is bodies, and space


def spoil_an_answer(job: Job) -> bytes:
    """Flip a bit within a stored answer's text; gives the request's key."""
    with contextlib.closing(sqlite3.connect(job.ledger)) as con, con:
        number, key = con.execute("SELECT id, key FROM request LIMIT 1 OFFSET 3").fetchone()
        (body,) = con.execute("SELECT body FROM answer WHERE id = ?", (number,)).fetchone()
        at = body.index(b'"content"') + 15
        body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        con.execute("UPDATE answer SET body = ? WHERE id = ?", (body, number))
    return bytes(key)


def test_a_damaged_answer_is_fetched_again_for_nothing(warm: Warm, tmp_path: Path) -> None:
    """`verify` names it; the next run asks once more, under the key, and gets what was paid for."""
    with BookedEndpoint() as endpoint:
        job = finished(warm, tmp_path, endpoint)
        spoil_an_answer(job)
        found = warm.run(job.folder, "ledger", "verify", job.config)
        assert found.code == 2
        assert "damaged answer" in found.out
        assert "NOT sound" in found.out
        assert warm.run(job.folder, "run", job.config, "-q", env=place(endpoint)).code == 0
        assert violations(job, endpoint) == []
        assert len(endpoint.posts) == ROWS + 1
        assert warm.run(job.folder, "ledger", "verify", job.config).code == 0


async def run_later(job: Job, hours: float, how: str | None = None) -> list[str]:
    """Run a job so many hours later, the operator's word on what is in doubt first; gives the rows' statuses."""
    options = RunOptions(clock=LaterClock(hours))
    config = load_config(job.config)
    if how is None:
        await run_job(config, options)
    else:
        await retry_job(how)(config, options)  # type: ignore[arg-type]  # a literal
    return [str(status) for status in job.table().column("s_status").to_pylist()]


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[BookedEndpoint]:
    """An endpoint for runs in this process."""
    with BookedEndpoint() as endpoint:
        for name, value in place(endpoint).items():
            monkeypatch.setenv(name, value)
        yield endpoint


async def test_an_old_damaged_answer_is_in_doubt(tmp_path: Path, far: BookedEndpoint) -> None:
    """Where the endpoint may have forgotten the key, nothing is sent: the operator decides."""
    job = make_job(tmp_path / "job", ROWS)
    await run_later(job, 0)
    spoil_an_answer(job)
    assert (await run_later(job, 23.1)).count("in_doubt") == 1
    assert len(far.posts) == ROWS


# --- what is left without an answer ------------------------------------------------------------------------


def losing(seen: Seen) -> Raw | None:
    """Charge, and cut the answer off."""
    return Raw(b"{" + b" " * 80, cut=8, charge=True) if seen.method == "POST" else None


async def lost(job: Job, endpoint: BookedEndpoint) -> None:
    """Run a job that is charged for everything and gets nothing."""
    endpoint.script = losing
    assert set(await run_later(job, 0)) == {"in_doubt"}
    endpoint.script = None
    assert len(endpoint.charges) == len(job.texts)


async def test_within_the_window_a_lost_answer_is_fetched_for_nothing(
    tmp_path: Path, far: BookedEndpoint
) -> None:
    """The same key, the same bytes from the ledger; nothing is charged again."""
    job = make_job(tmp_path / "job", 3)
    await lost(job, far)
    assert await run_later(job, 22.9) == ["ok"] * 3
    assert violations(job, far) == []
    assert len({(seen.key, seen.raw) for seen in far.posts}) == 3


async def test_the_stored_bytes_are_sent_not_new_ones(tmp_path: Path, far: BookedEndpoint) -> None:
    """What is sent again comes from the ledger, byte for byte: not from rendering the row once more."""
    job = make_job(tmp_path / "job", 1)
    await lost(job, far)
    with contextlib.closing(sqlite3.connect(job.ledger)) as con, con:
        import zlib

        key, body = con.execute("SELECT key, body FROM request").fetchone()
        other = body.replace(b'"model":"auto"', b'"model": "auto"')  # the same request, written otherwise
        con.execute("UPDATE request SET body = ?, crc = ?", (other, zlib.crc32(other, zlib.crc32(key))))
    await run_later(job, 1)
    assert far.posts[-1].raw == other
    assert far.conflicts  # the endpoint noticed as well


@pytest.mark.parametrize(
    ("how", "statuses", "charges"),
    [(None, {"in_doubt"}, 3), ("skip", {"skipped"}, 3), ("resend", {"ok"}, 3)],
)
async def test_after_the_window_the_operator_decides(
    tmp_path: Path, far: BookedEndpoint, how: str | None, statuses: set[str], charges: int
) -> None:
    """After 23 hours a run sends nothing; `skip` gives the rows up, `resend` sends them under their keys."""
    job = make_job(tmp_path / "job", 3)
    await lost(job, far)
    sent = len(far.posts)
    assert set(await run_later(job, 23.1)) == {"in_doubt"}
    assert len(far.posts) == sent
    assert set(await run_later(job, 23.2, how)) == statuses
    assert len(far.posts) == sent + 3 * (how == "resend")
    assert len(far.charges) == charges
    assert set(await run_later(job, 50)) == statuses


# --- what is no ledger of ours -----------------------------------------------------------------------------


def another_database(path: Path) -> None:
    """Make somebody else's database."""
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        con.execute("CREATE TABLE customers (name TEXT)")


def a_newer_ledger(path: Path) -> None:
    """Make what a later version of this program might."""
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA user_version = 99")
        con.execute(f"PRAGMA application_id = {0x42656C31}")
        con.execute("CREATE TABLE request (id INTEGER)")


def a_text(path: Path) -> None:
    """Write prose."""
    path.write_text("This is no database. " * 500, encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (another_database, "no ledger"),
        (a_newer_ledger, "pip install --upgrade beatra-enrich"),
        (a_text, "no ledger"),
    ],
)
def test_what_is_no_ledger_of_ours_is_left_alone(warm: Warm, tmp_path: Path, make: object, says: str) -> None:
    """Exit 2, a message that says what it is; the file stays as it was and nothing is sent."""
    job = make_job(tmp_path / "job", 2, ledger="other.db")
    path = job.folder / "other.db"
    make(path)  # type: ignore[operator]  # one of the above
    before = path.read_bytes()
    with BookedEndpoint() as endpoint:
        ended = warm.run(job.folder, "run", job.config, "-q", env=place(endpoint))
        assert ended.code == 2
        assert says in ended.err
        assert not endpoint.posts
    assert path.read_bytes() == before
