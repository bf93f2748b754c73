"""What a run says that it was bound by, against endpoints that hold it up each in its own way: named right, with its figure."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import enrich
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Rig(BookedEndpoint):
    """An endpoint in whose way something is: each request for a completion is held, and may be refused.

    Args:
        hold: waits as long as the request takes, and gives a refusal or nothing.
    """

    def __init__(self, hold: Callable[[], Awaitable[Raw | None]]) -> None:
        super().__init__()
        self._hold = hold

    async def respond(self, seen: Seen) -> Raw:
        """Answer once the request was held long enough."""
        refusal = await self._hold() if seen.method == "POST" else None
        return refusal or await super().respond(seen)


def takes(seconds: float) -> Callable[[], Awaitable[Raw | None]]:
    """Take the same time for each request."""

    async def hold() -> None:
        await asyncio.sleep(seconds)

    return hold


def lets_through(rate: float, burst: float) -> Callable[[], Awaitable[Raw | None]]:
    """Refuse what goes beyond so many a second."""
    left, at = burst, time.monotonic()

    async def hold() -> Raw | None:
        nonlocal left, at
        now = time.monotonic()
        left, at = min(burst, left + rate * (now - at)), now
        if left < 1:
            return envelope("rate_limited", 429, retryable=True)
        left -= 1
        await asyncio.sleep(0.02)
        return None

    return hold


def works_on(slots: int, seconds: float) -> Callable[[], Awaitable[Raw | None]]:
    """Refuse nothing: so many are worked on at once, the others wait."""
    free = asyncio.Semaphore(slots)

    async def hold() -> None:
        async with free:
            await asyncio.sleep(seconds)

    return hold


def bound(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hold: Callable[[], Awaitable[Raw | None]],
    rows: int,
    step: dict[str, Any] | None = None,
    **keys: Any,
) -> tuple[str, str]:
    """Run a job against a rig; give what held it up, in a word and for people."""
    (tmp_path / "rows.csv").write_text("t\n" + "".join(f"text {n}\n" for n in range(rows)))
    one = {"name": "s", "prompt": "{{ t }}", **(step or {})}
    job = {"input": "rows.csv", "output": "out.parquet", "steps": [one], **keys}
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job))
    with Rig(hold) as rig:
        monkeypatch.setenv("BEATRA_BASE_URL", rig.base_url)
        monkeypatch.setenv("BEATRA_API_KEY", KEY)
        summary = enrich.run(config)
    assert summary.exit_code == 0
    assert len(rig.charges) == rows
    assert summary.bound_by is not None
    return summary.bound_by["by"], summary.bound_by["text"]


def test_the_endpoints_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty a second are let through, and nobody told: it is the endpoint's limit."""
    by, text = bound(tmp_path, monkeypatch, lets_through(40.0, 4.0), 120)
    assert by == "endpoint"
    assert text.startswith("the endpoint's limit: ")


def test_queueing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight are worked on at once and nothing is refused: requests queue, and more of them would only wait longer."""
    by, text = bound(tmp_path, monkeypatch, works_on(8, 0.02), 1500)
    assert by == "queueing"
    assert "in flight, answers only take longer" in text


def test_a_limit_that_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty a second were told: that is what held it up, and by which key to change it."""
    by, text = bound(tmp_path, monkeypatch, takes(0.01), 60, limits={"requests_per_minute": 1800})
    assert by == "limits"
    assert "1,800" in text


def test_so_many_in_flight_as_were_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time were told, and the endpoint would take more."""
    by, text = bound(tmp_path, monkeypatch, takes(0.05), 40, limits={"concurrency": 2})
    assert by == "limits"
    assert "limits.concurrency: 2" in text


def test_a_steps_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step has a limit of its own, and nothing else is in its way."""
    limited = {"limits": {"requests_per_minute": 1800}}
    by, _ = bound(tmp_path, monkeypatch, takes(0.01), 60, step=limited)
    assert by == "limits"


def test_a_budget_that_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each request may take is reserved, so that a budget that is enough for all lets few go at once."""
    step = {"max_tokens": 1000}
    by, text = bound(tmp_path, monkeypatch, takes(0.05), 40, step=step, budget={"tokens": 4000})
    assert by == "budget"
    assert "reserved" in text


class Engine(Rig):
    """An engine of so many slots that shows on its metrics page what it works on and what waits.

    Args:
        slots: requests that it works on at once.
        page: shown in place of its figures.
    """

    def __init__(self, slots: int, *, page: bytes | None = None) -> None:
        self.there = self.looks = 0
        looked = self.looked = asyncio.Event()
        self.slots = slots
        self.page = page
        free = asyncio.Semaphore(slots)

        async def hold() -> None:
            self.there += 1
            async with free:
                await asyncio.sleep(0.15)
                await looked.wait()  # however slow this machine is
            self.there -= 1

        super().__init__(hold)

    async def respond(self, seen: Seen) -> Raw:
        """Show the metrics, or answer as the rig does."""
        if not seen.path.endswith("/metrics"):
            return await super().respond(seen)
        self.looks += 1
        if self.looks == 5:
            self.looked.set()
        working, waiting = min(self.slots, self.there), max(0, self.there - self.slots)
        said = f'vllm:num_requests_running{{engine="0"}} {working}.0\nvllm:num_requests_waiting{{engine="0"}} {waiting}.0\n'
        return Raw(said.encode() if self.page is None else self.page)


@pytest.mark.parametrize("page", [None, b"<html>no such page</html>"], ids=["gauges", "none"])
def test_an_engines_gauges_are_asked_for_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, page: bytes | None
) -> None:
    """While requests are out its metrics are looked at, key unseen; where they tell nothing that is said once, and the run goes on."""
    with Engine(32, page=page) as engine:
        metrics = engine.base_url.replace("/v1", "/metrics")
        (tmp_path / "rows.csv").write_text("t\n" + "".join(f"text {n}\n" for n in range(400)))
        job = {
            "input": "rows.csv",
            "output": "out.parquet",
            "endpoint": {"base_url": engine.base_url, "metrics_url": metrics},
            "steps": [{"name": "s", "prompt": "{{ t }}"}],
        }
        config = tmp_path / "job.yaml"
        config.write_text(yaml.safe_dump(job))
        monkeypatch.setenv("BEATRA_API_KEY", KEY)
        summary = enrich.run(config)
    looks = [seen for seen in engine.seen if seen.path == "/metrics"]
    assert summary.exit_code == 0
    assert len(engine.charges) == 400
    assert len(looks) >= 3
    assert not any(KEY in str(seen.headers) for seen in looks)
    assert caplog.text.count("gives no gauges") == (page is not None)
    if page is None:
        assert summary.bound_by is not None
        assert summary.bound_by["by"] == "queueing"
