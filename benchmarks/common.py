"""What the benchmarks share: the server, the machine's description, a process measured, a table printed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
KEY = "sk-benchmark-0000"  # the server takes any key
PIECE = 50_000  # rows written at once
SERVER_CORE, CLIENT_CORE = "1", "0"  # so that neither takes time from the other


@dataclass(frozen=True, slots=True)
class Line:
    """One request in the server's books: when it came (seconds), how it was answered, its tokens."""

    at: float
    status: int
    tokens: int


class Server:
    """The loopback server, while it runs."""

    def __init__(self, port: int, certificate: Path | None = None) -> None:
        self._root = f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"
        self._certificate = certificate
        self.base_url = f"{self._root}/v1"

    def books(self) -> list[Line]:
        """Give every POST in the order it came."""
        lines = [line.split() for line in self._get("/books").splitlines()]
        return [Line(float(at), int(status), int(tokens)) for at, status, tokens in lines]

    def reset(self) -> None:
        """Forget the books."""
        self._get("/reset")

    def _get(self, path: str) -> str:
        trust = ssl.create_default_context(cafile=self._certificate) if self._certificate else None
        with urllib.request.urlopen(self._root + path, context=trust) as response:  # noqa: S310  # loopback
            return str(response.read(), "ascii")


@contextlib.contextmanager
def server(*options: str, certificate: Path | None = None) -> Iterator[Server]:
    """Run the server on its own core, with these options (see ``server.c``); over TLS with a certificate."""
    secure = ["--tls", str(certificate)] if certificate is not None else []
    program = _built(tls=certificate is not None)
    process = subprocess.Popen(
        [*pinned(SERVER_CORE), str(program), *options, *secure], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()), certificate)
    finally:
        process.kill()
        process.wait()


def _built(*, tls: bool) -> Path:
    """Compile the server unless that was done for this source; with TLS where it is asked for: it takes OpenSSL's headers."""
    source = HERE / "server.c"
    name = f"beatra-bench-server-{source.stat().st_mtime_ns}{'-tls' if tls else ''}"
    program = Path(tempfile.gettempdir()) / name
    if not program.exists():
        with_tls = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
        subprocess.run(["gcc", "-O2", "-o", str(program), str(source), "-lm", *with_tls], check=True)
    return program


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 and its key, in one file, with ``openssl``."""
    path = folder / "server.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    made = subprocess.run(
        ["openssl", "req", "-x509", *key, *name],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with path.open("ab") as file:
        file.write(made.stdout)
    return path


def pinned(core: str) -> list[str]:
    """Give the prefix of a command that keeps it on one core, where there are two and ``taskset``."""
    return ["taskset", "-c", core] if (os.cpu_count() or 1) > 1 and sys.platform == "linux" else []


@dataclass(frozen=True, slots=True)
class Measured:
    """A process that ended: what it printed last (JSON), seconds of wall and CPU time, peak memory in MB."""

    said: dict[str, Any]
    wall: float
    cpu: float
    peak_mb: float


def measure(
    command: Sequence[str], env: Mapping[str, str] | None = None, *, core: str = CLIENT_CORE
) -> Measured:
    """Run a command on one core and measure it, its threads included."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*pinned(core), *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "BEATRA_API_KEY": KEY, **(env or {})},
    )
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if process.returncode:
        print(f"! {' '.join(command)} left with {process.returncode}: {lines[-1:]}", file=sys.stderr)
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Measured(said, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def enrich(config: Path, *flags: str) -> list[str]:
    """Give the command that runs a job quietly and says how it went in JSON."""
    command = [sys.executable, "-P", "-m", "enrich.cli", "run", str(config)]
    return [*command, "--json", "--no-progress", "-q", *flags]


@contextlib.contextmanager
def builds(against: str | None) -> Iterator[dict[str, dict[str, str]]]:
    """Give the environments in which `enrich` is this build's, and that of another commit where one is named.

    Args:
        against: a commit, or what git takes for one. Its package is put before the installed one; what it depends on is
            what is installed now.
    """
    known = {"beatra-enrich": {"PYTHONPATH": str(HERE.parent)}}
    if against is None:
        yield known
        return
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["git", "archive", against, "enrich"], cwd=HERE.parent, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        yield {**known, f"beatra-enrich at {against}": {"PYTHONPATH": folder}}


@contextlib.contextmanager
def compiled(folder: Path) -> Iterator[None]:
    """Have every process that is started meanwhile keep its bytecode in a folder, whatever the environment says of it."""
    before = {name: os.environ.pop(name, None) for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ["PYTHONPYCACHEPREFIX"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def write_job(
    folder: Path, base_url: str, rows: int, *, first: int = 0, metrics_url: str | None = None, **limits: Any
) -> Path:
    """Write a Parquet file of distinct rows, numbered from ``first``, and a job that classifies them; gives its path."""
    import pyarrow as pa
    import yaml
    from pyarrow import parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    fields: list[pa.Field[Any]] = [pa.field("id", pa.int64()), pa.field("review", pa.string())]
    with pq.ParquetWriter(folder / "rows.parquet", pa.schema(fields)) as writer:
        # A piece at a time: a process's peak memory begins at that of the process that started it.
        for start in range(first, first + rows, PIECE):
            numbers = range(start, min(start + PIECE, first + rows))
            reviews = [
                f"review {n}: the coffee was fine, the chair was not, and the waiter smiled" for n in numbers
            ]
            writer.write_table(pa.table({"id": numbers, "review": reviews}))
    job = {
        "input": "rows.parquet",
        "output": "out.parquet",
        "ledger": "ledger.db",
        "endpoint": {"base_url": base_url} | ({"metrics_url": metrics_url} if metrics_url else {}),
        "steps": [{"name": "label", "prompt": "Classify this review: {{ review }}", "max_tokens": 8}],
        "limits": limits,
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(job), encoding="utf-8")
    return config


def middle(values: Sequence[float]) -> float:
    """Give the median."""
    return statistics.median(values)


def machine() -> str:
    """Describe the machine and the versions that matter, on one line."""
    import aiohttp
    import pyarrow as pa

    from enrich import __version__

    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"beatra-enrich {__version__}, aiohttp {aiohttp.__version__}, pyarrow {pa.__version__}, load {load:.1f}"
    )


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
