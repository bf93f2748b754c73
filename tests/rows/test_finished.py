"""Rows whose answers are all there are found a slice at a time, and come to what their stories come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import enrich
from enrich.base.loops import run_sync
from enrich.config.steps import StepConfig
from enrich.prompt.request import RequestBuilder
from enrich.rows import flow
from enrich.rows.finished import Finished
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.schema.schema import step_schema
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from enrich.records import Outcome, Summary

LABEL = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
STEPS: list[dict[str, Any]] = [
    {"name": "mood", "prompt": "Judge: {{ t }}", "schema": LABEL, "reask": 0},
    {"name": "echo", "prompt": "Say {{ t }}", "on_null": "skip"},
]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the endpoint takes."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each row that was looked for with others was finished, in order."""
    noted: list[bool] = []
    find = Finished.find

    async def noting(self: Finished, rows: Sequence[dict[int, dict[str, Any]]]) -> list[list[Outcome] | None]:
        outcomes = await find(self, rows)
        noted.extend(outcome is not None for outcome in outcomes)
        return outcomes

    monkeypatch.setattr(Finished, "find", noting)
    return noted


def answered(body: dict[str, Any]) -> str:
    """Answer with a label, and not at all as it should be where the text says so."""
    prompt = str(body["messages"][-1]["content"])
    return prompt if prompt.startswith("Say") else "no idea" if "bad" in prompt else '{"label": "row"}'


def run(path: Path, endpoint: BookedEndpoint) -> tuple[Summary, list[dict[str, Any]]]:
    """Run a job; gives its output as well."""
    config = enrich.load_config(path, overrides=[f"endpoint.base_url={endpoint.base_url}"])
    summary = run_sync(lambda: run_job(config, RunOptions(force=True)))
    return summary, pq.read_table(path.parent / "out.parquet").to_pylist()


def rows_of(count: int) -> list[dict[str, Any]]:
    """Make rows: beyond the first slice some are null, some are answered unfitly, some are equal to others."""
    texts: list[str | None] = [f"row {n}" for n in range(count)]
    texts[flow.SLICE + 3 : flow.SLICE + 5] = [None, "bad one"]
    texts[flow.SLICE + 9] = texts[0]
    return [{"t": text} for text in texts]


def test_rows_come_to_what_their_stories_come_to(
    job: Callable[..., Path], found: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output and counts are those of a run in which every row tells its story; nothing is sent again."""
    path = job(rows_of(flow.SLICE + 20), steps=STEPS)
    with BookedEndpoint(answer=answered) as endpoint:
        run(path, endpoint)
        assert found == []
        summary, output = run(path, endpoint)
        assert [place for place, was in enumerate(found) if not was] == [3, 4]
        monkeypatch.setattr(flow, "are_plain", lambda _: False)
        found.clear()
        told, same = run(path, endpoint)
        assert found == []
    assert output == same
    assert (summary.requests, summary.statuses, summary.causes) == (0, told.statuses, told.causes)
    assert summary.waste == told.waste
    assert summary.statuses["ok"] == flow.SLICE + 18


def test_rows_that_are_new_among_finished_ones(job: Callable[..., Path], found: list[bool]) -> None:
    """A row that is not answered is asked, once, in a slice of finished ones; no other is asked again."""
    rows = rows_of(2 * flow.SLICE + 20)
    path = job(rows, steps=STEPS)
    with BookedEndpoint(answer=answered) as endpoint:
        run(path, endpoint)
        for row in rows[flow.SLICE + 30 : 2 * flow.SLICE]:
            row["t"] = f"new {row['t']}"
        job(rows, steps=STEPS)
        summary, output = run(path, endpoint)
        assert summary.requests == 2 * (flow.SLICE - 30)
        assert set(endpoint.charges_per_body.values()) == {1}
    assert [row["echo"] for row in output if row["t"]] == [f"Say {row['t']}" for row in rows if row["t"]]
    assert {True, False} == set(found)


@pytest.mark.parametrize(
    "steps",
    [
        [{**STEPS[0], "when": "{{ t != 'row 3' }}"}],
        [STEPS[0], {"name": "after", "prompt": "Say {{ mood_label }}"}],
        [{**STEPS[0], "evidence": [{"field": "label", "from": "t"}]}],
        [{**STEPS[0], "votes": 3, "temperature": 1}],
    ],
    ids=["condition", "chain", "evidence", "votes"],
)
def test_what_a_row_asks_may_depend_on_more(
    job: Callable[..., Path], found: list[bool], monkeypatch: pytest.MonkeyPatch, steps: list[dict[str, Any]]
) -> None:
    """Steps with a condition, evidence or a vote, and steps that use another's answer, are told as stories."""
    path = job(rows_of(flow.SLICE + 20), steps=steps)
    with BookedEndpoint(answer=answered) as endpoint:
        run(path, endpoint)
        summary, again = run(path, endpoint)
        monkeypatch.setattr(flow, "are_plain", lambda _: False)
        _, told = run(path, endpoint)
    assert (found, summary.requests) == ([], 0)
    assert again == told


@given(
    st.text(max_size=20),
    st.integers(0, 3),
    st.sampled_from([None, LABEL]),
    st.sampled_from(["json_schema", "json_object", "prompt"]),
)
def test_the_key_is_that_of_the_request(
    text: str, ordinal: int, schema: dict[str, Any] | None, mode: str
) -> None:
    """The key that a row is looked for by is that of its first request."""
    step = StepConfig.model_validate(
        {
            "name": "a",
            "prompt": "x {{ t }}",
            "schema": schema,
            "schema_mode": mode,
            "max_tokens": "{{ t | length + 1 }}",
        }
    )
    builder = RequestBuilder(step, "https://x.test/v1", step_schema(step))
    asked = builder.ask(builder.prepare({"t": text}), ordinal=ordinal)
    assert builder.key({"t": text}, ordinal) == asked.key
