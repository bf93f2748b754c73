"""Ledgers damaged in a dozen ways: no command ends as a defect, no wrong answer is served, repair gives the rest back."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from enrich.ledger.pages import INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF, Pages
from enrich.ledger.repair import REQUEST
from tests.helpers.chaos import make_job, place, violations
from tests.helpers.endpoint import BookedEndpoint, answer_to, echo
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job

    Damage = Callable[[Path, random.Random], set[int]]

ROWS = 40
SEEDS = 20  # of each kind, in the slow proof
PAGE = 4096


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


@pytest.fixture(scope="module")
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that keeps books over all of this; its answers are long, so that a ledger has many pages."""
    with BookedEndpoint(answer=lambda body: echo(body) + " word" * 200) as started:
        yield started


@pytest.fixture(scope="module")
def finished(warm: Warm, endpoint: BookedEndpoint, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that was run to its end."""
    job = make_job(tmp_path_factory.mktemp("repair") / "job", ROWS, report="report.html")
    assert warm.run(job.folder, "run", job.config, "-q", env=place(endpoint)).code == 0
    return job


# --- kinds of damage; each gives the pages it spoiled -------------------------------------------------------


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Write into a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def pages_of(path: Path, *kinds: int) -> list[int]:
    """Give the numbers of a file's pages of these kinds."""
    pages = Pages(path)
    return [number for number in range(2, pages.count + 1) if pages.page(number)[0] in kinds]


def zeroed_page(path: Path, chance: random.Random) -> set[int]:
    """A page of zeros."""
    page = chance.randrange(2, path.stat().st_size // PAGE + 1)
    overwrite(path, (page - 1) * PAGE, bytes(PAGE))
    return {page}


def noise(path: Path, chance: random.Random) -> set[int]:
    """A page of noise."""
    page = chance.randrange(2, path.stat().st_size // PAGE + 1)
    overwrite(path, (page - 1) * PAGE, chance.randbytes(PAGE))
    return {page}


def flipped_bits(path: Path, chance: random.Random) -> set[int]:
    """Bits flipped here and there."""
    places = [chance.randrange(path.stat().st_size) for _ in range(4)]
    for at in places:
        byte = path.read_bytes()[at]
        overwrite(path, at, bytes([byte ^ 1 << chance.randrange(8)]))
    return {at // PAGE + 1 for at in places}


def cut_short(path: Path, chance: random.Random) -> set[int]:
    """The file's end is gone."""
    size = path.stat().st_size
    left = chance.randrange(size // 2, size)
    with path.open("r+b") as file:
        file.truncate(left)
    return set(range(left // PAGE + 1, size // PAGE + 1))


def index_page(path: Path, chance: random.Random) -> set[int]:
    """A page of an index, or of a table without a rowid."""
    page = chance.choice(pages_of(path, INDEX_LEAF, INDEX_INTERIOR))
    overwrite(path, (page - 1) * PAGE + 20, chance.randbytes(200))
    return {page}


def leaf_page(path: Path, chance: random.Random) -> set[int]:
    """A page of lines."""
    page = chance.choice(pages_of(path, TABLE_LEAF))
    overwrite(path, (page - 1) * PAGE, bytes(PAGE))
    return {page}


def tree_page(path: Path, chance: random.Random) -> set[int]:  # there is one
    """The page from which the answers' pages hang."""
    page = pages_of(path, 0x05)[-1]
    overwrite(path, (page - 1) * PAGE, bytes(PAGE))
    return {page}


def header(path: Path, chance: random.Random) -> set[int]:
    """The file's header, and the schema behind it."""
    overwrite(path, chance.choice([0, 16, 100, 600]), chance.randbytes(64))
    return {1}


def copied_page(path: Path, chance: random.Random) -> set[int]:
    """A page written over another."""
    one, other = chance.sample(pages_of(path, TABLE_LEAF), 2)
    data = path.read_bytes()
    overwrite(path, (other - 1) * PAGE, data[(one - 1) * PAGE : one * PAGE])
    return {other}


def swapped_pages(path: Path, chance: random.Random) -> set[int]:
    """Two pages in each other's place."""
    one, other = chance.sample(pages_of(path, TABLE_LEAF), 2)
    data = path.read_bytes()
    overwrite(path, (other - 1) * PAGE, data[(one - 1) * PAGE : one * PAGE])
    overwrite(path, (one - 1) * PAGE, data[(other - 1) * PAGE : other * PAGE])
    return set()


COLUMNS = {
    "request": (
        "state",
        "run",
        "attempts",
        "sent_at",
        "boottime",
        "parent",
        "question",
        "model",
        "failure",
        "crc",
    ),
    "answer": ("run", "received_at", "latency_ms", "first_token_ms", "request_id", "streamed", "crc", "body"),
    "generation": ("n",),
    "memory": ("value",),
    "run": ("started_at", "ended_at", "info", "summary"),
}


def other_values(path: Path, chance: random.Random, values: list[object]) -> set[int]:
    """Columns with values that nobody wrote there."""
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        for table, columns in COLUMNS.items():
            for column in chance.sample(columns, 1 + len(columns) // 4):
                value = chance.choice(values)
                some = " WHERE rowid % 7 = 3" if table in {"request", "answer"} else ""
                con.execute(f"UPDATE {table} SET {column} = ?{some}", (value,))  # noqa: S608  # names of ours
    return set()


def wrong_types(path: Path, chance: random.Random) -> set[int]:
    """Texts where numbers were, numbers where texts were."""
    return other_values(path, chance, ["a text", b"\xff\xfe", 7, 1.5, "", b""])


def huge_values(path: Path, chance: random.Random) -> set[int]:
    """Numbers beyond all reason."""
    return other_values(path, chance, [2**62, -(2**62), 1e300, -1e300, 4_000_000_000, float("inf")])


KINDS: list[Damage] = [
    *(zeroed_page, noise, flipped_bits, cut_short, index_page, leaf_page, tree_page, header),
    *(copied_page, swapped_pages, wrong_types, huge_values),
]


# --- what must hold -----------------------------------------------------------------------------------------


def a_copy(job: Job, folder: Path) -> Job:
    """Copy a finished job; its output and report are left out."""
    shutil.copytree(
        job.folder, folder, ignore=shutil.ignore_patterns("out.parquet", "report.html", "*.whole")
    )
    return type(job)(folder, job.texts, folder / "config.yaml")


LOOKING = (
    ("status", "{config}"),
    ("status", "{config}", "--json"),
    ("plan", "{config}", "-q"),
    ("report", "{config}"),
    ("collect", "{config}", "-q", "-o", "{folder}/so-far.parquet"),
    ("ledger", "ls", "{ledger}"),
    ("ledger", "ls", "{ledger}", "--json"),
    ("ledger", "verify", "{ledger}"),
    ("ledger", "export", "{ledger}", "-o", "{folder}/all.parquet"),
)


def hold(
    warm: Warm, endpoint: BookedEndpoint, finished: Job, folder: Path, *, damage: Damage, seed: int
) -> None:
    """Damage a copy of a ledger and see what becomes of it."""
    job = a_copy(finished, folder)
    sound = set(answer_ids(job.ledger))
    spoiled = damage(job.ledger, random.Random(seed))
    on_spoiled = {
        line.number
        for page in spoiled
        for line in Pages(finished.ledger)._cells(page, {TABLE_LEAF})
        if len(line.values) == 9  # of an answer
    }
    charged, env = len(endpoint.charges), place(endpoint)
    names = {"config": job.config, "folder": job.folder, "ledger": job.ledger}
    for command in LOOKING if seed > len(KINDS) else LOOKING[seed % 3 :: 3]:
        ended = warm.run(job.folder, *(word.format(**names) for word in command), env=env)
        assert ended.code in (0, 2, 4), (command, ended)
        assert "Traceback" not in ended.err
        assert ended.code == 0 or "Hint:" in ended.err or "NOT sound" in ended.out, (command, ended)
    assert served_right(job, job.folder / "so-far.parquet")
    new = job.folder / "new.db"
    mended = warm.run(job.folder, "ledger", "repair", job.ledger, "-o", new)
    assert mended.code == 0, mended
    assert new.stat().st_mode & 0o777 == 0o600
    assert set(answer_ids(new)) >= sound - on_spoiled - spoiled_by_values(job.ledger), mended
    assert warm.run(job.folder, "ledger", "verify", new).code == 0
    again = warm.run(job.folder, "run", job.config, "-q", "--set", f"ledger={new}", env=env)
    assert again.code == 0, again
    assert len(endpoint.charges) == charged  # what was lost came under its key
    assert served_right(job, job.output)


def answer_ids(ledger: Path) -> list[int]:
    """Give the numbers of the answers in a ledger."""
    with contextlib.closing(sqlite3.connect(ledger)) as con:
        return [number for (number,) in con.execute("SELECT id FROM answer")]


def spoiled_by_values(ledger: Path) -> set[int]:
    """Give the numbers of answers whose own values were written over, with their requests'."""
    return {number for number in range(ROWS + 1) if number % 7 == 3}


def served_right(job: Job, output: Path) -> bool:
    """Say whether every answer in an output is its row's."""
    if not output.exists():
        return True
    rows = pq.read_table(output).to_pylist()
    return all(row["s"] is None or row["s"] == answer_to(row["t"]) + " word" * 200 for row in rows)


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_a_damaged_ledger_is_never_a_defect_and_is_repaired(
    warm: Warm, endpoint: BookedEndpoint, finished: Job, tmp_path: Path, damage: Damage
) -> None:
    """Every command ends in words; repair gives all but the damaged pages' lines back; nothing is paid again."""
    hold(warm, endpoint, finished, tmp_path / "job", damage=damage, seed=KINDS.index(damage))


@pytest.mark.timeout(60)
def test_requests_that_changed_places_lead_nobody_round_in_circles(
    warm: Warm, finished: Job, tmp_path: Path
) -> None:
    """Where the first and the last page of requests are swapped, every command ends, and says what is damaged."""
    job = a_copy(finished, tmp_path / "job")
    pages = Pages(job.ledger)
    of_requests = [
        number
        for number in pages_of(job.ledger, TABLE_LEAF)
        if any(len(line.values) == REQUEST[-1] for line in pages._cells(number, {TABLE_LEAF}))
    ]
    first, last = of_requests[0], of_requests[-1]
    assert first != last
    overwrite(job.ledger, (first - 1) * PAGE, pages.page(last))
    overwrite(job.ledger, (last - 1) * PAGE, pages.page(first))
    names = {"config": job.config, "folder": job.folder, "ledger": job.ledger}
    for command in LOOKING:
        ended = warm.run(job.folder, *(word.format(**names) for word in command))
        assert ended.code in (0, 2, 4), (command, ended)
        assert "Traceback" not in ended.err
    told = warm.run(job.folder, "ledger", "verify", job.ledger)
    assert (told.code, "not in the order of their numbers" in told.out) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_many_damaged_ledgers(
    warm: Warm, endpoint: BookedEndpoint, finished: Job, tmp_path: Path, damage: Damage
) -> None:
    """The same, for many of each kind."""
    for seed in range(len(KINDS) + 1, len(KINDS) + 1 + SEEDS):
        hold(warm, endpoint, finished, tmp_path / f"job-{seed}", damage=damage, seed=seed)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("run.summary", b""),
        ("run.summary", 7),
        ("run.started_at", "a text"),
        ("run.ended_at", float("inf")),
        ("request.sent_at", float("inf")),
        ("request.attempts", float("inf")),
        ("answer.latency_ms", "a text"),
        ("answer.latency_ms", float("inf")),
        ("answer.first_token_ms", b"bytes"),
        ("answer.received_at", "a text"),
        ("answer.received_at", -1e300),
        ("answer.streamed", "a text"),
    ],
)
def test_a_damaged_value_is_told(
    warm: Warm, finished: Job, tmp_path: Path, column: str, value: object
) -> None:
    """Of a run, or a number beyond all numbers: no command ends as a defect, and verify names it."""
    job = a_copy(finished, tmp_path / "job")
    table, _, name = column.partition(".")
    with contextlib.closing(sqlite3.connect(job.ledger)) as con, con:
        con.execute(f"UPDATE {table} SET {name} = ?", (value,))  # noqa: S608  # names of ours
    names = {"config": job.config, "folder": job.folder, "ledger": job.ledger}
    looked = {
        command: warm.run(job.folder, *(word.format(**names) for word in command))
        for command in LOOKING
        if command[0] in {"status", "ledger", "report"}
    }
    assert all(ended.code in {0, 2, 4} for ended in looked.values()), looked
    told = looked["ledger", "verify", "{ledger}"].out
    assert ("what is kept of run 1 is not what was written" if table == "run" else "damaged request") in told


def test_repair_keeps_what_is_there(warm: Warm, finished: Job) -> None:
    """Exit 2: the new file is another's; a database is none of ours to mend."""
    ended = warm.run(finished.folder, "ledger", "repair", finished.ledger, "-o", finished.config)
    assert ended.code == 2
    assert "is there already" in ended.err
    ended = warm.run(finished.folder, "ledger", "repair", "postgresql://here/x", "-o", "new.db")
    assert ended.code == 2
    assert "the database's own tools" in ended.err


def test_repair_of_a_sound_ledger_loses_nothing(
    warm: Warm, endpoint: BookedEndpoint, finished: Job, tmp_path: Path
) -> None:
    """Every request, answer, failure, run and note is carried over."""
    new = tmp_path / "new.db"
    ended = warm.run(finished.folder, "ledger", "repair", finished.ledger, "-o", new)
    assert ended.out.startswith(
        f"{ROWS} requests and {ROWS} answers given back, 0 failures of the log, 1 run\n→ "
    )
    with (
        contextlib.closing(sqlite3.connect(finished.ledger)) as one,
        contextlib.closing(sqlite3.connect(new)) as two,
    ):
        for table in ("request", "answer", "failure", "generation", "memory", "run"):
            query = f"SELECT * FROM {table} ORDER BY 1"  # noqa: S608  # a name of ours
            assert one.execute(query).fetchall() == two.execute(query).fetchall()
    assert violations(finished, endpoint) != []  # the answers here are longer than those that it looks for


def test_what_is_lost_and_old_is_in_doubt(
    warm: Warm, endpoint: BookedEndpoint, finished: Job, tmp_path: Path
) -> None:
    """A request of which the key alone is left is no new one: after 23 hours nobody sends it but the operator."""
    job = a_copy(finished, tmp_path / "job")
    with contextlib.closing(sqlite3.connect(job.ledger)) as con, con:
        con.execute("UPDATE run SET started_at = started_at - 90000")
        con.execute("DELETE FROM answer WHERE id < 6")
        con.execute("UPDATE request SET body = x'00' WHERE id < 6")
    new = tmp_path / "new.db"
    ended = warm.run(job.folder, "ledger", "repair", job.ledger, "-o", new)
    assert "5 requests known by key alone" in ended.out
    posts = len(endpoint.posts)
    run = warm.run(job.folder, "run", job.config, "-q", "--set", f"ledger={new}", env=place(endpoint))
    assert run.code == 3
    assert pq.read_table(job.output).column("s_status").to_pylist().count("in_doubt") == 5
    assert len(endpoint.posts) == posts
