from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import enrich
from enrich.config import LimitsConfig
from enrich.pace.step_limits import Gate
from enrich.pace.windows import OwnSlots
from enrich.records import Failure, Fate, Settled
from enrich.sandbox import SandboxOptions, ThreadedSandbox
from tests.helpers.endpoint import KEY
from tests.helpers.virtual import VirtualLoop, run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def unexpected(error: Exception) -> None:
    """Fail the test: turns were to come for ever."""
    raise AssertionError(error)


ENDED = Settled(b"k" * 16, Failure("x", "", Fate.REFUSED))


def test_requests_per_minute() -> None:
    """No span of a minute has more requests than allowed, and none is wasted by more than a little."""

    async def main(loop: VirtualLoop) -> list[float]:
        slots = OwnSlots(LimitsConfig(requests_per_minute=120), loop.time)
        gate, times, through = Gate(None, slots), list[float](), asyncio.Event()
        keeper = asyncio.create_task(gate.keep(unexpected))

        def submit(**_: Any) -> None:
            times.append(loop.time())
            if len(times) == 400:
                through.set()

        for _ in range(400):
            gate.enter(submit, lambda _: False, first=False)
        await through.wait()
        keeper.cancel()
        return times

    times: list[float] = run_virtually(main)
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[120:], strict=False))
    assert times[-1] - times[0] == pytest.approx(200, rel=0.05)


async def test_concurrency() -> None:
    """So many are let through; another one follows when one of them has ended, what is urgent first."""
    gate, out = Gate(2, OwnSlots(LimitsConfig())), deque[tuple[int, Any]]()
    keeper = asyncio.create_task(gate.keep(unexpected))

    def submit(number: int) -> Callable[..., Any]:
        return lambda done: out.append((number, done))

    for number in range(4):
        gate.enter(submit(number), lambda _: True, first=False)
    gate.enter(submit(9), lambda _: True, first=True)
    order = []
    for _ in range(5):
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(out) <= 2
        number, done = out.popleft()
        order.append(number)
        assert done(ENDED) is True
    assert order == [9, 0, 1, 2, 3]
    assert gate.waiting == 0
    keeper.cancel()


def test_batches_share_a_steps_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many batches are under way at once, the step has one request in flight."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    batches = [pa.record_batch({"t": [f"{batch} {row}" for row in range(3)]}) for batch in range(6)]
    with ThreadedSandbox(SandboxOptions(latency=0.01)) as sandbox:
        config = {
            "endpoint": {"base_url": sandbox.base_url},
            "ledger": str(tmp_path / "ledger.db"),
            "limits": {"adaptive": False},
            "steps": [{"name": "a", "prompt": "{{ t }}", "limits": {"concurrency": 1}}],
        }
        assert sum(batch.num_rows for batch in enrich.enrich_batches(batches, config)) == 18
        assert sandbox.books.max_in_flight == 1


def test_steps_with_limits_of_their_own(job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that may have one request in flight has one; the other step is not held up by that."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    rows = [{"t": f"row {number}"} for number in range(24)]
    slow = {"name": "a", "prompt": "{{ t }}", "limits": {"concurrency": 1}}
    seen = []
    for steps in (
        [slow],
        [slow, {"name": "b", "prompt": "{{ t }} and {{ a_status }}"}],
        [{**slow, "limits": {}}],
    ):
        with ThreadedSandbox(SandboxOptions(latency=0.02)) as sandbox:
            path = job(rows, steps=steps, endpoint={"base_url": sandbox.base_url}, limits={"adaptive": False})
            summary = enrich.run(path)
            assert summary.statuses["ok"] == len(rows)
            seen.append(sandbox.books.max_in_flight)
    assert seen[0] == 1
    assert seen[1] in (2, 3)
    assert seen[2] > 3
