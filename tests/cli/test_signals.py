"""Signals at the command line: real ones, to this process and to one that leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from enrich.base.interrupt import Interrupt
from enrich.cli.signals import LEAVING, STOPPING, graceful

TWICE = """
import asyncio, os, signal, sys, time
from enrich.base.interrupt import Interrupt
from enrich.cli.signals import DOUBLED, graceful

async def main():
    interrupt = Interrupt()
    with graceful(interrupt):
        os.kill(os.getpid(), signal.SIGINT)
        while not interrupt.fired:
            await asyncio.sleep(0)
        await asyncio.sleep({wait})
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        print("still here")
asyncio.run(main())
"""


def said(text: str) -> list[str]:
    """Give the lines that say something."""
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_asks_the_run_to_stop(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said on stderr; the program goes on until its run has ended."""
    interrupt = Interrupt()
    with graceful(interrupt):
        os.kill(os.getpid(), number)
        for _ in range(100):
            await asyncio.sleep(0)
    assert interrupt.fired
    assert said(capsys.readouterr().err) == [STOPPING]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_afterwards_signals_are_as_they_were(number: signal.Signals) -> None:
    """Whoever called gets back what a signal does by default."""

    async def main() -> None:
        with graceful(Interrupt()):
            assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)

    asyncio.run(main())
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.parametrize(
    ("wait", "code", "out", "err"),
    [("4 * DOUBLED", 130, "", [STOPPING, LEAVING]), ("0", 0, "still here\n", [STOPPING])],
)
def test_the_second_signal_leaves_at_once(wait: str, code: int, out: str, err: list[str]) -> None:
    """With 130, saying what is kept; but one right behind the first is the first once more, as timeout(1) sends it."""
    done = subprocess.run(
        [sys.executable, "-c", TWICE.replace("{wait}", wait)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, said(done.stderr)) == (code, out, err)
