"""The emulator runs in a loop, in a thread or as a process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import aiohttp
import pytest

from enrich.errors import ConfigError
from enrich.sandbox import Sandbox, SandboxOptions, ThreadedSandbox, parse_fault
from tests.helpers.sandbox import (
    Caller,
    new_key,
)


async def test_a_sandbox_comes_back_after_an_outage(session: aiohttp.ClientSession) -> None:
    """Entered again it has the same address, and remembers what was paid for."""
    sandbox, key = Sandbox(SandboxOptions()), new_key()
    async with sandbox:
        url = sandbox.base_url
        first = await Caller(session, url).chat(key=key)
    with pytest.raises(aiohttp.ClientConnectionError):
        await Caller(session, url).chat(key=key)
    async with sandbox:
        assert sandbox.base_url == url
        assert (await Caller(session, url).chat(key=key)).body == first.body
    assert sandbox.books.total.charges == 1


async def test_a_taken_port_is_named(sandbox: Sandbox) -> None:
    """A port in use is a message with a way out, in the loop and in a thread."""
    options = SandboxOptions(port=int(sandbox.base_url.split(":")[2].partition("/")[0]))
    with pytest.raises(ConfigError, match=f"{options.port}.*\nHint: port 0"):
        await Sandbox(options).__aenter__()
    with pytest.raises(ConfigError, match=str(options.port)), ThreadedSandbox(options):
        pass


async def test_a_sandbox_in_a_thread_serves(session: aiohttp.ClientSession) -> None:
    """It answers from a loop of its own, and its books are at hand."""
    with ThreadedSandbox(SandboxOptions(faults=(parse_fault("reset=1:1"),))) as sandbox:
        caller, key = Caller(session, sandbox.base_url), new_key()
        with pytest.raises(aiohttp.ClientOSError):
            await caller.chat(key=key)
        assert (await caller.chat(key=key)).status == 200
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_process_says_where_it_is_and_stops_cleanly(
    session: aiohttp.ClientSession, number: signal.Signals
) -> None:
    """The first line on stdout is the base URL; a signal ends it with exit 0 and without a traceback."""
    code = "from enrich.sandbox import SandboxOptions, serve; serve(SandboxOptions(latency=9))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    caller = Caller(session, (await process.stdout.readline()).decode().strip())
    waiting = asyncio.create_task(caller.chat())
    in_flight = 0
    while not in_flight:
        in_flight = (await caller.get("/sandbox/ledger")).json["totals"]["in_flight"]
    process.send_signal(number)
    with pytest.raises(aiohttp.ClientError):
        await waiting
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0


def test_naming_faults_does_not_load_the_server() -> None:
    """`FAULTS` and `SandboxOptions` come without aiohttp, so that a help text stays quick."""
    code = "import sys, enrich.sandbox; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
