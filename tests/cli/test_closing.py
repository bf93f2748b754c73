"""The closing lines of a run: why rows failed, and for each cause what helps against it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.endpoint import BookedEndpoint, Raw, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended


def ended_by(finish_reason: str) -> Raw:
    """Make a completion that ended for another reason than `stop`."""
    choices = [{"message": {"role": "assistant", "content": "half an"}, "finish_reason": finish_reason}]
    return Raw(json.dumps({"choices": choices}).encode())


def test_each_cause_has_its_own_remedy(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Null values lead to `on_null`, cut answers to `on_truncated`, filtered ones to the text; the rest to `retry`."""
    answers: dict[bytes, Any] = {
        b"cut": ended_by("length"),
        b"bad": ended_by("content_filter"),
        b"no": envelope("invalid_request", 400),
        b"doubt": Raw(b"broken", 500),
    }
    endpoint.script = lambda seen: next((raw for word, raw in answers.items() if word in seen.raw), None)
    config = job(
        [{"t": t} for t in ("fine", None, "cut", "bad", "no", "doubt", None)], step={"max_tokens": 8}
    )
    config = config.rename(config.with_name("of mine.yaml"))
    lines = cli("run", config, "--set", "retry.max_wait=0.01", endpoint=endpoint).err.splitlines()
    same = f"'{config}' --set retry.max_wait=0.01"
    told = dict(zip(lines[1:-1:2], lines[2:-1:2], strict=True))
    remedies = {cause.split(" at step s, ")[0].strip(): remedy for cause, remedy in told.items()}
    assert set(remedies) == {
        "2 rows error, null_value",
        "1 row truncated, length",
        "1 row filtered, content_filter",
        "1 row error, invalid_request",
        "1 row in_doubt, http_500",
    }
    assert (
        f"`beatra-enrich run {same}` sends them once more under their key"
        in remedies["1 row in_doubt, http_500"]
    )
    assert "steps.s.on_null: skip" in remedies["2 rows error, null_value"]
    assert "retry" not in remedies["2 rows error, null_value"]
    assert "--status truncated --set steps.s.on_truncated=retry` asks" in remedies["1 row truncated, length"]
    assert "no run asks them again by itself" in remedies["1 row filtered, content_filter"]
    assert f"`beatra-enrich retry {same}` asks those rows again" in remedies["1 row error, invalid_request"]
    assert "first in row 2: column `t` is null" in next(line for line in told if "null_value" in line)
    assert lines[-1] == f"Hint: `beatra-enrich show {same} --failed` shows these rows."


def test_a_retry_in_vain_does_not_advise_itself(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """What failed again is not to be tried a third time, unless something is changed."""
    endpoint.script = lambda seen: envelope("invalid_request", 400)
    config = job([{"t": "a"}, {"t": None}], retry={"attempts": 1})
    assert "retry" in cli("run", config, endpoint=endpoint).err
    again = cli("retry", config, endpoint=endpoint)
    assert again.code in (3, 4)
    assert "beatra-enrich retry" not in again.err.split("Hint")[0].split("stopped")[0]


def test_the_summary_names_the_causes(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`--json` has the causes as data, the most frequent first."""
    config = job([{"t": "a"}, {"t": None}, {"t": None}])
    summary = json.loads(cli("run", config, "--json", endpoint=endpoint).out)
    assert summary["causes"] == [
        {
            "step": "s",
            "status": "error",
            "code": "null_value",
            "rows": 2,
            "row": 2,
            "message": "column `t` is null",
        }
    ]
    assert summary["sandbox"] is False


def test_answers_of_the_sandbox_are_marked(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """A run on the sandbox says that its answers are made up, and names no credits."""
    ended = cli("run", job(), "--sandbox")
    assert ended.err.splitlines()[-1] == "sandbox: answers are made up, nothing was charged"
    assert "credits" not in ended.err


@pytest.mark.parametrize("folder", ["my run dir", "a retry b", "it's"])
def test_advice_is_right_for_any_path(
    cli: Callable[..., Ended], job: Callable[..., Path], tmp_path: Path, folder: str
) -> None:
    """A command that is advised can be pasted, wherever the job lies: only its verb is another."""
    config = job([{"t": None}])
    there = tmp_path / folder
    there.mkdir()
    for name in (config, tmp_path / "in.parquet"):
        name.rename(there / name.name)
    ended = cli("run", there / "config.yaml", "--sandbox")
    advised = ended.err.splitlines()[-1].split("`")[1]
    assert shlex.split(advised)[:3] == ["beatra-enrich", "show", str(there / "config.yaml")]


@pytest.mark.parametrize(
    "given", ["endpoint.headers.api-key=hush-hush", "endpoint.proxy=http://u:hush-hush@127.0.0.1:9"]
)
def test_advice_repeats_no_secret(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, given: str
) -> None:
    """What a flag gives that may be a secret stands in no advice, and so neither in the ledger nor in the report."""
    endpoint.script = lambda seen: envelope("insufficient_balance", 402)
    config = job()
    ended = cli(
        "run",
        config,
        "--set",
        given,
        "--set",
        "retry.attempts=1",
        "--set",
        "retry.deadline=1",
        endpoint=endpoint,
    )
    cli("report", config, "-o", "report.html", endpoint=endpoint)
    assert ended.code in (2, 3, 4)
    assert "hush-hush" not in ended.out + ended.err
    held = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hush-hush" in content for content in held)


def test_json_to_the_last_line(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """With `--log-format json` every line of stderr is an object: endings, errors, hints, wrong options."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"two" in seen.raw else None
    config = job()
    for args in (
        ("run", config),
        ("run", "nope.yaml"),
        ("run", config, "--nope"),
        ("run", config, "--limit", "x"),
    ):
        ended = cli(*args, "--log-format", "json", endpoint=endpoint)
        entries = [json.loads(line) for line in ended.err.splitlines()]
        assert entries
        assert entries[-1]["level"] == "error"
        assert ended.code in (2, 3)


def test_answers_that_ended_for_an_unknown_reason_are_counted_wherever_a_run_is_told_of(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Without a schema they are ok and counted in the closing line, in `--json` and in the report, also when resumed."""
    endpoint.script = lambda seen: None if b"three" in seen.raw else ended_by("because")
    config = job()
    told = cli("run", config, endpoint=endpoint)
    assert told.code == 0
    assert "2 rows ok with a finish reason that nobody knows (`because`)" in told.err
    again = cli("run", config, "--json", endpoint=endpoint)
    assert json.loads(again.out)["unknown_finish"] == {"because": 2}
    assert cli("report", config, "-o", "report.html", endpoint=endpoint).code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Answers that ended for an unknown reason" in page
    assert "because (2)" in page


def test_an_answer_of_unknown_ending_is_ok_only_where_it_fits_the_schema(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Half a JSON object is no answer, whatever the reason says that nobody knows."""
    schema = {"type": "object", "properties": {"half": {"type": "string"}}, "required": ["half"]}
    endpoint.script = lambda seen: ended_by("because")
    ended = cli("run", job(step={"schema": schema, "reask": 0}), "--json", endpoint=endpoint)
    summary = json.loads(ended.out)
    assert (summary["invalid_output"], summary["ok"], summary["unknown_finish"]) == (3, 0, {})


@pytest.mark.parametrize(("content", "advised"), [("", False), ("no JSON", True)])
def test_a_higher_reask_is_advised_only_where_it_helps(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, content: str, advised: bool
) -> None:
    """An answer without a text is not asked again by itself, however high `reask` is."""
    choices = [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]
    endpoint.script = lambda seen: Raw(json.dumps({"choices": choices}).encode())
    schema = {"properties": {"a": {"type": "string"}}}
    ended = cli("run", job(step={"schema": schema, "reask": 0}), endpoint=endpoint)
    assert ("a higher `reask`" in ended.err) is advised
