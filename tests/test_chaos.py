"""Runs through weather: a proxy that breaks connections, a web server in front, everything at once."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from enrich.sandbox import FAULTS, Fault, SandboxOptions, ThreadedSandbox
from tests.helpers.chaos_proxy import ChaosProxy
from tests.helpers.loopback import free_port
from tests.helpers.wire import config_of, run
from tests.test_faults import STOPS

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = {"rate_limited_retry_after", "retry_after_date"}  # each pauses everybody for seconds
SILENT = {"stall", "slow_loris", "stream_stall"}  # each takes a whole time-out
LARGE = {"huge_body", "gzip_bomb"}  # 64 MiB each
SHARE = 0.10  # of the requests that suffer some fault
IS_CHARGED = ("ok", "truncated", "filtered", "invalid_output")


@pytest.mark.parametrize("stream", [False, True], ids=["sync", "stream"])
def test_broken_connections(tmp_path: Path, stream: bool) -> None:
    """Connections that break at any byte cost requests, never a row and never a second charge."""
    texts = [f"row {n}" for n in range(300)]
    with (
        ThreadedSandbox(SandboxOptions()) as sandbox,
        ChaosProxy(_port(sandbox.base_url), share=0.8, within=6_000, seed=7) as proxy,
    ):
        config = config_of(
            tmp_path,
            texts,
            f"http://127.0.0.1:{proxy.port}/v1",
            step={"stream": stream},
            limits={"concurrency": 16},
        )
        ran = run(config)
        statuses = Counter(ran.summary.statuses)
        resumed = run(config) if statuses["in_doubt"] else ran
    assert proxy.broken > 15
    assert [row["t"] for row in resumed.rows] == texts
    assert statuses["ok"] + statuses["in_doubt"] == 300
    assert statuses["in_doubt"] <= 15
    assert resumed.summary.statuses["ok"] >= statuses["ok"]
    assert max(tally.charges for tally in sandbox.books.bodies.values()) == 1
    assert ran.summary.attempts >= 300 + sum(ran.summary.retries.values()) - ran.summary.retries.get(
        "connect_failed", 0
    )


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])


# --- everything at once, at length -----------------------------------------------------------------------


@contextmanager
def sandbox_process(*faults: str, **options: float) -> Iterator[str]:
    """Run the sandbox in a process of its own; gives its base URL."""
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [part for fault in faults for part in ("--fault", fault)]
    command = [sys.executable, "-m", "enrich.cli", "sandbox", "--port", "0", "--latency", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait()


def books_of(base_url: str) -> dict[str, Any]:
    """Read the sandbox's books."""
    url = base_url.removesuffix("/v1") + "/sandbox/ledger"
    with urllib.request.urlopen(url) as answer:  # noqa: S310  # of the test's own making
        books: dict[str, Any] = json.load(answer)
    return books


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stream", [False, True], ids=["sync", "stream"])
def test_all_faults_at_once(tmp_path: Path, stream: bool) -> None:
    """100,000 rows with one request in ten struck by some fault: none lost, none paid for twice, each status true."""
    kinds = sorted(set(FAULTS) - set(STOPS) - LONG - SILENT - LARGE)
    rows = 100_000
    texts = [f"row {n}" for n in range(rows)]
    with sandbox_process(*(f"{kind}={SHARE / len(kinds):.6f}" for kind in kinds)) as url:
        limits = {"concurrency": 64, "adaptive": False}
        config = config_of(tmp_path, texts, url, step={"stream": stream}, limits=limits, tolerate="100%")
        started = time.monotonic()
        ran = run(config)
        took = time.monotonic() - started
        books = books_of(url)
    summary = ran.summary
    print(f"{rows:,} rows, stream={stream}: {took:,.0f} s, {summary.statuses}, {summary.retries}")  # noqa: T201
    assert summary.exit_code == 0, summary.reason
    assert [row["t"] for row in ran.rows] == texts
    assert sum(summary.statuses.values()) == rows
    assert Counter(row["s_status"] for row in ran.rows) == Counter(
        {status: count for status, count in summary.statuses.items() if count}
    )
    assert max(tally["charges"] for tally in books["keys"].values()) == 1
    assert max(tally["charges"] for tally in books["bodies"].values()) == 1
    assert summary.attempts == books["totals"]["requests"]
    assert sum(row["s_attempts"] for row in ran.rows) == summary.attempts
    for row in ran.rows:
        tally = books["keys"][row["s_idempotency_key"]]
        assert tally["requests"] == row["s_attempts"]
        if row["s_status"] in IS_CHARGED:
            assert tally["charges"] == 1
        elif row["s_status"] == "in_doubt":
            assert row["s_attempts"] >= 3
        else:
            assert row["s_status"] == "error"
    charged = sum(tally["credits"] for tally in books["keys"].values())
    unseen = sum(
        books["keys"][row["s_idempotency_key"]]["credits"] for row in ran.rows if row["s_credits"] is None
    )
    assert sum(row["s_credits"] or 0.0 for row in ran.rows) == pytest.approx(charged - unseen, rel=1e-6)


# --- a web server in front -------------------------------------------------------------------------------

NGINX = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
NGINX_CONF = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  limit_req_zone $server_addr zone=all:1m rate={rate}r/s;
  limit_req_status {status};
  upstream far {{ server 127.0.0.1:{far}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 50; keepalive_timeout 1s;
    location / {{
      limit_req zone=all burst=20 nodelay;
      proxy_pass http://far; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_read_timeout 300ms; proxy_next_upstream off;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, far: int, *, rate: int, status: int) -> Iterator[str]:
    """Run nginx in front of a port; gives the base URL."""
    port = free_port()
    folder.mkdir()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, far=far, port=port, rate=rate, status=status))
    with subprocess.Popen([str(NGINX), "-c", conf, "-p", folder, "-e", folder / "error.log"]) as process:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")
@pytest.mark.parametrize("stream", [False, True], ids=["sync", "stream"])
@pytest.mark.parametrize("status", [429, 503])
def test_behind_nginx(tmp_path: Path, stream: bool, status: int) -> None:
    """Behind nginx with a rate limit, time-outs and pages of HTML every row is answered, and none charged twice."""
    texts = [f"row {n}" for n in range(600)]
    faults = (
        Fault("stall", probability=0.01, times=1, per_key=True),
        Fault("reset_after_charge", probability=0.03, times=1, per_key=True),
        Fault("bad_gateway_html", probability=0.03, times=1, per_key=True),
    )
    with (
        ThreadedSandbox(SandboxOptions(faults=faults, latency=0.01)) as sandbox,
        nginx(tmp_path / "nginx", _port(sandbox.base_url), rate=150, status=status) as url,
    ):
        config = config_of(
            tmp_path / "job",
            texts,
            url,
            step={"stream": stream},
            limits={"concurrency": 32},
            retry={"max_wait": 1},
        )
        ran = run(config)
        resumed = run(config) if ran.summary.statuses["in_doubt"] else ran
    print(status, stream, ran.summary.statuses, ran.summary.retries, f"{ran.summary.seconds:.1f} s")  # noqa: T201
    assert [row["t"] for row in resumed.rows] == texts
    assert resumed.summary.statuses["ok"] == 600, resumed.summary.reason
    assert max(tally.charges for tally in sandbox.books.bodies.values()) == 1
    assert ran.summary.retries["rate_limited" if status == 429 else "http_503"] > 0
    assert ran.summary.retries["http_502"] > 0
