"""How fast rows go: bare aiohttp, `beatra-enrich run` with its durable ledger and output, peers.

    python benchmarks/work.py [A B C paced] [--tls] [--rows N] [--repeat N] [--against REF] [--peer PYTHON ...]

Work A: no delay, concurrency 128. Work B: lognormal latency, median 200 ms, sigma 0.5, concurrency 256. Work C: a
limit of 300 requests/s with a burst of 30 that no client is told, with and without ``Retry-After: 1``. Paced: 300
requests/s that the job tells, answers after 50 ms; bare aiohttp has 15 connections, which comes to the same.

``--against`` measures the build of another commit beside this one, run by run, on A, B and the paced work. ``--tls`` does
A, B and the paced work over TLS: all clients check the server's certificate, the handshakes are in the figures.

Ours is measured twice: `seconds` as the run's own summary gives them (ledger opened to output in place, as the others
are measured without their imports), and the whole process. ``--peer`` names Pythons that have the peers of
``peers.py``: ``openai[aiohttp]``, ``litellm``, ``async-batch-llm``; those a Python does not have are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bars import draw
from common import (
    HERE,
    Server,
    builds,
    enrich,
    machine,
    make_certificate,
    measure,
    middle,
    server,
    table,
    write_job,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WORKS: dict[str, dict[str, Any]] = {
    "A": {"rows": 20_000, "concurrency": 128, "server": []},
    "B": {"rows": 10_000, "concurrency": 256, "server": ["--median", "200", "--sigma", "0.5"]},
    "paced": {
        "rows": 3_000,
        "concurrency": 15,
        "server": ["--median", "50"],
        "limits": {"requests_per_minute": 18_000},
    },
    "C": {"rows": 6_000, "concurrency": 64, "server": ["--rate", "300", "--burst", "30"]},
}
PEERS = ("sdk-aiohttp", "sdk-httpx", "litellm", "async-batch-llm")
IDEAL_RATE = 300  # of work C, requests per second
LONGEST = 60  # seconds that a peer gets for work C


def startup_cpu(folder: Path, base_url: str, env: Mapping[str, str]) -> float:
    """Give the CPU seconds of a run of one row: what a process costs before its rows do."""
    folder.mkdir()
    return middle([measure(enrich(write_job(folder / f"{n}", base_url, 1)), env).cpu for n in range(3)])


def compare(
    name: str,
    rows: int,
    repeat: int,
    *,
    pythons: Sequence[str],
    against: str | None,
    plot: Path | None,
    tls: bool,
) -> None:
    """Print bare, ours, another build and the peers on one work, interleaved; medians."""
    work = WORKS[name]
    limits = work.get("limits", {"concurrency": work["concurrency"]})
    runs: dict[str, list[tuple[float, float]]] = {}
    whole: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        _trusted(Path(folder), tls=tls) as certificate,
        server(*work["server"], certificate=certificate) as endpoint,
        builds(against) as ours,
    ):
        start = {
            label: startup_cpu(Path(folder, f"one-{n}"), endpoint.base_url, env)
            for n, (label, env) in enumerate(ours.items())
        }
        arguments = [endpoint.base_url, str(rows), str(work["concurrency"])]
        for number in range(repeat):
            bare = measure([sys.executable, str(HERE / "bare.py"), *arguments])
            runs.setdefault("bare aiohttp", []).append((bare.said["seconds"], bare.said["cpu"]))
            for n, (label, env) in enumerate(ours.items()):
                config = write_job(Path(folder, f"{number}-{n}"), endpoint.base_url, rows, **limits)
                run = measure(enrich(config), env)
                assert run.said["ok"] == rows
                runs.setdefault(label, []).append((run.said["seconds"], run.cpu - start[label]))
                whole.setdefault(label, []).append(run.wall)
            for python, client in itertools.product(pythons, PEERS) if number == 0 else ():
                said = measure([python, str(HERE / "peers.py"), client, *arguments]).said
                if said:
                    runs.setdefault(said["client"], []).append((said["seconds"], said["cpu"]))
    over = " over TLS" if tls else ""
    print(
        f"\nWork {name}{over}: {rows:,} rows, concurrency {work['concurrency']}, {repeat} interleaved runs, medians\n"
    )
    speeds = _speeds(runs, rows, against)
    if plot is not None:
        draw(plot, f"work {name}: rows/s, bare aiohttp = 1", speeds, ours="beatra-enrich")
    for label, seconds in whole.items():
        print(
            f"\nwhole process of {label}: {middle(seconds):.2f} s; a run of one row has {start[label]:.2f} s of CPU"
        )


@contextlib.contextmanager
def _trusted(folder: Path, *, tls: bool) -> Iterator[Path | None]:
    """Give a certificate that every process started meanwhile trusts; None without TLS."""
    if not tls:
        yield None
        return
    certificate = make_certificate(folder)
    os.environ["SSL_CERT_FILE"] = str(certificate.absolute())
    try:
        yield certificate
    finally:
        del os.environ["SSL_CERT_FILE"]


def _speeds(
    runs: Mapping[str, Sequence[tuple[float, float]]], rows: int, against: str | None
) -> dict[str, float]:
    """Print the table of runs, each seconds and CPU seconds; gives rows/s of each client over bare's."""
    other = next((label for label in runs if against is not None and label.endswith(f" {against}")), None)
    lines: list[list[str]] = []
    speeds: dict[str, float] = {}
    for label, values in runs.items():
        speeds[label] = _ratio([(v[0], b[0]) for v, b in zip(values, runs["bare aiohttp"], strict=False)])
        line = [
            label,
            f"{rows / middle([seconds for seconds, _ in values]):,.0f}",
            f"{speeds[label]:.2f}",
            f"{middle([cpu for _, cpu in values]) / rows * 1e3:.3f}",
            f"{_ratio([(b[1], v[1]) for v, b in zip(values, runs['bare aiohttp'], strict=False)]):.2f}",
        ]
        if other is not None:
            line.append(f"{_ratio([(o[1], v[1]) for v, o in zip(values, runs[other], strict=False)]):.2f}")
        lines.append(line)
    head = ["client", "rows/s", "÷ bare", "CPU ms/row", "÷ bare"]
    table([*head, f"CPU ÷ {against}"] if other is not None else head, lines)
    return speeds


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Give the median of second ÷ first."""
    return middle([two / one for one, two in pairs])


def unknown_limit(rows: int, concurrency: int, pythons: Sequence[str]) -> None:
    """Print how work C goes, for the peers where the server says 429 alone."""
    lines: list[list[object]] = []
    for python, client in itertools.product(pythons, PEERS):
        with server(*WORKS["C"]["server"]) as endpoint:
            arguments = [client, endpoint.base_url, str(rows), str(concurrency)]
            peer = measure(["timeout", str(LONGEST), python, str(HERE / "peers.py"), *arguments])
            if peer.said:
                lines.append([peer.said["client"], *_went(rows, peer.said, endpoint)])
            elif peer.wall >= LONGEST:
                lines.append([client, f"not done after {LONGEST} s", "", "", ""])
    for label, options in {
        "429 alone": [],
        "429 alone, answers after 200 ms": ["--median", "200", "--sigma", "0.3"],
        "Retry-After: 1": ["--retry-after", "1"],
    }.items():
        workers = 256 if "--median" in options else concurrency
        with (
            server(*WORKS["C"]["server"], *options) as endpoint,
            tempfile.TemporaryDirectory(dir=".") as folder,
        ):
            config = write_job(Path(folder), endpoint.base_url, rows, concurrency=workers)
            said = measure(enrich(config)).said
            lines.append([f"beatra-enrich; {label}", *_went(rows, said, endpoint)])
    print(f"\nWork C: {rows:,} rows, {IDEAL_RATE} requests/s and a burst of 30, not told\n")
    table(["client; server says", "took", "ideal ÷ took", "rejected", "rows lost"], lines)


def _went(rows: int, said: dict[str, Any], endpoint: Server) -> list[object]:
    """Say how a client fared under the limit, by the server's books."""
    books = endpoint.books()
    rejected = sum(line.status == 429 for line in books)
    share = f"{rows / IDEAL_RATE / said['seconds']:.3f}"
    return [f"{said['seconds']:.1f} s", share, f"{100 * rejected / len(books):.1f} %", rows - said["ok"]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", default=["A", "B", "C", "paced"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--tls", action="store_true", help="works A, B and paced over TLS")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--peer", nargs="+", default=[], metavar="PYTHON", help="one that has some of the peers"
    )
    parser.add_argument("--against", metavar="REF", help="a commit whose build is measured beside this one")
    parser.add_argument("--plot", type=Path, help="where to draw rows/s of work A or B, as an SVG")
    options = parser.parse_args()
    print(machine())
    for name in options.works:
        rows = options.rows or WORKS[name]["rows"]
        if name == "C":
            unknown_limit(rows, WORKS["C"]["concurrency"], options.peer)
        else:
            compare(
                name,
                rows,
                options.repeat,
                pythons=options.peer,
                against=options.against,
                plot=options.plot,
                tls=options.tls,
            )


if __name__ == "__main__":
    main()
