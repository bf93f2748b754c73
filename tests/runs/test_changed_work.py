"""What is asked anew when the work changes, and what is not: only another request body is another request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.endpoint import KEY, BookedEndpoint
from tests.helpers.warm import Ended, Warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = ["red", "green", "blue", "grey"]
COLOUR = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    "required": ["label", "score"],
}


def colours(body: dict[str, Any]) -> str:
    """Answer with JSON whose score depends on the text; the second time it is asked, with a smaller one."""
    texts = [message["content"] for message in body["messages"] if message["role"] == "user"]
    text = texts[0].rsplit(" ", 1)[-1]
    return json.dumps({"label": text, "score": len(text) / len(texts)})


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


class Work:
    """A job that can be changed and run again."""

    def __init__(self, warm: Warm, folder: Path, endpoint: BookedEndpoint) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self._warm = warm
        self.step: dict[str, Any] = {"name": "s", "prompt": "Which colour is {{ t }}"}
        self.config: dict[str, Any] = {"input": "in.parquet", "output": "out.parquet", "steps": [self.step]}
        self.rows(TEXTS)

    def rows(self, texts: list[str], name: str = "in.parquet") -> None:
        """Write the input."""
        pq.write_table(pa.table({"t": texts}), self.folder / name)

    def run(self, *flags: str, code: int = 0, base_url: str | None = None) -> int:
        """Run the job; gives how many completions were charged for it."""
        before = len(self.endpoint.charges)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config), encoding="utf-8")
        env = {"BEATRA_BASE_URL": base_url or self.endpoint.base_url, "BEATRA_API_KEY": KEY}
        command, *rest = flags or ("run",)
        if command.startswith("-"):
            command, rest = "run", list(flags)
        ended = self._warm.run(self.folder, command, "config.yaml", "-q", *rest, env=env)
        assert ended.code == code, ended
        return len(self.endpoint.charges) - before

    def said(self, command: str) -> Ended:
        """Give what a command says."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config), encoding="utf-8")
        env = {"BEATRA_BASE_URL": self.endpoint.base_url, "BEATRA_API_KEY": KEY}
        return self._warm.run(self.folder, command, "config.yaml", env=env)

    def column(self, name: str, path: str = "out.parquet") -> list[Any]:
        """Read a column of the output."""
        return list(pq.read_table(self.folder / path).column(name).to_pylist())


@pytest.fixture
def work(warm: Warm, tmp_path: Path) -> Iterator[Work]:
    """A job of four rows that was run once."""
    with BookedEndpoint(answer=colours) as endpoint:
        work = Work(warm, tmp_path, endpoint)
        assert work.run() == len(TEXTS)
        yield work


def test_nothing_changed_costs_nothing(work: Work) -> None:
    """A second run through all rows sends nothing and says where its answers are from."""
    posts = len(work.endpoint.posts)
    assert work.run("--force") == 0
    assert len(work.endpoint.posts) == posts
    assert work.column("s_source") == ["ledger"] * len(TEXTS)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "What colour is {{ t }}"},
        {"system": "Be terse."},
        {"model": "fast-1"},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"params": {"seed": 7}},
        {"schema": COLOUR, "schema_mode": "prompt", "prompt": "Colour as JSON of {{ t }}"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_question_is_another_request(work: Work, change: dict[str, Any]) -> None:
    """A changed prompt, model or parameter asks every row anew; changed back, the old answers serve."""
    before = dict(work.step)
    work.step.update(change)
    assert work.run() == len(TEXTS)
    work.step.clear()
    work.step.update(before)
    assert work.run() == 0


def test_another_endpoint_is_another_request(work: Work) -> None:
    """What one endpoint was paid for says nothing of another."""
    base_url = work.endpoint.base_url.replace("127.0.0.1", "localhost")
    posts = len(work.endpoint.posts)
    work.run(base_url=base_url)
    assert len(work.endpoint.posts) == posts + len(TEXTS)
    assert len({post.key for post in work.endpoint.posts}) == 2 * len(TEXTS)


@pytest.mark.parametrize(
    "change",
    [
        {"retry": {"attempts": 2, "max_wait": 1}},
        {"limits": {"concurrency": 1, "requests_per_minute": 100_000}},
        {"budget": {"requests": 10}},
        {"tolerate": "50%"},
        {"output": "other.csv", "ledger": ".beatra/ledger.db"},
        {"dedupe": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_it_is_run_is_no_part_of_the_question(work: Work, change: dict[str, Any]) -> None:
    """Retry policy, limits, budget, output and its format may change; nothing is asked anew."""
    work.config.update(change)
    posts = len(work.endpoint.posts)
    assert work.run() == 0
    assert len(work.endpoint.posts) == posts


def test_files_may_move_and_rows_change_places(work: Work) -> None:
    """Another file name, format or row order costs nothing; the answers follow their rows."""
    work.rows(TEXTS[::-1], "moved.parquet")
    assert work.run("--input", str(work.folder / "moved.parquet")) == 0
    assert work.column("t") == TEXTS[::-1]
    assert [json.loads(answer)["label"] for answer in work.column("s")] == TEXTS[::-1]
    (work.folder / "in.csv").write_text("t\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    assert work.run("--input", str(work.folder / "in.csv")) == 0


def test_new_rows_are_asked_and_vanished_ones_left_alone(work: Work) -> None:
    """Old rows are free, new ones are paid for once; a row that comes back is still known."""
    work.rows(["green", "cyan", "blue"])
    assert work.run() == 1
    assert work.column("s_source") == ["ledger", "api", "ledger"]
    work.rows([*TEXTS, "cyan"])
    assert work.run() == 0


def test_fresh_asks_everything_anew_once(work: Work) -> None:
    """`--fresh` pays again for every row; the run after it serves the fresh answers, also when it was stopped."""
    first = work.column("s_idempotency_key")
    assert work.run("--fresh", "--set", "budget.requests=2", code=4) == 2
    assert work.run() == len(TEXTS) - 2
    second = work.column("s_idempotency_key")
    assert not set(first) & set(second)
    assert work.run() == 0
    assert work.column("s_idempotency_key") == second


def test_a_first_schema_reads_nothing_of_answers_without_one(work: Work) -> None:
    """Asked for text, then for JSON of a schema: another body, another request."""
    work.step["schema"] = COLOUR
    assert work.run() == len(TEXTS)
    assert work.column("s_score") == [3.0, 5.0, 4.0, 4.0]


def with_schema(work: Work, **score: Any) -> None:
    """Give the step a schema whose score has these bounds."""
    properties = {**COLOUR["properties"], "score": {"type": "number", **score}}  # type: ignore[dict-item]  # a literal
    work.step["schema"] = {**COLOUR, "properties": properties}


def test_a_changed_schema_is_another_request(work: Work) -> None:
    """A widened list of classes is asked: answers that were given under the old one never saw the new class."""
    with_schema(work)
    assert work.run() == len(TEXTS)
    with_schema(work, maximum=9)
    assert work.run() == len(TEXTS)
    assert work.run() == 0


def test_a_changed_schema_is_told_with_the_way_to_keep_answers(work: Work) -> None:
    """Before anything is paid for, plan says how much is asked anew and why; a run says why."""
    with_schema(work)
    work.run()
    with_schema(work, maximum=9)
    plan = work.said("plan").out
    assert "4 requests to ask" in plan
    assert "of step s has changed since the last run" in plan
    assert "`reuse: true`" in plan
    assert "the schema of step s has changed since the last run" in work.said("run").err
    assert "has changed" not in work.said("plan").out


def test_answers_of_another_schema_are_kept_when_wanted(work: Work) -> None:
    """With `reuse: true` what still conforms is free; only the rows that do not are asked; the closing line counts."""
    with_schema(work)
    work.step |= {"reask": 0, "reuse": True}
    assert work.run() == len(TEXTS)
    keys = work.column("s_idempotency_key")
    with_schema(work, maximum=4)
    assert work.run(code=3) == 1
    assert work.column("s_status") == ["ok", "invalid_output", "ok", "ok"]
    assert [new == old for new, old in zip(work.column("s_idempotency_key"), keys, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    with_schema(work, maximum=9)
    assert "4 rows keep an answer that was given under an earlier schema" in work.said("run").err
    assert work.run() == 0
    assert work.column("s_score") == [3.0, 5.0, 4.0, 4.0]


def test_an_answer_that_was_asked_for_again_serves_a_changed_schema_too(work: Work) -> None:
    """The answer to a re-ask is paid for as well: a schema that it conforms to costs nothing."""
    with_schema(work, maximum=4)
    work.step |= {"reask": 1, "reuse": True}
    assert work.run() == len(TEXTS) + 1
    assert work.column("s_score") == [3.0, 2.5, 4.0, 4.0]
    with_schema(work, maximum=4.5)
    assert work.run() == 0
    assert work.column("s_score") == [3.0, 2.5, 4.0, 4.0]


def test_a_changed_check_reads_the_stored_answers_again(work: Work) -> None:
    """A rule on the answer is no part of the request: only what breaks it is asked again."""
    with_schema(work)
    assert work.run() == len(TEXTS)
    work.step["check"] = "score < 4.5"
    assert work.run() == 1
    assert work.column("s_score") == [3.0, 2.5, 4.0, 4.0]
    work.step["check"] = "score < 4.25"
    assert work.run() == 0, "the answer to the re-ask is under the same schema, and paid for"
    assert work.column("s_score") == [3.0, 2.5, 4.0, 4.0]


def test_equal_rows_are_asked_once_or_each(work: Work) -> None:
    """With `dedupe: false` each of two equal rows has an answer of its own, and keeps it."""
    work.rows([*TEXTS, "red", "red"])
    assert work.run() == 0
    assert work.column("s_source")[-2:] == ["copy", "copy"]
    work.config["dedupe"] = False
    assert work.run() == 2
    assert len(set(work.column("s_idempotency_key"))) == len(TEXTS) + 2
    assert work.run() == 0
    work.config["dedupe"] = True
    assert work.run() == 0


@pytest.mark.parametrize("part", [("--limit", "2"), ("--input", "part.parquet")])
def test_asking_some_rows_anew_costs_nothing_for_the_others(work: Work, part: tuple[str, str]) -> None:
    """After `--fresh` for some rows a plain run shows their new answers, and the others' old ones, for nothing."""
    work.rows(TEXTS[:2], "part.parquet")
    first = work.column("s_idempotency_key")
    assert work.run("--fresh", *part) == 2
    again = work.column("s_idempotency_key")
    assert not set(first) & set(again)
    assert work.run() == 0
    assert work.column("s_idempotency_key") == again + first[2:]
    work.rows([*TEXTS, "pink"])
    assert work.run() == 1


def test_a_stopped_fresh_run_is_gone_on_with_where_it_was_meant(work: Work) -> None:
    """A run over other rows goes on with no `--fresh`; one over the same rows does, and pays for the rest of them."""
    assert work.run("--fresh", "--limit", "3", "--set", "budget.requests=1", code=4) == 1
    assert work.run() == 0
    assert work.run("--limit", "3") == 2
    assert work.run() == 0


def test_a_changed_schema_reads_fresh_answers_first(work: Work) -> None:
    """What was asked anew counts before what it replaced, under another schema too."""
    work.step |= {"schema": COLOUR, "schema_mode": "prompt", "reuse": True}
    assert work.run() == len(TEXTS)
    assert work.run("--fresh") == len(TEXTS)
    newest = work.column("s_idempotency_key")
    work.step["schema"] = {**COLOUR, "required": ["label"]}
    assert work.run() == 0
    assert work.column("s_idempotency_key") == newest


def test_steps_that_ask_the_same_are_asked_anew_once(work: Work) -> None:
    """Two steps with one question share its fresh answer, which later runs find again."""
    work.config["steps"] = [work.step, {**work.step, "name": "r", "when": "{{ t != 'red' }}"}]
    assert work.run() == 0
    assert work.run("--fresh") == len(TEXTS)
    assert work.run() == 0
