from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platformdirs import user_cache_path

from enrich.config import Config, JobConfig, validate_config, validate_job
from enrich.errors import ConfigError

STEP = {"name": "s", "prompt": "x"}


def job(**keys: Any) -> Config:
    """Give a small job with these keys."""
    return validate_config({"input": "a.csv", "output": "/o/b.csv", "steps": [STEP], **keys})


@pytest.mark.parametrize(
    ("tolerate", "rows", "allowed"),
    [
        (0, 9, 0),
        (3, 9, 3),
        ("1%", 250, 2),
        ("1%", 99, 0),
        ("12.5%", 8, 1),
        ("0.57%", 10_000, 57),
        ("100%", 3, 3),
        ("0.1 %", 1_000, 1),
    ],
)
def test_tolerated_rows(tolerate: int | str, rows: int, allowed: int) -> None:
    """A count stands as it is, a share is rounded down."""
    document = {"input": "a.csv", "output": "b.csv", "steps": [{"name": "s", "prompt": "x"}]}
    assert validate_config({**document, "tolerate": tolerate}).tolerated(rows) == allowed


def test_the_json_schema_describes_every_key() -> None:
    """Editors get the keys as they stand in the file."""
    step = Config.model_json_schema(by_alias=True)["$defs"]["StepConfig"]
    assert "schema" in step["properties"]
    assert "answer_schema" not in step["properties"]
    assert step["additionalProperties"] is False


@given(st.integers(0, 10_000), st.integers(0, 10**9))
def test_a_tolerated_share_is_never_rounded_up(hundredths: int, rows: int) -> None:
    """As many rows as the share allows exactly: not one more, and not one fewer."""
    share = Fraction(hundredths, 10_000)
    text = f"{hundredths // 100}.{hundredths % 100:02}%"
    assert job(tolerate=text).tolerated(rows) == int(share * rows)


@pytest.mark.parametrize("tolerate", ["101%", "-1", "-1%", "1.5", 1.5, True, "%", "1 %%", "٣", "1e1%", [1]])
def test_what_is_no_count_and_no_share(tolerate: Any) -> None:
    """It is refused with an example of both."""
    with pytest.raises(ConfigError, match="give a count of rows, or a share such as 1%"):
        job(tolerate=tolerate)


@pytest.mark.parametrize(
    ("keys", "location"),
    [
        ({}, "/o/.beatra/ledger.db"),
        ({"output": "o.csv"}, ".beatra/ledger.db"),
        ({"output": "/o/"}, "/.beatra/ledger.db"),
        ({"ledger": "/l.db"}, "/l.db"),
        ({"ledger": "postgresql://h/d", "output": "s3://b/k.csv"}, "postgresql://h/d"),
    ],
)
def test_where_the_ledger_lies(keys: dict[str, Any], location: str) -> None:
    """Where it is said to, else beside an output of this machine."""
    assert job(**keys).ledger_location() == location


def test_a_job_without_a_folder_of_its_own_keeps_its_ledger_in_the_cache() -> None:
    """A store is no place for it, and rows that come from elsewhere have none."""
    cache = str(user_cache_path("beatra-enrich") / "ledger.db")
    assert job(output="s3://b/k.csv").ledger_location() == cache
    found = validate_job({"steps": [STEP]})
    assert type(found) is JobConfig
    assert found.ledger_location() == cache


def test_a_ledger_is_shown_without_its_password() -> None:
    """The location opens it, what is shown does not give it away."""
    found = job(ledger="postgresql://me:hush@h/d")
    assert found.ledger_location() == "postgresql://me:hush@h/d"
    assert found.ledger_shown() == "postgresql://me@h/d"


def test_steps_have_names_of_their_own() -> None:
    """Two of one name would write the same columns."""
    with pytest.raises(ConfigError, match="two steps are named `s`"):
        job(steps=[STEP, {**STEP, "name": "t"}, STEP])


def test_the_limits_over_a_span_are_named_by_their_place() -> None:
    """Those of the run and of its steps, as one types them; the ceiling on what is in flight is none."""
    found = job(
        limits={"concurrency": 2, "tokens_per_minute": 5, "windows": [{"requests": 1, "seconds": 1}]},
        steps=[{**STEP, "limits": {"concurrency": 1, "requests_per_minute": 3}}, {**STEP, "name": "t"}],
    )
    assert list(found.rates()) == [
        "`limits.tokens_per_minute`",
        "`limits.windows`",
        "`steps.s.limits.requests_per_minute`",
    ]
    assert list(job().rates()) == []
