"""What tests of partitioned data sets share: days of rows, and what comes of them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


ROWS = 4  # of a day


def day(number: int) -> str:
    """Name a partition."""
    return f"day=2026-11-{number:02}"


def write_day(folder: Path, number: int, rows: Iterable[int] = range(ROWS), name: str = "a") -> Path:
    """Write a file of a day."""
    path = folder / "data" / day(number) / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(rows), "t": [f"text {number}-{row}" for row in rows]}), path)
    past = time.time_ns() - 60_000_000_000
    os.utime(path, ns=(past, past))
    return path


def write_config(folder: Path, **config: Any) -> Path:
    """Write a job over the folder `data`."""
    step = {"name": "s", "prompt": "{{ day }}: {{ t }}", **config.pop("step", {})}
    document = {"input": "data/", "output": "out/", "steps": [step], **config}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def outputs(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Give each file of the output with its inode, time and bytes."""
    return {
        str(path.relative_to(folder / "out")): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            path.read_bytes(),
        )
        for path in sorted((folder / "out").rglob("*.*"))
        if path.is_file() and not path.name.startswith(".")
    }


def counted(**counts: int) -> dict[str, int]:
    """Give the summary's counts of partitions."""
    names = ("selected", "processed", "unchanged", "pending", "failed", "left_over")
    return {name: counts.get(name, 0) for name in names}
