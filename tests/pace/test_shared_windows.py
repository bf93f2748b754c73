"""Several paces that share one limit by leases, on a virtual clock, against simulated servers."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest

from enrich.config import LimitsConfig, WindowConfig
from enrich.errors import LedgerError
from enrich.pace.pace import Pace
from enrich.pace.shared_windows import LeasedSlots
from tests.helpers.virtual import (
    Chance,
    ConcurrencyLimit,
    Run,
    SimulatedLeases,
    Simulation,
    TokenBucketLimit,
    VirtualLoop,
    busiest,
    run_virtually,
    unlimited,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.pace.lease import Lease, LeaseRequest
    from tests.helpers.virtual import Limit


def share(
    limit: Limit,
    rows: Sequence[int],
    limits: LimitsConfig | Sequence[LimitsConfig],
    leases: SimulatedLeases | None = None,
    seconds: float = math.inf,
    **options: Any,
) -> tuple[list[Run], list[Pace], SimulatedLeases]:
    """Let processes send so many rows each under one limit; gives what each did, until all are done or time is up."""
    shared = leases or SimulatedLeases(runs=len(rows))
    each = [limits] * len(rows) if isinstance(limits, LimitsConfig) else limits

    async def process(number: int, loop: VirtualLoop, runs: list[Run], paces: list[Pace]) -> None:
        slots = LeasedSlots(shared, b"account", each[number], monotonic=loop.time)
        async with slots:
            paces[number] = Pace(each[number], slots=slots, monotonic=loop.time)
            simulation = Simulation(paces[number], limit, rows[number], seed=number, **options)
            runs[number] = simulation.run
            await simulation.go()

    async def main(loop: VirtualLoop) -> tuple[list[Run], list[Pace], SimulatedLeases]:
        runs, paces = [Run() for _ in rows], [Pace(LimitsConfig()) for _ in rows]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await asyncio.gather(*(process(number, loop, runs, paces) for number in range(len(rows))))
        return runs, paces, shared

    result: tuple[list[Run], list[Pace], SimulatedLeases] = run_virtually(main)
    return result


def together(runs: list[Run]) -> list[float]:
    """Give when requests were sent, of all processes."""
    return sorted(at for run in runs for at in run.times)


@pytest.mark.parametrize("away", [0.0005, 0.02], ids=["near", "far"])
def test_one_process_loses_nothing_by_leasing(away: float) -> None:
    """A process that has the limit to itself uses 95 % of it and more, however far the database is."""
    limits = LimitsConfig(concurrency=200, requests_per_minute=6_000)
    (run,), _, shared = share(unlimited(), [3_000], limits, SimulatedLeases(away=away))
    assert 3_000 / run.seconds >= 0.95 * 100
    assert busiest(run.times, 1) <= 1.05 * 100
    assert shared.trips <= 8 * run.seconds


def test_four_processes_hold_one_limit() -> None:
    """Together they use it, no second sees more than 5 % over a sixtieth of it, and each gets its share."""
    limits = LimitsConfig(concurrency=200, requests_per_minute=6_000)
    runs, _, _ = share(unlimited(), [1_000] * 4, limits)
    times = together(runs)
    assert busiest(times, 1) <= 1.05 * 100
    assert busiest(times, 60) <= 6_000
    assert 4_000 / (times[-1] - times[0]) >= 0.95 * 100
    assert min(run.seconds for run in runs) >= 0.9 * max(run.seconds for run in runs)


def test_the_start_is_smooth_and_all_windows_hold() -> None:
    """Ten a second and three hundred a minute at once: neither is exceeded by three processes, from the start."""
    windows = [WindowConfig(requests=10, seconds=1), WindowConfig(requests=300, seconds=60)]
    runs, _, _ = share(unlimited(), [300] * 3, LimitsConfig(windows=windows), latency=lambda _: 0.05)
    times = together(runs)
    assert busiest(times, 1) <= 10
    assert busiest(times, 60) <= 300
    assert 900 / (times[-1] - times[0]) >= 0.95 * 5


def test_tokens_are_settled_for_all() -> None:
    """Answers of unequal length, estimated beforehand: no minute of two processes holds more tokens than allowed."""
    limit = 120_000
    runs, _, _ = share(
        unlimited(),
        [1_500] * 2,
        LimitsConfig(concurrency=64, adaptive=False, tokens_per_minute=limit),
        latency=lambda _: 0.5,
        tokens=lambda source: 50 + int(100 * math.exp(0.5 * source.gauss(0, 1))),
        estimate=lambda simulation: simulation.mean_tokens or 200.0,
    )
    tokens = sorted(pair for run in runs for pair in run.tokens)
    start, held, most = 0, 0, 0
    for at, used in tokens:
        held += used
        while tokens[start][0] <= at - 60:
            held -= tokens[start][1]
            start += 1
        most = max(most, held)
    assert most <= limit
    assert sum(used for _, used in tokens) / (tokens[-1][0] - tokens[0][0]) * 60 >= 0.9 * limit


def test_a_slow_process_leaves_the_limit_to_the_others() -> None:
    """One that can use but a twentieth of the limit gets half of that at least, and keeps the rest from nobody."""
    limits = [
        LimitsConfig(concurrency=1, adaptive=False, requests_per_minute=6_000),
        LimitsConfig(concurrency=200, requests_per_minute=6_000),
    ]
    runs, _, _ = share(unlimited(), [10_000, 10_000], limits, seconds=30.0, latency=lambda _: 0.2)
    sent = [len(run.times) / 30 for run in runs]
    assert sent[0] >= 0.45 * 5
    assert sum(sent) >= 0.9 * 100


@pytest.mark.parametrize("processes", [2, 4])
def test_an_unknown_rate_is_found_together(processes: int) -> None:
    """300 a second that nobody was told: each finds its part, used to 70 % and more, at most a tenth is refused."""
    rows = [12_000 // processes] * processes
    runs, paces, _ = share(
        TokenBucketLimit(300, 30),
        rows,
        LimitsConfig(concurrency=128),
        latency=lambda source: 0.1 * math.exp(0.5 * source.gauss(0, 1)),
    )
    times = together(runs)
    assert all(pace.limit("m").rate.known is not None for pace in paces)
    assert 12_000 / 300 / (times[-1] - times[0]) >= 0.7
    assert sum(run.refused for run in runs) <= 0.1 * 12_000


def test_a_ceiling_on_requests_in_flight_is_found_together() -> None:
    """A server that refuses the twenty-first request at a time is used to four fifths and more by three processes."""
    runs, _, _ = share(
        ConcurrencyLimit(20), [2_000] * 3, LimitsConfig(concurrency=128), latency=lambda _: 0.2
    )
    times = together(runs)
    assert 6_000 / 20 * 0.2 / (times[-1] - times[0]) >= 0.8
    assert sum(run.refused for run in runs) <= 0.1 * 6_000


def test_what_one_is_refused_by_chance_slows_no_other() -> None:
    """Of two processes under one limit, only one meets refusals: the other is as fast as beside one that meets none."""
    limits = LimitsConfig(concurrency=64, requests_per_minute=30_000)

    def beside(other: Limit) -> Run:
        shared = SimulatedLeases(runs=2)

        async def process(limit: Limit, number: int, loop: VirtualLoop) -> Run:
            async with LeasedSlots(shared, b"account", limits, monotonic=loop.time) as slots:
                pace = Pace(limits, slots=slots, monotonic=loop.time)
                return await Simulation(pace, limit, 1_000, latency=lambda _: 0.1, seed=number).go()

        async def main(loop: VirtualLoop) -> Run:
            _, run = await asyncio.gather(process(other, 1, loop), process(unlimited(), 2, loop))
            return run

        run: Run = run_virtually(main)
        return run

    beside_chance, beside_none = beside(Chance(0.1)), beside(unlimited())
    assert beside_chance.refused == 0
    assert beside_chance.seconds <= 1.05 * beside_none.seconds


def test_a_lost_database_pauses_and_no_burst_follows() -> None:
    """While it is away nothing is sent but what was leased; when it is back the pace is what it was."""
    limits = LimitsConfig(concurrency=200, requests_per_minute=6_000)
    leases = SimulatedLeases(runs=3, down=(1_010.0, 1_020.0))
    runs, _, _ = share(unlimited(), [1_000] * 3, limits, leases)
    times = together(runs)
    away = [at for at in times if 1_010 <= at < 1_020]
    assert len(away) <= 0.6 * 100
    assert busiest(times, 1) <= 1.05 * 100
    assert 3_000 / (times[-1] - times[0] - 10) >= 0.9 * 100


def test_a_process_that_dies_leaves_the_limit_to_the_others() -> None:
    """Once two of three are killed, the third is at the whole limit within a second."""
    limits = LimitsConfig(concurrency=200, requests_per_minute=6_000)
    shared = SimulatedLeases(runs=3)

    async def main(loop: VirtualLoop) -> list[Run]:
        async def process(number: int) -> None:
            async with LeasedSlots(shared, b"account", limits, monotonic=loop.time) as slots:
                pace = Pace(limits, slots=slots, monotonic=loop.time)
                simulations.append(Simulation(pace, unlimited(), 2_000, seed=number))
                await simulations[-1].go()

        simulations: list[Simulation] = []
        tasks = [asyncio.create_task(process(number)) for number in range(3)]
        loop.call_later(10, tasks[0].cancel)
        loop.call_later(10, tasks[1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        return [simulation.run for simulation in simulations]

    runs: list[Run] = run_virtually(main)
    times = runs[2].times
    assert sum(1_011 <= at < 1_015 for at in times) >= 0.95 * 400
    assert busiest(together(runs), 1) <= 1.05 * 100


def test_a_clock_that_is_set_back_does_not_stop_anybody() -> None:
    """When the database's clock jumps an hour back, requests go on within the window's length."""
    limits = LimitsConfig(concurrency=64, windows=[WindowConfig(requests=10, seconds=1)])
    shared = SimulatedLeases()

    async def main(loop: VirtualLoop) -> Run:
        async with LeasedSlots(shared, b"account", limits, monotonic=loop.time) as slots:
            simulation = Simulation(Pace(limits, slots=slots, monotonic=loop.time), unlimited(), 200)
            loop.call_later(5, lambda: setattr(shared, "skew", shared.skew - 3_600))
            return await simulation.go()

    run: Run = run_virtually(main)
    assert run.seconds <= 200 / 9.6 + 3


@pytest.mark.parametrize("leases", [1, 5])
def test_a_database_that_stays_away_is_told(leases: int) -> None:
    """What the ledger raises reaches who waits for a turn, and who still had turns when the next were asked for."""
    limits = LimitsConfig(windows=[WindowConfig(requests=10, seconds=1)])

    class Gone(SimulatedLeases):
        async def lease(self, account: bytes, request: LeaseRequest) -> Lease:
            if self.trips == leases:
                raise LedgerError("gone")
            return await super().lease(account, request)

    async def main(loop: VirtualLoop) -> None:
        async with asyncio.timeout(60), LeasedSlots(Gone(), b"account", limits, monotonic=loop.time) as slots:
            while True:
                await slots.take(0.0)

    with pytest.raises(LedgerError, match="gone"):
        run_virtually(main)
