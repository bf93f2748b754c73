"""Partitioned data sets through stops, kills and locks: each file is old or new, and whole."""

from __future__ import annotations

import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from pyarrow import csv

import enrich
from enrich.errors import OutputLocked
from enrich.files.output_lock import hold_output
from tests.helpers.chaos import end_of, let_go_under_strace, tracing_refused
from tests.helpers.days import (
    ROWS,
    counted,
    day,
    outputs,
    write_config,
    write_day,
)
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.warm import Warm

pytestmark = pytest.mark.usefixtures("our_key")


def test_what_is_finished_when_a_run_stops_is_in_place(
    month: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A budget spent in the third partition leaves two whole ones; the next run pays for the rest alone."""
    stopped = enrich.run(month, overrides=[f"budget.requests={2 * ROWS + 2}", "limits.concurrency=1"])
    assert stopped.exit_code == 4
    assert stopped.partitions == counted(selected=5, processed=2, pending=3)
    assert stopped.statuses["pending"] == 3 * ROWS - 2
    assert list(outputs(tmp_path)) == [f"{day(number)}/part-0.parquet" for number in (1, 2)]
    assert enrich.run(month).requests == 3 * ROWS - 2


@pytest.mark.parametrize(
    ("form", "kills"),
    [
        ("parquet", 2),
        ("csv", 2),
        *(
            pytest.param(form, 60, marks=(pytest.mark.slow, pytest.mark.timeout(900)))
            for form in ("parquet", "csv")
        ),
    ],
)
def test_killed_at_random_each_partition_is_old_or_new(
    warm: Warm, endpoint: BookedEndpoint, tmp_path: Path, form: str, kills: int
) -> None:
    """SIGKILL at any time: every file is whole, of one run; nothing is charged twice; leftovers go with the next run."""
    chance = random.Random(form)
    for number in range(1, 9):
        write_day(tmp_path, number)
    config = write_config(tmp_path, output={"path": "out/", "format": form}, limits={"concurrency": 3})
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    start = time.monotonic()
    assert warm.run(tmp_path, "run", config, "-q", env=env).code == 0
    longest = time.monotonic() - start
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for attempt in range(1, kills + 1):
        old, new = ids_by_day(tmp_path), list(range(attempt, attempt + ROWS))
        for number in range(1, 9):
            write_day(tmp_path, number, new)
        running = warm.start(tmp_path, "run", config, "-q", env=env)
        time.sleep(chance.uniform(0, longest))
        running.signal(signal.SIGKILL)
        running.wait()
        for name, ids in ids_by_day(tmp_path).items():
            assert ids in (old[name], new)
        ended = warm.run(tmp_path, "run", config, "-q", env=env)
        assert ended.code == 0, ended.err
        assert list(ids_by_day(tmp_path).values()) == [new] * 8
        assert json.loads(warm.run(tmp_path, "run", config, "--json", env=env).out)["rows"] == 0
    assert set(endpoint.charges_per_body.values()) == {1}
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


@pytest.mark.skipif(tracing_refused() is not None, reason=str(tracing_refused()))
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("call", "numbers"),
    [
        ("rename", range(1, 4)),  # of a thread: which one gets which rename is not the same every time
        *(
            pytest.param(call, range(1, 30), marks=pytest.mark.slow)
            for call in ("rename", "unlink", "fsync", "mkdir")
        ),
    ],
)
def test_killed_at_the_very_swap(
    warm: Warm, endpoint: BookedEndpoint, tmp_path: Path, call: str, numbers: range
) -> None:
    """SIGKILL as the n-th file is renamed, removed or synced: each partition is the old one or the new one, and whole."""
    config = write_config(tmp_path, output={"path": "out/", "format": "csv"})
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    for day_number in (1, 2, 3):
        write_day(tmp_path, day_number)
    assert warm.run(tmp_path, "run", config, "-q", env=env).code == 0
    killed = 0
    for nth in numbers:
        old, new = ids_by_day(tmp_path), list(range(nth, nth + ROWS))
        for day_number in (1, 2, 3):
            write_day(tmp_path, day_number, new)
        running = warm.start(tmp_path, "run", config, "-q", env=env, stopped=True)
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}")
        strace = let_go_under_strace(running, tmp_path / "strace.log", *inject)
        killed += running.wait().code == -signal.SIGKILL
        end_of(strace)
        assert all(ids in (old[name], new) for name, ids in ids_by_day(tmp_path).items())
        assert warm.run(tmp_path, "run", config, "-q", env=env).code == 0
        assert list(ids_by_day(tmp_path).values()) == [new] * 3
        assert not list((tmp_path / "out").rglob(".part-0.csv.*.tmp"))
    assert killed or call == "mkdir"
    assert set(endpoint.charges_per_body.values()) == {1}


def ids_by_day(folder: Path) -> dict[str, list[int]]:
    """Give the ids in each partition of the output."""
    (form,) = {path.suffix[1:] for path in (folder / "out").rglob("part-0.*")}
    read = pq.read_table if form == "parquet" else csv.read_csv
    return {
        path.parent.name: [row["id"] for row in read(path).to_pylist()]
        for path in sorted((folder / "out").rglob("part-0.*"))
    }


def test_requests_are_in_flight_across_partitions(
    endpoint: BookedEndpoint, warm: Warm, tmp_path: Path
) -> None:
    """Partitions of one row each are asked together, as rows of one job: the concurrency is full."""
    for number in range(1, 31):
        write_day(tmp_path, number, range(1))
    config = write_config(tmp_path, limits={"concurrency": 20, "adaptive": False})
    endpoint.pause()
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    running = warm.start(tmp_path, "run", config, "-q", env=env)
    while len(endpoint.posts) < 20:
        time.sleep(0.01)
    endpoint.resume()
    assert running.wait().code == 0
    assert len(outputs(tmp_path)) == 30


def test_runs_on_different_partitions_go_on_at_once(
    month: Path, endpoint: BookedEndpoint, warm: Warm, tmp_path: Path
) -> None:
    """Each holds its own; on the same one, and over the whole folder, the second is sent away."""
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    endpoint.pause()
    running = warm.start(tmp_path, "run", month, "-q", "--partition", day(1), env=env)
    endpoint.arrived.wait()
    for wanted in ([day(1)], []):
        with pytest.raises(OutputLocked, match=r"another run \(process \d+\)"):
            enrich.run(month, partitions=wanted)
    assert enrich.run(month, partitions=[day(1)], lock="skip").exit_code == 0
    endpoint.resume()
    assert enrich.run(month, partitions=[day(2)]).statuses["ok"] == ROWS
    assert running.wait().code == 0
    assert enrich.run(month).partitions == counted(selected=5, processed=3, unchanged=2)
    assert set(endpoint.charges_per_body.values()) == {1}
    with hold_output(tmp_path / "out"), pytest.raises(OutputLocked):
        enrich.run(month, partitions=[day(2)])


def test_a_run_over_everything_waits_for_those_on_a_part(
    month: Path, endpoint: BookedEndpoint, warm: Warm, tmp_path: Path
) -> None:
    """--lock wait: it goes on when the last of them has ended, and does what is left."""
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    endpoint.pause()
    running = warm.start(tmp_path, "run", month, "-q", "--partition", day(1), env=env)
    endpoint.arrived.wait()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(enrich.run, month, lock="wait")
        endpoint.resume()
        assert waiting.result().partitions == counted(selected=5, processed=4, unchanged=1)
    assert running.wait().code == 0
    assert {path.name for path in tmp_path.iterdir() if path.name.endswith(".lock")} == set()
