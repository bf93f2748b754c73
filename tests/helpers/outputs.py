"""What tests of outputs share: what is written, and read back."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.config import OutputConfig
from enrich.files.sink import open_sink

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ["parquet", "arrow", "csv", "tsv", "jsonl"]
MANIFEST = {"version": "1", "rows": 3, "counts": {"ok": 3}}


def output(path: Path, **options: Any) -> OutputConfig:
    """Configure an output."""
    return OutputConfig(path=str(path), **options)


def batch(*columns: pa.Array[Any], names: list[str] | None = None) -> pa.RecordBatch:
    """Make a batch, of columns c0, c1, … unless named."""
    return pa.record_batch(list(columns), names=names or [f"c{i}" for i in range(len(columns))])


def texts(*values: str | None) -> pa.RecordBatch:
    """Make a batch of one column of text."""
    return batch(pa.array(values, pa.string()), names=["text"])


def write(config: OutputConfig, *batches: pa.RecordBatch) -> None:
    """Write and commit a file."""
    with open_sink(config, batches[0].schema) as sink:
        for one in batches:
            sink.write(one)
        sink.commit(MANIFEST)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, with its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that prints a line once it is where the test wants it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
