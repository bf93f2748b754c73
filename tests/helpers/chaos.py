"""A small job that is killed, traced and checked against the endpoint's books."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.endpoint import Seen
    from tests.helpers.warm import Running

CHANGES = "write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,rename,unlink,ftruncate,mkdir,flock"
PASSING = ("s_source", "s_latency_ms", "s_request_id", "s_attempts")  # what a resumed run may show otherwise
_numbers = itertools.count()


@dataclass(frozen=True)
class Job:
    """A job of one step `s` over texts that no other job has."""

    folder: Path
    texts: list[str]
    config: Path

    @property
    def output(self) -> Path:
        """The file it makes."""
        return self.folder / "out.parquet"

    @property
    def ledger(self) -> Path:
        """Its ledger."""
        return self.folder / ".beatra" / "ledger.db"

    def table(self) -> pa.Table:
        """Read the output."""
        return pq.read_table(self.output)


def make_job(folder: Path, rows: int, **config: Any) -> Job:
    """Write a job over so many distinct rows into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f"text {next(_numbers)} of row {row}" for row in range(rows)]
    pq.write_table(pa.table({"n": list(range(rows)), "t": texts}), folder / "in.parquet")
    document = {
        "input": "in.parquet",
        "output": "out.parquet",
        "steps": [{"name": "s", "prompt": "{{ t }}"}],
        "retry": {"max_wait": 0.02},
        **config,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return Job(folder, texts, path)


def place(endpoint: BookedEndpoint) -> dict[str, str]:
    """Give the environment that leads to an endpoint."""
    return {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}


def violations(job: Job, endpoint: BookedEndpoint) -> list[str]:
    """Hold the output of a finished job to the books: what breaks the promise, a line each."""
    bodies = {text: text.encode() for text in job.texts}
    found = []
    for text, needle in bodies.items():
        charges = [charge for charge in endpoint.charges if b'"' + needle + b'"' in charge.body]
        if len(charges) != 1:
            found.append(f"{text!r} was charged {len(charges)} times")
        keys = {seen.key for seen in endpoint.posts if b'"' + needle + b'"' in seen.raw}
        if len(keys) != 1:
            found.append(f"{text!r} was sent under {len(keys)} keys")
    if endpoint.conflicts:
        found.append(f"{endpoint.conflicts} keys came with another body")
    return found + _unlike_an_undisturbed_run(job, endpoint)


def _unlike_an_undisturbed_run(job: Job, endpoint: BookedEndpoint) -> list[str]:
    table = job.table()
    rows = table.drop_columns([name for name in PASSING if name in table.schema.names]).to_pylist()
    charges = {charge.body: charge for charge in endpoint.charges}
    by_text = {
        text: charge for text in job.texts for body, charge in charges.items() if f'"{text}"'.encode() in body
    }
    expected = [
        {
            "n": number,
            "t": text,
            "s": answer_to(text),
            "s_status": "ok",
            "s_error": None,
            "s_model": "served-1",
            "s_finish_reason": "stop",
            "s_prompt_tokens": by_text[text].prompt_tokens,
            "s_completion_tokens": by_text[text].completion_tokens,
            "s_total_tokens": by_text[text].prompt_tokens + by_text[text].completion_tokens,
            "s_credits": by_text[text].credits,
            "s_idempotency_key": by_text[text].key,
        }
        for number, text in enumerate(job.texts)
        if text in by_text
    ]
    if len(rows) != len(job.texts):
        return [f"{len(rows)} rows came of {len(job.texts)}"]
    return [
        f"row {i}: {row} is not {want}"
        for i, (row, want) in enumerate(zip(rows, expected, strict=False))
        if row != want
    ]


def answers_kept(ledger: Path) -> int:
    """Count the answers in a ledger as it lies on the disk, without touching it."""
    if not ledger.exists():
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for path in ledger.parent.glob(f"{ledger.name}*"):
            if not path.name.endswith(".reserve"):
                shutil.copy(path, folder)
        connection = sqlite3.connect(Path(folder) / ledger.name)
        try:
            (count,) = connection.execute("SELECT count(*) FROM answer").fetchone()
        except sqlite3.OperationalError:  # killed before there were tables
            return 0
        finally:
            connection.close()
    return int(count)


class Mischief:
    """A script that hangs up on requests it has charged for, and kills the client in the middle of things.

    Args:
        drop: of every so many requests, the first attempt of one is charged and then cut off; 0 drops none.
    """

    def __init__(self, endpoint: BookedEndpoint, drop: int = 0) -> None:
        self._endpoint = endpoint
        self._drop = drop
        self._seen: dict[str, int] = {}
        self._victim: tuple[int, int] | None = None

    def kill(self, pid: int, charges: int) -> None:
        """Kill a process with SIGKILL once so many further completions were charged."""
        self._victim = (pid, len(self._endpoint.charges) + charges)

    def __call__(self, seen: Seen) -> Raw | None:
        """Decide on one request."""
        if seen.method != "POST":
            return None
        if self._victim is not None and len(self._endpoint.charges) >= self._victim[1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._victim[0], signal.SIGKILL)
            self._victim = None
        if not self._drop or seen.key in self._seen:
            return None
        self._seen[seen.key] = len(self._seen)
        dropped = self._seen[seen.key] % self._drop == 0
        return (
            Raw(b'{"id": "cut off"', headers={"Content-Length": "500"}, cut=4, charge=True)
            if dropped
            else None
        )


# --- strace ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One system call of a trace, in the order in which they ended (or began, where they did not end)."""

    thread: int
    name: str
    text: str
    ended: bool


def tracing_refused() -> str | None:
    """Say why processes cannot be traced here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-e", "trace=none", "true"], capture_output=True, text=True, timeout=20, check=False
    )
    return None if done.returncode == 0 else f"ptrace is not allowed: {done.stderr.strip()}"


def let_go_under_strace(running: Running, log: Path, *options: str) -> subprocess.Popen[str]:
    """Attach strace to a process that waits for SIGCONT, then let it run."""
    strace = subprocess.Popen(
        ["strace", "-f", "-y", "-p", str(running.pid), "-o", str(log), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr is not None
    line = strace.stderr.readline()
    assert "attached" in line, line
    running.signal(signal.SIGCONT)
    return strace


def end_of(strace: subprocess.Popen[str]) -> None:
    """Wait until a strace has written its log."""
    strace.communicate(timeout=60)


def read_trace(log: Path) -> Iterator[Call]:
    """Read a log of ``strace -f``; a call in two parts is given twice, the first time as not ended."""
    began: dict[int, str] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if match := re.match(r"(\w+)\(", rest):
            ended = "<unfinished ...>" not in rest
            if not ended:
                began[int(thread)] = rest
            yield Call(int(thread), match[1], rest, ended)
        elif (match := re.match(r"<\.\.\. (\w+) resumed>", rest)) and int(thread) in began:
            yield Call(int(thread), match[1], began.pop(int(thread)) + rest, ended=True)


def unheralded(log: Path) -> list[str]:
    """Find requests whose first byte left before their intent was synced to the ledger's log; needs ``-x``."""
    written: list[bytes] = []  # to the ledger's files, not yet synced
    durable = b""
    found = []
    for call in read_trace(log):
        if call.name in ("pwrite64", "write") and "ledger.db" in call.text and call.ended:
            written.append(_bytes(call.text))
        elif call.name in ("fdatasync", "fsync") and "ledger.db-wal" in call.text and call.ended:
            durable += b"".join(written)
            written.clear()
        elif call.name in ("write", "sendto", "sendmsg", "writev"):
            sent = _bytes(call.text)
            match = re.search(rb"[Ii]dempotency-[Kk]ey: ([0-9a-f-]{36})", sent)
            if sent.startswith(b"POST") and match and uuid.UUID(match[1].decode()).bytes not in durable:
                found.append(f"{match[1].decode()} was sent before its intent was on disk")
    return found


def _bytes(text: str) -> bytes:
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return b"".join(part.encode().decode("unicode_escape").encode("latin-1") for part in parts)


def posts_in(log: Path) -> int:
    """Count the requests in a trace made with ``-x``."""
    sends = (call for call in read_trace(log) if call.name in ("write", "sendto", "sendmsg", "writev"))
    return sum(_bytes(call.text).startswith(b"POST") for call in sends)
