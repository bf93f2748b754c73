"""A disk that fills up, or cannot be written any more, stops a run in good order; nothing is paid twice for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.helpers.chaos import end_of, let_go_under_strace, make_job, place, tracing_refused, violations
from tests.helpers.endpoint import BookedEndpoint
from tests.helpers.warm import Warm
from tests.runs.test_stopping import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.chaos import Job
    from tests.helpers.warm import Ended

MEGABYTES = 40  # of the small disk: room for a run, which wants 16 MiB free, and 1 MiB set aside
ROWS = 24


def mounting_refused() -> str | None:
    """Say why no file system can be mounted here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return None if done.returncode == 0 else f"mounting is not allowed: {done.stderr.strip()}"


REFUSED = mounting_refused()
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=str(REFUSED))


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Command lines without the wait."""
    with Warm() as process:
        yield process


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder], check=True, timeout=20
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=20)


class Filler:
    """A file that takes all the room there is."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def fill(self, but: int = 0) -> None:
        """Leave only so many bytes; others may write meanwhile."""
        disk = os.statvfs(self._path.parent)
        left = disk.f_bavail - but // disk.f_frsize
        block = bytes(disk.f_frsize)
        with self._path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for _ in range(left):
                file.write(block)

    def free(self) -> None:
        """Give the room back."""
        self._path.unlink()


def completes(warm: Warm, job: Job, endpoint: BookedEndpoint) -> None:
    """Run again, now that there is room."""
    ended = warm.run(job.folder, "run", job.config, "-q", env=place(endpoint))
    assert ended.code == 0, ended
    assert violations(job, endpoint) == []


def stopped_for_want_of_room(ended: Ended, job: Job) -> None:
    """Check the end of a run on a full disk."""
    assert ended.code == 4, ended
    assert "no room" in ended.err
    assert not job.output.exists()


def on_disk(tmp_path: Path, disk: Path, what: str) -> Job:
    """Make a job whose ledger, or output, or both are on the small disk."""
    ledger = disk if what != "the output" else tmp_path
    output = disk if what != "the ledger" else tmp_path
    job = make_job(
        tmp_path / "job",
        ROWS,
        ledger=str(ledger / "ledger.db"),
        output=str(output / "out.parquet"),
        limits={"concurrency": 4},
    )
    return type(job)(output, job.texts, job.config)


@pytest.mark.parametrize("what", ["the ledger", "the output", "both"])
@pytest.mark.parametrize("left", [0, 256 * 1024])
def test_full_before_it_begins(warm: Warm, tmp_path: Path, disk: Path, what: str, left: int) -> None:
    """With no room at the start nothing is sent, or all of it fits; when there is room, the job is done."""
    job, filler = on_disk(tmp_path, disk, what), Filler(disk)
    filler.fill(but=left)
    with BookedEndpoint() as endpoint:
        ended = warm.run(tmp_path, "run", job.config, "-q", env=place(endpoint))
        if what != "the output" or left < 4096:
            assert ended.code in (2, 4), ended
            assert not endpoint.posts
        filler.free()
        completes(warm, type(job)(job.folder, job.texts, job.config), endpoint)


@pytest.mark.parametrize("answered", [0, 6, ROWS - 1])
@pytest.mark.parametrize("what", ["the ledger", "the output", "both"])
def test_full_while_it_asks(warm: Warm, tmp_path: Path, disk: Path, what: str, answered: int) -> None:
    """Dispatch stops, what is in flight finds room; when there is room again, the job is done, paid once."""
    job, filler = on_disk(tmp_path, disk, what), Filler(disk)
    with BookedEndpoint() as endpoint:

        def fill(_: object) -> None:
            if len(endpoint.charges) == answered and not (disk / "filler").exists():
                filler.fill()

        endpoint.script = fill
        ended = warm.run(tmp_path, "run", job.config, "-q", env=place(endpoint))
        if ended.code or answered < ROWS - 1:  # else the last answers found room in the reserve
            stopped_for_want_of_room(ended, job)
        endpoint.script = None
        filler.free()
        completes(warm, job, endpoint)


def test_answers_in_flight_find_room_in_the_reserve(warm: Warm, tmp_path: Path, disk: Path) -> None:
    """Filled up while requests are in flight, the disk still takes their answers: none is asked for again."""
    job, filler = on_disk(tmp_path, disk, "the ledger"), Filler(disk)
    with BookedEndpoint() as endpoint:
        endpoint.pause()
        running = warm.start(tmp_path, "run", job.config, "-q", env=place(endpoint))
        until(lambda: len(endpoint.posts) == 4)
        filler.fill()
        endpoint.resume()
        stopped_for_want_of_room(running.wait(), job)
        filler.free()
        completes(warm, job, endpoint)
        assert len(endpoint.posts) == ROWS


def read_only(disk: Path) -> None:
    """Let nothing be written any more."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=False, timeout=20)


@pytest.mark.parametrize("make", [read_only], ids=["read-only"])
@pytest.mark.parametrize("what", ["the ledger", "the output", "both"])
def test_unwritable_before_it_begins(
    warm: Warm, tmp_path: Path, disk: Path, what: str, make: Callable[[Path], None]
) -> None:
    """Nothing is sent; the message names the place."""
    job = on_disk(tmp_path, disk, what)
    make(disk)
    with BookedEndpoint() as endpoint:
        ended = warm.run(tmp_path, "run", job.config, "-q", env=place(endpoint))
        assert ended.code == 2, ended
        assert str(disk) in ended.err
        assert not endpoint.posts
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True, timeout=20)
        completes(warm, job, endpoint)


@pytest.mark.skipif(tracing_refused() is not None, reason=str(tracing_refused()))
@pytest.mark.parametrize("nth", [2, 3, 5])
def test_a_disk_that_fails_stops_the_run(warm: Warm, tmp_path: Path, nth: int) -> None:
    """I/O errors from some sync on: exit 4, and once the disk is sound again the job is done, paid once."""
    job = make_job(tmp_path / "job", ROWS, limits={"concurrency": 4})
    with BookedEndpoint() as endpoint:
        assert warm.run(job.folder, "run", job.config, "-q", "--limit", "0", env=place(endpoint)).code == 0
        job.output.unlink()
        running = warm.start(job.folder, "run", job.config, "-q", stopped=True, env=place(endpoint))
        failing = ("-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={nth}+")
        strace = let_go_under_strace(running, tmp_path / "trace", *failing)
        ended = running.wait()
        end_of(strace)
        assert ended.code == 4, ended
        assert str(job.ledger) in ended.err
        assert not job.output.exists()
        completes(warm, job, endpoint)
