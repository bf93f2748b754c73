"""The report: its numbers are the run's, its size is bounded, nothing of a row can act on its page.

It is long because a page's parts are read from pages that are made once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import random
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import escape

import enrich
from enrich.base.loops import run_sync
from enrich.errors import EnrichError, OutputError
from enrich.files import storage
from enrich.files.writers import MANIFEST_KEY
from enrich.ledger.sqlite import open_ledger
from enrich.records import Ask, Reply, key_text
from enrich.report.page import LIBRARY, gather, render, report_job, write_report
from enrich.report.rows import read_rows
from tests.helpers.endpoint import BookedEndpoint, envelope
from tests.helpers.reported import HOSTILE, options, page_of, reported

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import Config
    from enrich.records import Summary
    from enrich.report.facts import (
        Report,
    )
    from tests.helpers.warm import Ended

MOST_BYTES = 5_000_000  # of a page, whatever the run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Summary]:
    """A run with retries and failures of every kind."""
    return reported(tmp_path_factory.mktemp("report"))


def facts_of(config: Config, *, content: bool = True) -> Report:
    """Gather the report on a job's last run."""

    async def main() -> Report:
        ledger = await open_ledger(Path(config.ledger_location()))
        try:
            return await gather(config, ledger, content=content)
        finally:
            await ledger.close()

    return run_sync(main)


# --- the numbers ----------------------------------------------------------------------------------------


def test_rows_per_status_are_those_of_the_run(made: tuple[Config, Summary]) -> None:
    """Each status is counted as the summary counts it."""
    config, summary = made
    (step,) = facts_of(config).rows.steps
    assert dict(step.statuses) == {status: count for status, count in summary.statuses.items() if count}
    assert len(dict(step.statuses)) >= 5


def test_requests_tokens_and_credits_are_those_of_the_run(made: tuple[Config, Summary]) -> None:
    """What the ledger's log adds up to is what the run counted."""
    config, summary = made
    requests = facts_of(config).requests
    assert (requests.requests, requests.attempts) == (summary.requests, summary.attempts)
    assert sum(use.total_tokens for use in requests.models) == summary.total_tokens
    assert sum(use.credits for use in requests.models) == pytest.approx(summary.credits)
    assert sum(slot * requests.timeline.width for slot in requests.timeline.answers) == pytest.approx(
        sum(use.answers for use in requests.models)
    )


def test_causes_of_failed_attempts_say_how_many_were_answered_in_the_end(
    made: tuple[Config, Summary],
) -> None:
    """A retried error is told apart from a final one."""
    config, summary = made
    (cause,) = [cause for cause in facts_of(config).requests.causes if cause.code == "internal_error"]
    failed = summary.statuses["error"]
    assert cause.attempts == summary.retries["internal_error"] + failed
    assert cause.recovered >= cause.attempts - 2 * failed
    assert cause.status == 500
    assert cause.request_id


def test_what_held_the_run_up_stands_on_the_page(tmp_path: Path) -> None:
    """The cause, its figure and what to change are told as in the summary; what was found of the limits as well."""
    config, summary = reported(tmp_path)
    assert summary.bound_by is not None
    page = page_of(config)
    assert f"was bound by {escape(summary.bound_by['text'])}" in page
    assert f"To go faster: {escape(summary.bound_by['change'])}." in page
    assert ('id="found"' in page) is bool(summary.found)
    for phrase in summary.found:
        assert escape(phrase) in page


def test_a_run_that_told_nothing_of_what_held_it_up_has_a_page(made: tuple[Config, Summary]) -> None:
    """The summary of an older version is shown without it."""
    facts = facts_of(made[0])
    (run,) = facts.runs
    told = {name: value for name, value in facts.summary.items() if name not in ("bound_by", "found")}
    assert "was bound by" not in render(replace(facts, summary=told, runs=(replace(run, summary=told),)))


def test_failed_rows_carry_their_row_code_and_request_id(made: tuple[Config, Summary]) -> None:
    """A failure is listed with what support asks for."""
    config, summary = made
    rows = facts_of(config).rows
    failed = sum(summary.statuses[status] for status in ("error", "invalid_output", "truncated", "filtered"))
    assert sum(count for _, count in rows.failure_codes) == failed
    table = pq.read_table(config.output.path).to_pylist()
    for failure in rows.failures:
        assert failure.row is not None
        line = table[failure.row - 1]
        assert (failure.status, failure.request_id) == (line["s_status"], line["s_request_id"])
        assert line["s_error"].startswith(failure.code)


def test_samples_show_prompt_answer_and_parsed_values(made: tuple[Config, Summary]) -> None:
    """A sample is spread over the rows, and holds what was asked and what came."""
    config, _ = made
    samples = facts_of(config).rows.samples
    assert {1, 4, 7, 298} <= {sample.row for sample in samples}
    good = next(sample for sample in samples if sample.status == "ok")
    assert good.prompt.startswith("user: Classify: ")
    assert dict(good.parsed)["s_label"] in ("pos", "neg", "neutral")
    assert dict(good.parsed)["s_label"] in good.answer
    assert [name for name, _ in good.given] == ["review"]
    assert ("s_label", dict(good.parsed)["s_label"]) in good.labels


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "arrow"])
def test_every_output_format_is_read_alike(made: tuple[Config, Summary], tmp_path: Path, suffix: str) -> None:
    """A report on a text output tells what one on Parquet tells."""
    config, _ = made
    other = config.model_copy(
        update={
            "output": config.output.model_copy(update={"path": str(tmp_path / f"out.{suffix}")}),
            "ledger": config.ledger_location(),
        }
    )
    enrich.collect(other)
    here, there = read_rows(other), read_rows(config)
    assert [dict(step.statuses) for step in here.steps] == [dict(step.statuses) for step in there.steps]
    assert here.failure_codes == there.failure_codes
    assert [(s.row, s.key, s.tokens, s.credits) for s in here.samples] == [
        (s.row, s.key, s.tokens, s.credits) for s in there.samples
    ]
    assert [s.credits for s in here.costliest] == [s.credits for s in there.costliest]


# --- which run ------------------------------------------------------------------------------------------


def test_a_run_that_sent_nothing_does_not_hide_what_the_job_took(tmp_path: Path) -> None:
    """The page heads with the requests and credits of all runs, and lists the runs, the newest first."""
    config, first = reported(tmp_path, options(()), rows=20)
    second = enrich.run(config, force=True)
    report = facts_of(config)
    assert second.requests == 0
    assert report.requests.requests == first.requests == 20
    assert [(run.number, run.summary and run.summary["requests"]) for run in report.runs] == [(2, 0), (1, 20)]
    page = page_of(config)
    assert '<dt>Requests sent</dt><dd><span class="big">20</span>' in page
    assert "Run 1 was bound by" in page


def test_a_run_that_was_killed_is_in_the_list(tmp_path: Path) -> None:
    """What has no summary is told as such; its requests count."""
    config, _ = reported(tmp_path, options(()), rows=20)
    with sqlite3.connect(config.ledger_location()) as ledger:
        ledger.execute("UPDATE run SET summary = NULL, ended_at = NULL")
    ledger.close()
    enrich.run(config)
    report = facts_of(config)
    assert [run.summary is None for run in report.runs] == [False, True]
    assert report.requests.requests == 20
    assert "has not ended: it is at work, or was killed" in page_of(config)


def test_the_runs_of_another_job_are_left_out(tmp_path: Path) -> None:
    """Two jobs share a ledger: each page tells of its own runs, requests and credits."""
    config, first = reported(tmp_path, options(()), rows=20)
    pq.write_table(pa.table({"review": ["another"]}), tmp_path / "more.parquet")
    other = config.model_dump(mode="json", by_alias=True) | {
        "input": str(tmp_path / "more.parquet"),
        "output": str(tmp_path / "other.parquet"),
        "ledger": config.ledger_location(),
        "endpoint": {"base_url": "sandbox"},
    }
    second = enrich.Config.model_validate(other)
    assert enrich.run(second).requests == 1
    report = facts_of(second)
    assert [run.number for run in report.runs] == [2]
    assert report.requests.requests == 1
    assert sum(use.credits for use in report.requests.models) < first.credits / 2


def test_a_folder_of_outputs_has_its_rows_on_the_page(tmp_path: Path) -> None:
    """Partitions are one table for the page too, also after a run that found all of them unchanged."""
    for day in ("2026-11-21", "2026-11-22"):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        pq.write_table(
            pa.table({"t": [f"{day} one", f"{day} two"]}), tmp_path / "in" / f"day={day}" / "a.parquet"
        )
    config = enrich.Config.model_validate(
        {
            "input": str(tmp_path / "in"),
            "output": f"{tmp_path / 'out'}/",
            "endpoint": {"base_url": "sandbox"},
            "steps": [{"name": "s", "prompt": "{{ t }}"}],
        }
    )
    for _ in range(2):
        enrich.run(config)
        report = facts_of(config)
        assert (report.rows.count, report.rows.failed) == (4, 0)
        assert {dict(sample.given)["t"] for sample in report.rows.samples} == {
            f"{day} {text}" for day in ("2026-11-21", "2026-11-22") for text in ("one", "two")
        }
        assert '<dt>Rows</dt><dd><span class="big">4</span>' in page_of(config)


def test_a_stopped_run_is_reported_from_its_ledger(tmp_path: Path) -> None:
    """Without an output there are still samples, failures and what is pending."""
    config, summary = reported(tmp_path, options(("internal_error_final=0.4",), balance=0.15), rows=200)
    assert summary.exit_code == 4
    text = page_of(config)
    assert "stopped early" in text
    assert "pending" in text
    assert "Classify: number" in text
    assert "internal_error" in text
    bare = page_of(config, content=False)
    assert "insufficient_balance" in bare
    assert "The account&#39;s balance is spent." in text
    assert "The account&#39;s balance is spent." not in bare


def test_a_ledger_without_a_run_says_what_to_type(tmp_path: Path, job: Callable[..., Path]) -> None:
    """There is nothing to report before the first run."""
    config = enrich.load_config(job(endpoint={"base_url": "sandbox"}))
    with pytest.raises(EnrichError, match=r"there is no ledger at .* yet\nHint: beatra-enrich run CONFIG"):
        run_sync(lambda: report_job(config))
    enrich.collect(config)
    with pytest.raises(EnrichError, match=r"no run has ended yet in "):
        run_sync(lambda: report_job(config))


def test_the_run_of_another_job_is_not_passed_off_as_this_one(made: tuple[Config, Summary]) -> None:
    """Two jobs may share a ledger; the last run is one of them."""
    config, _ = made
    other = config.model_copy(
        update={
            "output": config.output.model_copy(update={"path": "/elsewhere/out.parquet"}),
            "ledger": config.ledger_location(),
        }
    )
    with pytest.raises(
        EnrichError, match=r"wrote .*out.parquet, not /elsewhere/out.parquet\nHint: add --output"
    ):
        run_sync(lambda: report_job(other))


def test_a_run_over_no_rows_has_a_report(tmp_path: Path) -> None:
    """An empty input is no reason to fail."""
    config, summary = reported(tmp_path, options(()), rows=0)
    assert summary.rows == 0
    page = page_of(config)
    assert "No answer came." in page
    assert "data-chart" not in page.partition("<script")[0]


# --- at the end of a run, and by hand -------------------------------------------------------------------


def test_a_run_writes_the_report_that_its_configuration_names(
    cli: Callable[..., Ended], job: Callable[..., Path], tmp_path: Path
) -> None:
    """`report: path` makes the page at the end of the run; relative paths are the configuration's."""
    config = job(endpoint={"base_url": "sandbox"}, report="pages/night.html")
    assert cli("run", config).code == 0
    assert "3 rows done" in (tmp_path / "pages" / "night.html").read_text()
    assert not list((tmp_path / "pages").glob(".*"))


def test_a_report_that_cannot_be_written_does_not_undo_the_run(
    cli: Callable[..., Ended], job: Callable[..., Path], tmp_path: Path
) -> None:
    """The output stands; the warning says which path failed."""
    (tmp_path / "file").touch()
    ended = cli("run", job(endpoint={"base_url": "sandbox"}, report="file/page.html"))
    assert ended.code == 0
    assert "no report: the report" in ended.err
    assert (tmp_path / "out.parquet").exists()


def test_the_command_writes_where_it_is_told(
    cli: Callable[..., Ended], job: Callable[..., Path], tmp_path: Path
) -> None:
    """`report` prints the page's path: beside the output, as configured, or as given."""
    config = job(endpoint={"base_url": "sandbox"})
    cli("run", config)
    assert cli("report", config).out.strip() == str(tmp_path / "report.html")
    assert cli("report", config, "-o", "here.html").out.strip() == "here.html"
    assert (tmp_path / "here.html").exists()
    assert cli("report", config, "--set", "report=there.html").out.strip() == str(tmp_path / "there.html")


def test_pages_of_two_jobs_in_one_folder_stay_apart(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The first is report.html; another output's page is named after it, and each takes its own place again."""
    config = job([{"t": "a"}])
    for name in ("out.parquet", "b & c.parquet"):
        cli("run", config, "--output", name, endpoint=endpoint)
        for _ in range(2):
            page = cli("report", config, "--output", name).out.strip()
            assert page == str(tmp_path / ("report.html" if name == "out.parquet" else "b & c.report.html"))
    assert "<title>out.parquet: report" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_unwritable_page_is_an_error_with_a_hint(made: tuple[Config, Summary]) -> None:
    """No traceback for a bad path."""
    with pytest.raises(OutputError, match=r"the report /proc/no/page.html cannot be written"):
        run_sync(lambda: report_job(made[0], "/proc/no/page.html"))


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_loads_nothing(made: tuple[Config, Summary]) -> None:
    """No address on it is fetched, and its policy forbids any."""
    text = page_of(made[0])
    assert "default-src 'none'" in html.unescape(text)
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(link|img|iframe|object|embed|video|audio|form|base)\b", markup)
    assert not re.search(r"\b(src|srcset|action|data|style|on\w+)=", re.sub(r">[^<]*<", "><", markup))
    assert {link[0] for link in re.findall(r'href="([^"]*)"', markup)} == {"#"}


def test_the_policy_names_exactly_the_scripts_and_styles_of_the_page(made: tuple[Config, Summary]) -> None:
    """What is not ours does not run, even if it got onto the page."""
    text = page_of(made[0])
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])  # type: ignore[index]  # it is there
    own = re.findall(r"<script>(.*?)</script>", text, re.DOTALL) + re.findall(
        r"<style>(.*?)</style>", text, re.DOTALL
    )
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in own}
    assert set(re.findall(r"'sha256-[^']*'", policy)) == hashes
    assert "unsafe" not in policy


def test_what_a_row_holds_is_text(made: tuple[Config, Summary]) -> None:
    """Markup and templates in the data are shown, not carried out."""
    text = page_of(made[0])
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False).partition("onerror")[0] in text
    assert text.count("</script>") == 3


def test_without_content_nothing_of_prompts_and_answers_is_left(made: tuple[Config, Summary]) -> None:
    """Numbers, statuses, codes and ids only."""
    config, summary = made
    text = re.sub(r"<(script|style)\b.*?</\1>", "", page_of(config, content=False), flags=re.DOTALL)
    for word in ("secret-", "Classify", "pwned", "neutral", "sandbox breaks", "can't help"):
        assert word not in text
    assert f"{summary.rows:,}" in text
    assert "invalid_output" in text
    assert "prompts and answers left out" in text


def test_a_page_of_long_and_hostile_texts_stays_small(tmp_path: Path) -> None:
    """Texts are cut: the page's size does not depend on the data's."""
    rows = [{"t": f"{number}" + "<&>\"'" * 4_000} for number in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    config = enrich.Config.model_validate(
        {
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out.parquet"),
            "endpoint": {"base_url": "sandbox"},
            "steps": [{"name": "s", "prompt": "{{ t }}"}],
        }
    )
    enrich.run(config)
    assert len(page_of(config).encode()) < MOST_BYTES / 2


def test_a_shared_ledgers_password_is_nowhere(made: tuple[Config, Summary]) -> None:
    """A database's URL is shown without the password in it, wherever it stands."""
    for url in ("postgresql://ann:hush@db:5432/ledger", "postgres://db/ledger?password=hush&user=ann"):
        config = made[0].model_copy(update={"ledger": url})
        assert "hush" not in config.ledger_shown()
        assert config.ledger_shown().endswith("/ledger")
    assert made[0].ledger_shown() == made[0].ledger_location()


def test_the_embedded_library_is_the_one_that_is_named(made: tuple[Config, Summary]) -> None:
    """Name, version and licence of the chart library go with every page."""
    text = page_of(made[0])
    name, version = LIBRARY.rpartition("/")[2].split("-")
    assert f"(v{version})" in text
    assert f"charts by uPlot {version} (MIT)" in text
    assert "Permission is hereby granted, free of charge" in text
    assert name == "uplot"


# --- suspicious patterns --------------------------------------------------------------------------------


# --- texts ----------------------------------------------------------------------------------------------


# --- a million rows -------------------------------------------------------------------------------------


MILLION = 1_000_000
AT_ONCE = 5_000  # requests written to the ledger together
ANSWER = orjson.dumps(
    {
        "model": "fast-1",
        "choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "credits": 0.01},
    }
)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_the_page_on_a_million_rows_is_small(tmp_path: Path) -> None:
    """Whatever the run, its page opens at once."""
    config = enrich.Config.model_validate(
        {
            "input": "in.parquet",
            "output": str(tmp_path / "out.parquet"),
            "ledger": str(tmp_path / "ledger.db"),
            "steps": [{"name": "s", "prompt": "{{ t }}"}],
        }
    )
    ledger = await open_ledger(tmp_path / "ledger.db")
    await ledger.open_run({})
    chance = random.Random(1)
    for start in range(0, MILLION, AT_ONCE):
        asks = [_ask(number) for number in range(start, start + AT_ONCE)]
        await ledger.claim(asks)
        replies = [Reply(ANSWER, "req_1", chance.lognormvariate(5, 1)) for _ in asks]
        await asyncio.gather(*(ledger.answer(a.key, r) for a, r in zip(asks, replies, strict=True)))
    await ledger.close_run(_million_done(config).to_dict())
    pq.write_table(_million_rows(), config.output.path)
    page = storage.read(await write_report(config, ledger, tmp_path / "report.html")) or b""
    await ledger.close()
    assert 0 < len(page) < MOST_BYTES
    assert b"1,000,000" in page


def _ask(number_: int) -> Ask:
    body = orjson.dumps({"model": "fast-1", "messages": [{"role": "user", "content": f"{number_} " * 20}]})
    return Ask(number_.to_bytes(16, "big"), body, "fast-1")


def _million_done(config: Config) -> Summary:
    return enrich.Summary(
        rows=MILLION,
        statuses={"ok": MILLION},
        requests=MILLION,
        attempts=MILLION,
        prompt_tokens=9 * MILLION,
        completion_tokens=MILLION,
        total_tokens=10 * MILLION,
        credits=0.01 * MILLION,
        seconds=1.0,
        rows_per_second=1.0,
        output=config.output.path,
        ledger=config.ledger,
        exit_code=0,
        reason="1,000,000 rows done",
    )


def _million_rows() -> pa.Table:
    every: dict[str, Any] = {
        "s": "yes",
        "s_status": "ok",
        "s_error": None,
        "s_model": "fast-1",
        "s_request_id": "req_1",
        "s_total_tokens": 10,
        "s_credits": 0.01,
        "s_attempts": 1,
        "s_latency_ms": 84.0,
        "s_source": "api",
    }
    everywhere: Any = pa.array(np.zeros(MILLION, np.int64))
    columns = {name: pa.array([value]).take(everywhere) for name, value in every.items()}
    keys = [key_text(number_.to_bytes(16, "big")) for number_ in range(MILLION)]
    table = pa.table({**columns, "s_idempotency_key": keys})
    return table.replace_schema_metadata({MANIFEST_KEY: b'{"version": "0", "rows": 1000000}'})


def test_the_credits_are_those_of_the_whole_job(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """After a `retry` of one row the page heads with what the output cost, not with that row alone."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"two" in seen.raw else None
    config = job([{"t": "one"}, {"t": "two"}, {"t": None}, {"t": "three"}], step={"on_null": "skip"})
    cli("run", config, endpoint=endpoint)
    endpoint.script = None
    cli("retry", config, endpoint=endpoint)
    cli("report", config, "-o", "report.html", endpoint=endpoint)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    heading = re.search(
        r"<dt>Credits</dt><dd><span class=\"big\">([0-9.]+)</span><br><span[^>]*>([^<]*)<", page
    )
    assert heading is not None
    assert float(heading[1]) == pytest.approx(endpoint.credits, rel=1e-3)
    assert "in the last run" in heading[2]
    assert "100 % ok, 1 skipped" in page
