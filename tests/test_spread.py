"""A job for many processes: what is refused before they start, and what they are given."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from enrich.config import JobConfig
from enrich.errors import ConfigError, LedgerError, TemplateError, TooManyReasked
from enrich.runs.job import compile_job
from enrich.spread import decoded, decoded_schema, prepare

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = pa.schema([("t", pa.string())])
STEP: dict[str, Any] = {"name": "s", "prompt": "{{ t }}"}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Give a job that is fine for many processes on this machine."""
    return {
        "ledger": str(tmp_path / "ledger.db"),
        "endpoint": {"base_url": "http://127.0.0.1:9/v1"},
        "steps": [STEP],
    }


def ready(config: dict[str, Any], **how: Any) -> JobConfig:
    """Prepare a job for processes on this machine."""
    return prepare(config, SCHEMA, one_machine=True, **how)[0]


def test_a_file_is_no_ledger_for_many_machines(config: dict[str, Any]) -> None:
    """Unless one says that there is only one; the hint says what to type."""
    with pytest.raises(ConfigError) as caught:
        prepare(config, SCHEMA)
    assert config["ledger"] in caught.value.message
    assert "ledger: postgresql://user@host/database" in caught.value.hint
    assert "one_machine=True" in caught.value.hint
    assert ready(config).ledger == config["ledger"]


def test_a_password_does_not_travel(config: dict[str, Any]) -> None:
    """It is refused wherever it stands in the URL, and not repeated."""
    for url in ("postgresql://me:hush@127.0.0.1:9/x", "postgresql://127.0.0.1:9/x?password=hush"):
        with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
            prepare({**config, "ledger": url}, SCHEMA)
        assert "hush" not in str(caught.value)


def test_the_ledger_is_tried_at_once(config: dict[str, Any], tmp_path: Path) -> None:
    """One that cannot be opened is no surprise for later."""
    with pytest.raises(LedgerError, match="cannot be used"):
        prepare({**config, "ledger": "postgresql://me@127.0.0.1:9/x"}, SCHEMA)
    (tmp_path / "ledger.db").write_bytes(b"no database at all, but long enough to look into" * 100)
    with pytest.raises(LedgerError):
        ready(config)


def test_a_changed_question_is_told_of(config: dict[str, Any]) -> None:
    """Rows that come in the processes cannot be counted: a change is said, and refused where `max_reasked` bounds it."""
    ready({**config, "max_reasked": 0})
    ready({**config, "max_reasked": 0})
    changed = {**config, "steps": [{**STEP, "model": "fast-1"}]}
    for most in (5, "50%"):
        with pytest.raises(TooManyReasked, match=r"changed since: model.* nothing was sent"):
            ready({**changed, "max_reasked": most})
    with pytest.warns(UserWarning, match="will be asked again; changed since: model"):
        ready(changed)
    ready({**changed, "max_reasked": 5})
    ready({**config, "max_reasked": 5})  # as it was asked before
    with pytest.warns(UserWarning, match="changed since: prompt"):
        ready({**config, "steps": [{**STEP, "prompt": "Say {{ t }}"}], "max_reasked": "100%"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"budget": {"credits": 1}}, "a budget is held by one process"),
        ({"budget": {"requests": 5}}, "a budget is held by one process"),
        ({"dedupe": False}, "dedupe: false"),
        ({"limits": {"requests_per_minute": 60}}, "`limits.requests_per_minute` is held by one process"),
        ({"limits": {"tokens_per_minute": 60}}, "`limits.tokens_per_minute`"),
        ({"limits": {"windows": [{"requests": 5, "seconds": 1}]}}, "`limits.windows`"),
        ({"steps": [{**STEP, "limits": {"requests_per_minute": 6}}]}, "`steps.s.limits.requests_per_minute`"),
    ],
)
def test_what_one_process_holds_is_refused(config: dict[str, Any], wrong: dict[str, Any], says: str) -> None:
    """Each of many would spend, send or count for itself."""
    with pytest.raises(ConfigError, match=says):
        ready({**config, **wrong})


def test_templates_are_compared_with_the_columns(config: dict[str, Any]) -> None:
    """As everywhere."""
    with pytest.raises(TemplateError, match="no column `text`"):
        ready({**config, "steps": [{**STEP, "prompt": "{{ text }}"}]})


def test_limits_can_be_split(config: dict[str, Any]) -> None:
    """Each process gets its part of what is sent over time; what is in flight is its own."""
    limits = {
        "concurrency": 8,
        "requests_per_minute": 600,
        "tokens_per_minute": 9000,
        "windows": [{"requests": 10, "seconds": 1}, {"tokens": 100, "seconds": 60}],
    }
    steps = [{**STEP, "limits": {"requests_per_minute": 60, "concurrency": 3}}]
    job = ready({**config, "limits": limits, "steps": steps}, split_limits=3)
    assert (job.limits.concurrency, job.limits.requests_per_minute, job.limits.tokens_per_minute) == (
        8,
        200,
        3000,
    )
    assert [(window.requests, window.tokens) for window in job.limits.windows] == [(3, None), (None, 33)]
    assert job.steps[0].limits is not None
    assert (job.steps[0].limits.requests_per_minute, job.steps[0].limits.concurrency) == (20, 3)
    with pytest.raises(ConfigError, match="a window of 10 requests has no 11 parts"):
        ready({**config, "limits": limits}, split_limits=11)


def test_a_job_travels_without_files_and_asks_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    """Prompt, messages, examples and schema are in it; so is the address, and the requests stay as they were."""
    schema = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"enum": ["u", "v"]}}}
    (tmp_path / "prompt.txt").write_text("Of {{ t }}:\n", encoding="utf-8")
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    (tmp_path / "examples.jsonl").write_text('{"user": "{{", "assistant": {"a": "u"}}\n', encoding="utf-8")
    (tmp_path / "messages.yaml").write_text("- {role: user, content: '{{ t }}'}\n", encoding="utf-8")
    asked = {"examples_file": str(tmp_path / "examples.jsonl"), "schema": str(tmp_path / "schema.json")}
    steps = [
        {"name": "s", "prompt_file": str(tmp_path / "prompt.txt"), **asked},
        {"name": "m", "messages_file": str(tmp_path / "messages.yaml")},
    ]
    before = compile_job(JobConfig.model_validate({**config, "steps": steps}), SCHEMA)
    job = ready({**config, "steps": steps})
    for file in tmp_path.glob("*.*"):
        file.unlink()
    after = compile_job(JobConfig.model_validate_json(job.model_dump_json(by_alias=True)), SCHEMA)
    assert str(tmp_path) not in job.model_copy(update={"ledger": None}).model_dump_json()
    for old, new in zip(before.steps, after.steps, strict=True):
        assert old.builder.fingerprint == new.builder.fingerprint
        prepared = [step.builder.prepare({"t": "x"}) for step in (old, new)]
        assert prepared[0] == prepared[1]
        assert old.builder.ask(prepared[0]).body == new.builder.ask(prepared[1]).body


class Tone(BaseModel):
    """What only a program knows."""

    price: Decimal = Decimal(1)


def test_a_pydantic_model_stays_one(config: dict[str, Any]) -> None:
    """Each process validates by it, and the columns are those that the driver promised; so does an import path."""
    for schema in (Tone, f"{__name__}:Tone"):
        job, joined = prepare(
            {**config, "steps": [{"name": "s", "prompt": "{{ t }}", "schema": schema}]},
            SCHEMA,
            one_machine=True,
        )
        after = compile_job(job, SCHEMA)
        reads = after.steps[0].builder.schema
        assert reads is not None
        assert reads.read({}) == ({"price": 1}, [])
        assert decoded_schema(after.output_schema) == joined
        assert pa.types.is_decimal(joined.field("s_price").type)


def test_the_environments_address_travels(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process elsewhere may have another one in its environment; keys depend on it."""
    monkeypatch.setenv("BEATRA_BASE_URL", "http://127.0.0.1:10/v1")
    assert ready({**config, "endpoint": {}}).endpoint.base_url == "http://127.0.0.1:10/v1"


def test_the_key_stays(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be there, and is not taken along."""
    away = {**config, "endpoint": {"base_url": "https://beatra.invalid/v1"}}
    with pytest.raises(ConfigError, match="there is no API key"):
        ready(away)
    monkeypatch.setenv("BEATRA_API_KEY", "sk-hush-0123456789")
    assert "hush" not in repr(ready(away))


def test_dictionaries_are_written_out(config: dict[str, Any]) -> None:
    """Engines know no dictionaries of strings; everything else stays."""
    kind = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([pa.field("t", kind), pa.field("n", pa.int64())], {b"k": b"v"})
    _, joined = prepare(config, schema, one_machine=True)
    assert not any(pa.types.is_dictionary(field.type) for field in joined)
    assert joined.field("s_status").type == pa.string()
    assert joined.metadata == {b"k": b"v"}
    batch = pa.record_batch(
        [pa.array(["a", None, "a"]).dictionary_encode().cast(kind), pa.array([1, 2, 3])], schema=schema
    )
    assert decoded(batch).to_pydict() == {"t": ["a", None, "a"], "n": [1, 2, 3]}
    assert decoded(batch).schema.field("t").type == pa.string()
