"""`ledger ls|export|verify|prune` by command line, on a ledger with answers, failures and open requests."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import psycopg
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import ConfigError
from enrich.verbs.ledger import EXPORT, ledger_location, parse_age
from tests.helpers.chaos import make_job, place
from tests.helpers.endpoint import BookedEndpoint, Raw, answer_to, envelope
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.endpoint import Seen
    from tests.helpers.postgres import Server


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def job(request: pytest.FixtureRequest, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of 5 rows, on a ledger of each kind, for those who only look: workers may take the tests in any order."""
    return _job(request, warm, tmp_path_factory.mktemp("tools"))


@pytest.fixture(params=["sqlite", "postgres"])
def own_job(request: pytest.FixtureRequest, warm: Warm, tmp_path: Path) -> Job:
    """The same for a test that changes its ledger."""
    return _job(request, warm, tmp_path)


def _job(request: pytest.FixtureRequest, warm: Warm, folder: Path) -> Job:
    """Make and run a job of 5 rows: 3 answered, 1 refused for good, 1 lost on the way."""

    def script(seen: Seen) -> Raw | None:
        if b"row 1" in seen.raw:
            return envelope("invalid_request", 400, message="no such thing")
        return Raw(b"{" + b" " * 80, cut=8, charge=True) if b"row 3" in seen.raw else None

    config = {}
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres_server")
        config["ledger"] = server.create(f"tools_{uuid.uuid4().hex}")
    job = make_job(folder / "job", 5, **config)
    with BookedEndpoint(script=script) as endpoint:
        assert warm.run(job.folder, "run", job.config, "-q", env=place(endpoint)).code == 3
    return job


@pytest.fixture
def location(job: Job) -> str:
    """The ledger's own file or URL."""
    return yaml.safe_load(job.config.read_text(encoding="utf-8")).get("ledger") or str(job.ledger)


def test_ls_lists_every_request(warm: Warm, job: Job, location: str) -> None:
    """A line each, by configuration or file, as text or JSON, all or some states."""
    by_config = warm.run(job.folder, "ledger", "ls", job.config)
    assert by_config.code == 0
    assert len(by_config.out.splitlines()) == 1 + 5
    assert "invalid_request: no such thing" in by_config.out
    by_file = warm.run(job.folder, "ledger", "ls", location, "--json")
    lines = [json.loads(line) for line in by_file.out.splitlines()]
    assert sorted(line["state"] for line in lines) == ["answered"] * 3 + ["failed", "sent"]
    some = warm.run(job.folder, "ledger", "ls", location, "--json", "--state", "failed,sent")
    assert [json.loads(line) for line in some.out.splitlines()] == [
        line for line in lines if line["state"] != "answered"
    ]


def test_an_unknown_state_is_named(warm: Warm, job: Job, location: str) -> None:
    """Exit 2 and the states there are."""
    ended = warm.run(job.folder, "ledger", "ls", location, "--state", "done")
    assert ended.code == 2
    assert "answered" in ended.err


def test_export_keeps_the_raw_bytes(warm: Warm, job: Job) -> None:
    """Every request is there, with what was sent and what came."""
    ended = warm.run(job.folder, "ledger", "export", job.config, "-o", "all.parquet")
    assert ended.code == 0, ended
    assert ended.out.startswith("5 requests")
    table = pq.read_table(job.folder / "all.parquet")
    assert table.schema.names == EXPORT.names
    rows = {json.loads(row["request"])["messages"][-1]["content"]: row for row in table.to_pylist()}
    assert set(rows) == set(job.texts)
    for text, row in rows.items():
        if row["state"] == "answered":
            assert row["text"] == answer_to(text)
            assert json.loads(row["answer"])["choices"][0]["message"]["content"] == row["text"]
        else:
            assert row["answer"] is None
            assert row["error"]


def test_verify_finds_a_sound_ledger_sound(warm: Warm, job: Job, location: str) -> None:
    """Exit 0, and how much was checked."""
    ended = warm.run(job.folder, "ledger", "verify", location)
    assert ended.code == 0
    assert ended.out.splitlines() == ["5 requests, 3 answers", "sound: every checksum holds"]


def test_prune_never_touches_what_is_sent(warm: Warm, own_job: Job) -> None:
    """Young requests stay; old ones go, but for the one whose outcome is not known."""
    assert (
        "0 requests forgotten"
        in warm.run(own_job.folder, "ledger", "prune", own_job.config, "--older-than", "1h").out
    )
    assert (
        "4 requests forgotten"
        in warm.run(own_job.folder, "ledger", "prune", own_job.config, "--older-than", "0s").out
    )
    left = warm.run(own_job.folder, "ledger", "ls", own_job.config, "--json")
    assert [json.loads(line)["state"] for line in left.out.splitlines()] == ["sent"]


def test_a_ledger_that_is_not_there_is_not_made(warm: Warm, job: Job) -> None:
    """Exit 2; looking at a ledger never creates one."""
    ended = warm.run(job.folder, "ledger", "verify", "nowhere.db")
    assert ended.code == 2
    assert "there is no ledger at nowhere.db" in ended.err
    assert not (job.folder / "nowhere.db").exists()


def test_a_database_without_a_ledger_stays_as_it_is(warm: Warm, job: Job, postgres_server: Server) -> None:
    """Exit 2; looking at a database never makes tables there, and its password is not shown."""
    url = postgres_server.create(f"bare_{uuid.uuid4().hex}").replace("beatra@", "beatra:hidden-word@")
    ended = warm.run(job.folder, "ledger", "verify", url)
    assert ended.code == 2
    assert "there is no ledger in postgresql://beatra@" in ended.err
    assert "hidden-word" not in ended.err
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regnamespace('beatra')").fetchone() == (None,)


def test_damage_in_a_database_is_found(warm: Warm, job: Job, postgres_server: Server) -> None:
    """Exit 2, and the key of the answer that is not what came; a run on the ledger keeps it from being pruned."""
    url = postgres_server.create(f"damaged_{uuid.uuid4().hex}")
    with BookedEndpoint() as endpoint:
        assert (
            warm.run(job.folder, "run", job.config, "-q", "--set", f"ledger={url}", env=place(endpoint)).code
            == 0
        )
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE beatra.answer SET body = 'x' WHERE id = (SELECT min(id) FROM beatra.answer)"
        )
        connection.execute(
            "INSERT INTO beatra.run (started_at, lease_until, info) VALUES (0, 'infinity', '{}')"
        )
    ended = warm.run(job.folder, "ledger", "verify", url)
    assert ended.code == 2
    assert ended.out.splitlines()[1].startswith("damaged answer ")
    ended = warm.run(job.folder, "ledger", "prune", url, "--older-than", "0s")
    assert ended.code == 2
    assert "is using the ledger" in ended.err


def test_a_url_is_taken_as_it_is() -> None:
    """A database server's ledger is named by its URL."""
    assert ledger_location("postgresql://db/x") == "postgresql://db/x"


@given(number=st.integers(0, 999_999), unit=st.sampled_from("smhdw"))
def test_an_age_is_a_number_and_a_unit(number: int, unit: str) -> None:
    """Any whole number of any unit is read as seconds."""
    assert (
        parse_age(f"{number}{unit}") == number * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    )


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1e3d", "nan d", "3 0d", "\u0661d"])
def test_anything_else_is_no_age(text: str) -> None:
    """The message shows what was given."""
    with pytest.raises(ConfigError, match="not an age"):
        parse_age(text)
