"""What the tests of the emulator share: one that runs, and who calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from enrich.sandbox import Sandbox, SandboxOptions
from tests.helpers.sandbox import (
    Caller,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client session; redirects and cookies play no part."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as opened:
        yield opened


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Run a sandbox without limits or faults."""
    async with Sandbox(SandboxOptions()) as opened:
        yield opened


@pytest.fixture
def caller(session: aiohttp.ClientSession, sandbox: Sandbox) -> Caller:
    """Give a client of the sandbox."""
    return Caller(session, sandbox.base_url)
