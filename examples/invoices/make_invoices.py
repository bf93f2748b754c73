# ruff: noqa: INP001  # a script beside its data, not a package
"""Make invoices.parquet, the input of this example: 24 invoices as text, and two pages that were not scanned."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GOODS = [("desk lamp", "39.90"), ("oak shelf", "129.00"), ("hook, brass", "4.25"), ("Stuhl „Anna“", "89.50")]
CURRENCIES = ["EUR", "USD", "GBP"]
SCHEMA = pa.schema(
    [
        ("page", pa.int32()),
        ("scanned_at", pa.timestamp("ms", tz="Europe/Zurich")),
        ("paid", pa.decimal128(12, 2)),
        ("document", pa.large_string()),
    ]
)


def invoice(number: int, chance: random.Random) -> tuple[str, Decimal]:
    """Write one invoice; gives its text and its total."""
    lines, total = [], Decimal(0)
    for name, price in chance.sample(GOODS, chance.randint(1, len(GOODS))):
        count = chance.randint(1, 12)
        total += count * Decimal(price)
        lines.append(f"{count} x {name} @ {price}")
    issued = date(2026, 1, 5) + timedelta(days=9 * number)
    head = f"INVOICE R-{2026_000 + number}\nDate: {issued:%d %B %Y}\n\n"
    return head + "\n".join(lines) + f"\n\nTotal due: {chance.choice(CURRENCIES)} {total}\n", total


def main() -> None:
    """Write the file, the same each time."""
    chance = random.Random(26)  # noqa: S311  # made-up invoices
    rows = []
    for page in range(26):
        text, total = (None, None) if page in (7, 19) else invoice(page, chance)
        scanned = datetime(2026, 9, 1, 8, tzinfo=UTC) + timedelta(minutes=page)
        rows.append({"page": page, "scanned_at": scanned, "paid": total, "document": text})
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, Path(__file__).with_name("invoices.parquet"))


if __name__ == "__main__":
    main()
