"""A trial: drawn with a seed, told in words and numbers, and never paid for again."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.runs.cohort import stratified
from tests.conftest import SCRIPT
from tests.helpers.deaths import through_deaths
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended, Warm


def rows(count: int) -> list[dict[str, Any]]:
    """Give so many different rows."""
    return [{"t": f"row {n}"} for n in range(count)]


def test_what_a_trial_found_is_a_result(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """It stands on stdout, and how to go on stands on stderr; with --json stdout is JSON alone."""
    config = job(rows(20))
    ended = cli("run", config, "--trial", "5", endpoint=endpoint)
    assert "15 requests to ask" in ended.out
    assert "15 requests to ask" not in ended.err
    assert "--yes goes on" in ended.err


def test_a_trial_and_its_run_cost_what_the_run_costs(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Of 1,000 rows ten are asked, and told of; again nothing is; then the run asks the other 990."""
    config = job(rows(1000))
    ended = cli("run", config, "--trial", "10", "--json", endpoint=endpoint)
    assert ended.code == 0
    assert not (tmp_path / "out.parquet").exists()
    told = json.loads(ended.out)["trial"]
    assert (told["rows"], told["requests"], len(endpoint.charges)) == (10, 10, 10)
    assert told["statuses"] == {"s": {"ok": 10}}
    assert told["credits"] == told["credits_of_rows"] == pytest.approx(endpoint.credits)
    assert (told["rest"]["to_ask"], told["rest"]["drawn_at_random"]) == (990, True)
    assert (
        told["rest"]["credits"]["low"] <= told["rest"]["credits"]["likely"] <= told["rest"]["credits"]["high"]
    )
    assert "990 requests to ask" in ended.err
    assert "--yes goes on" in ended.err
    again = cli("run", config, "--trial", "10", "--yes", "--json", endpoint=endpoint)
    assert again.code == 0
    summary = json.loads(again.out)
    assert (summary["trial"]["requests"], summary["requests"], summary["ok"]) == (0, 990, 1000)
    assert len(endpoint.charges) == 1000
    assert set(endpoint.charges_per_body.values()) == {1}
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 1000


def test_the_seed_decides_which_rows(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Another one draws others."""
    config = job(rows(500))
    cli("run", config, "--trial", "8", endpoint=endpoint)
    cli("run", config, "--trial", "8", "--seed", "0", endpoint=endpoint)
    assert len(endpoint.charges) == 8
    cli("run", config, "--trial", "8", "--seed", "1", endpoint=endpoint)
    assert len(endpoint.charges) > 8


def test_labels_are_counted(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """And rows whose answers are none are told by their status."""
    schema = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}

    def answer(body: dict[str, Any]) -> str:
        number = int(body["messages"][-1]["content"].split()[1])
        return "?" if not number else json.dumps({"label": "pos" if number % 4 else "neg"})

    endpoint.answer = answer
    config = job(rows(9), step={"schema": schema, "reask": 0})
    told = json.loads(cli("run", config, "--trial", "99", "--json", endpoint=endpoint).out)["trial"]
    assert told["statuses"] == {"s": {"ok": 8, "invalid_output": 1}}
    assert told["labels"] == {"s_label": {"pos": 6, "neg": 2}}


@pytest.mark.parametrize(("word", "charges"), [(b"n\n", 2), (b"y\n", 5)])
def test_on_a_terminal_it_asks(
    job: Callable[..., Path], endpoint: BookedEndpoint, word: bytes, charges: int
) -> None:
    """And does as it is told."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    process = subprocess.Popen(
        [SCRIPT, "run", job(rows(5)), "--trial", "2"],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    shown = b""
    while b"Go on?" not in shown:
        shown += os.read(ours, 4096)
    assert b"3 requests to ask" in shown
    os.write(ours, word)
    with contextlib.suppress(OSError):  # the other end is closed
        while os.read(ours, 4096):
            pass
    assert process.wait(60) == 0
    os.close(ours)
    assert len(endpoint.charges) == charges


def test_a_trial_that_cannot_end_stops_with_what_it_has(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Without money it leaves with 4, though --yes was said; what was answered is kept."""

    def empty(seen: Seen) -> Raw | None:
        return envelope("insufficient_balance", 402) if len(endpoint.charges) >= 3 else None

    endpoint.script = empty
    config = job(rows(50), limits={"concurrency": 1})
    ended = cli("run", config, "--trial", "20", "--yes", endpoint=endpoint)
    assert ended.code == 4
    endpoint.script = None
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 50


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--yes"], "--yes goes with --trial"),
        (["--trial", "3", "--fresh"], "--trial does not go with --fresh"),
        (["--trial", "3", "--confirm"], "--trial does not go with --confirm"),
        (["--trial", "0"], "--trial"),
    ],
)
def test_what_does_not_go_together_is_refused(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, flags: list[str], said: str
) -> None:
    """Before anything is sent."""
    ended = cli("run", job(), *flags, endpoint=endpoint)
    assert ended.code == 2
    assert said in ended.err
    assert not endpoint.posts


def test_an_input_without_rows_is_a_trial_of_none(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """And no defect."""
    (tmp_path / "none.csv").write_text("t\n", encoding="utf-8")
    ended = cli("run", job(input="none.csv"), "--trial", "3", "--json", endpoint=endpoint)
    assert ended.code == 0
    assert json.loads(ended.out)["trial"]["rows"] == 0


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=200), st.integers(1, 60), st.integers(0, 5))
def test_strata_have_their_share_and_none_is_left_out(strata: list[str], size: int, seed: int) -> None:
    """Each within one row of its share, or the one row that it has at least."""
    drawn = stratified(strata, size, np.random.default_rng(seed))
    size = min(size, len(strata))
    assert len(drawn) == len(set(drawn.tolist())) == size
    taken = [strata[place] for place in drawn]
    for name in set(strata):
        share = strata.count(name) * size / len(strata)
        if len(set(strata)) <= size:
            assert taken.count(name) >= 1
        assert taken.count(name) <= max(1, share + 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_tried_and_ten_thousand_run_cost_ten_thousand_through_kills(
    cli: Callable[..., Ended], warm: Warm, job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Killed once in the trial and nine times in the run, at charges drawn at random: each request was charged once."""
    config = job(rows(10_000))
    tried = through_deaths(
        warm, endpoint, [60], tmp_path, "run", config, "-q", "--trial", "100", "--seed", "1"
    )
    assert (tried.code, len(endpoint.charges)) == (0, 100)
    deaths = sorted(np.random.default_rng(11).integers(150, 9_900, 9).tolist())
    ended = through_deaths(warm, endpoint, deaths, tmp_path, "run", config, "-q")
    assert ended.code == 0, ended.err
    assert len(endpoint.charges) == 10_000
    assert set(endpoint.charges_per_body.values()) == {1}
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.num_rows == 10_000
    assert set(out["s_status"].to_pylist()) == {"ok"}
