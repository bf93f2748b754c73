"""What the report reads from a ledger, entry by entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import enrich
from enrich.base.loops import run_sync
from enrich.ledger.opening import open_ledger
from enrich.report.log import STANDINS, Log, _Latencies, prompt_text, read_log
from enrich.report.texts import PROMPT_CHARACTERS
from tests.helpers.endpoint import KEY, BookedEndpoint, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=200))
def test_percentiles_are_within_one_percent(milliseconds_: list[float]) -> None:
    """The histogram's percentiles are the data's, to its precision; its bars count everything."""
    histogram = _Latencies()
    for part in np.array_split(np.array(milliseconds_), 3):
        histogram.add(part)
    latency = histogram.latency()
    assert latency is not None
    assert sum(latency.counts) == len(milliseconds_)
    for share, shown in ((0.5, latency.p50), (0.95, latency.p95), (0.99, latency.p99)):
        exact = float(np.quantile(milliseconds_, share, method="inverted_cdf"))
        assert shown == pytest.approx(exact, rel=0, abs=0.0101 * exact + 0.06)  # a bar's width, then rounded
    assert latency.edges[0] <= min(milliseconds_) * 1.01
    assert latency.edges[-1] >= max(milliseconds_) * 0.99


def test_a_body_that_holds_no_messages_has_no_prompt() -> None:
    """A damaged body does not stop a report."""
    assert prompt_text(b'{"messages": [{"role": "user", "content": "hi"}]}') == "user: hi"
    assert [prompt_text(body) for body in (b"\xff", b"[]", b'{"messages": [1]}')] == ["", "", ""]


def read(config: Path, others: Collection[int] = (), wanted: Collection[bytes] = ()) -> Log:
    """Read the log of a job's ledger, without these runs."""

    async def main() -> Log:
        ledger = await open_ledger(enrich.load_config(config).ledger_location(), read_only=True)
        try:
            return await read_log(ledger, others=others, wanted=wanted)
        finally:
            await ledger.close()

    return run_sync(main)


@pytest.fixture
def ran(job: Callable[..., Path], endpoint: BookedEndpoint) -> Path:
    """A job that was run twice: the second time with one row more, and some failures on the way."""
    tries: set[str] = set()

    def script(seen: object) -> object:
        raw = getattr(seen, "raw", b"")
        if b"broken" in raw:
            return envelope("invalid_request", 400)
        key = getattr(seen, "key", "") if b"shaky" in raw else ""
        if key and key not in tries:
            tries.add(key)
            return envelope("internal_error", 500, retryable=True)
        return None

    endpoint.script = script  # type: ignore[assignment]
    quick = {"attempts": 2, "max_wait": 0.01}
    for texts in (("one", "shaky", "broken"), ("one", "two")):
        config = job([{"t": text} for text in texts], retry=quick)
        enrich.run(config, base_url=endpoint.base_url, api_key=KEY)
    return config


def test_a_run_s_requests_are_its_own(ran: Path) -> None:
    """The second run sent one request; all runs together sent four, in five attempts or more."""
    second, both = read(ran, {1}).requests, read(ran).requests
    assert (second.requests, second.attempts, second.failed_attempts) == (1, 1, 0)
    assert both.requests == 4
    assert dict(both.tries) == {1: 3, 2: 1}
    assert {(cause.code, cause.attempts, cause.recovered) for cause in both.causes} == {
        ("internal_error", 1, 1),
        ("invalid_request", 1, 0),
    }
    assert both.latency is not None
    assert both.latency.answers == 3
    assert [(use.model, use.answers) for use in both.models] == [("served-1", 3)]


def test_requests_stand_in_for_rows(ran: Path) -> None:
    """Without an output, some answered and failed requests are shown in the place of rows, with what was asked."""
    log = read(ran)
    assert len(log.samples) == 3 <= STANDINS
    assert {sample.prompt for sample in log.samples} == {"user: one", "user: two", "user: shaky"}
    (failed,) = log.failures
    assert (failed.status, failed.code, failed.row) == ("error", "invalid_request", None)


def test_prompts_of_the_keys_that_are_wanted(ran: Path) -> None:
    """Of the rows that are shown the prompts are given, and of no other; also those that another run asked."""
    samples = {sample.prompt: sample.key for sample in read(ran).samples}
    key = samples["user: shaky"]
    assert key is not None
    assert read(ran, {1}, {key}).prompts == {key: "user: shaky"}


def test_a_prompt_is_all_of_its_messages(tmp_path: Path) -> None:
    """Each under its role, parted by an empty line; a long one is cut."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "é" * 5_000}]
    text = prompt_text(orjson.dumps({"messages": messages}))
    assert text.startswith("system: Be brief.\n\nuser: ééé")
    assert len(text) < PROMPT_CHARACTERS + 30
