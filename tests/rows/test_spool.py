"""What is kept of an outcome until the output is written is what the ledger would give once more."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import enrich
from enrich.records import Outcome
from enrich.rows import spool
from enrich.rows.spool import Spool
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TYPED = st.dates() | st.datetimes() | st.decimals(allow_nan=False) | JSON
OUTCOMES = st.builds(
    Outcome,
    status=st.sampled_from(("ok", "invalid_output")),
    error=st.none() | st.text(),
    key=st.binary(min_size=16, max_size=16),
    text=st.none() | st.text(max_size=300),
    values=st.none() | st.dictionaries(st.text(), TYPED, max_size=3),
    model=st.none() | st.text(),
    request_id=st.none() | st.text(),
    finish_reason=st.none() | st.text(),
    prompt_tokens=st.none() | st.integers(0),
    completion_tokens=st.none(),
    total_tokens=st.none(),
    credits=st.none() | st.floats(0, 1e9),
    attempts=st.integers(0, 100),
    latency_ms=st.none() | st.floats(0, 1e9),
    source=st.sampled_from(("api", "ledger")),
    follows=st.none() | st.binary(min_size=16, max_size=16),
    cached_tokens=st.none() | st.integers(0),
    reasoning_tokens=st.none() | st.integers(0),
    credits_usd=st.none() | st.floats(0, 1e9),
    reasoning=st.none() | st.text(),
    refusal=st.none() | st.text(),
    logprob=st.none() | st.floats(-1e3, 0),
    confidence=st.none() | st.floats(0, 1),
    evidence=st.none() | st.dictionaries(st.text(), JSON, max_size=3),
    votes=st.none() | st.integers(0, 15),
    agreement=st.none() | st.floats(0, 1),
    firsts=st.none() | st.dictionaries(st.text(), JSON, max_size=3),
    spared=st.integers(0, 15),
    besides=st.none() | st.tuples(st.binary(min_size=16, max_size=16)),
    stages=st.none()
    | st.just((Outcome("ok", text="said first"), Outcome("invalid_output", values={"a": 1}))),
)


@given(outcomes=st.lists(OUTCOMES, max_size=20), buffer=st.integers(1, 2_000), order=st.randoms())
def test_what_was_put_is_given_back(outcomes: list[Outcome], buffer: int, order: Any) -> None:
    """In any order, from memory and from the file."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as opened:
        patch.setattr(spool, "BUFFER_BYTES", buffer)
        patch.setattr(spool, "FORGET_BYTES", 7)
        kept = opened.enter_context(contextlib.closing(Spool()))
        places = [(kept.put(outcome), outcome) for outcome in outcomes]
        order.shuffle(places)
        assert all(place > 0 for place, _ in places)
        for start in range(0, len(places), 6):
            part = places[start : start + 6]
            assert kept.get([place for place, _ in part]) == [outcome for _, outcome in part]


def test_what_was_not_kept_is_not_given() -> None:
    """Place 0 is nowhere."""
    kept = Spool()
    place = kept.put(Outcome("ok", text="here"))
    assert kept.get([0, place, 0]) == [None, Outcome("ok", text="here"), None]
    kept.close()


def test_a_disk_without_room_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost and nothing raised: later outcomes are looked up in the ledger instead."""
    monkeypatch.setattr(spool, "BUFFER_BYTES", 200)
    kept = Spool(tmp_path)
    before = [kept.put(Outcome("ok", text="a" * 150)) for _ in range(3)]
    monkeypatch.setattr(spool, "SPARE_BYTES", 1 << 62)
    held = kept.put(Outcome("ok", text="b" * 150))
    assert kept.put(Outcome("ok", text="c")) == 0
    found = kept.get([*before, held])
    assert [outcome and outcome.text for outcome in found] == ["a" * 150] * 3 + ["b" * 150]
    kept.close()


def test_a_folder_that_is_gone_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be made is done without."""
    monkeypatch.setattr(spool, "BUFFER_BYTES", 10)
    kept = Spool(tmp_path / "gone")
    place = kept.put(Outcome("ok", text="first"))
    assert kept.put(Outcome("ok", text="second")) == 0
    assert kept.get([place]) == [Outcome("ok", text="first")]
    kept.close()


SCHEMA = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "format": "date"},
        "amount": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["day", "amount"],
}


def good(number: int) -> str:
    """An answer that keeps to the schema."""
    return json.dumps({"day": f"2026-11-{number % 28 + 1:02}", "amount": number / 8, "tags": ["é", "🙂"]})


def first_user(body: dict[str, Any]) -> str:
    """The first question of a conversation."""
    return next(str(m["content"]) for m in body["messages"] if m["role"] == "user")


def answer(body: dict[str, Any]) -> str:
    """Some good at once, some after a re-ask, some never."""
    number = int(first_user(body).split()[1])
    asked_again = any(message["role"] == "assistant" for message in body["messages"])
    if number % 5 == 1 or (number % 5 == 2 and not asked_again):
        return "no JSON at all"
    return good(number)


def refuse(seen: Seen) -> Raw | None:
    """Some rows fail for good."""
    if seen.method != "POST":
        return None
    number = int(first_user(seen.body).split()[1])
    return envelope("invalid_request", 400) if number % 7 == 3 else None


def test_the_output_is_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are good, re-asked, invalid, refused, null and copies, in two steps: from the spool and from the ledger."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    rows = [{"t": f"row {number % 45}" if number % 11 else None} for number in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    with BookedEndpoint(answer=answer, script=refuse) as endpoint:
        job = {
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out.parquet"),
            "endpoint": {"base_url": endpoint.base_url},
            "steps": [
                {"name": "s", "prompt": "{{ t }}", "schema": SCHEMA, "reask": 1},
                {"name": "u", "prompt": "{{ t }} {{ s_amount }}", "schema": SCHEMA, "reask": 1},
            ],
            "tolerate": "100%",
        }
        assert enrich.run(job).exit_code == 0
        asked = pq.read_table(tmp_path / "out.parquet")
        kept = read_again(job, tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "put", lambda _self, _outcome: 0)
            looked_up = read_again(job, tmp_path)
    assert kept.equals(looked_up)
    assert set(kept["s_status"].to_pylist()) == {"ok", "error", "invalid_output"}
    sources = [name for name in asked.column_names if name.endswith("_source")]
    assert asked.drop_columns(sources).equals(kept.drop_columns(sources))
    assert dt.date(2026, 11, 1) in asked["s_day"].to_pylist()


def read_again(job: dict[str, Any], folder: Path) -> pa.Table:
    """Run a finished job again and read its output."""
    summary = enrich.run(job)
    assert summary.requests == 0
    return pq.read_table(folder / "out.parquet")
