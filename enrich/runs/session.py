"""What a job has open: its ledger, and while it sends, the sandbox or endpoint, client and engine; and their orderly end."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from enrich.base.interrupt import DRAIN
from enrich.config.endpoint import Endpoint
from enrich.engine.engine import Engine, Stats
from enrich.engine.retry import Policy
from enrich.errors import RunInterrupted, RunStopped
from enrich.ledger.opening import open_ledger
from enrich.pace.budget import Budget
from enrich.rows.account import Account
from enrich.rows.assemble import Assembler
from enrich.rows.flow import Flow
from enrich.rows.pins import Pins
from enrich.rows.troubles import Troubles
from enrich.runs.anew import know_generations
from enrich.runs.fresh import know_the_past, note_decisions
from enrich.runs.learned import recall_learned
from enrich.runs.limits import connections, open_gates, open_pace, open_wallet
from enrich.runs.promise import promise_of
from enrich.runs.trust import know_trust
from enrich.wire import completion
from enrich.wire.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from enrich.base.clock import Clock
    from enrich.base.interrupt import Interrupt
    from enrich.engine.ticket import Landing
    from enrich.ledger.protocol import Ledger
    from enrich.pace.step_limits import Gate
    from enrich.records import Ask, Completion, Failure, Reply, RowStatus
    from enrich.rows.occurrences import Occurrences
    from enrich.rows.statuses import Marks
    from enrich.runs.anew import Anew
    from enrich.runs.job import Job

SANDBOX_KEY = "sk-sandbox-000000"  # the emulator takes any key

log = logging.getLogger("enrich")


@dataclass(slots=True)
class Session:
    """An open ledger and a job on it; with an engine while requests may be sent.

    Attributes:
        scope: which rows it is about, see `scope_of`.
        retry: the statuses whose rows are asked again.
        fresh: whether everything is asked anew.
        clock: tells the age of requests.
        anew: the rows that are asked anew, and no others.
        run: its number in the ledger; 0 when nothing is to be sent.
        engine: None when nothing is to be sent.
        gates: of the steps that have limits of their own, by name: all flows of the run share them.
        troubles: counts failed rows by their cause; all flows of the session share it.
        account: what became of the answers that were paid for, likewise.
        accept_model: whether a model that is not the pinned one is taken.
    """

    job: Job
    ledger: Ledger
    scope: str = ""
    retry: frozenset[RowStatus] = frozenset()
    fresh: bool = False
    clock: Clock | None = None
    anew: Anew | None = None
    accept_model: bool = False
    run: int = 0
    engine: Engine | None = None
    gates: Mapping[str, Gate] = field(default_factory=dict)
    troubles: Troubles = field(default_factory=Troubles)
    account: Account = field(default_factory=Account)
    started: float = field(default_factory=time.monotonic)

    @property
    def stats(self) -> Stats:
        """Give what the engine has done; all zero without one."""
        return self.engine.stats if self.engine is not None else Stats()

    async def look(self, job: Job | None = None, *, anew: Anew | None = None) -> Session:
        """Look at the same ledger again, for this job or another: nothing is sent, and every count begins at zero.

        Args:
            job: another one.
            anew: rows that are asked anew, or that are to be found; by default those of this session.
        """
        anew = anew or self.anew
        session = Session(
            job=job or self.job,
            ledger=self.ledger,
            scope=self.scope,
            retry=self.retry,
            fresh=self.fresh,
            clock=self.clock,
            anew=anew,
            accept_model=self.accept_model,
        )
        await know_the_past(session.job, self.ledger, fresh=self.fresh, scope=self.scope)
        if anew is not None:
            await know_generations(session.job, self.ledger, anew, self.scope)
        await know_trust(session.job, self.ledger)
        return session

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
            anew=self.anew.rows if self.anew is not None else None,
            observe=observe,
            closed=closed,
            troubles=self.troubles,
            account=self.account,
            pins=self.pins(),
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
            pins=self.pins(),
        )

    def pins(self) -> Pins:
        """Make what holds answers to the models that the steps are pinned to."""
        return Pins(
            self.job.config.steps,
            self.ledger,
            self.job.base_url,
            further=self.accept_model,
            sends=self.engine is not None,
        )


@contextlib.asynccontextmanager
async def open_session(
    job: Job,
    *,
    fresh: bool = False,
    scope: str = "",
    retry: frozenset[RowStatus] = frozenset(),
    anew: Anew | None = None,
    clock: Clock | None = None,
    accept_model: bool = False,
) -> AsyncIterator[Session]:
    """Open the ledger of a job, and take from it what earlier runs decided; nothing can be sent.

    Args:
        job: what is to be done.
        fresh: ask everything anew.
        scope: which rows this is about, see `scope_of`.
        retry: the statuses whose rows are asked again.
        anew: rows that are asked anew, and no others.
        clock: tells the age of requests.
        accept_model: take a model that is not the pinned one.
    """
    ledger = await open_ledger(job.config.ledger_location(), clock=clock)
    try:
        await note_decisions(job, ledger, fresh=fresh, scope=scope, retry=retry)
        yield await Session(job, ledger, scope, retry, fresh, clock, anew, accept_model).look()
    finally:
        await ledger.close()


@contextlib.asynccontextmanager
async def sending(
    session: Session,
    *,
    interrupt: Interrupt | None = None,
    drain: float = DRAIN,
    named: str | None = None,
    on_landing: Callable[[Landing], None] | None = None,
) -> AsyncIterator[Session]:
    """Open what a session needs to send requests; on the way out, await what is in flight.

    Args:
        session: which is open.
        interrupt: what a signal handler fires.
        drain: seconds that what is in flight may take after a stop.
        named: what the ledger calls a job that writes no file.
        on_landing: told of every attempt as it ends.
    """
    job, ledger = session.job, session.ledger
    config, limits = job.config, job.config.limits
    async with contextlib.AsyncExitStack() as stack:
        endpoint = job.endpoint or stack.enter_context(sandbox_endpoint(config.endpoint.timeout))
        most = connections(limits.most)
        learned = await recall_learned(job, ledger, endpoint)
        promise = await promise_of(config.endpoint, job.base_url, ledger)
        policy = Policy.of(
            config.retry,
            timeout=config.endpoint.timeout,
            keeps_keys=promise.kept,
            key=endpoint.key_source.name if endpoint.key_source is not None else "the API key",
        )
        client = Client(endpoint, concurrency=most, ends=learned.ends)
        transport = await stack.enter_async_context(client)
        output = config.output.path if config.output is not None else named
        said: dict[str, Any] = {"output": output, "base_url": job.base_url, "keeps_keys": promise.kept}
        said |= {"config": config.file and str(config.file.absolute()), "tags": config.budget.tags}
        run = await ledger.open_run(said)
        pace = await stack.enter_async_context(open_pace(job, ledger, learned=learned.pace, most=most))
        engine = Engine(
            ledger=ledger,
            transport=transport,
            read=_reading(job, completion.read_fresh),
            pace=pace,
            budget=Budget(config.budget),
            policy=policy,
            workers=most,
            on_retry=_log_retry,
            run=run,
            clock=session.clock,
            on_landing=on_landing,
            wallet=await open_wallet(job, ledger, policy, _reading(job)),
            look=client.load if endpoint.metrics_url is not None else None,
        )
        if interrupt is not None:
            interrupt.listener = engine.stop
            interrupt.check()
        async with engine, open_gates(job, ledger, engine) as gates:
            try:
                yield replace(session, run=run, engine=engine, gates=gates, started=time.monotonic())
            except BaseException:
                engine.stop(RunInterrupted())
                raise
            finally:
                await engine.drain(drain if engine.stopped is not None else 0.0)
                with contextlib.suppress(RunStopped):  # a full disk: what was learned is learned again
                    await learned.keep(job, ledger, pace)


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
