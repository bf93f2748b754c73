"""What the pandas accessor costs over `enrich_batches` on the same rows, all of them sent, then all found.

    python benchmarks/accessor.py [--rows 100000] [--times 3]

CPU time of the call alone, imports left out; the faces take turns, medians are compared. The promise: at most a tenth
more per row.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
from common import KEY, machine, measure, middle, server, table

PROMPT = "Classify this review: {{ review }}"
BATCH_ROWS = 8192  # as the accessor cuts them


def texts(rows: int) -> list[str]:
    """Give so many distinct texts."""
    return [f"review {n}: the coffee was fine, the chair was not, and the waiter smiled" for n in range(rows)]


def door(rows: int, base_url: str, ledger: str) -> float:
    """Take rows through `enrich_batches`; gives CPU seconds."""
    import enrich

    batches = pa.table({"review": texts(rows)}).to_batches(max_chunksize=BATCH_ROWS)
    config = {
        "endpoint": {"base_url": base_url},
        "ledger": ledger,
        "limits": {"concurrency": 128},
        "steps": [{"name": "answer", "prompt": PROMPT}],
    }
    began = time.process_time()
    answered = sum(batch.num_rows for batch in enrich.enrich_batches(batches, config, api_key=KEY))
    assert answered == rows
    return time.process_time() - began


def accessor(rows: int, base_url: str, ledger: str) -> float:
    """Take rows through `df.beatra.complete`; gives CPU seconds."""
    from enrich.pandas import beatra

    frame = pd.DataFrame({"review": texts(rows)})
    began = time.process_time()
    out = beatra(frame).complete(PROMPT, base_url=base_url, ledger=ledger, concurrency=128, api_key=KEY)
    assert (out["answer_status"] == "ok").all()
    return time.process_time() - began


FACES = {"enrich_batches": door, "df.beatra.complete": accessor}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--face", choices=FACES, help=argparse.SUPPRESS)  # what a measured process is told
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--ledger", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.face:
        print(json.dumps({"cpu": FACES[given.face](given.rows, given.url, given.ledger)}))
        return
    print(machine(), "\n")
    seconds: dict[tuple[str, str], list[float]] = {}
    with server() as endpoint:
        for _ in range(given.times):
            for face in FACES:
                with tempfile.TemporaryDirectory(dir=".") as folder:
                    ledger = str(Path(folder) / "ledger.db")
                    command = [sys.executable, __file__, "--rows", str(given.rows), "--face", face]
                    for kind in ("sent", "found in the ledger"):
                        run = measure([*command, "--url", endpoint.base_url, "--ledger", ledger])
                        seconds.setdefault((kind, face), []).append(run.said["cpu"])
    per_row = {key: middle(values) / given.rows * 1e6 for key, values in seconds.items()}
    lines = [
        [
            kind,
            *(f"{per_row[kind, face]:.1f}" for face in FACES),
            f"{per_row[kind, 'df.beatra.complete'] / per_row[kind, 'enrich_batches']:.3f}",
        ]
        for kind in ("sent", "found in the ledger")
    ]
    table([f"{given.rows:,} rows, CPU µs/row", *FACES, "ratio"], lines)


if __name__ == "__main__":
    main()
