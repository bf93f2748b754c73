"""The command line as a user has it: the console script in a process of its own.

It is long because the commands share one warm process and one endpoint.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import pyarrow.parquet as pq
import pytest

from enrich.cli.app import main
from enrich.files.output_lock import hold_output
from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

STATUSES = (
    "ok",
    "error",
    "invalid_output",
    "unsupported",
    "truncated",
    "filtered",
    "in_doubt",
    "skipped",
    "pending",
)
SUMMARY = {
    *("rows", *STATUSES, "requests", "attempts", "prompt_tokens", "completion_tokens", "total_tokens"),
    *("credits", "seconds", "rows_per_second", "output", "ledger", "exit_code", "reason"),
}
FURTHER = {
    "retries",
    "resumable",
    "causes",
    "sandbox",
    "reused",
    "unknown_finish",
    "bound_by",
    "found",
    "cached_tokens",
    "reasoning_tokens",
    "credits_usd",
    "waste",
}  # what the summary holds beyond what is promised
UNNEEDED = (  # by a run of one row between Parquet files
    *(
        "json_repair",
        "jsonschema_rs",
        "pandas",
        "polars",
        "psycopg",
        "pyarrow.compute",
        "pyarrow.dataset",
        "pyarrow.flight",
    ),
    *("duckdb", "deltalake", "pyiceberg", "opentelemetry", "mcp", "statistics"),
    *(
        "rich",
        "rstr",
        "enrich.agents",
        "enrich.frames",
        "enrich.live",
        "enrich.report",
        "enrich.sandbox",
        "enrich.verbs",
    ),
)
HEAVY = ("pandas", "pyarrow", "aiohttp", "pydantic", "numpy", "jinja2", "yaml", "rich", "uvloop")


def summary_of(ended: Ended) -> dict[str, Any]:
    """Read the one line of JSON on stdout."""
    summary = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    assert set(summary) == SUMMARY | FURTHER
    assert sum(summary[status] for status in STATUSES) == summary["rows"]
    assert summary["exit_code"] == ended.code
    return dict(summary)


def statuses(path: Path) -> list[str]:
    """Read the statuses of step `s`."""
    return [str(status) for status in pq.read_table(path)["s_status"].to_pylist()]


# --- run --------------------------------------------------------------------------------------------------


def test_run_twice_with_json(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`run --json` prints one summary; a second run sends nothing and gives the same rows."""
    config = job([{"t": "a"}, {"t": "b"}, {"t": "a"}])
    first = summary_of(cli("run", config, "--json", endpoint=endpoint, script=True))
    assert (first["rows"], first["ok"], first["requests"], first["attempts"]) == (3, 3, 2, 2)
    assert first["credits"] == pytest.approx(endpoint.credits)
    assert first["output"] == str(tmp_path / "out.parquet")
    assert first["ledger"] == str(tmp_path / ".beatra" / "ledger.db")
    assert first["reason"] == "3 rows done"
    second = summary_of(cli("run", config, "--json", endpoint=endpoint))
    assert (second["requests"], second["attempts"], second["credits"], second["total_tokens"]) == (0, 0, 0, 0)
    assert len(endpoint.charges) == 2


def test_progress_goes_to_stderr_and_results_to_stdout(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Without --json stdout stays empty, and stderr ends with one sentence; --quiet says nothing at all."""
    config = job()
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines()[-1].startswith("3 rows done: 3 requests sent, ")
    quiet = cli("run", config, "--quiet", endpoint=endpoint)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_logs_are_json_when_asked(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`-v --log-format json` tells of retries, one object a line, without key or prompt."""
    failed: set[str] = set()

    def fail_each_once(seen: Any) -> Any:
        if seen.key in failed:
            return None
        failed.add(seen.key)
        return envelope("billing_failed", 500, retryable=True)

    endpoint.script = fail_each_once
    config = job([{"t": "a secret prompt"}], retry={"max_wait": 0.01})
    ended = cli("run", config, "-v", "--log-format", "json", "--no-progress", endpoint=endpoint)
    entry = json.loads(ended.err.splitlines()[0])
    assert (entry["level"], entry["code"], entry["model"]) == ("info", "billing_failed", "auto")
    assert "secret prompt" not in ended.err


def test_flags_override_file_and_environment(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """--input, --output, --limit and --set stand above the file; paths are relative to the working folder."""
    config = job(endpoint={"base_url": "http://127.0.0.1:1/v1"})
    (tmp_path / "other.csv").write_text("t\nx\ny\nz\n", encoding="utf-8")
    overrides = ("--set", f"endpoint.base_url={endpoint.base_url}", "--set", "steps.s.model=fast-1")
    args = ("--input", "other.csv", "--output", "there/o.jsonl", "--limit", "2", *overrides)
    ended = cli("run", config, *args, "--json", endpoint=endpoint)
    assert summary_of(ended)["rows"] == 2
    lines = (tmp_path / "there" / "o.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["t"] for line in lines] == ["x", "y"]
    assert {post.body["model"] for post in endpoint.posts} == {"fast-1"}


def test_sandbox_flag_runs_without_key(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """`--sandbox` needs neither key nor network."""
    assert summary_of(cli("run", job(), "--sandbox", "--json"))["ok"] == 3


def test_fresh_asks_anew(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`--fresh` pays again, once; plain runs after it do not."""
    config = job()
    asked = [
        summary_of(cli("run", config, "--json", *flags, endpoint=endpoint))["requests"]
        for flags in ((), ("--fresh",), ())
    ]
    assert asked == [3, 3, 0]


# --- exit codes -------------------------------------------------------------------------------------------


def test_exit_code_3_when_more_rows_fail_than_tolerated(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The output is written, the closing words name the next command; within `tolerate` the code is 0."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"two" in seen.raw else None
    config = job()
    ended = cli("run", config, "--set", "limits.concurrency=2", endpoint=endpoint)
    assert ended.code == 3
    assert "3 rows done, but 1 error: " in ended.err
    assert f"`beatra-enrich retry {config} --set limits.concurrency=2` asks those rows again" in ended.err
    assert statuses(tmp_path / "out.parquet") == ["ok", "error", "ok"]
    assert cli("run", config, "--set", "tolerate=1", endpoint=endpoint).code == 0


def test_exit_code_4_leaves_the_output_alone(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A refused key ends with 4, in words that say why and how to go on; the output stays byte for byte."""
    (tmp_path / "out.parquet").write_bytes(b"earlier")
    config = job()
    ended = cli("run", config, endpoint=endpoint, BEATRA_API_KEY="sk-some-other-key-0123456789")
    assert ended.code == 4
    assert "the endpoint refused the API key: invalid_api_key: no such key (request id " in ended.err
    assert f"`beatra-enrich run {config}` goes on from here" in ended.err
    assert f"`beatra-enrich collect {config}` shows what there is" in ended.err
    assert (tmp_path / "out.parquet").read_bytes() == b"earlier"
    assert "sk-some-other-key" not in ended.err


def test_exit_code_5_while_another_run_holds_the_output(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A second run on the same output says so and sends nothing."""
    config = job()
    with hold_output(tmp_path / "out.parquet"):
        ended = cli("run", config, endpoint=endpoint)
    assert ended.code == 5
    assert ended.err.startswith("Error: another run ")
    assert endpoint.seen == []


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)])
def test_exit_code_130_when_interrupted(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    *,
    number: signal.Signals,
    times: int,
) -> None:
    """A signal stops the run in good order, also one that timeout(1) doubles: what is in flight is awaited and kept."""
    config = job([{"t": f"row {i}"} for i in range(50)], limits={"concurrency": 4, "adaptive": False})
    endpoint.pause()
    environment = {**os.environ, "BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    with subprocess.Popen(
        [SCRIPT, "run", config], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert endpoint.arrived.wait(60)
        for _ in range(times):
            process.send_signal(number)
        assert process.stderr is not None
        line = ""
        while not line.startswith("stopping: "):
            line = process.stderr.readline()
        endpoint.resume()
        said = process.stderr.read()
    assert process.returncode == 130
    assert f"`beatra-enrich run {config}` goes on from here" in said
    assert not (tmp_path / "out.parquet").exists()
    assert 0 < len(endpoint.charges) < 50
    assert summary_of(cli("run", config, "--json", endpoint=endpoint))["ok"] == 50
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_mistake_is_one_message_without_a_traceback(cli: Callable[..., Ended], tmp_path: Path) -> None:
    """A missing file ends with 2 and two lines."""
    ended = cli("run", "nowhere.yaml", script=True)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "Error: no configuration file nowhere.yaml\nHint: beatra-enrich init makes one.\n"
    assert list(tmp_path.iterdir()) == []


# --- the other commands -----------------------------------------------------------------------------------


def test_collect_shows_what_there_is(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`collect -o` assembles answered rows and pending ones from the job's own ledger, and sends nothing."""
    config = job()
    cli("run", config, "--limit", "2", endpoint=endpoint)
    posts = len(endpoint.posts)
    ended = cli("collect", config, "-o", "so-far.parquet", "--json", endpoint=endpoint)
    summary = summary_of(ended)
    assert (ended.code, summary["ok"], summary["pending"], summary["requests"]) == (0, 2, 1, 0)
    assert statuses(tmp_path / "so-far.parquet") == ["ok", "ok", "pending"]
    assert len(endpoint.posts) == posts
    assert len(pq.read_table(tmp_path / "out.parquet")) == 2


def test_retry_asks_failed_rows_only(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`retry` asks what failed and leaves the rest; afterwards everything is there."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"two" in seen.raw else None
    config = job()
    assert cli("run", config, endpoint=endpoint).code == 3
    endpoint.script = None
    summary = summary_of(cli("retry", config, "--json", endpoint=endpoint))
    assert (summary["exit_code"], summary["ok"], summary["requests"]) == (0, 3, 1)
    assert set(endpoint.charges_per_body.values()) == {1}


def test_retry_leaves_the_output_when_rows_were_never_asked(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A changed request was never asked: `retry` does not put pending rows in the place of answers."""
    config = job()
    assert cli("run", config, endpoint=endpoint).code == 0
    before = (tmp_path / "out.parquet").read_bytes()
    ended = cli("retry", config, "--set", "steps.0.temperature=1", "--json", endpoint=endpoint)
    summary = summary_of(ended)
    assert (ended.code, summary["pending"], summary["requests"]) == (4, 3, 0)
    assert "never asked in this form" in summary["reason"]
    assert f"`beatra-enrich run {config}" in summary["reason"]
    assert (tmp_path / "out.parquet").read_bytes() == before


def test_retry_takes_known_statuses_only(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """An unknown status is refused with those there are; an empty list is not the default's, nor a whole run."""
    ended = cli("retry", job(), "--status", "eror")
    assert ended.code == 2
    assert ended.err.startswith("Error: --status eror: no such status\nHint: ")
    ended = cli("retry", tmp_path / "config.yaml", "--status", "", endpoint=endpoint)
    assert (ended.code, endpoint.posts) == (2, [])


def test_status_tells_what_the_ledger_knows(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`status` counts requests and what was spent, as text or JSON; without a ledger it says so."""
    config = job()
    missing = cli("status", config)
    assert missing.code == 2
    assert "there is no ledger at " in missing.err
    cli("run", config, endpoint=endpoint)
    found = json.loads(cli("status", config, "--json").out)
    assert found["requests"]["answered"] == 3
    assert found["credits"] == pytest.approx(endpoint.credits)
    text = cli("status", config)
    assert "answered    3" in text.out
    assert "last run    3 rows done" in text.out


def test_preview_shows_bodies_and_sends_nothing(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`preview` needs no key, writes nothing, and shows the very requests that a run sends."""
    config = job(step={"system": "Be brief.", "temperature": 0})
    ended = cli("preview", config, "-n", "1", BEATRA_BASE_URL=endpoint.base_url)
    assert ended.code == 0
    assert endpoint.seen == []
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "in.parquet"}
    title, target, key, body = ended.out.split("\n", 3)
    assert (title, target) == ("# row 1, step s", f"POST {endpoint.base_url}/chat/completions")
    cli("run", config, "--limit", "1", endpoint=endpoint)
    assert endpoint.posts[0].body == json.loads(body)
    assert key == f"Idempotency-Key: {endpoint.posts[0].key}"


def test_check_looks_at_everything_but_asks_nothing(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`check` passes from input to models without a completion, and leaves no output."""
    ended = cli("check", job(step={"model": "fast-1"}), endpoint=endpoint)
    assert ended.code == 0, ended.out
    found = [line.split()[:2] for line in ended.out.splitlines()]
    names = ["config", "input", "templates", "output", "ledger", "endpoint", "key", "models"]
    assert found == [["ok", name] for name in names]
    assert endpoint.posts == []
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("step", "script", "failing"),
    [
        ({"model": "fast-9"}, None, "models"),
        ({"prompt": "{{ nowhere }}"}, None, "templates"),
        ({}, lambda seen: envelope("invalid_api_key", 401) if "models" in seen.path else None, "key"),
        ({}, lambda seen: envelope("x", 503) if "health" in seen.path else None, "endpoint"),
    ],
)
def test_check_names_what_fails(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    *,
    step: dict[str, str],
    script: Any,
    failing: str,
) -> None:
    """A check that finds something wrong marks the line and ends with 2."""
    endpoint.script = script
    ended = cli("check", job(step=step), endpoint=endpoint)
    assert ended.code == 2
    failed = [line.split()[1] for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert failed == [failing]


def test_check_says_once_that_nobody_is_there(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """An endpoint that cannot be reached is one finding: that no models were listed says nothing more."""
    ended = cli("check", job(endpoint={"base_url": "http://127.0.0.1:1/v1"}))
    assert ended.code == 2
    assert [line.split()[1] for line in ended.out.splitlines() if line.startswith("FAIL")] == ["endpoint"]


def test_check_does_without_a_health_check(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """An endpoint that lists models but has no health check, as other vendors' have none, passes."""
    endpoint.script = lambda seen: Raw(b"Not Found", 404) if "health" in seen.path else None
    ended = cli("check", job(), endpoint=endpoint)
    assert ended.code == 0, ended.out
    assert "it has no health check" in ended.out


def test_a_report_before_any_run_is_a_mistake_not_a_defect(
    cli: Callable[..., Ended], job: Callable[..., Path]
) -> None:
    """`report` without a ledger, and on one without a run, ends with 2."""
    config = job()
    assert cli("report", config).code == 2
    assert cli("collect", config).code == 0
    assert cli("report", config).code == 2


def test_models_lists_the_account_s(cli: Callable[..., Ended], endpoint: BookedEndpoint) -> None:
    """`models` works from the environment alone; an endpoint without a list is told, with exit code 4."""
    assert cli("models", endpoint=endpoint).out == "served-1\nfast-1\nauto\n"
    endpoint.script = lambda _: envelope("nope", 404)
    ended = cli("models", endpoint=endpoint)
    assert ended.code == 4
    assert "/models: nope: as told" in ended.err


def test_init_makes_a_job_that_runs(cli: Callable[..., Ended], tmp_path: Path) -> None:
    """`init` writes files that run at once, and never replaces any."""
    made = cli("init", "demo")
    assert made.code == 0
    assert made.out.endswith("Now: beatra-enrich run demo/config.yaml\n")
    assert summary_of(cli("run", "demo/config.yaml", "--json"))["ok"] == 8
    again = cli("init", "demo")
    assert again.code == 2
    assert again.err.startswith("Error: demo/config.yaml is there already\n")


def test_schema_is_json_schema(cli: Callable[..., Ended]) -> None:
    """`schema` prints a JSON Schema that names the file's keys."""
    schema = json.loads(cli("schema").out)
    assert {"input", "output", "steps", "limits", "budget"} <= set(schema["properties"])
    assert "schema" in schema["$defs"]["StepConfig"]["properties"]


def test_sandbox_lists_its_faults(cli: Callable[..., Ended]) -> None:
    """`sandbox --fault list` names what can go wrong."""
    ended = cli("sandbox", "--fault", "list")
    assert ended.code == 0
    assert {"reset_after_charge", "rate_limited"} <= {line.split()[0] for line in ended.out.splitlines()}


def test_the_sandbox_command_serves_a_job(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """A job runs against `beatra-enrich sandbox` in a process of its own."""
    args = [str(SCRIPT), "sandbox", "--port", "0", "--latency", "0"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ended = cli("run", job(), "--json", BEATRA_BASE_URL=url, BEATRA_API_KEY="sk-any-key-will-do")
        server.terminate()
    assert summary_of(ended)["ok"] == 3
    assert server.returncode == 0


def test_help_and_version_answer_fast(cli: Callable[..., Ended]) -> None:
    """`--help` names the exit codes; it and `--version` import nothing heavy."""
    assert "130  interrupted, resumable" in cli("--help", script=True).out
    code = (
        "import sys\nfrom enrich.cli.app import main\n"
        "try: main([sys.argv[1]])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=True)
        assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("kind", "needed"), [("parquet", ()), ("csv", ("pyarrow.compute",)), ("jsonl", ("pyarrow.compute",))]
)
def test_a_run_loads_what_it_needs(
    kind: str, needed: tuple[str, ...], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A run without a frame loads no pandas, nor anything else that other jobs alone have a use for."""
    row = {"t": "one", "f": 0.5, "n": None, "m": datetime(2026, 1, 2, tzinfo=UTC)}
    step = {"prompt": "{{ t }} {{ f }} {{ m }} {{ n }}", "on_null": "render"}
    config = job(
        [row, {**row, "f": None, "m": None}],
        step=step,
        output=f"out.{kind}",
        endpoint={"base_url": endpoint.base_url},
    )
    code = (
        "import sys\nfrom enrich.cli.app import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: print(end.code)\n"
        f"print([m for m in {UNNEEDED!r} if m in sys.modules and m not in {needed!r}])"
    )
    command = [sys.executable, "-c", code, "run", str(config), "-q"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "BEATRA_API_KEY": KEY}
    )
    assert done.stdout.split("\n") == ["0", "[]", ""]


def test_every_command_has_help_with_an_example(cli: Callable[..., Ended]) -> None:
    """Each command explains itself and shows how it is typed."""
    for name, command in main.commands.items():
        assert command.help, name
        assert f"beatra-enrich {name}" in command.help or isinstance(command, click.Group), name


# --- what is left behind ------------------------------------------------------------------------------------


def test_the_ledger_is_for_its_owner_alone(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Ledger files have mode 0600, whatever the umask; no temporary file is left beside the output."""
    cli("run", job(), endpoint=endpoint)
    for path in (tmp_path / ".beatra").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml",
        "in.parquet",
        "out.parquet",
        ".beatra",
    }


def test_the_key_stands_nowhere(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Not in what is printed, at any verbosity, nor in any file, even when the server sends it back."""
    endpoint.script = lambda seen: (
        envelope("invalid_request", 400, message=f"bad header {seen.headers['authorization']}")
        if b"two" in seen.raw
        else None
    )
    config = job()
    said = [
        cli(*command, endpoint=endpoint)
        for command in (("run", config, "-vv"), ("status", config), ("check", config), ("preview", config))
    ]
    assert KEY not in "".join(ended.out + ended.err for ended in said)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl.gz"])
def test_names_of_files_need_be_no_utf8(
    cli: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path, suffix: str
) -> None:
    """Configuration, input, output, report and exports are found, written and told under whatever name they have."""
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.csv").write_text("id,review\n1,good\n2,bad\n")
    config, output = f"{name}.yaml", f"{name}.{suffix}"
    (tmp_path / config).write_text(
        "input: in\noutput: out.parquet\nsteps: [{name: s, prompt: 'Say: {{ review }}'}]\n"
    )
    told = ("--input", name, "--output", output)
    done = cli("run", config, *told, "--json", endpoint=endpoint)
    assert done.code == 0, done.err
    assert json.loads(done.out)["output"].endswith(output)
    assert (tmp_path / output).is_file()
    commands = (
        ("run",),
        ("collect", "-o", f"{name}2.{suffix}"),
        ("plan",),
        ("status",),
        ("show",),
        ("check",),
    )
    for command, *more in (
        *commands,
        ("report", "-o", f"{name}.html"),
        ("ledger", "export", "-o", f"{name}3.csv"),
    ):
        words = [command, more.pop(0)] if command == "ledger" else [command]
        given = (
            ()
            if command in ("status", "ledger")
            else ("--output", output)
            if command in ("report", "show")
            else told
        )
        done = cli(*words, config, *given, *more, endpoint=endpoint)
        assert done.code == 0, (command, done.err)
    assert (tmp_path / f"{name}.html").is_file()
    assert len(endpoint.posts) == 2
