"""The tools as an agent's host calls them: the SDK's own client, over stdio, against an endpoint with books."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.chaos import make_job, place, violations
from tests.helpers.endpoint import KEY, BookedEndpoint

pytest.importorskip("mcp", reason="the MCP SDK is not installed: pip install mcp")

from mcp import Client, StdioServerParameters
from mcp_types import ElicitRequestParams, ElicitResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp_types import CallToolResult

TERMS: dict[str, Any] = {"config": "config.yaml", "rows": 5, "credits": 3.0}


class User:
    """Answers what the server asks its user."""

    def __init__(self, *, agrees: bool) -> None:
        self.agrees = agrees
        self.asked: list[str] = []

    async def __call__(
        self, context: Any, params: ElicitRequestParams
    ) -> ElicitResult:  # as the SDK calls it
        """Answer."""
        self.asked.append(params.message)
        if not self.agrees:
            return ElicitResult(action="decline")
        return ElicitResult(action="accept", content={"go_ahead": True})


@asynccontextmanager
async def connected(
    folder: Path, endpoint: BookedEndpoint, user: User | None = None, **further: Any
) -> AsyncIterator[Client]:
    """Start the server as a host does, and speak to it."""
    started = StdioServerParameters(
        command=sys.executable,
        args=["-m", "enrich.cli", "mcp", "--folder", str(folder)],
        env={**os.environ, **place(endpoint)},
    )
    async with Client(started, elicitation_callback=user, **further) as client:
        yield client


def told(result: CallToolResult) -> dict[str, Any]:
    """Give what a tool returned."""
    assert not result.is_error, result
    content: dict[str, Any] = result.structured_content or {}
    return content


def complaint(result: CallToolResult) -> str:
    """Give the words of a tool that failed."""
    assert result.is_error
    return "\n".join(getattr(part, "text", "") for part in result.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_user_agrees_and_what_was_agreed_is_paid_for_once(tmp_path: Path, mode: str) -> None:
    """From the plan to the rows; the user reads place, rows, cost and budget; running again asks nobody and pays for nothing."""
    job = make_job(tmp_path, 5)
    user = User(agrees=True)
    with BookedEndpoint() as endpoint:
        async with connected(tmp_path, endpoint, user, mode=mode) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"plan", "run", "status", "collect", "preview", "show"}
            plan = told(await client.call_tool("plan", TERMS))
            assert plan["to_ask"] == 5
            preview = told(await client.call_tool("preview", {"config": "config.yaml"}))
            assert job.texts[0] in preview["result"]
            assert endpoint.charges == []
            summary = told(await client.call_tool("run", TERMS))
            assert (summary["ok"], summary["exit_code"]) == (5, 0)
            assert len(user.asked) == 1
            assert f"Ask {endpoint.base_url} (model auto) about the first 5 rows: 5 requests" in user.asked[0]
            assert "at most 3 credits" in user.asked[0]
            again = told(await client.call_tool("run", TERMS))
            assert (again["ok"], again["requests"], len(user.asked)) == (5, 0, 1)
            shown = told(await client.call_tool("show", {"config": "config.yaml", "rows": 2}))
            assert job.texts[1] in shown["result"]
            status = told(await client.call_tool("status", {"config": "config.yaml"}))
            assert status["requests"]["answered"] == 5
            collected = told(await client.call_tool("collect", {"config": "config.yaml"}))
            assert collected["ok"] == 5
        assert violations(job, endpoint) == []


async def test_nothing_is_sent_against_the_users_word(tmp_path: Path) -> None:
    """A user who declines is obeyed; one who cannot be asked is not passed over: the plan's confirmation is, for these terms alone."""
    make_job(tmp_path, 5)
    with BookedEndpoint() as endpoint:
        async with connected(tmp_path, endpoint, User(agrees=False)) as client:
            assert "did not agree" in complaint(await client.call_tool("run", TERMS))
        async with connected(tmp_path, endpoint) as client:
            assert "cannot ask its user" in complaint(await client.call_tool("run", TERMS))
            code = told(await client.call_tool("plan", TERMS))["confirmation"]
            more = {**TERMS, "credits": 300.0, "confirmation": code}
            assert "cannot ask its user" in complaint(await client.call_tool("run", more))
            config = tmp_path / "config.yaml"
            config.write_text(config.read_text().replace("{{ t }}", "{{ t }}!"))
            assert "cannot ask its user" in complaint(
                await client.call_tool("run", {**TERMS, "confirmation": code})
            )
            assert endpoint.charges == []
            code = told(await client.call_tool("plan", TERMS))["confirmation"]
            assert told(await client.call_tool("run", {**TERMS, "confirmation": code}))["ok"] == 5
        assert len(endpoint.charges) == 5


async def test_a_budget_is_never_more_than_the_configurations_own(tmp_path: Path) -> None:
    """Neither an agent's budget nor the configuration's is passed, whichever is smaller."""
    make_job(tmp_path, 30, budget={"requests": 8, "tokens": 100_000}, limits={"concurrency": 1})
    with BookedEndpoint() as endpoint:
        async with connected(tmp_path, endpoint, User(agrees=True)) as client:
            terms = {**TERMS, "rows": 30, "credits": 1000.0, "tokens": 10_000_000}
            summary = told(await client.call_tool("run", terms))
            assert summary["exit_code"] == 4
            assert "budget" in summary["reason"]
            assert len(endpoint.charges) == 8
            summary = told(await client.call_tool("run", {**terms, "tokens": 1}))
            assert (summary["exit_code"], len(endpoint.charges)) == (4, 8)


async def test_errors_are_said_and_the_key_is_not(tmp_path: Path) -> None:
    """What is wrong comes with its hint; other folders are closed; nothing that is said holds the key."""
    folder = tmp_path / "jobs"
    make_job(folder, 3)
    (tmp_path / "other.yaml").write_text((folder / "config.yaml").read_text())
    (folder / "bad.yaml").write_text("input: in.parquet\noutput: o.parquet\nsteps: []\nlimit: 3\n")
    with BookedEndpoint() as endpoint:
        said = []
        async with connected(folder, endpoint, User(agrees=True)) as client:
            for path, words in (("missing.yaml", "Hint"), ("bad.yaml", "Hint"), ("../other.yaml", "outside")):
                for tool in ("plan", "run", "preview", "status", "collect", "show"):
                    arguments = {"config": path}
                    if tool in ("plan", "run"):
                        arguments = {**TERMS, "config": path}
                    found = complaint(await client.call_tool(tool, arguments))
                    assert words in found, (tool, found)
                    said.append(found)
            for name, value in (("rows", 0), ("credits", 0), ("credits", -1)):
                assert name in complaint(await client.call_tool("run", {**TERMS, name: value}))
            assert "missing" in complaint(await client.call_tool("run", {"config": "config.yaml"})).lower()
            said.append(str(await client.call_tool("run", TERMS)))
            page = await client.read_resource("skill://beatra-enrich")
            assert "name: beatra-enrich" in str(page)
        assert KEY not in "".join(said)
        assert len(endpoint.charges) == 3


async def test_a_cancelled_call_stops_in_good_order(tmp_path: Path) -> None:
    """What was in flight is answered and kept; the next call pays for the rest alone. Progress is told meanwhile."""
    job = make_job(tmp_path, 40, limits={"concurrency": 2})
    told_of = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert message is not None
        assert total in (None, 40)
        if progress >= 1:
            told_of.set()

    with BookedEndpoint() as endpoint:

        def wait(_: object) -> None:
            if len(endpoint.charges) == 10:
                endpoint.pause()

        endpoint.script = wait
        async with connected(tmp_path, endpoint, User(agrees=True)) as client:
            terms = {**TERMS, "rows": 40, "credits": 1000.0}
            call = asyncio.ensure_future(client.call_tool("run", terms, progress_callback=note))
            await asyncio.wait_for(told_of.wait(), 30)
            call.cancel()
            await asyncio.sleep(0.2)
            endpoint.resume()
            with pytest.raises(asyncio.CancelledError):
                await call
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                again = await client.call_tool("run", terms)
                if not again.is_error:
                    break
                assert "another run" in complaint(again)
                await asyncio.sleep(0.2)
            summary = told(again)
            assert (summary["ok"], summary["exit_code"]) == (40, 0)
            assert 0 < summary["requests"] < 40
        assert violations(job, endpoint) == []
