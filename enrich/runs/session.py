"""Everything a run has open at once: ledger, sandbox or endpoint, client, engine; and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from enrich.base.descriptors import room_for_connections
from enrich.base.interrupt import DRAIN
from enrich.config import LimitsConfig
from enrich.config.endpoint import Endpoint
from enrich.engine.engine import Engine, Stats
from enrich.engine.retry import Policy
from enrich.errors import RunInterrupted, RunStopped
from enrich.ledger.opening import open_ledger
from enrich.pace.budget import Budget
from enrich.pace.lease import Leases
from enrich.pace.pace import Pace
from enrich.pace.shared_windows import LeasedSlots
from enrich.pace.step_limits import Gate
from enrich.pace.windows import OwnSlots
from enrich.rows.assemble import Assembler
from enrich.rows.flow import Flow
from enrich.rows.troubles import Troubles
from enrich.runs.fresh import formats_name, know_the_past
from enrich.runs.promise import promise_of
from enrich.wire import completion
from enrich.wire.client import Client
from enrich.wire.stream_end import StreamEnds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from enrich.base.clock import Clock
    from enrich.base.interrupt import Interrupt
    from enrich.ledger.protocol import Ledger
    from enrich.pace.windows import Slots
    from enrich.records import Ask, Completion, Failure, Reply, RowStatus
    from enrich.rows.occurrences import Occurrences
    from enrich.rows.statuses import Marks
    from enrich.runs.job import Job

SANDBOX_KEY = "sk-sandbox-000000"  # the emulator takes any key

log = logging.getLogger("enrich")


@dataclass(slots=True)
class Session:
    """An open run.

    Attributes:
        run: its number in the ledger; 0 when nothing is to be sent.
        engine: None when nothing is to be sent.
        scope: which rows it is about, see `scope_of`.
        gates: of the steps that have limits of their own, by name: all flows of the run share them.
        troubles: counts failed rows by their cause; all flows of the run share it.
    """

    job: Job
    ledger: Ledger
    run: int
    engine: Engine | None
    retry: frozenset[RowStatus] = frozenset()
    scope: str = ""
    gates: Mapping[str, Gate] = field(default_factory=dict)
    troubles: Troubles = field(default_factory=Troubles)
    started: float = field(default_factory=time.monotonic)

    @property
    def stats(self) -> Stats:
        """Give what the engine has done; all zero without one."""
        return self.engine.stats if self.engine is not None else Stats()

    def flow(
        self,
        marks: Marks,
        occurrences: Occurrences | None = None,
        observe: Callable[[int, int, Ask, bool], None] | None = None,
        closed: Callable[[int, RowStatus], None] | None = None,
        before: int = 0,
    ) -> Flow:
        """Make the flow that takes rows to these marks; ``before`` counts the rows that other flows had before."""
        return Flow(
            list(self.job.steps),
            ledger=self.ledger,
            marks=marks,
            read=_reading(self.job),
            run=self.run,
            engine=self.engine,
            gates=self.gates,
            occurrences=occurrences,
            retry=self.retry,
            observe=observe,
            closed=closed,
            troubles=self.troubles,
            before=before,
            tolerant=self.job.config.tolerated(marks.rows) >= marks.rows,
        )

    def assembler(self, marks: Marks) -> Assembler:
        """Make the assembler that reads these marks."""
        return Assembler(
            self.job.steps,
            schema=self.job.output_schema,
            ledger=self.ledger,
            marks=marks,
            read=_reading(self.job),
            run=self.run,
        )


@contextlib.asynccontextmanager
async def open_session(
    job: Job,
    *,
    send: bool,
    fresh: bool = False,
    scope: str = "",
    retry: frozenset[RowStatus] = frozenset(),
    interrupt: Interrupt | None = None,
    clock: Clock | None = None,
    drain: float = DRAIN,
) -> AsyncIterator[Session]:
    """Open what a job needs; on the way out, await what is in flight and close the run in the ledger.

    Args:
        job: what is to be done.
        send: whether requests may be sent.
        fresh: ask everything anew.
        scope: which rows this is about, see `scope_of`.
        retry: the statuses whose rows are asked again.
        interrupt: what a signal handler fires.
        clock: tells the age of requests.
        drain: seconds that what is in flight may take after a stop.
    """
    async with contextlib.AsyncExitStack() as stack:
        ledger = await open_ledger(job.config.ledger_location(), clock=clock)
        stack.push_async_callback(ledger.close)
        await know_the_past(job, ledger, fresh=fresh, scope=scope, retry=retry)
        if not send:
            yield Session(job, ledger, 0, None, retry, scope)
            return
        endpoint = job.endpoint or stack.enter_context(sandbox_endpoint(job.config.endpoint.timeout))
        limits = job.config.limits
        most = _connections(limits.most)
        ends = await _known_ends(job, ledger, endpoint)
        client = Client(endpoint, concurrency=most, ends=ends)
        transport = await stack.enter_async_context(client)
        output = job.config.output
        promise = await promise_of(job.config.endpoint, job.base_url, ledger)
        said = {"output": output and output.path, "base_url": job.base_url, "keeps_keys": promise.kept}
        run = await ledger.open_run(said)
        await _warn_of_others(job, ledger)
        slots = await _slots(job, ledger, limits, stack)
        pace = Pace(limits, slots=slots, learned=await ledger.recall(pace_name(job)), most=most)
        engine = Engine(
            ledger=ledger,
            transport=transport,
            read=_reading(job, completion.read_fresh),
            pace=pace,
            budget=Budget(job.config.budget),
            policy=Policy.of(job.config.retry, timeout=job.config.endpoint.timeout, keeps_keys=promise.kept),
            workers=most,
            on_retry=_log_retry,
            run=run,
            clock=clock,
        )
        if interrupt is not None:
            interrupt.listener = engine.stop
            interrupt.check()
        async with engine, _open_gates(job, ledger, engine) as gates:
            try:
                yield Session(job, ledger, run, engine, retry, scope, gates)
            except BaseException:
                engine.stop(RunInterrupted())
                raise
            finally:
                await engine.drain(drain if engine.stopped is not None else 0.0)
                with contextlib.suppress(RunStopped):  # a full disk: what was learned is learned again
                    await ledger.remember(pace_name(job), pace.learned())
                    await ledger.remember(formats_name(job), job.formats.learned())
                    await ledger.remember(_stream_end_name(job), {"says_done": ends.says_done})


def _connections(wanted: int) -> int:
    """Give how many requests may be in flight: as many as are wanted, if this process may have as many files open."""
    room = room_for_connections()
    if room >= wanted:
        return wanted
    log.warning(
        "this process may have only %s connections open: limits.concurrency is %s. Raise it with `ulimit -n`",
        f"{room:,}",
        f"{wanted:,}",
    )
    return room


async def _warn_of_others(job: Job, ledger: Ledger) -> None:
    """Say so when another run keeps limits of the same endpoint by itself: together they send more."""
    limit = next(job.config.rates(), None)
    if limit is None or job.endpoint is None or isinstance(ledger, Leases):
        return
    if any(other.get("base_url") == job.base_url for other in await ledger.beside()):
        log.warning(
            "another run on this ledger is at work: each keeps %s by itself, so together they may send more; "
            "a ledger on PostgreSQL would share the limit",
            limit,
        )


async def _slots(
    job: Job, ledger: Ledger, limits: LimitsConfig, stack: contextlib.AsyncExitStack, *of: str
) -> Slots:
    """Share a limit of the account with every other run on the ledger, where the ledger can.

    The sandbox is each run's own.

    Args:
        job: whose account it is.
        ledger: through which it is shared.
        limits: that hold.
        stack: which lets go of them.
        of: what the limit is of, when it is not the account's as a whole.
    """
    if job.endpoint is None or not isinstance(ledger, Leases):
        return OwnSlots(limits)
    key = job.endpoint.api_key
    account = await ledger.fingerprint(job.endpoint.base_url, key.get_secret_value() if key else "", *of)
    return await stack.enter_async_context(LeasedSlots(ledger, account, limits))


@contextlib.asynccontextmanager
async def _open_gates(job: Job, ledger: Ledger, engine: Engine) -> AsyncIterator[dict[str, Gate]]:
    """Keep the gates of the steps that have limits of their own; one that fails stops the engine.

    Runs share such a limit when they ask the same: the step's fingerprint is part of its name.
    """
    async with contextlib.AsyncExitStack() as stack:
        gates: dict[str, Gate] = {}
        for step in job.steps:
            own = step.builder.step.limits
            if own is None:
                continue
            limits = LimitsConfig(requests_per_minute=own.requests_per_minute, adaptive=False)
            timed = own.requests_per_minute is not None
            name = step.builder.fingerprint.hex()
            slots = await _slots(job, ledger, limits, stack, name) if timed else OwnSlots(limits)
            gates[step.name] = Gate(own.concurrency, slots)
        engine.behind(list(gates.values()))
        keepers = [
            asyncio.create_task(gate.keep(engine.stop), name=f"beatra-gate-{name}")
            for name, gate in gates.items()
        ]
        try:
            yield gates
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)


@contextlib.contextmanager
def sandbox_endpoint(timeout: float) -> Iterator[Endpoint]:
    """Run the built-in emulator in this process while the block runs.

    Args:
        timeout: seconds for one attempt.
    """
    from enrich.sandbox import SandboxOptions, ThreadedSandbox

    with ThreadedSandbox(SandboxOptions()) as sandbox:
        yield Endpoint(base_url=sandbox.base_url, api_key=SecretStr(SANDBOX_KEY), timeout=timeout)


def _reading(
    job: Job, read: Callable[..., Completion | Failure] = completion.read
) -> Callable[[Reply], Completion | Failure]:
    """Give what reads the answers of this job's endpoint."""
    return partial(read, finish_optional=job.config.endpoint.finish_reason == "optional")


async def _known_ends(job: Job, ledger: Ledger, endpoint: Endpoint) -> StreamEnds:
    """Say how the endpoint ends its streams, as earlier runs learned it."""
    ends = StreamEnds.of(endpoint)
    told = await ledger.recall(_stream_end_name(job))
    if told is not None and ends.says_done is None:
        ends.says_done = told.get("says_done")
    return ends


def _stream_end_name(job: Job) -> str:
    return f"stream_end:{job.base_url}"


def pace_name(job: Job) -> str:
    """Name the note on what an endpoint lets through: it is another for each account, which the key stands for.

    Of the key it holds 32 bits of a hash, of which nothing can be guessed.
    """
    key = job.endpoint.api_key if job.endpoint is not None else None
    if key is None:
        return f"pace:{job.base_url}"
    digest = hashlib.blake2b(key.get_secret_value().encode(), digest_size=4, person=b"beatra-pace")
    return f"pace:{job.base_url}:{digest.hexdigest()}"


def _log_retry(ask: Ask, failure: Failure, after: float | None) -> None:
    what = "asking another way" if after is None else f"again in {after:.1f} s"
    log.info(
        "%s: %s",
        what,
        failure,
        extra={
            "key": ask.key.hex(),
            "model": ask.model,
            "code": failure.code,
            "request_id": failure.request_id,
            "wait_seconds": None if after is None else round(after, 3),
        },
    )
