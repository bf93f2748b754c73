"""The limits that a run holds: the account's and those of its steps, shared with other runs where the ledger can share them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from enrich.base.descriptors import room_for_connections
from enrich.config import LimitsConfig
from enrich.engine.wallet import Wallet
from enrich.pace.lease import Leases
from enrich.pace.pace import Pace
from enrich.pace.shared_windows import LeasedSlots
from enrich.pace.step_limits import Gate
from enrich.pace.windows import OwnSlots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from enrich.engine.engine import Engine
    from enrich.engine.retry import Policy
    from enrich.ledger.protocol import Ledger
    from enrich.pace.windows import Slots
    from enrich.records import Completion, Failure, Reply
    from enrich.runs.job import Job

log = logging.getLogger("enrich")


def connections(wanted: int) -> int:
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


@contextlib.asynccontextmanager
async def open_pace(
    job: Job, ledger: Ledger, *, learned: dict[str, Any] | None, most: int
) -> AsyncIterator[Pace]:
    """Keep the pace of a run while the block runs.

    Args:
        job: whose limits hold.
        ledger: through which they are shared.
        learned: by an earlier run, as `Pace.learned` gave it.
        most: requests in flight.
    """
    await _warn_of_others(job, ledger)
    limits = job.config.limits
    async with contextlib.AsyncExitStack() as stack:
        slots = await _slots(job, ledger, limits, stack)
        yield Pace(limits, slots=slots, learned=learned, most=most)


async def open_wallet(
    job: Job, ledger: Ledger, policy: Policy, read: Callable[[Reply], Completion | Failure]
) -> Wallet | None:
    """Open the budgets that outlive a run; None where none is told."""
    windows = job.config.budget.windows
    if not windows:
        return None
    attempts = 1 if policy.unknown is None else 1 + policy.unknown
    shelf = f"prices of {job.base_url}"
    wallet = Wallet(windows, job.config.prices, ledger, read, attempts=attempts, shelf=shelf)
    await wallet.open()
    return wallet


@contextlib.asynccontextmanager
async def open_gates(job: Job, ledger: Ledger, engine: Engine) -> AsyncIterator[dict[str, Gate]]:
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
    account = await ledger.fingerprint(job.endpoint.base_url, job.endpoint.account, *of)
    return await stack.enter_async_context(LeasedSlots(ledger, account, limits))


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
