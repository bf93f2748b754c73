"""Faults of the machine that a run is on: files that change under it, limits, readers that go away, folders that close.

It is long because each fault needs a machine that is set up for it, a few lines each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrich
from enrich.base.descriptors import no_descriptor_left, room_for_connections
from enrich.config import OutputConfig
from enrich.files.input_files import readable
from enrich.files.sink import open_sink
from enrich.ledger.room import Room
from enrich.ledger.soundness import Voucher
from enrich.ledger.sqlite import open_ledger
from enrich.ledger.sqlite_file import open_file
from tests.helpers.chaos import make_job, place, violations
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.helpers.chaos import Job
    from tests.helpers.endpoint import Seen


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[BookedEndpoint]:
    """An endpoint for runs in this process and others."""
    with BookedEndpoint() as started:
        for name, value in place(started).items():
            monkeypatch.setenv(name, value)
        yield started


# --- files that change under a run --------------------------------------------------------------------------


def rewrite(job: Job, path: Path) -> None:
    """Write an input of the same size with other rows."""
    texts = [text[::-1] for text in job.texts]
    pq.write_table(pa.table({"n": list(range(len(texts))), "t": texts}), path)


def in_place(job: Job, path: Path) -> None:
    """Over the file's own bytes."""
    rewrite(job, path)


def renamed_over(job: Job, path: Path) -> None:
    """A new file takes its name."""
    rewrite(job, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def copied_over(job: Job, path: Path) -> None:
    """A copy keeps the time of the original."""
    rewrite(job, path.with_suffix(".new"))
    shutil.copy2(path.with_suffix(".new"), path)


def one_byte(job: Job, path: Path) -> None:  # a change that Parquet does not notice
    """A byte of a text."""
    data = bytearray(path.read_bytes())
    data[data.index(job.texts[0].encode())] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("change", [in_place, renamed_over, copied_over, one_byte])
def test_an_input_rewritten_under_a_run_is_noticed(
    tmp_path: Path, endpoint: BookedEndpoint, change: Callable[[Job, Path], None]
) -> None:
    """Size and time are kept: the run stops all the same, and no answer stands beside another row's text."""
    job = make_job(tmp_path / "job", 12)
    path = job.folder / "in.parquet"
    told = path.stat()

    usual = endpoint.answer

    def rewriting(body: dict[str, Any]) -> str:
        endpoint.answer = usual
        change(job, path)
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        return usual(body)

    endpoint.answer = rewriting
    summary = enrich.run(job.config)
    assert summary.exit_code == 4
    assert "changed while it was being used" in summary.reason or "cannot be read" in summary.reason
    assert not job.output.exists()


@pytest.mark.parametrize("what", ["ledger.db", "ledger.db-wal"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_ledger_that_is_taken_away_stops_the_run(
    tmp_path: Path, endpoint: BookedEndpoint, what: str, *, replaced: bool
) -> None:
    """Exit 4 before anything is paid into a file that is gone, and what it held is beside it."""
    job = make_job(tmp_path / "job", 60, limits={"concurrency": 1})
    usual = endpoint.answer

    def taking(body: dict[str, Any]) -> str:
        if len(endpoint.charges) == 5:
            path = job.ledger.with_name(what)
            if replaced:  # in one step: the ledger may look at any moment
                (job.folder / "other").write_bytes(b"")
                (job.folder / "other").replace(path)
            else:
                path.unlink(missing_ok=True)
        return usual(body)

    endpoint.answer = taking
    summary = enrich.run(job.config)
    assert summary.exit_code == 4
    assert f"{what} was {'replaced' if replaced else 'removed'} while it was in use" in summary.reason
    assert len(endpoint.charges) < 20
    endpoint.answer = usual
    (rescued,) = job.ledger.parent.glob("*.rescued-*")
    assert rescued.stat().st_mode & 0o777 == 0o600
    for path in job.ledger.parent.glob("ledger.db*"):
        if path != rescued:
            path.unlink()
    rescued.rename(job.ledger)
    assert enrich.run(job.config).exit_code == 0
    assert violations(job, endpoint) == []


# --- limits -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_allowed(soft: int, hard: int | None = None) -> Iterator[None]:
    """Set this process's limit on open files while the block runs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard or before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_on_open_files_is_raised() -> None:
    """To the hard one; what fits below it is known."""
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    with files_allowed(in_use + 10):
        room = room_for_connections()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard
        assert room <= hard - in_use + 1
    assert not no_descriptor_left()


NARROW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {soft}))
from enrich.cli import main
main()
"""


def test_too_few_files_are_no_outage(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Under a hard limit below the concurrency fewer requests are in flight; it is said, and every row is done."""
    job = make_job(tmp_path / "job", 300, limits={"concurrency": 2_000, "adaptive": False})
    code = NARROW.format(soft=120)
    ended = subprocess.run(
        [sys.executable, "-c", code, "run", str(job.config), "--no-progress"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **place(endpoint)},
    )
    assert ended.returncode == 0, ended.stderr
    assert "may have only" in ended.stderr
    assert "limits.concurrency is 2,000" in ended.stderr
    assert violations(job, endpoint) == []


@pytest.mark.parametrize("soft", [12, 20, 30])
def test_a_limit_that_is_too_low_for_any_job_is_named(
    tmp_path: Path, endpoint: BookedEndpoint, soft: int
) -> None:
    """Before anything is sent or made: exit 2, the limit, and how to raise it; never a word of a full disk."""
    job = make_job(tmp_path / "job", 3)
    ended = subprocess.run(
        [sys.executable, "-c", NARROW.format(soft=soft), "run", str(job.config)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **place(endpoint)},
    )
    assert ended.returncode == 2
    assert f"may have only {soft} files open" in ended.stderr
    assert "ulimit -n" in ended.stderr
    assert "space" not in ended.stderr
    assert endpoint.posts == []
    assert not job.ledger.exists()


@contextlib.contextmanager
def no_file_left() -> Iterator[None]:
    """Let nothing more be opened in this process while the block runs."""
    taken: list[int] = []
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    with files_allowed(highest + 1):
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(1))
            yield
        finally:
            for number in taken:
                os.close(number)


def the_ledger(folder: Path) -> None:
    """A reserve beside the ledger."""
    Room(folder / "ledger.db").set_aside()


def the_ledgers_file(folder: Path) -> None:
    """SQLite names no reason."""
    open_file(folder / "ledger.db", Voucher(folder / "ledger.db", 0), 0.0)


def an_output(folder: Path) -> None:
    """A file to be made."""
    with open_sink(OutputConfig(path=str(folder / "out.csv")), pa.schema([("a", pa.int64())])):
        pass


def an_input(folder: Path) -> None:
    """A file that is there."""
    with readable(str(folder)):
        os.open(folder, os.O_RDONLY)


@pytest.mark.parametrize("what", [the_ledger, the_ledgers_file, an_output, an_input])
def test_what_cannot_be_opened_any_more_is_no_full_disk(tmp_path: Path, what: Callable[[Path], None]) -> None:
    """The message says that too many files are open, and how to raise the limit."""
    with (
        no_file_left(),
        pytest.raises(enrich.EnrichError, match=r"(?i)too many.*(\n|.)*ulimit -n") as refused,
    ):
        what(tmp_path)
    assert "space" not in str(refused.value)


# --- a folder in which nothing can be made -------------------------------------------------------------------


def closed_whole(job: Job) -> None:
    """Nothing lies beside the ledger."""


def killed(job: Job) -> None:
    """What the last commit wrote lies in the log; the index of the log beside it."""
    code = "import sqlite3, sys, os; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); os._exit(0)"
    renamed = "UPDATE run SET summary = json_set(summary, '$.reason', 'told by the log')"
    subprocess.run([sys.executable, "-c", code, str(job.ledger), renamed], check=True)
    assert job.ledger.with_name("ledger.db-wal").stat().st_size


def killed_and_copied(job: Job) -> None:
    """Of a copy that left the index of the log out."""
    killed(job)
    job.ledger.with_name("ledger.db-shm").unlink()


@contextlib.contextmanager
def read_only_mount(job: Job) -> Iterator[Sequence[str]]:
    """Mount the job's folder over itself, read-only; gives what a command line begins with."""
    bound = ["mount", "--bind", str(job.folder), str(job.folder)]
    if subprocess.run(bound, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(job.folder)], check=True)
        yield ()
    finally:
        subprocess.run(["umount", "--lazy", str(job.folder)], check=True)


@contextlib.contextmanager
def another_users_folder(job: Job) -> Iterator[Sequence[str]]:
    """Give the folder to somebody else who lets all read it, and begin as one whom modes bind."""
    bound = "--bounding-set=-dac_override,-dac_read_search,-fowner"
    begin = ("setpriv", bound, bound.replace("bounding-set", "inh-caps"))
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    for path in (job.folder, *job.folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(path, 4321, 4321)
    yield begin


ALL_OF_THEM = """
import json, sys
from click.testing import CliRunner
from enrich.cli import main
ended = [CliRunner().invoke(main, command) for command in json.loads(sys.argv[1])]
print(json.dumps([(one.exit_code, one.output) for one in ended]))
"""


def told(begin: Sequence[str], *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Carry out command lines in one process; gives how each ended, and what it said."""
    words = [*begin, sys.executable, "-c", ALL_OF_THEM, json.dumps(commands)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    return [(code, said) for code, said in json.loads(ended.stdout)]


@pytest.mark.parametrize("left", [closed_whole, killed, killed_and_copied])
@pytest.mark.parametrize("where", [read_only_mount, another_users_folder])
def test_a_ledger_is_read_where_nothing_can_be_made(
    tmp_path: Path,
    endpoint: BookedEndpoint,
    where: Callable[[Job], contextlib.AbstractContextManager[Sequence[str]]],
    left: Callable[[Job], None],
) -> None:
    """`status`, `report` and `ledger ls` tell of all that was committed, also what only the log holds; nothing changes."""
    job = make_job(tmp_path / "job", 4)
    assert enrich.run(job.config).exit_code == 0
    left(job)
    before = {path: path.read_bytes() for path in job.ledger.parent.iterdir()}
    page = tmp_path / "page.html"
    config = str(job.config)
    with where(job) as begin:
        ended = told(begin, ("status", config), ("ledger", "ls", config), ("report", config, "-o", str(page)))
    assert [code for code, _ in ended] == [0, 0, 0], ended
    (_, status), (_, listed), _ = ended
    assert "answered    4" in status
    assert ("told by the log" in status) == (left is not closed_whole)
    assert listed.count("answered") == 4
    assert page.stat().st_size
    assert {path: path.read_bytes() for path in job.ledger.parent.iterdir()} == before


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_ledger_that_this_user_may_not_read_is_no_defect(
    tmp_path: Path, endpoint: BookedEndpoint, closed: str
) -> None:
    """Exit 2, and why; whatever the command."""
    job = make_job(tmp_path / "job", 2)
    assert enrich.run(job.config).exit_code == 0
    config, other = str(job.config), ("--output", str(tmp_path / "other.parquet"))
    commands = [(verb, config, *other) for verb in ("status", "report", "run", "plan", "collect")]
    with another_users_folder(job) as begin:
        (job.ledger if closed == "file" else job.ledger.parent).chmod(0)
        for code, said in told(begin, *commands, ("ledger", "ls", config), ("ledger", "verify", config)):
            assert code == 2, said
            assert "ermission denied" in said
    assert len(endpoint.posts) == 2


# --- readers that go away -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_changes_nothing(
    tmp_path: Path, endpoint: BookedEndpoint, stream: str
) -> None:
    """The run goes on in silence and ends as it would have."""
    job = make_job(tmp_path / "job", 20)
    read, write = os.pipe()
    os.close(read)
    out, err = (write if name == stream else subprocess.PIPE for name in ("stdout", "stderr"))
    ended = subprocess.run(
        [sys.executable, "-m", "enrich.cli", "run", str(job.config), "--json", "-v"],
        check=False,
        text=True,
        env={**os.environ, **place(endpoint)},
        stdout=out,
        stderr=err,
    )
    os.close(write)
    assert ended.returncode == 0
    if stream == "stderr":
        assert json.loads(ended.stdout)["ok"] == 20
    assert violations(job, endpoint) == []


def test_a_stderr_that_cannot_be_written_changes_nothing(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Such as a log on a full disk: results are written and the exit code is the run's."""
    job = make_job(tmp_path / "job", 20)
    with job.config.open() as read_only:
        ended = subprocess.run(
            [sys.executable, "-m", "enrich.cli", "run", str(job.config), "--json", "-v"],
            check=False,
            text=True,
            env={**os.environ, **place(endpoint)},
            stdout=subprocess.PIPE,
            stderr=read_only,
        )
    assert (ended.returncode, json.loads(ended.stdout)["ok"]) == (0, 20)
    assert violations(job, endpoint) == []


# --- every answer is unfit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "step", "most"),
    [
        ("invalid_output", {"check": "answer == 'never'", "reask": 0}, 30),
        ("invalid_output", {"check": "answer == 'never'", "reask": 1}, 70),
        ("truncated", {}, 30),
        ("filtered", {}, 30),
    ],
)
def test_a_run_whose_answers_are_all_unfit_stops(
    tmp_path: Path, endpoint: BookedEndpoint, status: str, step: dict[str, Any], most: int
) -> None:
    """After the first twenty rows, which are asked to their end before others are begun: exit 4, with a hint.

    `tolerate: 100%` goes on.
    """
    reason = {"truncated": "length", "filtered": "content_filter"}.get(status, "stop")
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": reason}], "usage": {"total_tokens": 1}}
    raw = Raw(json.dumps(body).encode(), charge=True)
    endpoint.script = lambda seen: raw if seen.method == "POST" else None
    steps = [{"name": "s", "prompt": "{{ t }}", **step}]
    job = make_job(tmp_path / "job", 200, limits={"concurrency": 4}, steps=steps)
    summary = enrich.run(job.config)
    assert (summary.exit_code, summary.resumable) == (4, False)
    assert f"20 {status}" in summary.reason
    assert "tolerate: 100%" in summary.reason
    assert 20 <= len(endpoint.posts) <= most
    summary = enrich.run(job.config, overrides=["tolerate=100%"])
    assert (summary.exit_code, summary.to_dict()[status]) == (0, 200)


def test_one_fit_answer_is_enough_to_go_on(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """The rows are not all alike: the run goes to its end."""
    steps = [{"name": "s", "prompt": "{{ t }}", "check": "answer == 'good'", "reask": 0}]
    job = make_job(tmp_path / "job", 60, limits={"concurrency": 2}, steps=steps)
    endpoint.answer = lambda body: "good" if body["messages"][-1]["content"] == job.texts[3] else "bad"
    summary = enrich.run(job.config)
    assert (summary.exit_code, summary.statuses["invalid_output"]) == (3, 59)


# --- endpoints that keep no keys ----------------------------------------------------------------------------


class Forgetful:
    """A script for an endpoint that charges every request and loses every answer but to the last attempt."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.charges: list[str] = []

    def __call__(self, seen: Seen) -> Raw | None:
        """Answer one request."""
        if seen.method != "POST":
            return None
        self.charges.append(seen.key)
        body = {
            "id": str(uuid.uuid4()),
            "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}],
        }
        cut = 8 if self.charges.count(seen.key) <= self.lost else None
        return Raw(json.dumps(body).encode(), cut=cut)


@pytest.mark.parametrize(
    ("unknown", "sent", "status"), [(0, 1, "in_doubt"), (1, 2, "in_doubt"), (2, 3, "ok")]
)
def test_without_keys_an_unknown_outcome_is_asked_again_so_often(
    tmp_path: Path, endpoint: BookedEndpoint, unknown: int, sent: int, status: str
) -> None:
    """`retry.unknown` says how often; the summary says how many requests may have been paid for twice; a further run sends nothing."""
    endpoint.script = script = Forgetful(lost=2)
    job = make_job(
        tmp_path / "job", 3, endpoint={"idempotent": False}, retry={"max_wait": 0.02, "unknown": unknown}
    )
    summary = enrich.run(job.config)
    assert len(script.charges) == 3 * sent
    assert summary.statuses[status] == 3  # type: ignore[index]  # a status
    assert summary.perhaps_paid_twice == summary.to_dict()["perhaps_paid_twice"] == (3 if unknown else 0)
    assert ("may have been paid for more than once" in summary.reason) == bool(unknown)
    enrich.run(job.config)
    assert len(script.charges) == 3 * sent


def test_with_keys_attempts_mean_attempts(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """An unknown outcome is asked again as often as any other: it is free."""
    endpoint.script = script = Forgetful(lost=6)
    job = make_job(tmp_path / "job", 2, retry={"max_wait": 0.02, "attempts": 8})
    summary = enrich.run(job.config)
    assert (summary.exit_code, summary.perhaps_paid_twice, len(script.charges)) == (0, None, 14)


@pytest.mark.parametrize("kept", [True, False])
def test_a_probe_finds_out_whether_keys_are_kept(
    warm: Warm, tmp_path: Path, endpoint: BookedEndpoint, *, kept: bool
) -> None:
    """One tiny request, twice, under one key; runs on that ledger act on what it found."""
    if not kept:
        endpoint.script = Forgetful(lost=0)
    job = make_job(tmp_path / "job", 2)
    ended = warm.run(job.folder, "check", job.config, "--probe", env=place(endpoint))
    assert ended.code == 0, ended
    assert ("asking again under a key is free (probe); 1 completion was paid for" in ended.out) == kept
    assert ("it keeps no keys (probe)" in ended.out) != kept
    assert len({seen.key for seen in endpoint.posts}) == 1
    assert len(endpoint.posts) == 2
    endpoint.script = script = Forgetful(lost=1)
    assert enrich.run(job.config).perhaps_paid_twice == (None if kept else 2)
    assert len(script.charges) == 4


# --- clearing away, and who may read ------------------------------------------------------------------------


def test_a_lock_that_cannot_be_removed_ends_no_run(
    tmp_path: Path, endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clearing away is no reason to fail; whoever comes next finds the lock free."""
    job = make_job(tmp_path / "job", 3)
    unlink = type(job.folder).unlink

    def refused(self: Path, *, missing_ok: bool = False) -> None:
        if self.name.endswith(".lock") or ".run-" in self.name:
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(type(job.folder), "unlink", refused)
    assert enrich.run(job.config).exit_code == 0
    assert enrich.run(job.config).exit_code == 0
    assert violations(job, endpoint) == []


def test_an_exported_ledger_is_its_owners(warm: Warm, tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Mode 0600, whatever the mode of the file in its place was."""
    job = make_job(tmp_path / "job", 2)
    assert enrich.run(job.config).exit_code == 0
    out = job.folder / "all.jsonl"
    out.write_text("", encoding="utf-8")
    out.chmod(0o644)
    assert warm.run(job.folder, "ledger", "export", job.config, "-o", out).code == 0
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "way",
    [["--output", "b/x.parquet"], ["--set", "output=b/x.parquet"], ["--set", "output.path=b/x.parquet"]],
)
def test_another_output_keeps_the_ledger(
    warm: Warm, tmp_path: Path, endpoint: BookedEndpoint, way: list[str]
) -> None:
    """However it is named: what is paid for is known, and nothing is sent again."""
    job = make_job(tmp_path / "job", 3)
    assert enrich.run(job.config).exit_code == 0
    ended = warm.run(job.folder, "run", job.config, "-q", *way, env=place(endpoint))
    assert ended.code == 0, ended
    assert (job.folder / "b" / "x.parquet").exists()
    assert not (job.folder / "b" / ".beatra").exists()
    assert len(endpoint.charges) == 3


def test_a_usage_of_many_digits_is_no_usage(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """The answer is taken, its cost is null, and nothing is sent again."""
    body = b'{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": {"total_tokens": %b}}'
    endpoint.script = lambda seen: Raw(body % (b"9" * 5_000)) if seen.method == "POST" else None
    job = make_job(tmp_path / "job", 1)
    assert enrich.run(job.config).exit_code == 0
    (row,) = job.table().to_pylist()
    assert (row["s"], row["s_total_tokens"], row["s_attempts"]) == ("yes", None, 1)


# --- the key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_key_is_kept_nowhere(
    warm: Warm, tmp_path: Path, endpoint: BookedEndpoint, *, stream: bool
) -> None:
    """In a request id, escaped in an answer, cut over a stream: no output, ledger, report, stdout or stderr holds it."""
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY)
    whole = f'{{"id": "c", "choices": [{{"message": {{"content": "it is {escaped}"}}, "finish_reason": "stop"}}]}}'
    deltas: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": part}}]} for part in ("it is ", KEY[:14], KEY[14:])
    ]
    deltas.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    sse = "".join(f"data: {json.dumps(delta)}\n\n" for delta in deltas) + "data: [DONE]\n\n"
    headers = {
        "Content-Type": "text/event-stream" if stream else "application/json",
        "X-Request-Id": f"r-{KEY}",
    }
    raw = Raw((sse if stream else whole).encode(), headers=headers)
    endpoint.script = lambda seen: raw if seen.method == "POST" else None
    steps: list[dict[str, Any]] = [{"name": "s", "prompt": "{{ t }}", "stream": stream}]
    job = make_job(tmp_path / "job", 2, report="report.html", steps=steps)
    ended = warm.run(job.folder, "run", job.config, "-vv", env=place(endpoint))
    assert ended.code == 0
    assert job.table().column("s").to_pylist() == ["it is [key]"] * 2
    exported = warm.run(job.folder, "ledger", "export", job.config, "-o", "all.jsonl")
    assert exported.code == 0
    asyncio.run(vacuumed(job.ledger))
    for path in [path for path in job.folder.rglob("*") if path.is_file()]:
        assert KEY[13:].encode() not in path.read_bytes(), path
    assert KEY[13:] not in ended.out + ended.err


async def vacuumed(ledger: Path) -> None:
    """Close a ledger so that everything is in its file."""
    opened = await open_ledger(ledger)
    await opened.close()
