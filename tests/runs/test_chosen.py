"""`retry --where`: rows are asked anew for what they say; what they said before stays in the ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.helpers.days import outputs
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, envelope
from tests.helpers.terminal import on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "number"}, "try": {"type": "integer"}},
    "required": ["score", "try"],
}
ROWS = [{"t": "0.1", "g": "a"}, {"t": "0.5", "g": "a"}, {"t": "0.1", "g": "b"}, {"t": "0.15", "g": "b"}]
LOW = ("--where", "s_score < 0.2", "--yes")


class Scores:
    """Answers with the score that the prompt names, and counts how often it was asked for it."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def __call__(self, body: dict[str, Any]) -> str:
        """Give the answer to a request."""
        prompt = body["messages"][-1]["content"]
        self.asked[prompt] = self.asked.get(prompt, 0) + 1
        return json.dumps({"score": float(prompt.split()[0]), "try": self.asked[prompt]})


@pytest.fixture
def endpoint() -> Any:
    """An endpoint that tells its answers apart."""
    with BookedEndpoint(answer=Scores()) as server:
        yield server


@pytest.fixture
def config(job: Callable[..., Path]) -> Path:
    """A job over four rows, two of them alike."""
    return job(ROWS, step={"schema": SCHEMA})


def tries(folder: Path, column: str = "s_try") -> list[Any]:
    """Give which answer each row has."""
    return pq.read_table(folder / "out.parquet").column(column).to_pylist()


def test_only_rows_that_say_so_are_asked_anew(
    tmp_path: Path, cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint
) -> None:
    """Their new answers stand in the output from then on; the old ones are in the ledger, and `ledger ls` shows both."""
    cli("run", config, endpoint=endpoint)
    ended = cli("retry", config, *LOW, "--json", endpoint=endpoint)
    assert (ended.code, json.loads(ended.out)["requests"]) == (0, 2)
    assert "chosen      3 rows at step s: s_score < 0.2" in ended.err
    assert "2 requests to ask, 1 in the ledger" in ended.err
    assert "credits " in ended.err
    assert tries(tmp_path) == [2, 1, 2, 2]
    listed = cli("ledger", "ls", config, endpoint=endpoint).out.splitlines()
    assert len(listed) == 1 + 5
    assert len(endpoint.charges) == 5
    for again in (("run", config), ("run", config, "--force"), ("collect", config)):
        assert cli(*again, endpoint=endpoint).code == 0
        assert tries(tmp_path) == [2, 1, 2, 2]
    assert len(endpoint.charges) == 5


def test_the_next_time_it_asks_once_more(
    tmp_path: Path, cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint
) -> None:
    """What is still low is asked a third time; other rows keep the generation that they have; `--fresh` asks all."""
    cli("run", config, endpoint=endpoint)
    cli("retry", config, *LOW, endpoint=endpoint)
    cli("retry", config, "--where", "s_score = 0.15", "--yes", endpoint=endpoint)
    assert tries(tmp_path) == [2, 1, 2, 3]
    cli("run", config, "--fresh", endpoint=endpoint)
    assert tries(tmp_path) == [3, 2, 3, 4]


def test_rows_with_the_same_request_have_the_same_answer(
    tmp_path: Path, cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint
) -> None:
    """Where only one of them is chosen, the other one comes with it, and this is said; it costs nothing."""
    cli("run", config, endpoint=endpoint)
    ended = cli("retry", config, "--where", "t = '0.1' and g = 'b'", "--yes", endpoint=endpoint)
    assert "chosen      1 row" in ended.err
    assert "and 1 row with the same request" in ended.err
    assert tries(tmp_path) == [2, 1, 2, 1]
    assert len(endpoint.charges) == 4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--where", "s_scor < 1", "--yes"), "did you mean `s_score`?"),
        (("--where", "s_score < 'low'", "--yes"), "`s_score` is double"),
        (("--where", "s_score", "--yes"), "neither true nor false"),
        (("--where", "s_score < 1"), "--yes goes on without asking"),
        (("--where", "s_score < 1", "--yes", "--step", "z"), "--step z: the job has no such step"),
        (("--where", "s_score < 1", "--yes", "--status", "error"), "--where does not go with --status"),
        (("--where", "s_score < 1", "--yes", "--in-doubt", "skip"), "--where does not go with --status"),
        (("--yes",), "--step and --yes go with --where"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint, flags: tuple[str, ...], said: str
) -> None:
    """A column, a type, a step that is not there, and nobody to ask: exit code 2, and no request."""
    cli("run", config, endpoint=endpoint)
    sent = len(endpoint.seen)
    ended = cli("retry", config, *flags, endpoint=endpoint)
    assert ended.code == 2
    assert said in ended.err
    assert "Hint: " in ended.err
    assert len(endpoint.seen) == sent


def test_rows_without_an_answer_are_asked_by_run_first(
    cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint
) -> None:
    """A retry never asks for the first time: an output with half of its rows would replace the whole one."""
    cli("run", config, "--limit", "1", endpoint=endpoint)
    ended = cli("retry", config, *LOW, endpoint=endpoint)
    assert ended.code == 2
    assert "have no answer yet" in ended.err


def test_no_such_row_sends_nothing(cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint) -> None:
    """The end is a good one, its rows are counted, and the output stays."""
    cli("run", config, endpoint=endpoint)
    ended = cli("retry", config, "--where", "s_score > 9", "--yes", "--json", endpoint=endpoint)
    summary = json.loads(ended.out)
    assert (ended.code, summary["rows"], summary["ok"], summary["requests"]) == (0, 4, 4, 0)
    assert "is true of none" in summary["reason"]


def test_it_shows_the_price_and_asks_on_a_terminal(
    tmp_path: Path, cli: Callable[..., Ended], job: Callable[..., Path]
) -> None:
    """The plan comes first; whoever says no has sent nothing."""
    config = job()
    cli("run", config, "--sandbox")
    code, seen = on_terminal(tmp_path, 100, "retry", config, "--sandbox", "--where", "true", typed="n\n")
    assert code == 130
    assert "3 requests to ask" in seen
    assert "credits" in seen
    assert "Go on?" in seen
    assert "Nothing was sent." in seen
    assert len(cli("ledger", "ls", config).out.splitlines()) == 1 + 3


def test_a_stopped_one_goes_on_where_it_stood(
    tmp_path: Path, cli: Callable[..., Ended], config: Path, endpoint: BookedEndpoint
) -> None:
    """The same command chooses the same rows, by what they said before it, and asks only what is left."""
    cli("run", config, endpoint=endpoint)

    def no_more(seen: Seen) -> Raw | None:
        return envelope("insufficient_credits", 402) if b"0.15" in seen.raw else None

    endpoint.script = no_more
    stopped = cli("retry", config, *LOW, "--set", "limits.concurrency=1", endpoint=endpoint)
    assert stopped.code == 4
    assert "--where 's_score < 0.2' --yes` goes on from here" in stopped.err
    assert len(endpoint.charges) == 4
    endpoint.script = None
    cli("run", config, endpoint=endpoint)
    assert tries(tmp_path) == [2, 1, 2, 1]
    assert len(endpoint.charges) == 4
    ended = cli("retry", config, *LOW, endpoint=endpoint)
    assert ended.code == 0
    assert len(endpoint.charges) == 5
    assert tries(tmp_path) == [2, 1, 2, 2]


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ((), ["0.1", "0.1 2", "0.15", "0.15 2"]),
        (("--step", "z"), ["0.1 1", "0.15 1"]),
        (("--where", "z_try = 1 and t = '0.5'"), ["0.5 1"]),
        (("--where", "t = '0.5'"), ["0.5", "0.5 2"]),
    ],
)
def test_of_a_chain_the_steps_are_asked_that_the_expression_names(
    cli: Callable[..., Ended],
    config: Path,
    endpoint: BookedEndpoint,
    flags: tuple[str, ...],
    asked: list[str],
) -> None:
    """What follows from a new answer is asked as well; `--step` chooses, and an expression on the input means all."""
    text = config.read_text(encoding="utf-8")
    second = {"name": "z", "prompt": "{{ t }} {{ s_try }}", "schema": SCHEMA}
    config.write_text(f"{text.rstrip()}\n- {json.dumps(second)}\n", encoding="utf-8")
    cli("run", config, endpoint=endpoint)
    before = len(endpoint.posts)
    assert cli("retry", config, *LOW, *flags, endpoint=endpoint).code == 0
    assert sorted(seen.body["messages"][-1]["content"] for seen in endpoint.posts[before:]) == asked


def test_rows_in_doubt_are_left_alone(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """What may have been charged is not asked anew under another key because of an expression."""
    config = job(ROWS, step={"schema": SCHEMA}, retry={"attempts": 1, "unknown": 0})
    endpoint.script = lambda seen: Raw(b"half", cut=2) if b"0.15" in seen.raw else None
    cli("run", config, "--set", "endpoint.idempotent=false", endpoint=endpoint)
    endpoint.script = None
    sent = len(endpoint.posts)
    ended = cli(
        "retry",
        config,
        "--where",
        "g = 'b'",
        "--yes",
        "--set",
        "endpoint.idempotent=false",
        endpoint=endpoint,
    )
    assert "not 1 row in doubt" in ended.err
    assert [seen.body["messages"][-1]["content"] for seen in endpoint.posts[sent:]] == ["0.1"]


@pytest.mark.usefixtures("our_key")
def test_of_a_folder_only_the_files_with_such_rows_are_made(
    month: Path, tmp_path: Path, cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """The other files are not touched, and rows are asked in the files where they are."""
    endpoint.answer = lambda body: body["messages"][-1]["content"]
    cli("run", month, endpoint=endpoint)
    before, sent = outputs(tmp_path), len(endpoint.posts)
    ended = cli("retry", month, "--where", "t in ('text 2-1', 'text 4-3')", "--yes", endpoint=endpoint)
    assert ended.code == 0, ended.err
    asked = sorted(seen.body["messages"][-1]["content"] for seen in endpoint.posts[sent:])
    assert asked == ["2026-11-02: text 2-1", "2026-11-04: text 4-3"]
    changed = [name for name, what in outputs(tmp_path).items() if what != before[name]]
    assert changed == ["day=2026-11-02/part-0.parquet", "day=2026-11-04/part-0.parquet"]
