"""What a run learned of an endpoint is known to the next one, to runs of the same account alone, and gives no key away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from enrich.config import LimitsConfig, load_config
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger
from enrich.pace.pace import Pace
from enrich.runs.job import Job, compile_job
from enrich.runs.learned import Learned, recall_formats, recall_learned, recall_rate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.config.endpoint import Endpoint
    from enrich.ledger.protocol import Ledger

MINE, OTHERS = "sk-mine-0123456789", "sk-of-others-0123456789"


@pytest.fixture
def compiled(job: Callable[..., Path]) -> Callable[[str], Job]:
    """Compile the job anew with a key, as each run does."""
    config = load_config(job(endpoint={"base_url": "https://there.example/v1"}))
    schema = open_source(config.input).schema
    return lambda key: compile_job(config, schema, api_key=key)


def endpoint_of(job: Job) -> Endpoint:
    """Give where a job's requests go."""
    assert job.endpoint is not None
    return job.endpoint


async def keep(job: Job, ledger: Ledger, *, says_done: bool | None = None, **learned: Any) -> None:
    """Leave to the next run what this one has learned."""
    ends = (await recall_learned(job, ledger, endpoint_of(job))).ends
    ends.says_done = says_done
    await Learned(None, ends).keep(job, ledger, Pace(LimitsConfig(), learned=learned or None))


async def test_nothing_is_known_at_first(ledger: Ledger, compiled: Callable[[str], Job]) -> None:
    """Before the first run there is neither a pace nor a rate, and how streams end is open."""
    job = compiled(MINE)
    learned = await recall_learned(job, ledger, endpoint_of(job))
    assert (learned.pace, learned.ends.says_done, await recall_rate(job, ledger)) == (None, None, None)


@pytest.mark.parametrize("says_done", [True, False])
async def test_the_next_run_knows(ledger: Ledger, compiled: Callable[[str], Job], *, says_done: bool) -> None:
    """What an endpoint let through, what its models refused and how its streams ended are known to the next run."""
    first = compiled(MINE)
    first.formats.know({"refused": [["slow", "json_schema", ""]]})
    await keep(first, ledger, says_done=says_done)
    job = compiled(MINE)
    learned = await recall_learned(job, ledger, endpoint_of(job))
    assert learned.ends.says_done is says_done
    assert learned.pace is not None
    assert learned.pace["at"] > 0
    await recall_formats(job, ledger)
    assert job.formats.learned() == first.formats.learned() != compiled(MINE).formats.learned()


async def test_a_pace_is_an_accounts_own(ledger: Ledger, compiled: Callable[[str], Job]) -> None:
    """Another key has another limit: its runs begin without this one's pace; how streams end is the endpoint's."""
    await keep(compiled(MINE), ledger, says_done=False)
    other = compiled(OTHERS)
    learned = await recall_learned(other, ledger, endpoint_of(other))
    assert (learned.pace, learned.ends.says_done) == (None, False)


async def test_the_slowest_model_sets_the_rate(ledger: Ledger, compiled: Callable[[str], Job]) -> None:
    """A plan reckons with the model that is let through least; one without a known rate says nothing."""
    job = compiled(MINE)
    known: list[tuple[dict[str, dict[str, float]], float | None]] = [
        ({"a": {"rate": 12.0}, "b": {"rate": 3.0}, "c": {}}, 3.0),
        ({"c": {}}, None),
    ]
    for rates, rate in known:
        await Learned({}, (await recall_learned(job, ledger, endpoint_of(job))).ends).keep(
            job, ledger, _Knows(rates)
        )
        assert await recall_rate(job, ledger) == rate


async def test_no_note_holds_the_key(tmp_path: Path, compiled: Callable[[str], Job]) -> None:
    """The account's note is named by a few bits of a hash; no file of the ledger holds the key."""
    ledger = await open_ledger(str(tmp_path / "kept" / "ledger.db"))
    await keep(compiled(MINE), ledger)
    await ledger.close()
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert files
    assert not any(MINE.encode() in path.read_bytes() for path in files)


class _Knows(Pace):
    """A pace that has learned these rates."""

    def __init__(self, rates: dict[str, dict[str, float]]) -> None:
        super().__init__(LimitsConfig())
        self._rates = rates

    def learned(self) -> dict[str, Any]:
        """Give what the next run may start from."""
        return {**super().learned(), "models": self._rates}
