"""Each output column says which input columns stand behind it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from enrich.config import validate_config
from enrich.runs.job import compile_job
from enrich.runs.lineage import Origin, column_origins

FIELDS: list[pa.Field[Any]] = [
    pa.field("id", pa.int64()),
    pa.field("review", pa.string()),
    pa.field("stars", pa.int64()),
]
INPUT = pa.schema(FIELDS)


def origins(*steps: dict[str, object]) -> dict[str, Origin]:
    """Compile a job of these steps."""
    document = {
        "input": "in.csv",
        "output": "out.csv",
        "endpoint": {"base_url": "sandbox"},
        "steps": list(steps),
    }
    return column_origins(compile_job(validate_config(document), INPUT), INPUT)


def test_an_input_column_is_passed_through() -> None:
    """It comes from itself, and from no step."""
    assert origins({"name": "s", "prompt": "{{ review }}"})["stars"] == Origin(("stars",))


def test_all_columns_of_a_step_come_from_what_its_templates_use() -> None:
    """`when` counts as well; the order is the input's."""
    given = origins({"name": "s", "prompt": "{{ review }}", "when": "{{ stars < 3 }}"})
    for column in ("s", "s_status", "s_credits"):
        assert given[column] == Origin(("review", "stars"), "s")


def test_a_later_step_comes_from_what_the_earlier_one_uses() -> None:
    """Lineage leads back to the input through any number of steps."""
    given = origins({"name": "a", "prompt": "{{ review }}"}, {"name": "b", "prompt": "{{ a }} for {{ id }}"})
    assert given["b"] == Origin(("id", "review"), "b")


def test_a_template_that_takes_the_row_takes_every_column() -> None:
    """`row` as a whole may use any of them."""
    given = origins({"name": "s", "prompt": "{{ row | tojson }}"})
    assert given["s"].columns == ("id", "review", "stars")
