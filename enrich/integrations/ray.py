"""Ray Data: the rows of a dataset are asked by a pool of actors, and paid for once among them."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich import spread
from enrich.errors import ConfigError, InputError, RunInterrupted
from enrich.frames.blocking import WATCH, blocking
from enrich.frames.door import open_door
from enrich.rows.explode import explosion_of
from enrich.runs.job import compile_job

try:
    import ray
    from ray.data import ActorPoolStrategy
except ImportError:
    raise ConfigError("Ray Data is not installed", hint="pip install 'beatra-enrich[ray]'") from None

if TYPE_CHECKING:
    from ray.data import Dataset

    from enrich.config import JobConfig
    from enrich.frames.batches import AnyConfig

BLOCKS = (
    4  # that an actor has under way at once: the next ones fill its connections while one has its last rows
)
PATIENCE = 2.0  # seconds that an actor waits, once, to hear whether anybody takes more than its first block


def enrich(
    ds: Dataset,
    config: AnyConfig,
    *,
    actors: int | tuple[int, int] = 1,
    one_machine: bool = False,
    split_limits: int | None = None,
    **remote: Any,
) -> Dataset:
    """Add the columns of every step to a dataset.

    Nothing is asked before the rows are needed; `schema()` asks nothing. Ray takes whole blocks: `take(2)` asks an actor's
    first one, and waits two seconds before it asks another; to ask two rows, write `enrich(ds.limit(2), …)`. A dataset that is read
    again, a task that is retried and an actor that is started anew ask nothing that the ledger holds. Actors need the
    API key in their environment, or where `endpoint.api_key_file` says; it does not travel with the plan.

    Args:
        ds: its columns are the templates' variables.
        config: a YAML file's path, its content as a mapping, or a `JobConfig`; its input and output play no part.
            `ledger` is on PostgreSQL, and `limits.concurrency` is that of one actor.
        actors: how many, or the fewest and the most of a pool that grows.
        one_machine: every actor runs on this machine: then a ledger in a file will do.
        split_limits: so many actors run at once: each gets that part of the rate limits, where the ledger is a file. One on
            PostgreSQL shares them.
        remote: of the actors, as `map_batches` takes it, such as `num_cpus=0.5`.

    Returns:
        A dataset of the same rows: the columns there are, then those of the steps.

    Raises:
        UsageError: something is wrong that was found before any actor began.
    """
    schema = _schema(ds)
    job, joined = spread.prepare(config, schema, one_machine=one_machine, split_limits=split_limits)
    fewest, most = (actors, actors) if isinstance(actors, int) else actors
    enriched = ds.map_batches(
        Asking,
        fn_constructor_args=(job, schema),
        batch_size=None,  # whole blocks: what is cut has to be put together again
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=fewest, max_size=most, enable_true_multi_threading=True),
        **{"max_concurrency": BLOCKS, **remote},
    )
    with contextlib.suppress(
        AttributeError
    ):  # Ray has no public way to say it, and would ask rows to learn it
        enriched._cache.set_schema(enriched._logical_plan.dag, joined)  # noqa: SLF001  # as of Ray 2.60
    return enriched


def preview(ds: Dataset, config: AnyConfig, n: int = 3) -> str:
    """Write out the requests of the first rows as they would be sent; sends nothing.

    Args:
        ds: its columns are the templates' variables.
        config: as for `enrich`.
        n: how many rows.

    Raises:
        UsageError: the configuration does not fit the dataset.
    """
    return spread.preview(config, ds.take_batch(n, batch_format="pyarrow"))


def _schema(ds: Dataset) -> pa.Schema:
    found = ds.schema()
    if found is None:
        raise InputError("the dataset has no columns: it is empty")
    arrow = isinstance(found.base_schema, pa.Schema)  # else its blocks are pandas frames
    schema: pa.Schema = found.base_schema if arrow else ds.take_batch(1, batch_format="pyarrow").schema
    return schema


class Asking:
    """What an actor does: one event loop, one session and one pool of connections for as long as it lives.

    Args:
        job: what is to be done, as `enrich.spread.prepare` gives it.
        schema: of the rows.
    """

    def __init__(self, job: JobConfig, schema: pa.Schema) -> None:
        self._opened = contextlib.ExitStack()
        self._schema = schema
        self._free = threading.Semaphore(1)  # blocks: one at first, for who takes two rows needs no more
        self._counting = threading.Lock()
        self._at_once = 1
        self._goes_on = 0.0  # the time from which on blocks behind the first are asked
        compiled = compile_job(job, schema)
        self._explosion = explosion_of(compiled.steps)
        self._door = self._opened.enter_context(blocking(open_door(compiled, schema)))

    def __call__(self, table: pa.Table) -> pa.Table:
        """Ask about a block; several threads do so at once."""
        rows = _fitted(table, self._schema)
        with self._free:
            self._await_wish()
            answers = [self._door.ask(batch, is_given_up=_is_given_up) for batch in rows.to_batches()]
            self._let_in_more()
        added = pa.Table.from_batches(map(spread.decoded, answers), spread.decoded_schema(self._door.schema))
        for name, column in zip(added.column_names, added.columns, strict=True):
            rows = rows.append_column(name, column)
        return rows if self._explosion is None else self._explosion.table(rows)[0]

    def _let_in_more(self) -> None:
        """Have one more block under way at once, behind the first one after a while."""
        with self._counting:
            if self._at_once == 1:
                self._goes_on = time.monotonic() + PATIENCE
            if self._at_once < BLOCKS:
                self._at_once += 1
                self._free.release()

    def _await_wish(self) -> None:
        """Behind the first block, wait a moment: Ray hands over several at once, and takes back those that nobody takes.

        Raises:
            RunInterrupted: it took this one back.
        """
        while time.monotonic() < self._goes_on:
            if _is_given_up():
                raise RunInterrupted
            time.sleep(WATCH)

    def __del__(self) -> None:
        """Close the run in the ledger. Ray lets go of it where an actor ends in good order."""
        self._opened.close()


def _is_given_up() -> bool:
    """Say whether nobody takes this block any more. Ray tells it to who asks, and lets the actor go on."""
    return bool(ray.get_runtime_context().is_canceled())


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a block the dataset's types, which one that holds only nulls may lack, in one piece."""
    try:
        return table.select(schema.names).cast(schema).combine_chunks()
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"a block has the columns\n{table.schema}\nwhere the dataset has\n{schema}",
            hint="give all its blocks the same columns before it is enriched.",
        ) from error
