"""dbt: the example's Python model pays once through builds, kills and rebuilds, and its failures are dbt's own tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

duckdb = pytest.importorskip("duckdb", reason="pip install dbt-duckdb")
pytest.importorskip("dbt.adapters.duckdb", reason="pip install dbt-duckdb")

from tests.helpers.endpoint import KEY, BookedEndpoint, Seen, envelope  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.endpoint import Raw

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "dbt"
DBT = Path(sys.executable).with_name("dbt")


def judged(_: dict[str, Any]) -> str:
    """Answer as the example's schema wants it."""
    return '{"label": "pos", "score": 0.5}'


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that keeps books, on loopback."""
    with BookedEndpoint(answer=judged) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example."""
    made = ("logs", "target", ".beatra", "*.duckdb")
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns(*made)))


def reviews(project: Path, count: int) -> None:
    """Write so many reviews, all different, in the place of the example's."""
    lines = ["review_id,product,review", *(f"{n},lamp,Review {n}" for n in range(count))]
    (project / "seeds" / "reviews.csv").write_text("\n".join(lines) + "\n")


def start(project: Path, base_url: str) -> subprocess.Popen[str]:
    """Start a build."""
    return subprocess.Popen(
        [DBT, "build", "--no-use-colors", "--no-send-anonymous-usage-stats"],
        cwd=project,
        env={**os.environ, "BEATRA_BASE_URL": base_url, "BEATRA_API_KEY": KEY},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def build(project: Path, base_url: str) -> tuple[int, str]:
    """Build to the end; gives the exit code and what was said."""
    process = start(project, base_url)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def query(project: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the database that was built."""
    with duckdb.connect(str(project / "reviews.duckdb"), read_only=True) as connection:
        return list(connection.sql(sql).fetchall())


def test_the_example_builds_as_it_is(project: Path) -> None:
    """On the sandbox every model and test is fine, and the marts stand on typed columns."""
    code, said = build(project, "sandbox")
    assert (code, "ERROR=0" in said) == (0, True), said
    assert query(project, "select count(*), sum(reviews) from product_tones")[0][1] == 7
    assert query(project, "select distinct tone_source from tones where review = 'Warm light.'") == [("api",)]


def test_a_second_build_asks_nothing_and_a_new_review_is_asked_alone(
    project: Path, endpoint: BookedEndpoint
) -> None:
    """The ledger keeps the answers, whatever becomes of dbt's tables."""
    reviews(project, 20)
    for rows, charges in ((20, 20), (20, 20), (21, 21)):
        reviews(project, rows)
        (project / "reviews.duckdb").unlink(missing_ok=True)
        code, said = build(project, endpoint.base_url)
        assert code == 0, said
        assert query(project, "select count(*) from tones where tone_status = 'ok'") == [(rows,)]
        assert len(endpoint.posts) == len(endpoint.charges) == charges
    kept = [path for path in project.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_ended_in_the_middle_goes_on_for_nothing(
    project: Path, endpoint: BookedEndpoint, number: int
) -> None:
    """Whatever ends dbt while the model runs: the next build pays for the rest, and for nothing twice."""
    reviews(project, 600)
    process = start(project, endpoint.base_url)
    while len(endpoint.charges) < 50:
        threading.Event().wait(0.005)
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(number)
    process.communicate()
    assert len(endpoint.charges) < 600
    code, said = build(project, endpoint.base_url)
    assert code == 0, said
    assert query(project, "select count(*) from tones where tone_status = 'ok'") == [(600,)]
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.charges) == 600


@pytest.mark.parametrize(("failed", "code"), [(3, 0), (15, 1)])
def test_failed_rows_are_a_dbt_test(project: Path, endpoint: BookedEndpoint, failed: int, code: int) -> None:
    """A few are a warning; too many are an error, and the marts are not built."""

    def refuse(seen: Seen) -> Raw | None:
        refused = any(f'Review {n}"'.encode() in seen.raw for n in range(0, 2 * failed, 2))
        return envelope("invalid_request", 422) if seen.method == "POST" and refused else None

    endpoint.script = refuse
    reviews(project, 100)
    ended, said = build(project, endpoint.base_url)
    assert ended == code, said
    assert query(project, "select count(*) from tones where tone_status = 'error'") == [(failed,)]
    built = query(project, "select count(*) from duckdb_tables() where table_name = 'product_tones'")
    assert built == [(1 - code,)]
