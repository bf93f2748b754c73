"""Values that must stand in their source: by whole runs against an endpoint that keeps books, and in frames."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrich
import enrich.pandas
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "quote": {"type": ["string", "null"]},
        "amount": {"type": ["integer", "null"]},
        "names": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["quote"],
}
EVIDENCE = [
    {"field": "quote", "from": "text"},
    {"field": "amount", "from": "text"},
    {"field": "names", "from": "text"},
]
TEXT = "On Monday Ann paid 500,000 crowns for the “old mill” by the river."
ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"quote": "paid 500,000 crowns"}, "ok", "exact"),
    ({"quote": 'the "old  mill"', "amount": 500_000, "names": ["Ann"]}, "ok", "normalised"),
    ({"quote": None}, "ok", ""),
    ({"quote": "sold the old mill"}, "unsupported", "none"),
    ({"quote": "Monday", "amount": 50_000}, "unsupported", "exact"),
    ({"quote": "Monday", "names": ["Ann", "Monda"]}, "unsupported", "exact"),
]


def answer(body: dict[str, Any]) -> str:
    """Answer with the row that the prompt names; whoever is asked again says what stands there."""
    if len(body["messages"]) > 2:
        return json.dumps({"quote": "Monday"})
    return json.dumps(ROWS[int(body["messages"][-1]["content"].split()[0])][0])


@pytest.fixture
def work(job: Callable[..., Path]) -> Callable[..., Path]:
    """Write the job over these rows."""

    def write(**step: Any) -> Path:
        rows = [{"n": number, "text": TEXT} for number in range(len(ROWS))]
        own = {"prompt": "{{ n }} of it", "schema": SCHEMA, "evidence": EVIDENCE, **step}
        return job(rows, step=own)

    return write


def test_what_stands_in_no_source_is_unsupported(
    cli: Callable[..., Ended], work: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Each row says whether its values stand there, where and how; the check asks for nothing, and `collect` says the same."""
    endpoint.answer = answer
    config = work()
    ended = cli("run", config, "--json", endpoint=endpoint)
    summary = json.loads(ended.out)
    assert (ended.code, summary["ok"], summary["unsupported"], summary["requests"]) == (3, 3, 3, len(ROWS))
    assert (
        "3 rows unsupported at step s, first in row 4: quote: “sold the old mill” does not stand in text"
        in ended.err
    )
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["s_status"] for row in rows] == [status for _, status, _ in ROWS]
    assert [row["s_quote_match"] or "" for row in rows] == [match for _, _, match in ROWS]
    shown = [TEXT[row["s_quote_start"] : row["s_quote_end"]] if row["s_quote_end"] else None for row in rows]
    assert shown == ["paid 500,000 crowns", "the “old mill”", None, None, "Monday", "Monday"]
    assert (rows[1]["s_amount_match"], rows[1]["s_names_start"], rows[1]["s_names_match"]) == (
        "normalised",
        [10],
        ["exact"],
    )
    assert rows[5]["s_names_match"] == ["exact", "none"]
    assert rows[3]["s_quote"] == "sold the old mill"  # what was paid for is there to be looked at
    assert rows[4]["s_error"] == "unsupported: amount: “50000” does not stand in text"
    assert cli("collect", config, "-o", "again.parquet", endpoint=endpoint).code == 0
    again = pq.read_table(tmp_path / "again.parquet").to_pylist()
    assert [r["s_names_match"] for r in again] == [r["s_names_match"] for r in rows]
    assert len(endpoint.charges) == len(ROWS)
    page = cli("report", config, "-o", "report.html", endpoint=endpoint)
    assert page.code == 0
    assert "unsupported" in (tmp_path / "report.html").read_text()


def test_unsupported_values_are_asked_again_where_the_step_says_so(
    cli: Callable[..., Ended], work: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`on_unsupported: reask` tells the model what does not stand there; `retry --status unsupported` does so afterwards."""
    endpoint.answer = answer
    assert cli("run", work(on_unsupported="reask"), endpoint=endpoint).code == 0
    asked = [seen.body["messages"] for seen in endpoint.posts if len(seen.body["messages"]) > 2]
    assert len(asked) == 3
    assert any(
        "- quote: “sold the old mill” does not stand in text" in messages[-1]["content"] for messages in asked
    )
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert Counter(row["s_attempts"] for row in rows) == {
        1: 3,
        2: 3,
    }  # what both answers cost stands on the row


def test_retry_asks_unsupported_rows(
    cli: Callable[..., Ended], work: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """They are a status like any other for `retry`, `--tolerate` and the exit code."""
    endpoint.answer = answer
    config = work()
    assert cli("run", config, endpoint=endpoint).code == 3
    again = cli(
        "retry", config, "--status", "unsupported", "--set", "steps.s.on_unsupported=reask", endpoint=endpoint
    )
    assert (again.code, len(endpoint.charges)) == (0, len(ROWS) + 3)
    assert max(endpoint.charges_per_body.values()) == 1
    assert cli("run", work(), "--fresh", "--set", "tolerate=50%", endpoint=endpoint).code == 0


def test_rows_of_one_request_have_sources_of_their_own(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The same answer stands in the text of one row and not in another's: it is asked and paid once, and judged for each."""
    endpoint.answer = lambda _: json.dumps({"quote": "Ann"})
    rows = [{"q": "who?", "text": text} for text in ("Ann came", "Annabel came", "it was Ann", None)]
    step = {"prompt": "{{ q }}", "schema": SCHEMA, "evidence": {"field": "quote", "from": "text"}}
    assert (
        cli(
            "run", job(rows, step=step, output={"path": "out.parquet", "columns": ["q"]}), endpoint=endpoint
        ).code
        == 3
    )
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["s_status"] for row in found] == ["ok", "unsupported", "ok", "unsupported"]
    assert [row["s_quote_start"] for row in found] == [0, None, 7, None]
    assert len(endpoint.charges) == 1


def test_frames_and_batches_tell_the_same(
    endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`complete(evidence=…)` and record batches have the statuses and columns that files have."""
    endpoint.answer = answer
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    frame = pd.DataFrame({"n": range(len(ROWS)), "text": TEXT})
    with pytest.warns(UserWarning, match="3 unsupported"):
        made = frame.beatra.complete(
            "{{ n }} of it", name="s", schema=SCHEMA, evidence=EVIDENCE, ledger=tmp_path / "ledger.db"
        )
    assert list(made["s_status"]) == [status for _, status, _ in ROWS]
    assert made["s_quote_start"].dtype == "Int64"
    assert made["s_quote_match"].astype(object).fillna("").tolist() == [match for _, _, match in ROWS]
    step = {"name": "s", "prompt": "{{ n }} of it", "schema": SCHEMA, "evidence": EVIDENCE}
    batch = pa.RecordBatch.from_pandas(frame)
    [out] = enrich.enrich_batches([batch], {"steps": [step]})
    assert out.column("s_status").to_pylist() == [status for _, status, _ in ROWS]


def test_later_steps_may_be_the_source(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """`from` names a column of an earlier step too; a step after one that is unsupported is skipped."""
    endpoint.answer = lambda body: (
        "The mill is old."
        if body["messages"][-1]["content"] == "sum up"
        else json.dumps({"quote": "The mill is new."})
    )
    steps = [
        {"name": "a", "prompt": "sum up"},
        {"name": "b", "prompt": "quote", "schema": SCHEMA, "evidence": {"field": "quote", "from": "a"}},
        {"name": "c", "prompt": "{{ b_quote }}"},
    ]
    job([{"t": "one"}], steps=steps)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("- name: s\n  prompt: '{{ t }}'\n", ""))
    assert cli("run", config, endpoint=endpoint).code == 3
    [row] = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["b_status"], row["c_status"]) == ("unsupported", "skipped")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"evidence": {"field": "quot", "from": "text"}}, "no property `quot`"),
        ({"evidence": {"field": "quote", "from": "texd"}}, "no column `texd`"),
        ({"schema": None}, "the step has no schema"),
        ({"evidence": [{"field": "ok", "from": "text"}]}, "`ok` is bool, which stands in no text"),
        ({"evidence": {"field": "quote"}}, "from"),
        ({"evidence": {"field": "quote", "from": "text", "fuzzy": 2}}, "less than or equal to 1"),
        (
            {"schema": {"properties": {**SCHEMA["properties"], "quote_match": {"type": "string"}}}},
            "s_quote_match",
        ),
    ],
)
def test_what_cannot_be_proved_is_refused(step: dict[str, Any], said: str) -> None:
    """A field or column that is not there, or of a kind that stands in no text, is refused before anything is sent."""
    schema = {"properties": {**SCHEMA["properties"], "ok": {"type": "boolean"}}}
    whole = {"name": "s", "prompt": "{{ n }}", "schema": schema, "evidence": EVIDENCE, **step}
    with pytest.raises(Exception, match=said.replace("`", ".")) as caught:
        enrich.enrich_batches(
            [],
            {"endpoint": {"base_url": "sandbox"}, "steps": [whole]},
            schema=pa.table({"n": [1], "text": ["a"]}).schema,
        )
    assert isinstance(caught.value, enrich.errors.UsageError)
