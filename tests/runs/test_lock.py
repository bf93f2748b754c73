"""When another run holds the output: fail, wait for its end, or leave it at that."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import enrich
from enrich.base.interrupt import Interrupt
from enrich.errors import OutputLocked, RunInterrupted
from enrich.files.output_lock import hold_output
from enrich.runs.lock import held
from tests.helpers.endpoint import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended, Running, Warm


def start(warm: Warm, folder: Path, endpoint: BookedEndpoint, *args: str) -> Running:
    """Start a run in the folder."""
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    return warm.start(folder, "run", "config.yaml", *args, env=env)


def names_in(folder: Path) -> list[str]:
    """Give what lies in a folder."""
    return [path.name for path in folder.iterdir()]


def told(folder: Path, what: str) -> None:
    """Wait until the run says something on stderr."""
    while what not in (folder / "stderr").read_text():
        time.sleep(0.01)


def test_lock_wait_waits_for_the_other_run_and_then_does_its_own(
    warm: Warm, job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """It says on stderr who holds the output, sends nothing until that one has ended, then runs."""
    job()
    with hold_output(tmp_path / "out.parquet"):
        running = start(warm, tmp_path, endpoint, "--lock", "wait", "--json")
        told(tmp_path, "waiting for it to end")
        assert endpoint.seen == []
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert "another run (process " in ended.err
    assert json.loads(ended.out)["ok"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_ends_on_a_signal(
    warm: Warm, job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGINT and SIGTERM end the waiting with 130; the other run keeps the output, nothing was sent."""
    job()
    with hold_output(tmp_path / "out.parquet"):
        running = start(warm, tmp_path, endpoint, "--lock", "wait")
        told(tmp_path, "waiting for it to end")
        running.signal(number)
        ended = running.wait()
        assert ended.code == 130
        assert "Traceback" not in ended.err
        with pytest.raises(OutputLocked), hold_output(tmp_path / "out.parquet"):
            pass
    assert endpoint.seen == []


def test_lock_skip_leaves_with_0_and_says_why(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """For cron: nothing is done, the exit code is 0, and the summary's reason says why."""
    config = job()
    with hold_output(tmp_path / "out.parquet"):
        ended = cli("run", config, "--lock", "skip", "--json", endpoint=endpoint)
    summary = json.loads(ended.out)
    assert (ended.code, summary["exit_code"], summary["rows"], summary["requests"]) == (0, 0, 0, 0)
    assert summary["reason"].startswith("nothing done: another run (process ")
    assert endpoint.seen == []
    assert not (tmp_path / "out.parquet").exists()


def test_the_python_face_takes_lock_too(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`enrich.run` fails, skips or waits as it is told."""
    monkeypatch.setenv("BEATRA_BASE_URL", "sandbox")
    config = job()
    with hold_output(tmp_path / "out.parquet"):
        with pytest.raises(OutputLocked):
            enrich.run(config)
        assert enrich.run(config, lock="skip").reason.startswith("nothing done")
        done: list[int] = []
        waiting = threading.Thread(target=lambda: done.append(enrich.run(config, lock="wait").exit_code))
        waiting.start()
    waiting.join()
    assert done == [0]


def test_collect_and_retry_wait_as_well(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Whatever holds an output knows --lock."""
    config = job()
    with hold_output(tmp_path / "out.parquet"):
        for command in ("retry", "collect"):
            assert cli(command, config, "--lock", "skip", endpoint=endpoint).code == 0
            assert cli(command, config, endpoint=endpoint).code == 5


async def test_two_wait_and_each_has_it_alone(tmp_path: Path) -> None:
    """Those who wait get the output one after the other."""
    path = str(tmp_path / "out.parquet")
    inside = 0
    most = 0

    async def take() -> None:
        nonlocal inside, most
        async with held([(path, False)], "wait", Interrupt()):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    with hold_output(path):
        tasks = [asyncio.create_task(take()) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert most == 0
    await asyncio.gather(*tasks)
    assert most == 1
    assert names_in(tmp_path) == []


async def test_who_stopped_waiting_does_not_take_the_output(tmp_path: Path) -> None:
    """The thread of an interrupted wait lets go at once of what it gets later."""
    path = str(tmp_path / "out.parquet")
    interrupt = Interrupt()

    async def wait() -> None:
        async with held([(path, False)], "wait", interrupt):
            raise AssertionError("it was held by another")

    with hold_output(path):
        task = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        interrupt.fire()
        with pytest.raises(RunInterrupted):
            await task
    async with held([(path, False)], "wait", Interrupt()):
        pass
    for thread in threading.enumerate():
        if thread.name == "beatra-hold":
            await asyncio.to_thread(thread.join)
    assert names_in(tmp_path) == []
