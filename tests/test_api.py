"""`enrich.run`: what may be given to it, and how it ends when somebody ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import enrich
from tests.helpers.endpoint import KEY, BookedEndpoint, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TERMINATED = """
import signal, sys, enrich
class Terminated(BaseException): pass
def handler(number, frame): raise Terminated
signal.signal(signal.SIGTERM, handler)
try:
    enrich.run("config.yaml", drain=5)
except Terminated:
    print("terminated")
"""


def given(config: Path, form: str) -> Any:
    """Give a configuration as a path, its content, or loaded."""
    document = yaml.safe_load(config.read_text())
    document |= {name: str(config.parent / document[name]) for name in ("input", "output")}
    return {"path": config, "mapping": document, "Config": enrich.load_config(config)}[form]


@pytest.mark.parametrize("form", ["path", "mapping", "Config"])
def test_flags_and_overrides_hold_however_the_configuration_is_given(
    job: Callable[..., Path], endpoint: BookedEndpoint, form: str, tmp_path: Path
) -> None:
    """Overrides, another output, base URL and key reach the run; what was given is not changed."""
    config = given(job(), form)
    before = repr(config)
    summary = enrich.run(
        config,
        overrides=["steps.s.model=fast-1"],
        output=str(tmp_path / "other.parquet"),
        base_url=endpoint.base_url,
        api_key=KEY,
    )
    assert (summary.statuses["ok"], summary.output) == (3, str(tmp_path / "other.parquet"))
    assert {post.body["model"] for post in endpoint.posts} == {"fast-1"}
    assert repr(config) == before


def test_a_key_that_is_given_goes_before_a_file(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """The argument is used, and a key file that is not there is not looked for."""
    config = job(endpoint={"base_url": endpoint.base_url, "api_key_file": "none"})
    assert enrich.run(config, api_key=KEY).exit_code == 0


@pytest.mark.parametrize(
    ("code", "status", "resumable"), [("invalid_api_key", 401, False), ("down", 503, True)]
)
def test_a_summary_says_whether_starting_again_may_help(
    job: Callable[..., Path], endpoint: BookedEndpoint, code: str, status: int, *, resumable: bool
) -> None:
    """After an outage a scheduler may start the job again; a refused key needs somebody first."""
    endpoint.script = lambda seen: (
        envelope(code, status, retryable=resumable) if seen.method == "POST" else None
    )
    config = job(
        [{"t": f"text {n}"} for n in range(40)], retry={"attempts": 1, "max_wait": 0.01, "deadline": 1}
    )
    summary = enrich.run(config, base_url=endpoint.base_url, api_key=KEY)
    assert (summary.exit_code, summary.resumable) == (4, resumable)
    assert summary.to_dict()["resumable"] is resumable


def test_an_exception_from_a_signal_handler_stops_the_run_in_good_order(
    job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler's own exception comes out again, what was in flight is kept, and nothing is charged twice."""
    job([{"t": f"text {n}"} for n in range(600)], limits={"concurrency": 8})
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(endpoint.charges) < 100:
        threading.Event().wait(0.005)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("terminated\n", "", 0)
    charged = len(endpoint.charges)
    assert 100 <= charged < 600
    assert len(endpoint.posts) == charged
    assert enrich.run(tmp_path / "config.yaml").requests == 600 - charged
    assert set(endpoint.charges_per_body.values()) == {1}
