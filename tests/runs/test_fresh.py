"""`--fresh`: which generation of answers counts, for which rows, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.config import InputConfig, load_config
from enrich.files.source import open_source
from enrich.runs.fresh import know_the_past, note_decisions, scope_of, settle_fresh, under_way
from enrich.runs.job import Job, compile_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.ledger.protocol import Ledger

MINE, OTHER = "mine", "other"


@pytest.fixture
def compiled(job: Callable[..., Path]) -> Callable[[], Job]:
    """Compile the job anew, as each run does."""
    config = load_config(job(endpoint={"base_url": "sandbox"}))
    schema = open_source(config.input).schema
    return lambda: compile_job(config, schema)


async def past(job: Job, ledger: Ledger, scope: str, *, fresh: bool = False) -> tuple[int, int]:
    """Begin a run; gives the generation that its step asks for, and the newest that it may read besides."""
    await note_decisions(job, ledger, fresh=fresh, scope=scope, retry=frozenset())
    await know_the_past(job, ledger, fresh=fresh, scope=scope)
    (step,) = job.steps
    return step.generation, step.conversation.older


async def test_a_plain_run_reads_the_newest(ledger: Ledger, compiled: Callable[[], Job]) -> None:
    """Before any `--fresh` that is the first generation; nothing is under way."""
    job = compiled()
    assert await past(job, ledger, MINE) == (0, 0)
    assert await under_way(ledger, job.steps[0].builder.fingerprint, MINE) == 0


async def test_a_fresh_run_that_was_stopped_goes_on(ledger: Ledger, compiled: Callable[[], Job]) -> None:
    """The next plain run over the same rows asks for the new generation; one over others does not have to."""
    assert await past(compiled(), ledger, MINE, fresh=True) == (1, 0)
    assert await past(compiled(), ledger, MINE) == (1, 0)
    assert await past(compiled(), ledger, OTHER) == (1, 1)
    fingerprint = compiled().steps[0].builder.fingerprint
    assert await under_way(ledger, fingerprint, MINE) == 1
    assert await under_way(ledger, fingerprint, OTHER) == 0


async def test_once_settled_it_is_over(ledger: Ledger, compiled: Callable[[], Job]) -> None:
    """After every row was asked anew, plain runs read old and new alike; another `--fresh` is the next generation."""
    await past(compiled(), ledger, MINE, fresh=True)
    fingerprint = compiled().steps[0].builder.fingerprint
    await settle_fresh(ledger, [fingerprint], OTHER)
    assert await under_way(ledger, fingerprint, MINE) == 1
    await settle_fresh(ledger, [fingerprint], MINE)
    assert await under_way(ledger, fingerprint, MINE) == 0
    assert await past(compiled(), ledger, MINE) == (1, 1)
    assert await past(compiled(), ledger, MINE, fresh=True) == (2, 0)


def test_a_scope_is_the_rows_alone() -> None:
    """Where they come from and how many at most; not how a file is written."""
    rows = InputConfig(path="a.csv")
    assert scope_of(rows) == scope_of(InputConfig(path="a.csv", format="csv", columns=["t"]))
    scopes = [
        scope_of(rows),
        scope_of(rows, 0),
        scope_of(rows, 1),
        scope_of(None),
        scope_of(InputConfig(path="b.csv")),
        scope_of(InputConfig(path=["a.csv"])),
        scope_of(InputConfig(path="a.csv", partitions=["day=1"])),
    ]
    assert len(set(scopes)) == len(scopes)
