"""Real gateways and servers in front of an endpoint that keeps books: right statuses, and charges as promised."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
import venv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, answer_to
from tests.helpers.loopback import free_port
from tests.helpers.wire import Ran, config_of, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 400  # seconds that a gateway may take until it listens, on a busy machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE)]
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  split_clients $request_id $page {{ 10% 502; 10% 503; 10% 504; 10% 429; * ""; }}
  map $content_length $long {{ default 0; "~^1[0-9][0-9][0-9]$" 1; }}
  server {{
    listen 127.0.0.1:{port};
    {server}
    location / {{ proxy_pass http://127.0.0.1:{upstream}; {location} }}
  }}
}}
"""


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path, **env: str) -> Iterator[None]:
    """Run a server until the block ends; gives once it listens."""
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **env}) as running,
    ):
        try:
            _await_port(running, port, log)
            yield
        finally:
            running.terminate()


def _await_port(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail(f"it does not listen: {log.read_text(errors='replace')[-2_000:]}")


@contextlib.contextmanager
def nginx(folder: Path, endpoint: BookedEndpoint, *, server: str = "", location: str = "") -> Iterator[str]:
    """Run nginx in front of an endpoint; gives the base URL that it serves."""
    command = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if command is None:
        pytest.skip("there is no nginx on this machine (Debian: apt-get install nginx-light)")
    port = free_port()
    settings = {"folder": folder, "port": port, "upstream": endpoint.port, "server": server}
    (folder / "nginx.conf").write_text(NGINX.format(**settings, location=location), encoding="ascii")
    given = [command, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
    with process(given, port, folder / "out.log"):
        yield f"http://127.0.0.1:{port}/v1"


def answer_after(endpoint: BookedEndpoint, seconds: float) -> None:
    """Have the endpoint answer nothing until so many seconds after the first request for a completion."""

    def wait() -> None:
        endpoint.arrived.wait(PATIENCE)
        time.sleep(seconds)
        with contextlib.suppress(RuntimeError):  # a test that failed meanwhile has closed it
            endpoint.resume()

    endpoint.pause()
    threading.Thread(target=wait, daemon=True).start()


def statuses(ran: Ran) -> Counter[str]:
    """Count the rows per status and code."""
    return Counter((row["s_error"] or row["s_status"]).partition(":")[0] for row in ran.rows)


def right(ran: Ran) -> bool:
    """Say whether every row that is ok has the answer to its own text."""
    return all(row["s"] == answer_to(row["t"]) for row in ran.rows if row["s_status"] == "ok")


TEXTS = [f"text {number}" for number in range(24)]


# --- nginx ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["kept", "dropped"])
def test_nginx_gives_up_before_the_answer_comes(tmp_path: Path, endpoint: BookedEndpoint, keys: str) -> None:
    """Its 504 is asked again under the same key; where no key reaches the endpoint, as often as `retry.unknown` says."""
    drops = "" if keys == "kept" else "proxy_set_header Idempotency-Key $request_id;"
    with nginx(tmp_path, endpoint, location=f"proxy_read_timeout 1s; {drops}") as base_url:
        answer_after(endpoint, 2.5)
        said = {"idempotent": keys == "kept"}
        ran = run(
            config_of(tmp_path, TEXTS[:6], base_url, endpoint=said, retry={"max_wait": 2, "attempts": 6})
        )
    charges = endpoint.charges_per_body
    assert right(ran)
    assert max(row["s_attempts"] for row in ran.rows) > 1
    if keys == "kept":
        assert statuses(ran) == {"ok": 6}
        assert set(charges.values()) == {1}
        return
    assert set(statuses(ran)) <= {"ok", "http_504"}
    assert max(charges.values()) <= 2  # once, and once more for an outcome that nobody knows
    assert ran.summary.perhaps_paid_twice == sum(row["s_attempts"] > 1 for row in ran.rows)


def test_nginx_pages_between_answers(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Pages of 429, 502, 503 and 504 in HTML for 40 % of all requests cost time, but no row and no second charge."""
    pages = " ".join(f"if ($page = {page}) {{ return {page}; }}" for page in (429, 502, 503, 504))
    with nginx(tmp_path, endpoint, server=pages) as base_url:
        ran = run(config_of(tmp_path, TEXTS, base_url, retry={"attempts": 30}))
    assert statuses(ran) == {"ok": len(TEXTS)}
    assert right(ran)
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.charges) == len(TEXTS) < ran.summary.attempts


def test_nginx_refuses_some_rows(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A firewall's 403 and a 413 are about their rows: those fail by name, all others are answered, nothing stops."""
    texts = [*TEXTS, "w" * 1_200, "long " * 2_000]
    server = "client_max_body_size 5k; if ($long) { return 403; }"
    with nginx(tmp_path, endpoint, server=server) as base_url:
        ran = run(config_of(tmp_path, texts, base_url))
    assert statuses(ran) == {"ok": len(TEXTS), "http_403": 1, "http_413": 1}
    assert ran.summary.exit_code == 3
    assert len(endpoint.charges) == len(TEXTS)


@pytest.mark.parametrize("size", ["4k", "64k"])
def test_nginx_takes_no_long_header(tmp_path: Path, endpoint: BookedEndpoint, size: str) -> None:
    """A header above its buffer makes a paid answer a 502: in doubt, under one key; with room for it all is well."""
    long = {"Content-Type": "application/json", "X-Policy": "a" * 9_000}
    body = json.dumps({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}).encode()
    endpoint.script = lambda seen: Raw(body, headers=long, charge=True) if b"odd" in seen.raw else None
    location = f"proxy_buffer_size {size}; proxy_buffers 8 64k; proxy_busy_buffers_size 64k;"
    with nginx(tmp_path, endpoint, location=location) as base_url:
        ran = run(config_of(tmp_path, [*TEXTS, "odd"], base_url))
    assert ran.rows[-1]["s_status"] == ("in_doubt" if size == "4k" else "ok")
    assert {row["s_status"] for row in ran.rows[:-1]} == {"ok"}
    assert set(endpoint.charges_per_body.values()) == {1}


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_nginx_passes_streams_on(tmp_path: Path, endpoint: BookedEndpoint, buffering: str) -> None:
    """Buffered or not, whole streams are answers."""
    endpoint.script = lambda seen: streamed(seen) if seen.method == "POST" else None
    with nginx(tmp_path, endpoint, location=f"proxy_buffering {buffering};") as base_url:
        ran = run(config_of(tmp_path, TEXTS, base_url, step={"stream": True}))
    assert statuses(ran) == {"ok": len(TEXTS)}
    assert right(ran)
    assert set(endpoint.charges_per_body.values()) == {1}


def streamed(seen: Seen) -> Raw:
    """Answer in events."""
    text = endpoint_text(seen)
    parts = [({"role": "assistant", "content": text[:5]}, None), ({"content": text[5:]}, None), ({}, "stop")]
    chunks = [{"model": "m", "choices": [{"index": 0, "delta": d, "finish_reason": f}]} for d, f in parts]
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return Raw(body + b"data: [DONE]\n\n", headers={"Content-Type": "text/event-stream"}, charge=True)


def endpoint_text(seen: Seen) -> str:
    """Give the answer to a request's last message."""
    return answer_to(seen.body["messages"][-1]["content"])


# --- servers that pip installs ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of console scripts with LiteLLM and llmock: BEATRA_TEST_GATEWAYS names one, else it is made."""
    given = os.environ.get("BEATRA_TEST_GATEWAYS")
    if given is not None:
        return Path(given)
    folder = tmp_path_factory.mktemp("gateways")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "litellm[proxy]", "llmock"]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=1_800, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install LiteLLM and llmock here: {done.stderr.strip()[-300:]}")
    return folder / "bin"


def unkeyed(seen: Seen) -> None:
    """Give a request without a key one of its own, so that the books have a line for each."""
    if seen.method == "POST":
        seen.headers.setdefault("idempotency-key", str(uuid.uuid4()))


@contextlib.contextmanager
def litellm(programs: Path, folder: Path, endpoint: BookedEndpoint) -> Iterator[str]:
    """Run LiteLLM's proxy in front of an endpoint."""
    port = free_port()
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": endpoint.base_url,
                "api_key": KEY,
                "timeout": 3,
            },
        }
        for name in ("served-1", "gone-1")
    ]
    (folder / "litellm.yaml").write_text(json.dumps({"model_list": models}), encoding="ascii")
    command = [
        str(programs / "litellm"),
        "--config",
        str(folder / "litellm.yaml"),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    offline = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "NO_PROXY": "127.0.0.1",
        "LITELLM_MASTER_KEY": KEY,
    }
    with process(command, port, folder / "litellm.log", **offline):
        yield f"http://127.0.0.1:{port}/v1"


NO_RETRIES = {"headers": {"x-litellm-num-retries": "0"}, "idempotent": False}


def test_litellm(programs: Path, tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Behind LiteLLM: ids, refusals of one row, waits and gone models are understood; every charge is one that was told."""
    limited: set[str] = set()

    def script(seen: Seen) -> Raw | None:
        unkeyed(seen)
        if seen.method != "POST":
            return None
        text = seen.body["messages"][-1]["content"]
        if seen.body["model"] == "gone-1":
            return refusal(404, "model_not_found", "The model `gone-1` does not exist")
        if text == "too long":
            return refusal(400, "context_length_exceeded", "maximum context length is 10 tokens")
        if text == "limited" and text not in limited:
            limited.add(text)
            return refusal(429, "rate_limit_exceeded", "slow down", {"Retry-After": "1"})
        return None

    endpoint.script = script
    texts = [*TEXTS, "too long", "limited"]
    with litellm(programs, tmp_path, endpoint) as base_url:
        step = {"model": "gone-1", "fallback_models": ["served-1"]}
        ran = run(config_of(tmp_path, texts, base_url, step=step, endpoint=NO_RETRIES))
    by_text = {row["t"]: row for row in ran.rows}
    assert [by_text[text]["s_status"] for text in TEXTS] == ["ok"] * len(TEXTS)
    assert by_text["too long"]["s_status"] == "error"
    assert by_text["limited"]["s_status"] == "ok"
    assert right(ran)
    assert None not in {row["s_request_id"] for row in ran.rows}
    assert 0 <= len(endpoint.charges) - (len(TEXTS) + 1) <= (ran.summary.perhaps_paid_twice or 0)


def refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Raw:
    """Refuse as OpenAI does."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Raw(
        json.dumps({"error": error}).encode(), status, {"Content-Type": "application/json", **(headers or {})}
    )


def test_litellm_gives_up_before_the_answer_comes(
    programs: Path, tmp_path: Path, endpoint: BookedEndpoint
) -> None:
    """It drops the keys: with its retries off, a time-out costs the one further charge that `retry.unknown` allows, and is told."""
    endpoint.script = unkeyed
    with litellm(programs, tmp_path, endpoint) as base_url:
        answer_after(endpoint, 4.5)
        config = config_of(
            tmp_path,
            TEXTS[:4],
            base_url,
            step={"model": "served-1"},
            endpoint=NO_RETRIES,
            retry={"max_wait": 1},
        )
        ran = run(config)
    assert statuses(ran) == {"ok": 4}
    assert right(ran)
    assert max(Counter(endpoint_text(seen) for seen in endpoint.posts).values()) == 2
    assert ran.summary.perhaps_paid_twice == sum(row["s_attempts"] > 1 for row in ran.rows) > 0


def test_llmock_with_faults(programs: Path, tmp_path: Path) -> None:
    """Against a server that fails at random and judges its clients: every row is ok or fails by name."""
    port = free_port()
    command = [
        str(programs / "llmock"),
        "serve",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--response-style",
        "echo",
    ]
    command += ["--error-rate", "429=0.2", "--error-rate", "500=0.1", "--error-rate", "503=0.1"]
    with process(command, port, tmp_path / "llmock.log"):
        config = config_of(
            tmp_path,
            TEXTS,
            f"http://127.0.0.1:{port}/v1",
            step={"model": "gpt-4o"},
            retry={"attempts": 20, "max_wait": 2},
        )
        ran = run(config)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=10) as listed:
            assert listed.status == 200
    assert statuses(ran) == {"ok": len(TEXTS)}
    assert all(row["t"] in row["s"] for row in ran.rows)
