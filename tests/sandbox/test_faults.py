"""Which request a fault strikes, and how faults are written."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import ConfigError
from enrich.sandbox import FAULTS, Fault, parse_fault
from enrich.sandbox.faults import FaultPlan


def draws(plan: FaultPlan, keys: list[bytes], body: bytes = b"{}") -> list[str | None]:
    """Draw once for each key in turn."""
    return [plan.draw(key, body, stream=False) for key in keys]


KEYS = [b"%d" % n for n in range(1000)]


def test_the_draws_depend_on_the_seed_alone() -> None:
    """The same seed strikes the same keys in any order, at about the probability asked for."""
    fault = Fault("reset", 0.2)
    struck = dict(zip(KEYS, draws(FaultPlan([fault], seed=3), KEYS), strict=True))
    turned = dict(zip(KEYS[::-1], draws(FaultPlan([fault], seed=3), KEYS[::-1]), strict=True))
    other = dict(zip(KEYS, draws(FaultPlan([fault], seed=4), KEYS), strict=True))
    assert struck == turned != other
    assert 150 < sum(kind == "reset" for kind in struck.values()) < 250


def test_times_bounds_a_fault_overall_or_per_key() -> None:
    """Once overall strikes one request; once per key strikes the first request of each."""
    keys = [b"a", b"a", b"b", b"b"]
    assert draws(FaultPlan([Fault("reset", times=1)]), keys) == ["reset", None, None, None]
    assert draws(FaultPlan([Fault("reset", times=1, per_key=True)]), keys) == ["reset", None, "reset", None]


def test_a_fault_can_wait_and_can_be_picky() -> None:
    """`after` lets requests pass first; `match` looks into the body."""
    assert draws(FaultPlan([Fault("reset", after=2)]), KEYS[:4]) == [None, None, "reset", "reset"]
    plan = FaultPlan([Fault("model_unavailable", match='"model":"fast-1"')])
    assert draws(plan, KEYS[:1], b'{"model":"fast-1"}') == ["model_unavailable"]
    assert draws(plan, KEYS[:1], b'{"model":"auto"}') == [None]


def test_the_script_comes_first() -> None:
    """A script is consumed one request at a time; then the faults count."""
    plan = FaultPlan([Fault("stall")], script=["ok", "reset"])
    assert draws(plan, KEYS[:3]) == [None, "reset", "stall"]


@given(
    kind=st.sampled_from(sorted(FAULTS)),
    probability=st.floats(0, 1),
    times=st.none() | st.integers(1, 99),
)
def test_a_fault_is_read_back_as_it_is_written(kind: str, probability: float, times: int | None) -> None:
    """The command line's form says everything: kind, probability, times per key."""
    text = f"{kind}={probability}" + (f":{times}" if times else "")
    assert parse_fault(text) == Fault(kind, probability, times=times, per_key=times is not None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resett=1", "did you mean `reset`"),
        ("", "there is no fault ``"),
        ("reset=often", "kind=probability:times"),
        ("reset=0.1:x", "kind=probability:times"),
        ("reset=1.5", "must be 0 to 1"),
        ("reset=nan", "must be 0 to 1"),
        ("reset=1:0", "must be 1 to 1,000,000"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    """The message says what is wrong and what to write instead."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse_fault(text)


def test_a_kind_alone_always_strikes() -> None:
    """`--fault reset` is `--fault reset=1`."""
    assert parse_fault("reset") == Fault("reset")


@given(text=st.text())
def test_no_text_breaks_the_reading_of_faults(text: str) -> None:
    """Anything that is typed gives a fault or a message."""
    with contextlib.suppress(ConfigError):
        assert parse_fault(text).kind in FAULTS
