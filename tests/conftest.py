"""What several test modules share: a clean environment, an endpoint that keeps books, the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import settings
from platformdirs import user_cache_path

from enrich.wire import client as client_module
from tests.helpers.endpoint import KEY, BookedEndpoint
from tests.helpers.postgres import Server, find_binaries, running
from tests.helpers.warm import Ended, Warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(sys.executable).parent / "beatra-enrich"  # as pip installs it
SCRUBBED = ("BEATRA_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT")

# A red CI must mean that the change broke something: there the examples are the same every time, elsewhere drawn anew.
# No example has a deadline: a machine with much to do breaks nothing.
settings.register_profile("ours", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("ours")


def scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings of who runs the tests out of the environment."""
    for name in list(os.environ):
        if name.upper().startswith(SCRUBBED):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of who runs it."""
    scrub(monkeypatch)


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ledgers and locks that nobody names lie in a folder of these tests, not in the home of who runs them; pip's cache stays."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CACHE_DIR", os.environ.get("PIP_CACHE_DIR") or str(user_cache_path("pip")))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that keeps books, on loopback."""
    with BookedEndpoint() as server:
        yield server


@pytest.fixture(params=["line", "aiohttp"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test states holds for requests on lines of our own, and for those that go aiohttp's way."""
    if request.param == "aiohttp":
        monkeypatch.setattr(client_module, "goes_by_lines", lambda _: False)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A process that has imported everything and forks command lines, in a clean environment."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        scrub(monkeypatch)
        with Warm() as process:
            yield process


@pytest.fixture
def cli(tmp_path: Path, warm: Warm) -> Callable[..., Ended]:
    """Run the command line in a process of its own, in the test's folder.

    With ``script=True`` it is the installed console script, from its first import on; else a fork that has imported
    everything already, which saves a second.
    """

    def run(
        *args: str | Path, endpoint: BookedEndpoint | None = None, script: bool = False, **env: str
    ) -> Ended:
        there = {} if endpoint is None else {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
        if script:
            done = subprocess.run(
                [SCRIPT, *args],
                cwd=tmp_path,
                env={**os.environ, **there, **env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            ended = Ended(done.returncode, done.stdout, done.stderr)
        else:
            ended = warm.run(tmp_path, *args, env={**there, **env})
            for name in ("stdout", "stderr"):
                (tmp_path / name).unlink()
        assert "Traceback" not in ended.err, ended.err
        return ended

    return run


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Path]:
    """Write a job into the test's folder: one step `s` over a column `t`, unless told otherwise."""

    def write(rows: list[dict[str, Any]] | None = None, **config: Any) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        given = [{"t": "one"}, {"t": "two"}, {"t": "three"}] if rows is None else rows
        pq.write_table(pa.Table.from_pylist(given), tmp_path / "in.parquet")
        step = {"name": "s", "prompt": "{{ t }}", **config.pop("step", {})}
        document = {"input": "in.parquet", "output": "out.parquet", "steps": [step], **config}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Run a real PostgreSQL."""
    if find_binaries() is None:
        pytest.skip("there is no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    with running(durable=False) as server:  # after a crash it would sync every database that a test has made
        yield server
