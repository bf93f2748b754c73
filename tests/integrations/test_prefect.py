"""Prefect: the example's flow costs once what its job costs, is retried after an outage and stops when it is told to."""

from __future__ import annotations

import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

testing = pytest.importorskip("prefect.testing.utilities", reason="pip install prefect")

from prefect.settings import PREFECT_API_URL  # noqa: E402

from tests.helpers.endpoint import KEY, BookedEndpoint, out_of_service  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FLOW = EXAMPLES / "prefect" / "flow.py"
RUN = f"import runpy, pathlib; runpy.run_path({str(FLOW)!r})['tickets'](pathlib.Path('config.yaml'))"


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with testing.prefect_test_harness(server_startup_timeout=120):
            patch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())  # for processes of their own
            yield


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BookedEndpoint]:
    """An endpoint that keeps books, on loopback, which the environment names."""
    monkeypatch.chdir(tmp_path)
    with BookedEndpoint() as server:
        monkeypatch.setenv("BEATRA_BASE_URL", server.base_url)
        monkeypatch.setenv("BEATRA_API_KEY", KEY)
        yield server


def job(folder: Path, rows: int) -> Path:
    """Write a job of so many rows into a folder."""
    pq.write_table(pa.table({"t": [f"text {n}" for n in range(rows)]}), folder / "in.parquet")
    step = {"name": "s", "prompt": "{{ t }}", "model": "fast-1"}
    limits = {"concurrency": 4}
    document = {"input": "in.parquet", "output": "out.parquet", "steps": [step], "limits": limits}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return folder / "config.yaml"


def example() -> dict[str, Any]:
    """Give what the example defines."""
    return runpy.run_path(str(FLOW))


def start(folder: Path) -> subprocess.Popen[str]:
    """Run the flow in a process of its own, as a Prefect worker does."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def charged(endpoint: BookedEndpoint, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so much is in the books."""
    while len(endpoint.charges) < count:
        threading.Event().wait(0.005)
        assert process.poll() is None, process.communicate()[0]


def test_the_example_runs_as_it_is(tmp_path: Path) -> None:
    """Without key or network the flow finishes; again it asks nothing."""
    for name in ("prefect", "tickets"):
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("out", "__pycache__"))
    for requests in (23, 0):
        flow = runpy.run_path(str(tmp_path / "prefect" / "flow.py"))["tickets"]
        summary = flow()
        assert (summary["ok"], summary["requests"]) == (24, requests)


def test_a_retry_after_an_outage_goes_on(
    tmp_path: Path, endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint goes out of service in the middle; the task's retries ask the rest, and nothing is charged twice."""
    monkeypatch.setattr("enrich.engine.outage.PATIENCE", 0.2)  # instead of five minutes
    out_of_service(endpoint, after=60, seconds=2)
    ask = example()["ask"].with_options(retries=9, retry_delay_seconds=1)
    summary = ask(job(tmp_path, 120), [])
    assert (summary["ok"], summary["requests"]) == (120, 60)
    assert set(endpoint.charges_per_body.values()) == {1}


def test_what_only_a_person_can_mend_is_not_retried(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A spent budget and a wrong configuration fail at once."""
    config, found = job(tmp_path, 10), example()
    with pytest.raises(found["Unfinished"], match="budget"):
        found["ask"](config, ["budget.requests=4"])
    assert len(endpoint.posts) == 4
    with pytest.raises(found["enrich"].ConfigError, match="stps"):
        found["ask"](config, ["stps=1"])


def test_a_cancelled_run_drains(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """SIGTERM, as a worker sends it: what was in flight is kept, nothing more is sent, the next run goes on."""
    job(tmp_path, 800)
    process = start(tmp_path)
    charged(endpoint, 100, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0, said
    before = len(endpoint.posts)
    assert before == len(endpoint.charges) < 800
    process = start(tmp_path)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(endpoint.posts) == 800
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_killed_run_is_resumed_for_nothing(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """SIGKILL in the middle: the next run pays for the rest and for nothing twice; a third asks nothing."""
    config = job(tmp_path, 800)
    process = start(tmp_path)
    charged(endpoint, 100, process)
    process.kill()
    said, _ = process.communicate()
    assert len(endpoint.charges) < 800
    flow = example()["tickets"]
    assert flow(config)["ok"] == 800
    assert set(endpoint.charges_per_body.values()) == {1}
    posts = len(endpoint.posts)
    assert flow(config)["requests"] == 0
    assert len(endpoint.posts) == posts
    assert KEY not in said
