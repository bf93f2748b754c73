"""Limits that are told, as the server's books see them: used to what share, exceeded how often.

python benchmarks/pacing.py [--seconds 30]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from common import Line, enrich, machine, measure, server, table, write_job

if TYPE_CHECKING:
    from collections.abc import Sequence


def busiest(books: Sequence[Line], seconds: float, *, tokens: bool = False) -> int:
    """Give the most requests, or tokens, in any span of so many seconds."""
    most = held = start = 0
    for line in books:
        held += line.tokens if tokens else 1
        while books[start].at <= line.at - seconds:
            held -= books[start].tokens if tokens else 1
            start += 1
        most = max(most, held)
    return most


def run(rows: int, limits: dict[str, Any], *options: str) -> list[Line]:
    """Run a job under these limits and give the server's books."""
    with server(*options) as endpoint, tempfile.TemporaryDirectory(dir=".") as folder:
        config = write_job(Path(folder), endpoint.base_url, rows, **limits)
        job = yaml.safe_load(config.read_text(encoding="utf-8"))
        job["steps"][0]["max_tokens"] = 400
        config.write_text(yaml.safe_dump(job), encoding="utf-8")
        said = measure(enrich(config)).said
        assert said["ok"] == rows, said
        return endpoint.books()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="about how long each part takes")
    seconds = parser.parse_args().seconds
    print(machine(), "\n")
    lines: list[list[object]] = []

    told = 300 * 0.98
    books = run(
        int(told * seconds),
        {"concurrency": 128, "requests_per_minute": told * 60},
        "--rate",
        "300",
        "--burst",
        "30",
    )
    used = (len(books) - 1) / (books[-1].at - books[0].at) / told
    refused = sum(line.status == 429 for line in books)
    lines.append(["294/s told, server lets 300/s", f"{used:.3f}", f"{refused} × 429"])

    windows = [{"requests": 10, "seconds": 1}, {"requests": 50, "seconds": 10}]
    books = run(int(5 * seconds), {"concurrency": 32, "windows": windows}, "--median", "50", "--sigma", "0.5")
    used = (len(books) - 1) / (books[-1].at - books[0].at) / 5
    most = f"{busiest(books, 1)} of 10 in 1 s, {busiest(books, 10)} of 50 in 10 s"
    lines.append(["10 in 1 s and 50 in 10 s at once", f"{used:.3f}", most])

    windows = [{"requests": 10, "seconds": 1}]
    books = run(
        int(10 * seconds), {"concurrency": 32, "windows": windows}, "--median", "50", "--sigma", "0.5"
    )
    used = (len(books) - 1) / (books[-1].at - books[0].at) / 10
    lines.append(["10 in 1 s", f"{used:.3f}", f"{busiest(books, 1)} of 10 in 1 s"])

    limit, span = 100_000, 10
    limits = {"concurrency": 64, "adaptive": False, "windows": [{"tokens": limit, "seconds": span}]}
    books = run(
        int(limit / span * seconds / 170), limits, "--median", "200", "--sigma", "0.5", "--length", "80:0.8"
    )
    used = sum(line.tokens for line in books) / (books[-1].at - books[0].at) / (limit / span)
    most = f"{busiest(books, span, tokens=True):,} of {limit:,} tokens in {span} s"
    lines.append(["100,000 tokens in 10 s, answers of unequal length", f"{used:.3f}", most])

    table(["limit", "share used", "busiest span in the server's books"], lines)


if __name__ == "__main__":
    main()
