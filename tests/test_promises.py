"""A machine of random histories: runs, faults, kills, waits, edits, damage; never paid twice, never lost, never silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from enrich.config import validate_config
from enrich.errors import DiskFull
from enrich.ledger import room
from enrich.records import Failure, Fate, Reply
from enrich.runs import session
from enrich.runs.options import RunOptions
from enrich.runs.retry import retry_job
from enrich.runs.run import run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from enrich.records import Summary

HOUR = 3600.0
KEPT = 24 * HOUR  # seconds for which the server remembers a key
SURE = 23 * HOUR  # seconds within which nothing may come into doubt
ROWS = 5
LONGEST = 60.0  # seconds that one run may take; each takes a few hundredths, or a pause of some seconds
Fault = Literal["unsent", "refused", "lost before", "lost after", "cut", "kill before", "kill after"]
FAULTS: tuple[Fault, ...] = (
    "unsent",
    "refused",
    "lost before",
    "lost after",
    "cut",
    "kill before",
    "kill after",
)


class World:
    """The clocks, which may be set; and what really passes."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.set_by = 0.0
        self.oldest = 0.0  # the most seconds that any clock can make of the time since the beginning

    def wall(self) -> float:
        """Give the wall clock's seconds."""
        return 1.7e9 + self.passed + self.set_by

    def boottime(self) -> float:
        """Give the seconds since the start, which nobody sets."""
        return 1e5 + self.passed

    def boot_id(self) -> str:
        """Give the name of the only start there is."""
        return "the only one"


@dataclass
class Server:
    """Charges for each body whose key it does not remember."""

    world: World
    memory: dict[str, tuple[float, bytes, bytes]] = field(default_factory=dict)
    charges: Counter[bytes] = field(default_factory=Counter)
    requests: int = 0

    def execute(self, key: str, body: bytes) -> bytes:
        """Complete, or remember."""
        now = self.world.passed
        then, known, answer = self.memory.get(key, (0.0, b"", b""))
        if known and now - then < KEPT:
            assert known == body, "a key came with another body"
            return answer
        self.charges[body] += 1
        text = json.loads(body)["messages"][-1]["content"][::-1]
        message = {"role": "assistant", "content": text}
        answer = json.dumps(
            {
                "model": "m",
                "choices": [{"message": message, "finish_reason": "stop"}],
                "usage": {"credits": 1},
            }
        ).encode()
        self.memory[key] = (now, body, answer)
        return answer


class Transport:
    """Stands where the client stands, and carries out a plan of faults."""

    def __init__(self, server: Server, plan: list[Fault], kill: Callable[[], None]) -> None:
        self._server = server
        self._plan = plan
        self._kill = kill

    def __call__(self, *_: object, **__: object) -> Self:
        """Be made as a client is made."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def attempt(self, body: bytes, *, key: str, request_id: str, **_: object) -> Reply | Failure:
        """Send once; what is planned for it happens."""
        await asyncio.sleep(0)
        self._server.requests += 1
        fault = self._plan.pop() if self._plan else None
        if fault == "kill before":
            self._kill()
        if fault == "unsent":
            return Failure("connect_failed", "no connection", Fate.UNSENT)
        if fault == "refused":
            return Failure("billing_failed", "later", Fate.REFUSED, 500, retryable=True)
        if fault == "lost before":
            return Failure("connection_lost", "lost", Fate.UNKNOWN)
        answer = self._server.execute(key, body)
        if fault == "kill after":
            self._kill()
        if fault == "lost after":
            return Failure("timeout", "lost", Fate.UNKNOWN)
        return Reply(answer[:-9] if fault == "cut" else answer, f"r-{request_id}", 1.0)


class Killed(BaseException):
    """The process is no more."""


class Promises(RuleBasedStateMachine):
    """One ledger, a few rows, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="beatra-promises-"))
        self.world = World()
        self.server = Server(self.world)
        self.prompt = "first"
        self.rows = list(range(ROWS))
        self.again: Counter[bytes] = Counter()  # how often the operator had a body sent again
        self.skipped = False

    def teardown(self) -> None:
        """Check the books, and tidy up."""
        try:
            self.never_paid_twice()
        finally:
            shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        """Start from a first run that is not disturbed or, as often, from nothing."""

    # --- the rules --------------------------------------------------------------------------------------

    @rule(plan=st.lists(st.sampled_from(FAULTS), max_size=6), workers=st.integers(1, 4))
    def run(self, plan: list[Fault], workers: int) -> None:
        """Run the job; some of its first attempts go wrong, or kill it."""
        calm = not plan
        summary = self._carry_out(run_job, list(plan), workers=workers)
        if summary is not None:
            self._check(summary, calm=calm)

    @rule(plan=st.lists(st.sampled_from(FAULTS[:5]), max_size=4))
    def two_runs(self, plan: list[Fault]) -> None:
        """Run two jobs at once on the ledger, their rows in opposite orders."""
        transport = Transport(self.server, list(plan), self._no_kill)

        async def both() -> list[Summary]:
            jobs = (self._config("one", 2, self.rows), self._config("two", 2, self.rows[::-1]))
            return await asyncio.gather(*(run_job(job, RunOptions(clock=self.world)) for job in jobs))

        for summary in self._with(transport, both()):
            self._check(summary, calm=not plan, alone=False)

    @rule()
    def run_without_room(self) -> None:
        """Run on a full disk: nothing new is sent."""
        before = self.server.requests
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "LOW_WATER", 1 << 62)
            with contextlib.suppress(DiskFull):
                summary = self._carry_out(run_job, [])
                assert summary is not None
                assert summary.exit_code in (0, 3, 4)
        assert self.server.requests == before

    @rule(how=st.sampled_from(["resend", "skip"]))
    def settle_doubt(self, how: Literal["resend", "skip"]) -> None:
        """Let the operator decide on what is in doubt; what is sent again may be charged again."""
        if how == "resend":
            for _, body, _ in self.server.memory.values():
                self.again[body] += 1
        else:
            self.skipped = True
        summary = self._carry_out(retry_job(how), [], retry=frozenset({"error"}))
        assert summary is not None
        if summary.statuses["pending"]:  # rows that were never asked: the output stays as it was
            assert summary.exit_code == 4, summary.reason
        else:
            self._complete(summary)

    @rule(hours=st.floats(0, 30))
    def wait(self, hours: float) -> None:
        """Let time pass."""
        self.world.passed += hours * HOUR
        self._note_age()

    @rule(hours=st.floats(-30, 30))
    def set_the_clock(self, hours: float) -> None:
        """Set the wall clock, either way."""
        self.world.set_by = hours * HOUR
        self._note_age()

    @rule(prompt=st.sampled_from(["first", "second"]))
    def edit_the_prompt(self, prompt: str) -> None:
        """Ask something else, or the same as before."""
        self.prompt = prompt

    @rule(seed=st.integers(0, 99), count=st.integers(1, ROWS))
    def edit_the_rows(self, seed: int, count: int) -> None:
        """Take other rows, in another order, some of them twice."""
        self.rows = random.Random(seed).choices(range(ROWS), k=count)

    @rule(seed=st.integers(0, 99))
    def damage_an_answer(self, seed: int) -> None:
        """Flip a bit of a stored answer."""
        if not (self.folder / "ledger.db").exists():
            return
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as con, con:
            answers = con.execute("SELECT id, body FROM answer").fetchall()
            if answers:
                number, body = random.Random(seed).choice(answers)
                place = seed % len(body)
                flipped = body[:place] + bytes([body[place] ^ 1 << seed % 8]) + body[place + 1 :]
                con.execute("UPDATE answer SET body = ? WHERE id = ?", (flipped, number))

    # --- how a run is carried out -------------------------------------------------------------------------

    def _config(self, name: str, workers: int, rows: list[int]) -> Any:
        source = self.folder / f"{name}.in.parquet"
        pq.write_table(pa.table({"t": [f"row {row}" for row in rows]}), source)
        return validate_config(
            {
                "input": str(source),
                "output": str(self.folder / f"{name}.parquet"),
                "ledger": str(self.folder / "ledger.db"),
                "endpoint": {"base_url": "http://127.0.0.1:9/v1", "headers": {}},
                "steps": [{"name": "s", "prompt": f"{self.prompt} {{{{ t }}}}"}],
                "limits": {"concurrency": workers},
                "retry": {"max_wait": 0.001},
            }
        )

    def _carry_out(
        self,
        job: Callable[[Any, RunOptions], Coroutine[Any, Any, Summary]],
        plan: list[Fault],
        *,
        workers: int = 2,
        **options: Any,
    ) -> Summary | None:
        """Run a job to its end, or to its death: then the files are what they were at that instant."""
        at_death = self.folder.with_name(self.folder.name + "-at-death")

        def kill() -> None:
            if not at_death.exists():
                at_death.mkdir()
                for path in self.folder.glob("ledger.db*"):
                    shutil.copy(path, at_death)
            raise Killed

        config = self._config("one", workers, self.rows)
        transport = Transport(self.server, plan, kill)
        try:
            return self._with(transport, job(config, RunOptions(clock=self.world, **options)))  # type: ignore[no-any-return]  # a summary
        except Exception as error:
            if "Killed" not in repr(error):
                raise
        for path in self.folder.glob("ledger.db*"):
            path.unlink()
        for path in at_death.iterdir():
            shutil.move(path, self.folder)
        at_death.rmdir()
        return None

    def _with(self, transport: Transport, work: Coroutine[Any, Any, Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "Client", transport)
            patch.setenv("BEATRA_API_KEY", "sk-of-nobody")
            return asyncio.run(asyncio.wait_for(work, LONGEST))

    def _no_kill(self) -> None:
        raise AssertionError

    def _note_age(self) -> None:
        self.world.oldest = max(
            self.world.oldest,
            self.world.passed,
            self.world.passed + self.world.set_by + 30 * HOUR * bool(self.world.set_by),
        )

    # --- the promises -------------------------------------------------------------------------------------

    def _check(self, summary: Summary, *, calm: bool, alone: bool = True) -> None:
        assert summary.exit_code in (0, 3), summary.reason
        statuses = self._complete(summary, alone=alone)
        assert "pending" not in statuses
        if calm and self.world.oldest < SURE and not self.skipped:
            assert set(statuses) <= {"ok"}, "a run that nothing disturbs gets every answer"

    def _complete(self, summary: Summary, *, alone: bool = True) -> list[str]:
        """Hold an output to its input: every row there, every answer its own, the counts as told.

        What a run gave up, one beside it may have got by the time the output is written.
        """
        assert summary.output is not None
        table = pq.read_table(summary.output)
        statuses = [str(status) for status in table.column("s_status").to_pylist()]
        for text, answer, status in zip(
            table.column("t").to_pylist(), table.column("s").to_pylist(), statuses, strict=True
        ):
            assert (answer == f"{self.prompt} {text}"[::-1]) == (status == "ok")
            assert status in {"ok", "error", "in_doubt", "skipped", "pending"}
        told = Counter({str(name): count for name, count in summary.statuses.items() if count})
        assert (
            told == Counter(statuses)
            if alone
            else not (told - Counter(statuses)).keys() - {"in_doubt", "error"}
        )
        return statuses

    def never_paid_twice(self) -> None:
        """Hold the books to what was allowed."""
        for body, count in self.server.charges.items():
            assert count <= 1 + self.again[body], f"{body!r} was charged {count} times"


TestPromises = Promises.TestCase
TestPromises.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class AtLength(Promises):
    """The same, many more histories, each longer."""


TestAtLength = pytest.mark.slow(pytest.mark.timeout(3600)(AtLength.TestCase))
TestAtLength.settings = settings(
    TestPromises.settings, max_examples=1_000, stateful_step_count=30, derandomize=False
)
