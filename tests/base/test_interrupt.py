from __future__ import annotations

import pytest

from enrich.base.interrupt import Interrupt
from enrich.errors import RunInterrupted


def test_before_anybody_listens_a_signal_is_kept() -> None:
    """A stop that comes while a run is being made ready is not lost: whoever checks is stopped."""
    interrupt = Interrupt()
    interrupt.check()
    interrupt.fire()
    with pytest.raises(RunInterrupted):
        interrupt.check()


def test_whoever_listens_is_told() -> None:
    """The listener gets the error that the run ends with, and what checks later is stopped too."""
    interrupt = Interrupt()
    told: list[Exception] = []
    interrupt.listener = told.append
    assert not interrupt.fired
    interrupt.fire()
    assert [type(error) for error in told] == [RunInterrupted]
    with pytest.raises(RunInterrupted):
        interrupt.check()
