"""The metrics file: what Prometheus' own parser reads of it, while a run goes on and after its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from enrich.config import load_config
from enrich.errors import ConfigError, OutputError, UsageError
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.show.metrics_file import Ended, exposition
from enrich.show.snapshot import Snapshot
from tests.helpers.endpoint import KEY, BookedEndpoint, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.endpoint import Raw

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every job in this module is for the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def parsed(text: str) -> Samples:
    """Read an exposition; a sample stands in it once."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if k != "output")
            assert (sample.name, labels) not in found
            found[sample.name, labels] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Give one sample's value."""
    return samples.get((f"beatra_enrich_{name}", frozenset(labels.items())))


def step_of(path: Path) -> str:
    """Give the name of a job's only step."""
    return load_config(path).steps[0].name


@pytest.mark.parametrize("how", ["flag", "key"])
async def test_a_finished_run(job: Callable[..., Path], tmp_path: Path, how: str) -> None:
    """After a run the file says how its rows stand, what it sent and spent, when it ended and how."""
    target = tmp_path / "node" / "out.prom"
    config = (
        load_config(job(), metrics_file=str(target))
        if how == "flag"
        else load_config(job(metrics_file="node/out.prom"))
    )
    assert config.metrics_file is not None
    summary = await run_job(config, RunOptions())
    samples = parsed(config.metrics_file.read_text(encoding="utf-8"))
    step = config.steps[0].name
    assert value(samples, "rows", step=step, status="ok") == summary.rows == 3
    assert value(samples, "rows", step=step, status="pending") == 0
    assert value(samples, "requests_total") == summary.requests
    assert value(samples, "credits_total") == pytest.approx(summary.credits)
    assert value(samples, "tokens_total", kind="prompt") == summary.prompt_tokens
    assert value(samples, "last_run_exit_code") == 0
    assert value(samples, "running") == 0
    assert (value(samples, "ledger_commits_total") or 0) > 0
    assert value(samples, "last_success_timestamp_seconds") == value(
        samples, "last_run_end_timestamp_seconds"
    )
    assert [path.name for path in config.metrics_file.parent.iterdir() if "prom" in path.name] == ["out.prom"]
    assert KEY not in config.metrics_file.read_text(encoding="utf-8")


async def test_while_a_run_goes_on(
    job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """From its begin the file says that a run goes on, beside how the last one ended; a repeat keeps its rows."""
    target = tmp_path / "out.prom"
    config = load_config(job(), metrics_file=str(target))
    await run_job(config, RunOptions())
    ended = value(parsed(target.read_text(encoding="utf-8")), "last_run_end_timestamp_seconds")
    await run_job(config, RunOptions())  # nothing to do
    again = parsed(target.read_text(encoding="utf-8"))
    assert value(again, "rows", step=config.steps[0].name, status="ok") == 3
    assert value(again, "requests_total") == 0
    endpoint.pause()
    run = asyncio.create_task(run_job(config, RunOptions(fresh=True)))
    while "beatra_enrich_running{" not in (text := target.read_text(encoding="utf-8")) or not value(  # noqa: ASYNC110
        parsed(text), "running"
    ):
        await asyncio.sleep(0.01)
    endpoint.resume()
    assert value(parsed(text), "last_run_exit_code") == 0
    assert (value(parsed(text), "last_run_end_timestamp_seconds") or 0) >= (ended or 0)
    assert (await run).exit_code == 0


async def test_failures_are_told(job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """A run that stops says its code, the causes of retries, and what is left; when a run last went well stays told."""
    target = tmp_path / "out.prom"
    config = load_config(job(budget={"requests": 100}), metrics_file=str(target))
    await run_job(config, RunOptions())
    refused: set[str] = set()

    def script(seen: Seen) -> Raw | None:
        if seen.method == "POST" and seen.key not in refused:
            refused.add(seen.key)
            return envelope("overloaded", 503, retryable=True)
        return envelope("insufficient_credits", 402) if seen.method == "POST" else None

    endpoint.script = script
    summary = await run_job(config, RunOptions(fresh=True))
    assert summary.exit_code == 4
    samples = parsed(target.read_text(encoding="utf-8"))
    assert value(samples, "last_run_exit_code") == 4
    assert (value(samples, "retries_total", cause="overloaded") or 0) >= 1
    assert value(samples, "budget_left", of="requests") is not None
    went_well = value(samples, "last_success_timestamp_seconds")
    assert went_well is not None
    assert went_well < (value(samples, "last_run_end_timestamp_seconds") or 0)


def test_an_error_is_told_too(job: Callable[..., Path], tmp_path: Path) -> None:
    """A run that ends before it began, for its input is gone, says so with its exit code."""
    target = tmp_path / "out.prom"
    config = load_config(job(), metrics_file=str(target))
    Path(str(config.input.path)).rename(tmp_path / "gone")
    with pytest.raises(UsageError):
        asyncio.run(run_job(config, RunOptions()))
    assert value(parsed(target.read_text(encoding="utf-8")), "last_run_exit_code") == 2


async def test_another_run_keeps_its_file(
    job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A run that finds its output held leaves the file to the run that holds it."""
    target = tmp_path / "out.prom"
    config = load_config(job(), metrics_file=str(target))
    endpoint.pause()
    run = asyncio.create_task(run_job(config, RunOptions()))
    while not target.exists():  # noqa: ASYNC110  # it is written in another thread
        await asyncio.sleep(0.01)
    before = target.read_bytes()
    assert "nothing done" in (await run_job(config, RunOptions(lock="skip"))).reason
    assert target.read_bytes() == before
    endpoint.resume()
    await run


async def test_only_a_file_is_replaced(
    job: Callable[..., Path], tmp_path: Path, endpoint: BookedEndpoint
) -> None:
    """A FIFO or a folder stays as it is, and nothing is sent; a link's target is replaced, not the link."""
    pipe = tmp_path / "pipe.prom"
    os.mkfifo(pipe)
    for wrong in (pipe, tmp_path):
        with pytest.raises(OutputError, match=r"no regular file|device or pipe|folder"):
            await run_job(load_config(job(), metrics_file=str(wrong)), RunOptions())
    assert not endpoint.seen
    link, real = tmp_path / "link.prom", tmp_path / "real.prom"
    link.symlink_to(real)
    await run_job(load_config(job(), metrics_file=str(link)), RunOptions())
    assert link.is_symlink()
    assert "beatra_enrich_rows{" in real.read_text(encoding="utf-8")


async def test_what_cannot_be_written_changes_nothing(
    job: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file cannot be written the run goes on, and says so."""
    (tmp_path / "file").write_text("")
    config = load_config(job(), metrics_file=str(tmp_path / "file" / "out.prom"))
    assert (await run_job(config, RunOptions())).exit_code == 0
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("path", ["s3://bucket/out.prom", "https://host/out.prom"])
def test_a_url_is_refused(job: Callable[..., Path], path: str) -> None:
    """Node exporter reads files of its machine."""
    with pytest.raises(ConfigError, match="URL"):
        load_config(job(), metrics_file=path)


def test_it_is_none_of_the_jobs_own_files(job: Callable[..., Path]) -> None:
    """A file that the job reads or writes is not taken for the metrics."""
    path = job()
    config = load_config(path)
    for own in (config.output.path, str(config.input.path), str(path), config.ledger_location()):
        with pytest.raises((ConfigError, OutputError)):
            load_config(path, metrics_file=own)


def test_an_interrupt_is_told(job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """After Ctrl-C the file says 130, and that no run goes on."""
    endpoint.pause()
    target = tmp_path / "out.prom"
    command = [sys.executable, "-m", "enrich.cli", "run", str(job()), "--metrics-file", str(target), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert endpoint.arrived.wait(30)
        process.send_signal(signal.SIGINT)
        endpoint.resume()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    samples = parsed(target.read_text(encoding="utf-8"))
    assert value(samples, "last_run_exit_code") == json.loads(out)["exit_code"] == 130
    assert value(samples, "running") == 0


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
COUNTS = st.lists(st.tuples(TEXTS, st.integers(0, 10**12)), max_size=4, unique_by=lambda pair: pair[0])


@given(COUNTS, TEXTS, st.floats(0), st.none() | st.sampled_from([0, 3, 4, 130]))
def test_every_label_reads_back(
    causes: list[tuple[str, int]], output: str, pause: float, code: int | None
) -> None:
    """Whatever an endpoint calls its errors, and an output its file, Prometheus' parser reads it as it was."""
    now = Snapshot(
        "asking", 1, 2, 1.0, retries=tuple(causes), pause=pause, rows=(("s", "ok", 2),), input_rows=5
    )
    text = exposition(now, output, ended=None if code is None else Ended(code, 1.5, 2.0))
    read: dict[str, Any] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["output"] == output
            if sample.name == "beatra_enrich_retries_total":
                read[sample.labels["cause"]] = sample.value
            elif sample.name == "beatra_enrich_pause_seconds":
                assert sample.value == pause
    assert read == {cause: float(count) for cause, count in causes}
    assert 'beatra_enrich_rows{step="s",status="pending",' in text


def test_what_is_no_text_is_told_apart() -> None:
    """Halves of characters, which no file in UTF-8 holds, are written as their numbers: no two series are the same."""
    now = Snapshot("asking", 1, 2, 1.0, retries=(("\ud800", 1), ("\ud801", 2)))
    families = text_string_to_metric_families(exposition(now, "o"))
    found = {
        s.labels["cause"]: s.value for f in families for s in f.samples if s.name.endswith("retries_total")
    }
    assert found == {r"\ud800": 1, r"\ud801": 2}
