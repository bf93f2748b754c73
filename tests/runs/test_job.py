"""A configuration and a schema become a job: what it asks, what it writes, and what cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from enrich.config import Config, validate_config
from enrich.errors import ConfigError, OutputError, TemplateError
from enrich.files.source import open_source
from enrich.runs.job import SANDBOX, compile_job, fingerprint, refuse_overlap
from tests.helpers.endpoint import KEY

if TYPE_CHECKING:
    from pathlib import Path

STEP: dict[str, Any] = {"name": "s", "prompt": "{{ t }}"}
COLUMNS: dict[str, pa.DataType] = {"id": pa.int64(), "t": pa.string(), "raw": pa.binary(), "u": pa.string()}
SCHEMA = pa.schema(COLUMNS)


def job(**keys: Any) -> Config:
    """Give a small job for the sandbox, with these keys."""
    endpoint = {"base_url": SANDBOX}
    return validate_config(
        {"input": "a.csv", "output": "/o/b.csv", "steps": [STEP], "endpoint": endpoint, **keys}
    )


@pytest.mark.parametrize(
    ("prompt", "columns"),
    [
        ("{{ t }}", ("t",)),
        ("{{ u }} {{ t }}", ("t", "u")),
        ("no column", ()),
        ("{{ row['t'] }}", ("t",)),
        ("{% for k in row %}{{ k }}{% endfor %}", ("id", "t", "raw", "u")),
    ],
)
def test_only_the_columns_that_a_prompt_needs_are_read(prompt: str, columns: tuple[str, ...]) -> None:
    """In the input's order; all of them where a template may look at any."""
    found = compile_job(job(steps=[{**STEP, "prompt": prompt}]), SCHEMA).columns
    assert set(columns) <= set(found)
    assert found == tuple(name for name in SCHEMA.names if name in found)
    if len(columns) < 2 and "row" not in prompt:
        assert found == columns


def test_the_output_is_the_input_with_the_steps_columns_behind() -> None:
    """Input columns keep names, types and order; those that a folder's names make may be left out."""
    config = job(steps=[STEP, {"name": "next", "prompt": "{{ s }}"}])
    names = compile_job(config, SCHEMA).output_schema.names
    assert names[:4] == SCHEMA.names
    assert [name for name in names if name in ("s", "next")] == ["s", "next"]
    assert compile_job(config, SCHEMA, leave_out=["id"]).output_schema.names == names[1:]


def test_a_step_waits_for_those_whose_answers_it_needs() -> None:
    """A later step that only asks how an earlier one went follows it, and does not need its answer."""
    steps = [STEP, {"name": "b", "prompt": "{{ s }}"}, {"name": "c", "prompt": "{{ s_status }} {{ t }}"}]
    _, b, c = compile_job(job(steps=steps), SCHEMA).steps
    assert (b.needs, b.follows) == (("s",), ("s",))
    assert (c.needs, c.follows) == ((), ("s",))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{**STEP, "prompt": "{{ raw }}"}], "column `raw` is binary"),
        ([{**STEP, "prompt": "{{ row }}"}], "column `raw` is binary"),
        ([{**STEP, "prompt": "Of {{ t }}: {{ row | tojson(indent=1) }}"}], "column `raw` is binary"),
        ([{**STEP, "params": {"metadata": "{{ row }}"}}], "column `raw` is binary"),
        ([{**STEP, "prompt": "{{ nowhere }}"}], "nowhere"),
        ([{**STEP, "prompt": "{{ later }}"}, {**STEP, "name": "later"}], "later"),
    ],
)
def test_templates_that_cannot_be_filled(steps: list[dict[str, Any]], said: str) -> None:
    """A column that no prompt can hold, or that is not there (yet), is found before anything is read."""
    with pytest.raises(TemplateError, match=said):
        compile_job(job(steps=steps), SCHEMA)


def test_a_row_may_hold_binary_that_no_prompt_writes() -> None:
    """What takes the others out of a row is let through, and so is what an older version paid for."""
    others = "{% for name, value in row.items() if name != 'raw' %}{{ name }}: {{ value }} {% endfor %}"
    compile_job(job(steps=[{**STEP, "prompt": others}]), SCHEMA)
    compile_job(job(steps=[{**STEP, "prompt": "{{ row }}", "prompt_text": 1}]), SCHEMA)


@pytest.mark.parametrize("key_needed", [True, False])
def test_a_server_of_ones_own_network_needs_no_key(*, key_needed: bool) -> None:
    """What sends nothing looks at a job as `run` does: without a key nothing would travel in the clear."""
    endpoint = compile_job(
        job(endpoint={"base_url": "http://10.0.0.5/v1"}), SCHEMA, key_needed=key_needed
    ).endpoint
    assert endpoint is not None
    assert endpoint.api_key is None


def test_a_key_is_needed_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the sandbox, nor for what sends nothing; one that is given goes before the environment's."""
    real = job(endpoint={"base_url": "https://api.example/v1"})
    with pytest.raises(ConfigError, match="there is no API key"):
        compile_job(real, SCHEMA)
    assert compile_job(job(), SCHEMA).endpoint is None
    assert compile_job(real, SCHEMA, key_needed=False).base_url == "https://api.example/v1"
    monkeypatch.setenv("BEATRA_API_KEY", "sk-of-the-environment")
    endpoint = compile_job(real, SCHEMA, api_key=KEY).endpoint
    assert endpoint is not None
    assert endpoint.api_key is not None
    assert endpoint.api_key.get_secret_value() == KEY


CHANGES: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"steps": [{**STEP, "limits": {"concurrency": 1}}]}, False),
    ({"limits": {"concurrency": 3}}, False),
    ({"retry": {"attempts": 1}}, False),
    ({"tolerate": "5%"}, False),
    ({"input": "other.csv"}, False),
    ({"output": "/elsewhere/b.csv"}, False),
    ({"ledger": "/elsewhere/l.db"}, False),
    ({"steps": [{**STEP, "prompt": "{{ t }}!"}]}, True),
    ({"steps": [{**STEP, "model": "fast-1"}]}, True),
    ({"steps": [{**STEP, "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}]}, True),
    ({"steps": [{**STEP, "reask": 0}]}, True),
    ({"steps": [STEP, {**STEP, "name": "more"}]}, True),
    ({"input": {"path": "a.csv", "csv": {"delimiter": ";"}}}, True),
    ({"input": {"path": "a.csv", "columns": ["t"]}}, True),
    ({"output": {"path": "/o/b.csv", "compression": "none"}}, True),
    ({"endpoint": {"base_url": "https://api.example/v1"}}, True),
]


@pytest.mark.parametrize(("keys", "other"), CHANGES)
def test_a_job_is_another_one_when_it_asks_or_writes_otherwise(keys: dict[str, Any], *, other: bool) -> None:
    """Where its files lie and how fast it goes is no part of it; every run finds the same digest."""
    assert (fingerprint(job(**keys))[0] != fingerprint(job())[0]) == other


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("in.csv", "in.csv", "is a file of the input"),
        ("in.csv", "./x/../in.csv", "is a file of the input"),
        ("in.csv", "link.csv", "is a file of the input"),
        ("data", "data/out.csv", "lies in the input's folder"),
        ("data", "data/deep/out.csv", "lies in the input's folder"),
        ("data", "data/", "lies in the output's folder"),
        ("data", "./", "lies in the output's folder"),
        ("data", "out.csv", ""),
        ("data", "data-out/", ""),
        ("in.csv", "out.csv", ""),
    ],
)
def test_the_output_is_kept_apart_from_the_input(tmp_path: Path, source: str, output: str, said: str) -> None:
    """By whatever way it is named: it would replace what is read, or be read by the next run."""
    (tmp_path / "data").mkdir()
    for path in ("in.csv", "data/one.csv"):
        (tmp_path / path).write_text("t\nx\n", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    config = job(input=str(tmp_path / source), output=f"{tmp_path}/{output}")
    opened = open_source(config.input)
    if said:
        with pytest.raises(OutputError, match=said):
            refuse_overlap(config, opened)
    else:
        refuse_overlap(config, opened)
