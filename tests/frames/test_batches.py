"""Record batches through the one door, against an endpoint that keeps books."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import enrich
from enrich.errors import BalanceSpent, ConfigError, InputError, TemplateError, TooManyReasked
from enrich.frames.batches import job_config
from enrich.frames.blocking import blocking
from enrich.frames.door import open_door
from enrich.runs.job import compile_job
from tests.helpers.aside import RATE, SAID, say
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, answer_to, envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

STEP = {"name": "s", "prompt": "{{ t }}"}
CONFIG: dict[str, Any] = {"steps": [STEP]}


pytestmark = pytest.mark.usefixtures("our_endpoint")


def batches(*sizes: int, distinct: int = 10_000) -> list[pa.RecordBatch]:
    """Give batches of texts; a text comes again after so many distinct ones."""
    numbers = itertools.count()
    texts = [[f"text {n % distinct}" for n in itertools.islice(numbers, size)] for size in sizes]
    return [pa.record_batch({"t": pa.array(part, pa.string())}) for part in texts]


def test_each_batch_comes_back_with_its_answers_in_order(endpoint: BookedEndpoint) -> None:
    """One batch out per batch in, of the same rows, input columns first."""
    given = batches(100, 1, 150, 50)
    out = list(enrich.enrich_batches(given, CONFIG))
    assert [batch.num_rows for batch in out] == [100, 1, 150, 50]
    for before, after in zip(given, out, strict=True):
        assert after.column("t").equals(before.column("t"))
        assert after.column("s").to_pylist() == [answer_to(text) for text in before.column("t").to_pylist()]
        assert set(after.column("s_status").to_pylist()) == {"ok"}
    assert len(endpoint.charges) == 301


@pytest.mark.parametrize("asynchronous", [False, True])
def test_rows_of_the_first_batch_that_would_be_asked_again(
    endpoint: BookedEndpoint, *, asynchronous: bool
) -> None:
    """Batches come once: the first with rows in it says whether more than `max_reasked` would be paid for again."""

    async def gathered(config: dict[str, Any]) -> list[pa.RecordBatch]:
        return [batch async for batch in enrich.aenrich_batches(batches(0, 4, 40), config)]

    def ask(config: dict[str, Any]) -> list[pa.RecordBatch]:
        return (
            asyncio.run(gathered(config))
            if asynchronous
            else list(enrich.enrich_batches(batches(0, 4, 40), config))
        )

    assert [batch.num_rows for batch in ask({**CONFIG, "max_reasked": 0})] == [0, 4, 40]
    changed = {"steps": [{**STEP, "prompt": "Say {{ t }}"}]}
    said = (
        "4 of 4 rows in the first batch that were answered before would be asked again; changed since: prompt"
    )
    with pytest.raises(TooManyReasked, match=said):
        ask({**changed, "max_reasked": "50%"})
    assert len(endpoint.posts) == 44
    with pytest.warns(UserWarning, match=said):
        ask(changed)
    ask({**changed, "max_reasked": 0})
    assert len(endpoint.posts) == 88


def test_usage_stands_on_one_row_per_completion_over_all_batches(endpoint: BookedEndpoint) -> None:
    """A text that comes again, in its batch or a later one, is a copy without usage."""
    table = pa.Table.from_batches(enrich.enrich_batches(batches(30, 30, 30, 30, distinct=40), CONFIG))
    sources = table["s_source"].to_pylist()
    assert sources == ["api"] * 40 + ["copy"] * 80
    assert pc.sum(table["s_credits"]).as_py() == endpoint.credits
    assert pc.sum(table["s_attempts"]).as_py() == len(endpoint.posts) == 40
    assert max(endpoint.charges_per_body.values()) == 1


def test_the_same_call_again_costs_nothing(endpoint: BookedEndpoint) -> None:
    """The ledger is in the user's cache directory unless told otherwise."""
    first = pa.Table.from_batches(enrich.enrich_batches(batches(40, 40), CONFIG))
    again = pa.Table.from_batches(enrich.enrich_batches(batches(80), CONFIG))
    assert again["s"].to_pylist() == first["s"].to_pylist()
    assert set(again["s_source"].to_pylist()) == {"ledger"}
    assert len(endpoint.posts) == 80


def test_what_a_model_says_beside_its_text(endpoint: BookedEndpoint) -> None:
    """The columns that a step's request asks for are in batches too."""
    endpoint.script = say
    step = {**STEP, "params": {"tools": [RATE]}, "columns": ["standard", "refusal"]}
    given = pa.record_batch({"t": list(SAID)})
    (out,) = enrich.enrich_batches([given], {"steps": [step]})
    assert [calls and calls[0]["name"] for calls in out["s_tool_calls"].to_pylist()] == [
        None,
        "rate",
        None,
        None,
    ]
    assert out["s_refusal"].to_pylist() == [None, None, None, "I will not"]


def test_empty_batches_and_no_batches_are_fine(endpoint: BookedEndpoint) -> None:
    """A batch without rows comes back without rows, with all columns."""
    empty, full = batches(0, 2)
    out = list(enrich.enrich_batches([empty, full, empty], CONFIG))
    assert [batch.num_rows for batch in out] == [0, 2, 0]
    assert {batch.schema.to_string() for batch in out} == {out[0].schema.to_string()}
    assert list(enrich.enrich_batches([], CONFIG)) == []
    assert len(endpoint.posts) == 2


def test_the_output_schema_is_known_without_asking(endpoint: BookedEndpoint) -> None:
    """What `output_schema` says is what comes, typed columns of a schema included."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
    }
    config = {"steps": [{**STEP, "schema": schema, "reask": 0}]}
    given = batches(1)
    promised = enrich.output_schema(given[0].schema, config)
    assert not endpoint.seen
    assert promised.field("s_n").type == pa.int64()
    (out,) = enrich.enrich_batches(given, config)
    assert out.schema.equals(promised)
    assert out.column("s_status").to_pylist() == ["invalid_output"]


def test_a_wrong_template_is_found_before_anything_is_pulled() -> None:
    """With the schema at hand, the call itself refuses."""
    pulled = []

    def pull() -> Iterator[pa.RecordBatch]:
        pulled.append(1)
        yield from batches(1)

    with pytest.raises(TemplateError, match="no column `text`"):
        enrich.enrich_batches(
            pull(), {"steps": [{**STEP, "prompt": "{{ text }}"}]}, schema=batches(1)[0].schema
        )
    assert not pulled
    with pytest.raises(ConfigError, match="did you mean `prompt`"):
        enrich.enrich_batches([], {"steps": [{"name": "s", "promt": "x"}]})


def test_batches_of_another_schema_are_refused() -> None:
    """The columns of the first batch are those of all."""
    other = pa.record_batch({"t": [1, 2]})
    with pytest.raises(InputError, match="a batch has the columns"):
        list(enrich.enrich_batches([*batches(2), other], CONFIG))


def test_a_stop_keeps_what_is_paid_for_and_the_same_call_goes_on(endpoint: BookedEndpoint) -> None:
    """After a balance is spent and topped up, no body is charged twice."""

    def broke(seen: Seen) -> Raw | None:
        return envelope("insufficient_balance", 402) if len(endpoint.charges) >= 300 else None

    endpoint.script = broke
    got: list[pa.RecordBatch] = []
    with pytest.raises(BalanceSpent):
        got.extend(enrich.enrich_batches(batches(*[50] * 20), CONFIG))
    paid = len(endpoint.charges)
    assert paid >= 300
    endpoint.script = None
    table = pa.Table.from_batches(enrich.enrich_batches(batches(*[50] * 20), CONFIG))
    assert Counter(table["s_status"].to_pylist()) == {"ok": 1000}
    assert Counter(table["s_source"].to_pylist())["ledger"] == paid
    assert set(endpoint.charges_per_body.values()) == {1}


def test_batches_are_pulled_a_bounded_number_ahead_by_the_calling_thread() -> None:
    """Neither an endless input nor one that belongs to a thread is a problem."""
    pulled = 0

    def endless() -> Iterator[pa.RecordBatch]:
        nonlocal pulled
        for n in itertools.count():
            assert threading.get_ident() == home
            pulled += 1
            yield pa.record_batch({"t": [f"{n} {i}" for i in range(100)]})

    home = threading.get_ident()
    out = enrich.enrich_batches(endless(), {**CONFIG, "limits": {"concurrency": 8}})
    assert next(out).num_rows == 100
    assert pulled <= 3
    out.close()  # type: ignore[attr-defined]  # a generator, as iterators go
    assert "beatra-enrich" not in {thread.name for thread in threading.enumerate()}


def test_the_input_s_own_error_comes_through() -> None:
    """What is in flight is kept, and the caller sees the exception that its own code raised."""

    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches(10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(enrich.enrich_batches(broken(), CONFIG))


async def test_the_asynchronous_twin_does_the_same(endpoint: BookedEndpoint) -> None:
    """It takes asynchronous and plain iterables, on the running loop."""

    async def asynchronous() -> AsyncIterator[pa.RecordBatch]:
        for batch in batches(5, 0, 5, distinct=7):
            await asyncio.sleep(0)
            yield batch

    out = [batch async for batch in enrich.aenrich_batches(asynchronous(), CONFIG)]
    assert [batch.num_rows for batch in out] == [5, 0, 5]
    again = [batch async for batch in enrich.aenrich_batches(batches(10, distinct=7), CONFIG)]
    assert Counter(again[0].column("s_source").to_pylist()) == {"ledger": 7, "copy": 3}
    assert len(endpoint.posts) == 7


async def test_the_plain_door_works_inside_a_running_loop() -> None:
    """As in a notebook: the loop that runs is left alone."""
    (out,) = list(enrich.enrich_batches(batches(3), CONFIG))
    assert out.column("s_status").to_pylist() == ["ok"] * 3


async def test_a_cancelled_call_keeps_what_was_in_flight(endpoint: BookedEndpoint) -> None:
    """Cancelling drains; the next call finds every answer that was charged."""

    async def consume() -> list[pa.RecordBatch]:
        return [batch async for batch in enrich.aenrich_batches(batches(*[20] * 30), CONFIG)]

    task = asyncio.create_task(consume())
    while len(endpoint.charges) < 50:  # noqa: ASYNC110  # the endpoint lives in another thread
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    paid = len(endpoint.charges)
    table = pa.Table.from_batches(await consume())
    assert Counter(table["s_source"].to_pylist()) == {"ledger": paid, "api": 600 - paid}
    assert set(endpoint.charges_per_body.values()) == {1}


def test_without_dedupe_equal_rows_have_answers_of_their_own_in_any_batch(endpoint: BookedEndpoint) -> None:
    """`dedupe: false` counts over all batches of a call; run again, it asks nothing."""
    config = {**CONFIG, "dedupe": False}
    for _ in range(2):
        table = pa.Table.from_batches(enrich.enrich_batches(batches(4, 4, 4, distinct=2), config))
        assert len(set(table["s_idempotency_key"].to_pylist())) == 12
    assert len(endpoint.charges) == 12


def test_later_steps_and_reasks_cross_batches(endpoint: BookedEndpoint) -> None:
    """Batches under way together do not hold up each other's later requests."""
    answers = {"text 3": "never"}
    endpoint.answer = lambda body: answers.get(body["messages"][-1]["content"], '{"n": 1}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    steps = [{**STEP, "schema": schema}, {"name": "u", "prompt": "{{ t }} {{ s_n }}"}]
    table = pa.Table.from_batches(enrich.enrich_batches(batches(2, 3, 2), {"steps": steps}))
    assert table["s_n"].to_pylist() == [1] * 7
    assert table["s_attempts"].to_pylist() == [1, 1, 1, 2, 1, 1, 1]
    assert set(table["u_status"].to_pylist()) == {"ok"}


def test_a_configuration_file_shares_its_ledger_with_the_command_line(
    job: Any, endpoint: BookedEndpoint
) -> None:
    """What a file job paid for, the door does not ask again."""
    path = job([{"t": "text 0"}, {"t": "text 1"}])
    assert enrich.run(path).exit_code == 0
    (out,) = enrich.enrich_batches(batches(2), path)
    assert out.column("s_source").to_pylist() == ["ledger", "ledger"]
    assert len(endpoint.posts) == 2


def test_an_iterator_left_half_way_does_not_hang_the_interpreter(tmp_path: Path) -> None:
    """A process that ends with an open iterator ends."""
    script = (
        "import enrich, pyarrow as pa\n"
        "config = {'endpoint': {'base_url': 'sandbox'}, 'steps': [{'name': 's', 'prompt': '{{ t }}'}]}\n"
        "out = enrich.enrich_batches([pa.record_batch({'t': ['a']})] * 3, config, api_key='sk-x')\n"
        "print(next(out).num_rows)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_many_threads_may_ask_through_one_door(endpoint: BookedEndpoint) -> None:
    """Each gets the answers to its own batch, and equal texts are asked once between them."""
    given = batches(*[30] * 16, distinct=100)
    job = compile_job(job_config(CONFIG), given[0].schema)
    with blocking(open_door(job, given[0].schema)) as door, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(door.ask, given))
    for asked, got in zip(given, answers, strict=True):
        assert got["s"].to_pylist() == [answer_to(text) for text in asked["t"].to_pylist()]
    assert door.summary is not None
    assert door.summary.rows == 480
    assert len(endpoint.posts) == 100


async def test_all_who_ask_hear_of_a_stop_that_lets_others_go_on(endpoint: BookedEndpoint) -> None:
    """A spent balance ends every batch under way and those that come later; the run is over while its door is open."""
    endpoint.script = lambda _: envelope("insufficient_balance", 402) if len(endpoint.charges) >= 20 else None
    given = batches(*[30] * 4)
    job = compile_job(job_config(CONFIG), given[0].schema)
    async with open_door(job, given[0].schema) as door:
        heard = await asyncio.gather(*(door.ask(batch) for batch in given), return_exceptions=True)
        assert {type(each) for each in heard} <= {BalanceSpent, pa.RecordBatch}
        with pytest.raises(BalanceSpent):
            await door.ask(given[0])
        endpoint.script = None
        async with open_door(job, given[0].schema) as other:
            await asyncio.gather(*(other.ask(batch) for batch in given))
    assert door.summary is not None
    assert door.summary.exit_code == 4
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.charges) == 120
