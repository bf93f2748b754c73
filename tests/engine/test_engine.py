"""The engine at work: each request ends once, whatever its attempts meet, in the order that its limits allow.

It is long because its four parts are tested running, as one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from enrich.config import BudgetConfig, LimitsConfig
from enrich.engine import outage
from enrich.engine.engine import CLAIM_HOLDS, Engine
from enrich.engine.retry import Policy
from enrich.engine.working import PATIENCE, PATIENCE_SHARE
from enrich.errors import BudgetSpent, DiskFull, EndpointFailing, KeyRefused, RunInterrupted
from enrich.ledger import opening, postgres
from enrich.ledger.protocol import DOUBT_AFTER, attempt_id
from enrich.pace.budget import Budget
from enrich.pace.pace import Pace
from enrich.records import Ask, Completion, Failure, Fate, Reply, Settled
from enrich.wire import completion
from tests.helpers.ledgers import FakeClock
from tests.helpers.wire import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from enrich.base.clock import Clock
    from tests.helpers.postgres import Server

POLICY = Policy(attempts=4, max_wait=0.01, deadline=60.0)
RESET = Failure("connection_lost", "the connection broke", Fate.UNKNOWN)
REFUSED = Failure("connect_failed", "no connection", Fate.UNSENT)
BUSY = Failure("internal_error", "busy", Fate.REFUSED, status=500, retryable=True)
WRONG = Failure("invalid_request", "wrong", Fate.REFUSED, status=400, retryable=False)


def ask(number: int, parent: bytes | None = None) -> Ask:
    """Make a request."""
    return Ask(number.to_bytes(16), b'{"n":%d}' % number, "auto", parent)


def reply(text: str = "yes", request_id: str | None = None) -> Reply:
    """Make an answer."""
    body = {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 3, "credits": 0.5}}
    return Reply(json.dumps(body).encode(), request_id, 1.0)


@dataclass
class Wire:
    """Answers attempts as told: per body what each attempt in turn comes to, then `reply()`.

    Attributes:
        sent: the bodies in the order they were sent, with key, id and time allowed.
        gate: an attempt waits for it; one of a body in `gates` for that one.
    """

    outcomes: dict[bytes, list[Reply | Failure | Exception]] = field(default_factory=dict)
    sent: list[tuple[bytes, str, str, float | None]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    gates: dict[bytes, asyncio.Event] = field(default_factory=dict)
    flying: int = 0
    most: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def attempt(
        self,
        body: bytes,
        *,
        key: str,
        request_id: str,
        stream: bool,
        timeout: float | None = None,  # noqa: ASYNC109  # the protocol's own
    ) -> Reply | Failure:
        """Note it and answer."""
        self.sent.append((body, key, request_id, timeout))
        self.flying += 1
        self.most = max(self.most, self.flying)
        self.moved.set()
        await self.gates.get(body, self.gate).wait()
        await asyncio.sleep(0)
        self.flying -= 1
        self.moved.set()
        told = self.outcomes.get(body) or []
        outcome = told.pop(0) if told else reply()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes when attempts begin or end."""
        while not condition():
            self.moved.clear()
            await self.moved.wait()

    def bodies(self) -> list[bytes]:
        """The bodies in the order they were sent."""
        return [body for body, *_ in self.sent]


@dataclass
class Bench:
    """An engine between a wire of ours and a real ledger, and how its requests ended."""

    engine: Engine
    ledger: Any
    wire: Wire
    settled: dict[bytes, list[Settled]] = field(default_factory=lambda: defaultdict(list))

    def submit(self, *asks: Ask, **options: Any) -> None:
        """Have these asked."""
        for one in asks:
            self.engine.submit(one, self._note, **options)

    def _note(self, settled: Settled) -> bool:
        self.settled[settled.key].append(settled)
        return False

    async def finish(self) -> None:
        """Wait until everything is settled or the run stopped."""
        while self.engine.under_way and self.engine.stopped is None:
            await self.engine.change()

    async def claimed(self, *numbers: int) -> None:
        """Wait until the intents of these requests are on disk."""
        keys = [ask(number).key for number in numbers]
        while len(await self.ledger.lookup(keys)) < len(keys):
            pass

    def result(self, number: int) -> Settled:
        """How a request ended; it ended once."""
        (settled,) = self.settled[ask(number).key]
        return settled


@contextlib.asynccontextmanager
async def bench(
    folder: Path,
    outcomes: dict[int, list[Any]] | None = None,
    *,
    workers: int = 8,
    policy: Policy = POLICY,
    budget: dict[str, Any] | None = None,
    wrap: Callable[[Any], Any] = lambda ledger: ledger,
    location: str | None = None,
    clock: Clock | None = None,
    **options: Any,
) -> AsyncIterator[Bench]:
    """Set an engine up."""
    real = await opening.open_ledger(location or str(folder / "ledger.db"), clock=clock)
    ledger = wrap(real)
    await ledger.open_run({})
    wire = Wire({ask(number).body: told for number, told in (outcomes or {}).items()})
    engine = Engine(
        ledger=ledger,
        transport=wire,
        read=completion.read,
        pace=Pace(LimitsConfig(concurrency=workers, adaptive=False)),
        budget=Budget(BudgetConfig(**(budget or {}))),
        policy=policy,
        workers=workers,
        clock=clock,
        **options,
    )
    try:
        async with engine:
            yield Bench(engine, ledger, wire)
    finally:
        await real.close()


async def test_answers(tmp_path: Path) -> None:
    """Each request is sent once, its intent and its raw answer are in the ledger, and who asked is told once."""
    async with bench(tmp_path) as b:
        b.submit(*map(ask, range(50)))
        await b.finish()
        records = await b.ledger.lookup([ask(n).key for n in range(50)])
    assert len(b.wire.sent) == 50
    assert set(b.wire.bodies()) == {ask(n).body for n in range(50)}
    places = [b.wire.bodies().index(ask(n).body) for n in range(50)]
    assert all(abs(place - n) <= 8 for n, place in enumerate(places))  # first come, first sent
    assert {r.state for r in records.values()} == {"answered"}
    assert all(isinstance(b.result(n).result, Completion) and b.result(n).fresh for n in range(50))
    assert (b.engine.stats.requests, b.engine.stats.attempts, b.engine.stats.credits) == (50, 50, 25.0)


async def test_equal_requests(tmp_path: Path) -> None:
    """A request that is under way is not sent twice; all who asked are told."""
    async with bench(tmp_path) as b:
        b.submit(*[ask(1)] * 5)
        await b.finish()
    assert len(b.wire.sent) == 1
    assert len(b.settled[ask(1).key]) == 5


async def test_known_answer(tmp_path: Path) -> None:
    """What the ledger has answered is not sent; it is told as of an earlier run."""
    async with bench(tmp_path) as b:
        b.submit(ask(1))
        await b.finish()
        await b.ledger.close_run({})
    async with bench(tmp_path) as b:
        b.submit(ask(1))
        await b.finish()
    assert b.wire.sent == []
    assert isinstance(b.result(1).result, Completion)
    assert not b.result(1).fresh


async def test_ceiling(tmp_path: Path) -> None:
    """No more requests are in flight than may be."""
    async with bench(tmp_path, workers=5) as b:
        b.wire.gate.clear()
        b.submit(*map(ask, range(40)))
        await b.wire.until(lambda: b.wire.flying == 5)
        b.wire.gate.set()
        await b.finish()
    assert b.wire.most == 5


async def test_same_key_and_bytes(tmp_path: Path) -> None:
    """An attempt that may have been charged is repeated with the same bytes and key, each under an id of its own."""
    async with bench(tmp_path, {1: [RESET, RESET]}) as b:
        b.submit(ask(1))
        await b.finish()
        record = (await b.ledger.lookup([ask(1).key]))[ask(1).key]
    assert len({(body, key) for body, key, *_ in b.wire.sent}) == 1
    assert [request_id for *_, request_id, _ in b.wire.sent] == [attempt_id(ask(1).key, n) for n in (1, 2, 3)]
    assert (record.state, record.attempts) == ("answered", 3)
    assert b.engine.stats.retries == {"connection_lost": 2}


@pytest.mark.parametrize(
    ("failure", "sent", "in_doubt"), [(RESET, 4, True), (BUSY, 4, False), (WRONG, 1, False)]
)
async def test_gives_up(tmp_path: Path, failure: Failure, sent: int, in_doubt: bool) -> None:
    """What fails for ever ends: in doubt where it may have been charged, else as failed."""
    async with bench(tmp_path, {1: [failure] * 9}) as b:
        b.submit(ask(1))
        await b.finish()
        record = (await b.ledger.lookup([ask(1).key]))[ask(1).key]
    assert len(b.wire.sent) == sent
    assert (b.result(1).result, b.result(1).in_doubt) == (failure, in_doubt)
    assert record.state == ("sent" if in_doubt else "failed")
    assert b.engine.stats.failures == {failure.code: 1}


async def test_never_sent(tmp_path: Path) -> None:
    """Attempts that never left this machine use none up, and are no requests sent."""
    async with bench(tmp_path, {1: [REFUSED] * 4}) as b:
        b.submit(ask(1))
        await b.finish()
        record = (await b.ledger.lookup([ask(1).key]))[ask(1).key]
    assert isinstance(b.result(1).result, Completion)
    assert len(b.wire.sent) == 5
    assert len({request_id for *_, request_id, _ in b.wire.sent}) == 1
    assert (b.engine.stats.attempts, b.engine.stats.requests, record.attempts) == (1, 1, 1)


async def test_never_sent_of_an_old_key(tmp_path: Path) -> None:
    """Where a row may take longer than the endpoint remembers a key, the ledger is asked before each attempt."""
    policy = Policy(attempts=4, max_wait=0.01, deadline=DOUBT_AFTER)
    async with bench(tmp_path, {1: [RESET, REFUSED]}, policy=policy) as b:
        b.submit(ask(1))
        await b.finish()
        entries = [entry async for part in b.ledger.scan() for entry in part]
    assert [line.failure.code for line in entries[0].failures] == ["connection_lost", "connect_failed"]


async def test_unreadable_answer(tmp_path: Path) -> None:
    """An answer of no use is taken back, its bytes kept in the log, and asked for once more under its key."""
    bad = Reply(b'{"choices":[]}', "r-1", 1.0)
    async with bench(tmp_path, {1: [bad]}) as b:
        b.submit(ask(1))
        await b.finish()
        entries = [entry async for part in b.ledger.scan() for entry in part]
    assert isinstance(b.result(1).result, Completion)
    assert entries[0].failures[0].answer == bad.body


async def test_claimed_in_a_slow_batch(tmp_path: Path) -> None:
    """A request that fails again while others of its batch are still being claimed is not taken up twice."""

    class Slow:
        """Makes the second claim of a request wait until it may."""

        def __init__(self, ledger: Any) -> None:
            self._ledger = ledger
            self.may = {ask(2).key: asyncio.Event(), ask(3).key: asyncio.Event()}
            self.waiting = asyncio.Queue[bytes]()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._ledger, name)

        async def again(self, key: bytes, failure: Failure) -> int | None:
            if key in self.may:
                self.waiting.put_nowait(key)
                await self.may[key].wait()
            attempt: int | None = await self._ledger.again(key, failure)
            return attempt

    policy = Policy(attempts=9, max_wait=1e-9, deadline=60.0)
    async with bench(tmp_path, {1: [BUSY] * 2, 2: [BUSY], 3: [BUSY]}, wrap=Slow, policy=policy) as b:
        one, three = b.wire.gates[ask(1).body], b.wire.gates[ask(3).body] = asyncio.Event(), asyncio.Event()
        b.wire.gate.clear()
        b.submit(*map(ask, (1, 2, 3)))
        await b.wire.until(lambda: b.wire.flying == 3)
        three.set()
        assert (
            await b.ledger.waiting.get() == ask(3).key
        )  # the claimer is busy: 1 and 2 come behind, together
        one.set()
        b.wire.gate.set()
        await b.wire.until(lambda: not b.wire.flying)
        await asyncio.sleep(0.01)
        b.ledger.may[ask(3).key].set()
        assert await b.ledger.waiting.get() == ask(2).key
        await b.wire.until(lambda: b.wire.bodies().count(ask(1).body) == 2 and not b.wire.flying)
        await asyncio.sleep(0.01)  # it failed, and waits to be claimed behind its own batch
        one.clear()
        b.ledger.may[ask(2).key].set()
        await b.wire.until(lambda: b.wire.bodies().count(ask(1).body) == 3)
        await asyncio.sleep(0.05)  # time for it to be sent a fourth time
        one.set()
        await b.finish()
    assert [b.wire.bodies().count(ask(n).body) for n in (1, 2, 3)] == [3, 2, 2]


async def test_stop_withdraws(tmp_path: Path) -> None:
    """After a stop nothing more is sent; what was refused or not sent yet is as if it had never been asked."""
    async with bench(tmp_path, {n: [BUSY] * 9 for n in range(40)}, workers=2) as b:
        b.submit(*map(ask, range(40)))
        await b.wire.until(lambda: bool(b.wire.sent))
        b.engine.stop(RunInterrupted())
        await b.engine.drain(5.0)
        sent = len(b.wire.sent)
        await asyncio.sleep(0.05)
        known = await b.ledger.lookup([ask(n).key for n in range(40)])
    assert len(b.wire.sent) == sent <= 4
    assert known == {}
    assert isinstance(b.engine.stopped, RunInterrupted)


async def test_stop_keeps_what_comes(tmp_path: Path) -> None:
    """Draining awaits what is in flight; its answers are kept."""
    async with bench(tmp_path, workers=4) as b:
        b.wire.gate.clear()
        b.submit(*map(ask, range(9)))
        await b.wire.until(lambda: b.wire.flying == 4)
        b.engine.stop(RunInterrupted())
        draining = asyncio.ensure_future(b.engine.drain(5.0))
        await asyncio.sleep(0)
        b.wire.gate.set()
        await draining
        known = await b.ledger.lookup([ask(n).key for n in range(9)])
    assert [r.state for r in known.values()] == ["answered"] * 4


async def test_drain_ends(tmp_path: Path) -> None:
    """Draining waits no longer than it was told; what is still in flight stays in the ledger as sent."""
    async with bench(tmp_path, workers=2) as b:
        b.wire.gate.clear()
        b.submit(ask(1))
        await b.wire.until(lambda: b.wire.flying == 1)
        b.engine.stop(RunInterrupted())
        await b.engine.drain(0.01)
        known = await b.ledger.lookup([ask(1).key])
    assert known[ask(1).key].state == "sent"


async def test_key_refused(tmp_path: Path) -> None:
    """A refused key stops the run and leaves the request unasked."""
    refused = Failure("invalid_api_key", "no", Fate.REFUSED, status=401, retryable=False)
    async with bench(tmp_path, {1: [refused]}) as b:
        b.submit(ask(1))
        await b.finish()
        await b.engine.drain(5.0)
        known = await b.ledger.lookup([ask(1).key])
    assert isinstance(b.engine.stopped, KeyRefused)
    assert known == {}
    assert not b.settled


async def test_refused_in_an_answer(tmp_path: Path) -> None:
    """An empty balance told inside a 200 stops the run as well; the request counts as unanswered."""
    spent = b'{"error":{"code":"insufficient_balance","message":"spent","retryable":false}}'
    async with bench(tmp_path, {1: [Reply(spent, "r-1", 1.0)]}) as b:
        b.submit(ask(1))
        await b.finish()
        await b.engine.drain(5.0)
        known = await b.ledger.lookup([ask(1).key])
    assert b.engine.stopped is not None
    assert "balance is spent" in str(b.engine.stopped)
    assert known[ask(1).key].state == "sent"


async def test_all_alike(tmp_path: Path) -> None:
    """When the first twenty rows fail alike and none succeeds, the run stops; it says how they failed."""
    async with bench(tmp_path, {n: [WRONG] for n in range(60)}, workers=4) as b:
        b.submit(*map(ask, range(60)))
        await b.finish()
    assert isinstance(b.engine.stopped, EndpointFailing)
    assert "first 20 requests all failed alike: invalid_request: wrong" in str(b.engine.stopped)
    assert len(b.wire.sent) <= 20 + 4


@pytest.mark.parametrize("other", [reply(), Failure("other", "", Fate.REFUSED, status=400, retryable=False)])
async def test_not_all_alike(tmp_path: Path, other: Reply | Failure) -> None:
    """One row among the first that does not fail, or fails differently, lets the run go on."""
    async with bench(tmp_path, {n: [WRONG] for n in range(60)} | {7: [other]}, workers=4) as b:
        b.submit(*map(ask, range(60)))
        await b.finish()
    assert b.engine.stopped is None
    assert len(b.wire.sent) == 60


async def test_alike_but_going_on(tmp_path: Path) -> None:
    """Refusals after which another request takes the row's place are no failed rows."""
    async with bench(tmp_path, {n: [WRONG] for n in range(60)}) as b:
        for number in range(60):
            b.engine.submit(ask(number), lambda _: True)
        await b.finish()
    assert b.engine.stopped is None
    assert b.engine.stats.failures == {}
    assert b.engine.stats.retries == {"invalid_request": 60}


async def test_single_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an outage one request goes at a time, until one is answered; then all go."""
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.01)
    asks = [ask(n) for n in range(25)]
    async with bench(tmp_path, {n: [RESET] for n in range(25)}, workers=25) as b:
        b.wire.gate.clear()
        b.submit(*asks)
        await b.wire.until(lambda: b.wire.flying == 25)
        b.wire.gate.set()
        await b.wire.until(lambda: not b.wire.flying)
        b.wire.gate.clear()
        await b.wire.until(lambda: b.wire.flying == 1)
        await asyncio.sleep(0.1)  # time for more to be sent
        assert (b.engine.outage.on, b.wire.flying, len(b.wire.sent)) == (True, 1, 26)
        b.wire.gate.set()
        await b.finish()
    assert not b.engine.outage.on
    assert all(isinstance(b.result(n).result, Completion) for n in range(25))
    assert len(b.wire.sent) == 50


async def test_deadline(tmp_path: Path) -> None:
    """All attempts of a row share one deadline: none begins after it, and none gets more time than is left."""
    policy = Policy(attempts=100, max_wait=0.2, deadline=0.5)
    async with bench(tmp_path, {1: [BUSY] * 99}, policy=policy) as b:
        b.submit(ask(1))
        await b.finish()
    assert b.result(1).result == BUSY
    assert 1 < len(b.wire.sent) < 60
    assert all(timeout is not None and timeout <= 1.0 for *_, timeout in b.wire.sent)


async def test_shared_deadline(tmp_path: Path) -> None:
    """A request that follows another one of its row has what is left of the row's time."""
    policy = Policy(attempts=4, max_wait=0.01, deadline=1_000.0)
    loop_time = asyncio.get_running_loop().time()
    async with bench(tmp_path, policy=policy) as b:
        b.submit(ask(1))
        await b.finish()
        assert b.result(1).began is not None
        b.submit(ask(2), began=loop_time - 900.0)
        await b.finish()
    timeouts = [timeout for *_, timeout in b.wire.sent]
    assert timeouts[0] == pytest.approx(1_000.0, abs=5)
    assert timeouts[1] == pytest.approx(100.0, abs=60)


async def test_retry_after_are_told(tmp_path: Path) -> None:
    """Each further attempt is told of, with its cause and the wait; another way of asking as well."""
    told: list[tuple[bytes, str, float | None]] = []
    limited = Failure("rate_limited", "", Fate.REFUSED, status=429, retryable=True, retry_after=0.05)
    gone = Failure("model_unavailable", "", Fate.REFUSED, status=503, retryable=False)
    outcomes: dict[int, list[Any]] = {1: [limited], 2: [gone]}
    async with bench(
        tmp_path, outcomes, workers=1, on_retry=lambda a, f, after: told.append((a.key, f.code, after))
    ) as b:
        b.submit(ask(1))
        b.engine.submit(ask(2), lambda _: True, fallback=lambda: False)
        await b.finish()
    assert [(key, code) for key, code, _ in told] == [
        (ask(1).key, "rate_limited"),
        (ask(2).key, "model_unavailable"),
    ]
    assert told[0][2] is not None
    assert 0.05 <= told[0][2] <= 1.05
    assert told[1][2] is None


@pytest.mark.parametrize(
    "limited",
    [
        Failure("rate_limited", "", Fate.UNKNOWN, status=200, retryable=True, retry_after=0.05),
        Reply(b'{"error": {"code": "rate_limited", "message": "", "retryable": true}}', None, 1.0),
    ],
    ids=["event of a stream", "envelope in a 200"],
)
async def test_a_rate_limit_behind_a_200_is_one(tmp_path: Path, limited: Reply | Failure) -> None:
    """Where a stream breaks off by a rate limit, or a 200 holds its envelope, the pace hears of it as of a 429."""
    async with bench(tmp_path, {1: [limited]}) as b:
        b.submit(ask(1))
        await b.finish()
    assert isinstance(b.result(1).result, Completion)
    assert [limit.refused for limit in b.engine.pace.limits.values()] == [1]


async def test_passed_over(tmp_path: Path) -> None:
    """A request whose model was given up while it waited is told so without being sent."""
    async with bench(tmp_path, workers=1) as b:
        b.wire.gate.clear()
        gone: list[bool] = []
        b.submit(ask(0))
        b.submit(*(ask(n) for n in range(1, 300)), fallback=lambda: bool(gone))
        await b.wire.until(lambda: b.wire.flying == 1)
        gone.append(True)
        b.wire.gate.set()
        await b.finish()
        known = await b.ledger.lookup([ask(299).key])
    last = b.result(299)
    assert isinstance(last.result, Failure)
    assert (last.result.code, last.result.fate, last.in_doubt) == ("model_unavailable", Fate.UNSENT, False)
    assert len(b.wire.sent) < 150
    assert known == {}


async def test_budget(tmp_path: Path) -> None:
    """A spent budget stops the run; no more is sent than it allows."""
    async with bench(tmp_path, budget={"requests": 3}, workers=1) as b:
        b.submit(*map(ask, range(9)))
        await b.finish()
        await b.engine.drain(5.0)
    assert isinstance(b.engine.stopped, BudgetSpent)
    assert len(b.wire.sent) == 3


async def test_full_disk(tmp_path: Path) -> None:
    """A ledger without room stops the run before anything is sent."""

    class Full:
        def __init__(self, ledger: Any) -> None:
            self._ledger = ledger

        def __getattr__(self, name: str) -> Any:
            return getattr(self._ledger, name)

        async def claim(self, asks: object, **_: object) -> Any:
            raise DiskFull

    async with bench(tmp_path, wrap=Full) as b:
        b.submit(ask(1))
        await b.finish()
        await b.engine.drain(5.0)
    assert isinstance(b.engine.stopped, DiskFull)
    assert b.wire.sent == []


async def test_an_answer_waits_for_others_only_while_some_are_out(tmp_path: Path) -> None:
    """It waits a share of the time that it took, and few milliseconds at most; the last one waits for nobody."""
    waits: asyncio.Queue[float] = asyncio.Queue()
    seen: list[float] = []

    class Noting:
        def __init__(self, ledger: Any) -> None:
            self._ledger = ledger

        def __getattr__(self, name: str) -> Any:
            return getattr(self._ledger, name)

        async def answer(self, key: bytes, answer: Reply, *, within: float = 0.0) -> None:
            waits.put_nowait(within)
            await self._ledger.answer(key, answer, within=within)

    slow = Reply(reply().body, "r-1", 10_000.0)
    quick = Reply(reply().body, "r-2", 1.0)
    async with bench(tmp_path, {1: [slow], 2: [quick], 3: [slow]}, wrap=Noting) as b:
        b.wire.gates = {ask(n).body: asyncio.Event() for n in (1, 2, 3)}
        b.submit(ask(1), ask(2), ask(3))
        await b.wire.until(lambda: b.wire.flying == 3)
        for number in (1, 2, 3):
            b.wire.gates[ask(number).body].set()
            seen.append(await waits.get())
        await b.finish()
    assert seen == [PATIENCE, PATIENCE_SHARE * 0.001, 0.0]
    assert all(len(settled) == 1 for settled in b.settled.values())


async def test_defect_in_the_wire(tmp_path: Path) -> None:
    """A defect ends the run with that very error, at once; the request stays in the ledger as sent."""
    async with bench(tmp_path, {1: [ZeroDivisionError("a defect")]}) as b:
        b.submit(ask(1))
        await b.finish()
        async with asyncio.timeout(5):
            await b.engine.drain(60.0)
        known = await b.ledger.lookup([ask(1).key])
    assert isinstance(b.engine.stopped, ZeroDivisionError)
    assert known[ask(1).key].state == "sent"


async def test_one_id_for_two_requests(tmp_path: Path) -> None:
    """One response id on two requests raises an alarm, once; on two attempts of one request it does not."""
    outcomes: dict[int, list[Any]] = {
        1: [Failure("internal_error", "", Fate.REFUSED, 500, True, "r-1"), reply(request_id="r-1")],
        **{n: [reply(request_id="r-2")] for n in (2, 3, 4)},
    }
    with logs() as logged:
        async with bench(tmp_path, outcomes, workers=1) as b:
            b.submit(*map(ask, (1, 2, 3, 4)))
            await b.finish()
    alarms = [record for record in logged if record.levelname == "WARNING"]
    assert len(alarms) == 1
    assert "r-2" in alarms[0].getMessage()


# --- who has come late ------------------------------------------------------------------------------------


async def test_an_unusable_answer_takes_nobody_elses_back(tmp_path: Path) -> None:
    """Where another run has got the answer meanwhile, a late one that is no use leaves it where it is."""
    cut = Reply(b'{"choices": [', "late", 1.0)
    async with bench(tmp_path, {1: [cut]}) as b:
        b.wire.gate.clear()
        b.submit(ask(1))
        await b.wire.until(lambda: b.wire.flying == 1)
        await b.ledger.answer(ask(1).key, reply("sound"))
        b.wire.outcomes[ask(1).body].append(RESET)
        b.wire.gate.set()
        await b.finish()
        record = (await b.ledger.lookup([ask(1).key]))[ask(1).key]
    assert record.reply is not None
    assert record.reply.body == reply("sound").body


async def test_a_claim_that_waited_for_long_is_made_anew(tmp_path: Path) -> None:
    """What was claimed but not sent for an hour counts as first sent when it is sent."""
    clock = FakeClock()
    async with bench(tmp_path, workers=2, clock=clock) as b:
        b.wire.gates[ask(1).body] = b.wire.gates[ask(2).body] = asyncio.Event()
        b.submit(*map(ask, range(1, 5)))
        await b.wire.until(lambda: b.wire.flying == 2)
        await b.claimed(3, 4)
        clock.advance(CLAIM_HOLDS + 1)
        b.wire.gates[ask(1).body].set()
        await b.finish()
        records = await b.ledger.lookup([ask(number).key for number in range(1, 5)])
    waited = [clock.wall() - records[ask(number).key].sent_at for number in range(1, 5)]
    assert waited == [CLAIM_HOLDS + 1, CLAIM_HOLDS + 1, 0, 0]
    assert [len(b.settled[ask(number).key]) for number in range(1, 5)] == [1] * 4
    assert sorted(b.wire.bodies()) == [ask(number).body for number in range(1, 5)]


async def test_what_was_taken_over_from_a_suspended_run_is_not_sent_by_it(
    tmp_path: Path, postgres_server: Server
) -> None:
    """A run that was away for two days sends nothing that another run has got the answer to."""
    clock = FakeClock()
    url = postgres_server.create(f"away_{uuid.uuid4().hex}")
    async with bench(tmp_path, workers=1, clock=clock, location=url) as b:
        b.wire.gate.clear()
        b.submit(ask(1), ask(2))
        await b.wire.until(lambda: b.wire.flying == 1)
        await b.claimed(2)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE beatra.run SET lease_until = '-infinity'")
        other = await postgres.open_ledger(url, clock=clock)
        await other.open_run({})
        assert [claim.verdict for claim in await other.claim([ask(1), ask(2)])] == ["mine", "mine"]
        for number in (1, 2):
            await other.answer(ask(number).key, reply("the other's"))
        await other.close()
        clock.advance(48 * 3600)
        b.wire.gate.set()
        await b.finish()
    assert b.wire.bodies() == [ask(1).body]
    assert not b.result(2).fresh
    assert isinstance(b.result(2).result, Completion)
