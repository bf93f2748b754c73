from __future__ import annotations

import uuid
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.answer.columns import SOURCES, output_schema, step_columns, step_fields
from enrich.config import StepConfig
from enrich.errors import ConfigError
from enrich.records import STATUSES, Outcome
from enrich.schema.choice import choose
from enrich.schema.schema import load_schema

CATEGORY = pa.dictionary(pa.int32(), pa.string())
KEY = uuid.UUID("7e0b0c5e-6d0c-5d5c-9d5b-1f6a3c2b8e44")
SCHEMA = load_schema(
    {
        "properties": {
            "label": {"enum": ["pos", "neg"]},
            "score": {"type": "number"},
            "parts": {
                "type": "array",
                "items": {"properties": {"n": {"type": "integer"}, "kind": {"enum": ["a"]}}},
            },
        }
    }
)
FIELDS = [pa.field("review", pa.string(), metadata={"k": "v"}), pa.field("stars", pa.string())]
INPUT = pa.schema(FIELDS, metadata={"own": "x"})


def table(name: str, outcomes: list[Outcome], *, typed: bool = False) -> pa.Table:
    """Build a step's columns and put them under its fields."""
    schema = SCHEMA if typed else None
    columns = choose(StepConfig(name=name, prompt="x"), schema)
    assert [column.field for column in columns] == step_fields(name, schema)
    result = pa.Table.from_arrays(
        step_columns(columns, schema, outcomes), schema=pa.schema(step_fields(name, schema))
    )
    result.validate(full=True)
    return result


def test_the_columns_of_a_step() -> None:
    """A step has its answer, its typed fields, and what is known of the request, in the documented order."""
    assert step_fields("s", SCHEMA) == [
        pa.field("s", pa.string()),
        pa.field("s_label", CATEGORY),
        pa.field("s_score", pa.float64()),
        pa.field("s_parts", pa.list_(pa.struct([("n", pa.int64()), ("kind", pa.string())]))),
        pa.field("s_status", CATEGORY),
        pa.field("s_error", pa.string()),
        pa.field("s_model", pa.string()),
        pa.field("s_request_id", pa.string()),
        pa.field("s_finish_reason", pa.string()),
        pa.field("s_prompt_tokens", pa.int64()),
        pa.field("s_completion_tokens", pa.int64()),
        pa.field("s_total_tokens", pa.int64()),
        pa.field("s_credits", pa.float64()),
        pa.field("s_attempts", pa.int32()),
        pa.field("s_latency_ms", pa.float64()),
        pa.field("s_source", CATEGORY),
        pa.field("s_idempotency_key", pa.string()),
    ]


def test_an_outcome_fills_its_row() -> None:
    """Every attribute of an outcome stands in the column that is named after it."""
    outcome = Outcome(
        status="ok",
        text='{"label":"neg"}',
        values={"label": "neg", "score": 0.5, "parts": [{"n": 1, "kind": "a"}, None]},
        model="fast-1",
        request_id="req-1",
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        credits=0.25,
        attempts=4,
        latency_ms=12.5,
        source="api",
        key=KEY.bytes,
    )
    assert table("s", [outcome], typed=True).to_pylist() == [
        {
            "s": '{"label":"neg"}',
            "s_label": "neg",
            "s_score": 0.5,
            "s_parts": [{"n": 1, "kind": "a"}, None],
            "s_status": "ok",
            "s_error": None,
            "s_model": "fast-1",
            "s_request_id": "req-1",
            "s_finish_reason": "stop",
            "s_prompt_tokens": 1,
            "s_completion_tokens": 2,
            "s_total_tokens": 3,
            "s_credits": 0.25,
            "s_attempts": 4,
            "s_latency_ms": 12.5,
            "s_source": "api",
            "s_idempotency_key": str(KEY),
        }
    ]


def test_a_row_without_an_answer_is_null_but_for_its_status() -> None:
    """A pending row has a status and no attempts; everything else is null, its typed fields too."""
    (row,) = table("s", [Outcome(status="pending")], typed=True).to_pylist()
    assert {name: value for name, value in row.items() if value is not None} == {
        "s_status": "pending",
        "s_attempts": 0,
    }


def test_no_rows() -> None:
    """No outcomes make empty columns of the right types."""
    assert table("s", [], typed=True).num_rows == 0


PARTS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(Outcome._fields, st.none()),
    "status": st.sampled_from(STATUSES),
    "error": st.none() | st.text(),
    "text": st.none() | st.text(),
    "source": st.none() | st.sampled_from(SOURCES),
    "prompt_tokens": st.none() | st.integers(0, 2**40),
    "credits": st.none() | st.floats(0, 1e6),
    "attempts": st.integers(0, 100),
    "key": st.none() | st.binary(min_size=16, max_size=16),
}
OUTCOMES = st.fixed_dictionaries(PARTS).map(lambda parts: Outcome(**parts))


@given(outcomes=st.lists(OUTCOMES, max_size=5))
def test_every_row_is_its_own_outcome(outcomes: list[Outcome]) -> None:
    """Rows keep their order, and each shows its outcome alone."""
    found = table("s", outcomes)
    expected = [
        (
            o.text,
            o.status,
            o.error,
            o.source,
            o.prompt_tokens,
            o.credits,
            o.attempts,
            o.key and str(uuid.UUID(bytes=o.key)),
        )
        for o in outcomes
    ]
    names = [
        "s",
        "s_status",
        "s_error",
        "s_source",
        "s_prompt_tokens",
        "s_credits",
        "s_attempts",
        "s_idempotency_key",
    ]
    assert [tuple(row.values()) for row in found.select(names).to_pylist()] == expected


def test_dictionaries_are_the_same_in_every_batch() -> None:
    """Categories do not depend on the rows, so that files written batch by batch stay whole."""
    first, second = (
        step_columns(choose(StepConfig(name="s", prompt="x"), SCHEMA), SCHEMA, [Outcome(status=s)])
        for s in ("ok", "pending")
    )
    pairs = [
        (one.dictionary, other.dictionary)
        for one, other in zip(first, second, strict=True)
        if isinstance(one, pa.DictionaryArray) and isinstance(other, pa.DictionaryArray)
    ]
    assert len(pairs) == 3
    assert all(one == other for one, other in pairs)


def test_sources_are_those_of_an_outcome() -> None:
    """Every source that an outcome can have has a category."""
    literal, _ = get_args(get_type_hints(Outcome)["source"])
    assert get_args(literal) == SOURCES


def test_the_output_schema() -> None:
    """The output has the input's columns untouched, then each step's; metadata is kept."""
    schema = output_schema(INPUT, [("a", step_fields("a", None)), ("b", step_fields("b", SCHEMA))])
    assert list(schema)[:2] == list(INPUT)
    assert schema.field("review").metadata == {b"k": b"v"}
    assert schema.metadata == {b"own": b"x"}
    assert list(schema)[2:] == [*step_fields("a", None), *step_fields("b", SCHEMA)]


STATUS = load_schema({"properties": {"status": {"type": "string"}}})
B_STATUS = load_schema({"properties": {"b_status": {"type": "string"}}})


@pytest.mark.parametrize(
    ("names", "steps", "message"),
    [
        (["s"], [("s", None)], "step `s` makes a column `s`, which the input has too"),
        (["s_status"], [("s", None)], "step `s` makes a column `s_status`, which the input has too"),
        (["s_label"], [("s", SCHEMA)], "step `s` makes a column `s_label`, which the input has too"),
        ([], [("s", STATUS)], "step `s` makes a column `s_status`, which step `s` has too"),
        (
            [],
            [("a", B_STATUS), ("a_b", None)],
            "step `a_b` makes a column `a_b_status`, which step `a` has too",
        ),
        (["x", "y", "x"], [("s", None)], "the input has two columns named `x`"),
    ],
)
def test_columns_never_collide(names: list[str], steps: list[tuple[str, Any]], message: str) -> None:
    """Two columns of one name, wherever they come from, are refused with a hint."""
    with pytest.raises(ConfigError, match=message) as caught:
        output_schema(
            pa.schema([(name, pa.string()) for name in names]),
            [(name, step_fields(name, schema)) for name, schema in steps],
        )
    assert "rename" in caught.value.hint
