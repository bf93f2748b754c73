"""Who may ask the live page, and what it answers: over real sockets, beside a real run."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from enrich.base.interrupt import Interrupt
from enrich.config import load_config
from enrich.errors import ConfigError
from enrich.live.server import LivePage
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.show.watch import Watch
from tests.helpers.endpoint import KEY, BookedEndpoint
from tests.helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every job in this module is for the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Ask with these headers, as no browser would let a page; `Host` in place of the right one."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    with contextlib.closing(
        http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
    ) as line:
        line.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            line.putheader(name.replace("_", "-"), value)
        line.endheaders()
        with line.getresponse() as response:
            return response.status, response.read(), dict(response.getheaders())


async def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Ask from a thread."""
    return await asyncio.to_thread(lambda: asked(url, method, **headers))


async def state_of(page: LivePage, after: int = 0) -> Any:
    """Give what a browser is told."""
    status, body, _ = await ask(f"{page.url}state?after={after}")
    assert status == 200
    return json.loads(body)


async def told_when(page: LivePage, wanted: Callable[[Any], bool]) -> Any:
    """Ask as a browser does until it is told this."""
    while not wanted(told := await state_of(page)):  # noqa: ASYNC110  # as the page itself does
        await asyncio.sleep(0.1)
    return told


async def test_only_its_own_page_may_ask(job: Callable[..., Path]) -> None:
    """Without the token, by another host's name or from another page there is nothing to be had, and nothing to stop."""
    stopped: list[bool] = []
    async with LivePage(load_config(job()), watch=Watch(), stop=lambda: stopped.append(True)) as page:
        parts = urlsplit(page.url)
        assert parts.hostname == "127.0.0.1"
        bare = f"http://{parts.netloc}"
        for path in ("/", "/state", "/x/", f"{parts.path[:-2]}/state", f"{parts.path}x/state"):
            assert (await ask(bare + path))[0] == 404
        for host in ("evil.example", f"evil.example:{parts.port}", "127.0.0.1.evil.example", "", "0.0.0.0"):  # noqa: S104
            for method, path in (("GET", ""), ("GET", "state"), ("POST", "stop")):
                assert (await ask(page.url + path, method, Host=host))[0] in (400, 403), (host, path)
        stop = f"{page.url}stop"
        assert (await ask(stop, "POST", Origin="http://evil.example"))[0] == 403
        assert (await ask(stop, "POST", Origin="null"))[0] == 403
        assert (await ask(stop, "POST", Sec_Fetch_Site="cross-site"))[0] == 403
        assert (await ask(stop, "GET"))[0] == 405
        assert (await ask(f"{bare}/wrong/stop", "POST"))[0] == 404
        assert stopped == []
        assert (await ask(stop, "POST", Origin=bare, Sec_Fetch_Site="same-origin"))[0] == 202
        assert (await ask(stop, "POST"))[0] == 202
        assert stopped == [True]
        assert (await ask(page.url, Host=f"localhost:{parts.port}"))[0] == 200


async def test_nothing_comes_from_elsewhere(job: Callable[..., Path]) -> None:
    """The policy lets the page load what it serves itself and nothing else; nothing is cached or framed."""
    async with LivePage(load_config(job()), watch=Watch()) as page:
        for path in ("", "page.js", "page.css", "state", "no-such"):
            _, body, headers = await ask(page.url + path)
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert b"https://" not in body
            assert KEY.encode() not in body


async def test_a_run_of_its_own(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """It tells of rows, pace and newest requests while the run goes on, and of the end."""
    config, watch = load_config(job()), Watch()
    endpoint.pause()
    async with LivePage(config, watch=watch, stop=lambda: None) as page:
        run = asyncio.create_task(run_job(config, RunOptions(progress=watch)))
        await until(lambda: len(endpoint.posts) == 3)
        begun = await state_of(page)
        assert (begun["standing"], begun["mine"], begun["figures"]["in_flight"]) == ("running", True, 3)
        endpoint.resume()
        summary = await run
        ending = asyncio.create_task(page.ended(summary.reason))
        told = await state_of(page)
        await ending
        assert (told["standing"], told["said"]) == ("ended", summary.reason)
        assert told["figures"]["steps"] == [[config.steps[0].name, [["ok", 3]]]]
        told = await told_when(page, lambda told: len(told["rows"]) == 3)
        assert {row["kind"] for row in told["rows"]} == {"answered"}
        assert all(row["prompt"] and row["answer"] and row["tokens"] for row in told["rows"])
        assert (await state_of(page, told["last"]))["rows"] == []


async def test_a_run_that_goes_on_elsewhere(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Before a run it says that none has begun; then it tells of it by the ledger, and stops nothing."""
    path = job()
    config = load_config(path)
    endpoint.pause()
    async with LivePage(config) as page:
        assert (await state_of(page))["standing"] == "none"
        command = [sys.executable, "-m", "enrich.cli", "run", str(path), "--quiet"]
        with subprocess.Popen(command) as process:  # noqa: ASYNC220  # it is there in a moment
            told = await told_when(page, lambda told: told["standing"] == "running")
            assert told["mine"] is False
            assert (await ask(f"{page.url}stop", "POST"))[0] == 409
            endpoint.resume()
            assert await asyncio.to_thread(process.wait, 60) == 0
        told = await told_when(page, lambda told: told["standing"] == "ended" and len(told["rows"]) == 3)
        assert "3 rows done" in told["said"]


async def test_a_request_that_failed_is_among_the_failed(
    job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """What was refused for good is told with its error."""
    from tests.helpers.endpoint import envelope

    config, watch = load_config(job()), Watch()
    endpoint.script = lambda seen: envelope("invalid_request", 400) if seen.method == "POST" else None
    async with LivePage(config, watch=watch) as page:
        await run_job(config, RunOptions(progress=watch))
        told = await state_of(page)
        assert {row["kind"] for row in told["rows"]} == {"failed"}
        assert all("invalid_request" in row["error"] for row in told["rows"])
        assert told["figures"]["failures"]


async def test_a_port_that_is_taken(job: Callable[..., Path]) -> None:
    """That is said in a line."""
    config = load_config(job())
    async with LivePage(config) as page:
        with pytest.raises(ConfigError, match="cannot listen"):
            async with LivePage(config, port=urlsplit(page.url).port or 0):
                pass


@pytest.mark.parametrize("how", ["page", "signal"])
def test_stop_from_the_page_is_as_ctrl_c(
    job: Callable[..., Path], endpoint: BookedEndpoint, how: str
) -> None:
    """The run awaits what is in flight, keeps it, and leaves with 130 and the words that Ctrl-C brings."""
    endpoint.pause()
    path = job()
    command = [sys.executable, "-m", "enrich.cli", "run", str(path), "--ui", "--no-progress"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split("live page: ")[1].strip()
        assert endpoint.arrived.wait(30)
        if how == "page":
            assert asked(f"{url}stop", "POST")[0] == 202
        else:
            process.send_signal(signal.SIGINT)
        endpoint.resume()
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert "stopping: nothing more is sent" in said
    assert "Interrupted after" in said


async def test_stopping_twice_is_stopping_once(job: Callable[..., Path]) -> None:
    """A second press changes nothing: it does not leave at once."""
    interrupt = Interrupt()
    fired: list[bool] = []
    interrupt.listener = lambda _: fired.append(True)
    async with LivePage(load_config(job()), watch=Watch(), stop=interrupt.fire) as page:
        for _ in range(3):
            await ask(f"{page.url}stop", "POST")
        assert fired == [True]
        assert (await state_of(page))["stopping"] is True
