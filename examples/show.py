# ruff: noqa: INP001  # a script, not a package
"""Show where an output is and how it begins: python examples/show.py OUT.parquet [ROWS]."""

from __future__ import annotations

import sys

import pandas as pd

WIDTH = 28  # characters of one cell


def main() -> None:
    """Print the first rows of a Parquet or CSV file."""
    path, rows = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    frame = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path)
    sys.stdout.write(f"\n{path}: {len(frame):,} rows, {len(frame.columns)} columns; the first {rows}:\n\n")
    sys.stdout.write(f"{frame.head(rows).T.to_string(max_colwidth=WIDTH)}\n")


if __name__ == "__main__":
    main()
