"""Killed at any instant, a job goes on: nothing is paid twice, nothing that was paid for is missing."""

from __future__ import annotations

import random
import signal
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.helpers.chaos import (
    CHANGES,
    Mischief,
    answers_kept,
    end_of,
    let_go_under_strace,
    make_job,
    place,
    posts_in,
    read_trace,
    tracing_refused,
    unheralded,
    violations,
)
from tests.helpers.endpoint import BookedEndpoint
from tests.helpers.modes import MODES, ModalEndpoint, make_task
from tests.helpers.warm import MUTATION, Warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.modes import Task
    from tests.helpers.postgres import Server

REFUSED = tracing_refused()
traced = pytest.mark.skipif(REFUSED is not None, reason=str(REFUSED))
KILLS = 16  # random kills in the default suite
RELEASE_KILLS = 1_000
SHARED_KILLS = 20  # in each mode, over a shared ledger: a quarter of a minute each


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


# --- at random times -----------------------------------------------------------------------------------------


def killed_at_random(
    warm: Warm, folder: Path, kills: int, *, dropping: bool, seed: int = 0, env: dict[str, str] | None = None
) -> list[str]:
    """Kill runs at random times and after random answers, each job until it is done, and check each; gives what breaks the promise."""
    chance = random.Random(seed)
    found: list[str] = []
    killed = number = 0
    workers = 4  # in flight; as many again may be on their way into the ledger
    longest = 0.0  # seconds; that of the first run, which is not disturbed
    while killed < kills:
        number += 1
        with BookedEndpoint() as endpoint:
            endpoint.script = mischief = Mischief(endpoint, drop=7 * dropping)
            job = make_job(folder / f"job{number}", 60, limits={"concurrency": workers})
            while True:
                started = time.monotonic()
                running = warm.start(job.folder, "run", job.config, "-q", env=place(endpoint) | (env or {}))
                if longest and killed < kills and chance.random() < 0.5:
                    mischief.kill(running.pid, chance.randrange(40))
                elif longest and killed < kills:
                    time.sleep(chance.uniform(0.0, longest))
                    running.signal(signal.SIGKILL)
                ended = running.wait()
                if ended.code == 0:
                    longest = longest or time.monotonic() - started
                    break
                if ended.code != -signal.SIGKILL:
                    found.append(f"a run ended with {ended.code}: {ended.err}")
                    break
                killed += 1
                if not dropping and len(endpoint.charges) - answers_kept(job.ledger) > 2 * workers:
                    found.append(f"{len(endpoint.charges)} were paid for, {answers_kept(job.ledger)} kept")
            found += violations(job, endpoint)
    return found


@pytest.mark.parametrize("dropping", [False, True], ids=["calm", "dropping connections"])
def test_killed_at_random_times_it_pays_once_and_loses_nothing(
    warm: Warm, tmp_path: Path, dropping: bool
) -> None:
    """SIGKILL at random, again and again: each body is charged once, the output is an undisturbed run's."""
    assert killed_at_random(warm, tmp_path, KILLS // 2, dropping=dropping, seed=int(dropping)) == []


@pytest.mark.parametrize("dropping", [False, True], ids=["calm", "dropping connections"])
def test_killed_where_finished_rows_are_found_a_slice_at_a_time(
    warm: Warm, tmp_path: Path, dropping: bool
) -> None:
    """The same where a job has many slices of rows: those behind finished ones are looked for together."""
    env = {MUTATION: "small_slices"}
    found = killed_at_random(warm, tmp_path, KILLS // 2, dropping=dropping, seed=20 + dropping, env=env)
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dropping", [False, True], ids=["calm", "dropping connections"])
def test_a_thousand_random_kills(warm: Warm, tmp_path: Path, dropping: bool) -> None:
    """The same, a thousand times."""
    found = killed_at_random(warm, tmp_path, RELEASE_KILLS // 2, dropping=dropping, seed=10 + dropping)
    assert found == []


# --- in every mode ------------------------------------------------------------------------------------------


def torn(
    warm: Warm, task: Task, endpoint: ModalEndpoint, chance: random.Random, *, kills: int, longest: float
) -> tuple[int, float, list[str]]:
    """Kill a job so many times and let it end; gives the kills that landed, the last run's seconds, and what is wrong."""
    env = place(endpoint)
    if task.mode.before is not None:
        command, code = task.mode.before
        ended = warm.run(task.folder, *command, "config.yaml", "-q", env=env)
        if ended.code != code:
            return 0, longest, [f"{command} ended with {ended.code}: {ended.err}"]
    endpoint.refusing = False
    endpoint.also = mischief = Mischief(endpoint, drop=chance.choice([0, 5]))
    killed, command = 0, task.mode.first
    left = len(task.texts) * max(task.mode.charges)
    while True:
        started = time.monotonic()
        running = warm.start(task.folder, *command, "config.yaml", "-q", env=env)
        if killed < kills and (not longest or chance.random() < 0.6):
            mischief.kill(running.pid, chance.randrange(max(1, left // 2)))
        elif killed < kills:
            time.sleep(chance.uniform(0.0, longest))
            running.signal(signal.SIGKILL)
        ended = running.wait()
        if ended.code != -signal.SIGKILL:
            break
        killed, command = killed + 1, task.mode.again
    if ended.code != 0:
        return killed, longest, [f"a run ended with {ended.code}: {ended.err}"]
    longest = longest or time.monotonic() - started
    found, posts = task.broken(endpoint), len(endpoint.posts)
    if (again := warm.run(task.folder, "run", "config.yaml", "-q", env=env)).code != 0:
        found.append(f"the run after it ended with {again.code}: {again.err}")
    if len(endpoint.posts) != posts:
        found.append(f"{len(endpoint.posts) - posts} requests were sent after the end")
    return killed, longest, found


def killed_in_mode(
    warm: Warm, folder: Path, name: str, kills: int, *, ledger: Callable[[], str | None], seed: int
) -> list[str]:
    """Kill jobs of a mode so many times all in all, at random, and check each."""
    chance = random.Random(f"{name} {seed}")
    found: list[str] = []
    killed = number = 0
    longest = 0.0  # seconds; known after the first
    while killed < kills and not found:
        number += 1
        task = make_task(name, folder / f"{number}", 24, ledger())
        with ModalEndpoint(name) as endpoint:
            most = min(kills - killed, chance.randint(1, 4))
            landed, longest, wrong = torn(warm, task, endpoint, chance, kills=most, longest=longest)
        killed += landed
        found += [f"{folder.name}/{number}: {line}" for line in wrong]
    return found


@pytest.mark.parametrize("name", [name for name in MODES if name != "sync"])
def test_killed_in_every_mode(warm: Warm, tmp_path: Path, name: str) -> None:
    """SIGKILL in the middle of it, whatever the job does: each request is charged once, each row has its own answer."""
    assert killed_in_mode(warm, tmp_path, name, 1, ledger=lambda: None, seed=0) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MODES)
def test_a_thousand_kills_over_all_modes(warm: Warm, tmp_path: Path, name: str) -> None:
    """A thousand over all modes."""
    kills = RELEASE_KILLS // len(MODES)
    assert killed_in_mode(warm, tmp_path, name, kills, ledger=lambda: None, seed=1) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MODES)
def test_kills_over_a_shared_ledger(warm: Warm, tmp_path: Path, name: str, postgres_server: Server) -> None:
    """The same over a ledger on PostgreSQL, fewer: after each, the next run waits until the dead one's lease is over."""
    ledger = fresh_database(postgres_server)
    assert killed_in_mode(warm, tmp_path, name, SHARED_KILLS, ledger=ledger, seed=1) == []


def fresh_database(server: Server) -> Callable[[], str]:
    """Give what makes an empty database for each job."""
    return lambda: server.create(f"torn_{uuid.uuid4().hex}")


# --- at every change the program makes to the world ---------------------------------------------------------


def survives_a_kill_at(warm: Warm, job: Job, endpoint: BookedEndpoint, call: str, nth: int) -> bool:
    """Kill a run as it enters its n-th call of a kind, and run again; False when there was no such call."""
    running = warm.start(job.folder, "run", job.config, "-q", stopped=True, env=place(endpoint))
    log = job.folder / "strace.log"
    strace = let_go_under_strace(
        running, log, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}"
    )
    ended = running.wait()
    end_of(strace)
    if ended.code == 0:
        return False
    assert ended.code == -signal.SIGKILL, ended
    again = warm.run(job.folder, "run", job.config, "-q", env=place(endpoint))
    assert again.code == 0, again
    assert violations(job, endpoint) == []
    return True


def begin(warm: Warm, folder: Path, endpoint: BookedEndpoint, start: str) -> Job:
    """Make a job of 6 rows that nothing was done for yet, or whose ledger is there, or half done, or done."""
    job = make_job(folder, 6, limits={"concurrency": 2})
    limit = {"nothing": None, "an empty ledger": 0, "half the answers": 3, "all answers": 6}[start]
    if limit is not None:
        ended = warm.run(job.folder, "run", job.config, "-q", "--limit", str(limit), env=place(endpoint))
        assert ended.code == 0, ended
    return job


STARTS = ("nothing", "an empty ledger", "half the answers", "all answers")


def points(warm: Warm, folder: Path, start: str) -> list[tuple[str, int]]:
    """List the changes an undisturbed run makes: call and number, as far as threads can be told apart by it."""
    with BookedEndpoint() as endpoint:
        job = begin(warm, folder, endpoint, start)
        running = warm.start(job.folder, "run", job.config, "-q", stopped=True, env=place(endpoint))
        strace = let_go_under_strace(running, folder / "trace", "-e", f"trace={CHANGES}")
        assert running.wait().code == 0
        end_of(strace)
    calls = Counter((call.thread, call.name) for call in read_trace(folder / "trace") if call.ended)
    most: Counter[str] = Counter()
    for (_, name), count in calls.items():
        most[name] = max(most[name], count)
    return [(name, nth) for name, count in sorted(most.items()) for nth in range(1, count + 1)]


def sweep(warm: Warm, folder: Path, start: str, chosen: slice) -> tuple[int, int]:
    """Kill at each of the chosen points, each time in a job of its own; gives how many kills landed, and points."""
    everywhere = points(warm, folder / "listing", start)[chosen]
    landed = 0
    for number, (call, nth) in enumerate(everywhere):
        with BookedEndpoint() as endpoint:
            job = begin(warm, folder / str(number), endpoint, start)
            landed += survives_a_kill_at(warm, job, endpoint, call, nth)
    return landed, len(everywhere)


@traced
@pytest.mark.parametrize("start", ["nothing", "half the answers"])
def test_killed_at_some_changes(warm: Warm, tmp_path: Path, start: str) -> None:
    """Killed at some of its writes, syncs, sends and renames, a run goes on as if nothing had happened."""
    landed, _ = sweep(warm, tmp_path, start, slice(None, None, 17))
    assert landed > 1


@traced
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("start", STARTS)
def test_killed_at_every_change(warm: Warm, tmp_path: Path, start: str) -> None:
    """Killed at every single one of them, from every start."""
    landed, count = sweep(warm, tmp_path, start, slice(None))
    assert landed > 0.8 * count  # threads take turns as they like: a few numbers are not reached again


# --- what is on disk before what is sent ------------------------------------------------------------------------


def trace_of_a_run(warm: Warm, folder: Path, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Trace a run of 8 rows; gives how many requests it sent, and those sent before their intent was on disk."""
    with BookedEndpoint() as endpoint:
        endpoint.script = Mischief(endpoint, drop=4)
        job = make_job(folder, 8, limits={"concurrency": 3})
        running = warm.start(
            job.folder, "run", job.config, "-q", stopped=True, env=place(endpoint) | (env or {})
        )
        options = ("-x", "-s", "100000", "-e", "trace=write,pwrite64,sendto,sendmsg,writev,fsync,fdatasync")
        strace = let_go_under_strace(running, folder / "trace", *options)
        ended = running.wait()
        end_of(strace)
        assert ended.code == 0, ended
    return posts_in(folder / "trace"), unheralded(folder / "trace")


@traced
def test_the_intent_is_on_disk_before_the_first_byte_is_sent(warm: Warm, tmp_path: Path) -> None:
    """In the trace of a run, the sync of each request's intent stands before its send."""
    sent, early = trace_of_a_run(warm, tmp_path / "job")
    assert sent >= 10  # 8 rows, and at least two that were cut off and sent again
    assert early == []
