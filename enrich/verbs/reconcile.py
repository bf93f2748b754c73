"""Hold a provider's bill to the ledger: every line of it and every answer here is matched, or told of.

A line is matched by the response's request id, else by the idempotency key, else by time, model and tokens; by the last
only where no id speaks against it. Each answer is matched once.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from enrich.base.version import __version__
from enrich.base.words import counted
from enrich.config import OutputConfig, Place, refuse_target
from enrich.files.sink import destination, open_sink
from enrich.ledger.opening import open_ledger
from enrich.verbs.bill import AMOUNTS, read_bill
from enrich.verbs.bill_matching import Known, known_request, match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from enrich.config import Config
    from enrich.verbs.bill import Charge

Standing = Literal["matched", "differing", "only_provider", "only_here"]
STANDINGS: tuple[Standing, ...] = ("matched", "differing", "only_provider", "only_here")
WITHIN = 120.0  # seconds that the clocks of both sides, and an answer's time, may lie apart
SAME = 1e-6  # by which an amount may differ, of itself: what rounding leaves
SHOWN = 20  # of each kind of finding, for people
ROWS_AT_ONCE = 8_192
_COLUMNS: list[tuple[str, pa.DataType]] = [
    *((name, pa.string()) for name in ("standing", "by", "why")),
    ("line", pa.int64()),
    *((name, pa.string()) for name in ("key", "request_id", "model")),
    ("at", pa.timestamp("us", tz="UTC")),
    *((f"{side}_{name}", pa.float64()) for name in AMOUNTS for side in ("provider", "here")),
]
LINES = pa.schema(_COLUMNS)


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one line of the bill, or of one answer that is not on it.

    Attributes:
        by: what it was matched by.
        why: what differs, or why it stands alone.
    """

    standing: Standing
    by: str
    why: str
    charge: Charge | None
    known: Known | None

    @property
    def at(self) -> float | None:
        """Give its time: the bill's own where it names one."""
        if self.charge is not None and self.charge.at is not None:
            return self.charge.at
        return self.known.at if self.known is not None else None

    @property
    def model(self) -> str:
        """Give its model: the bill's own where it names one."""
        if self.charge is not None and self.charge.model is not None:
            return self.charge.model
        return self.known.model if self.known is not None else ""

    def row(self) -> dict[str, Any]:
        """Give it as a line of the table."""
        charge, known, at = self.charge, self.known, self.at
        given, ours = (charge.amounts if charge else {}), (known.amounts if known else {})
        return {
            "standing": self.standing,
            "by": self.by or None,
            "why": self.why or None,
            "line": charge.line if charge else None,
            "key": known.key if known else charge.key if charge else None,
            "request_id": (charge.request_id if charge else None) or (known.request_id if known else None),
            "model": self.model or None,
            "at": None if at is None else datetime.fromtimestamp(at, UTC),
            **{f"provider_{name}": given.get(name) for name in AMOUNTS},
            **{f"here_{name}": ours.get(name) for name in AMOUNTS},
        }


@dataclass(slots=True)
class Sums:
    """What both sides name, added up.

    Attributes:
        lines: of the bill, and answers here.
    """

    lines: list[int] = field(default_factory=lambda: [0, 0])
    provider: Counter[str] = field(default_factory=Counter)
    here: Counter[str] = field(default_factory=Counter)

    def add(self, line: Line) -> None:
        """Add one line."""
        if line.charge is not None:
            self.lines[0] += 1
            self.provider.update(line.charge.amounts)
        if line.known is not None and line.known.answered:
            self.lines[1] += 1
            self.here.update(line.known.amounts)

    def to_dict(self) -> dict[str, Any]:
        """Give the sums as plain JSON."""
        names = [name for name in AMOUNTS if name in self.provider or name in self.here]
        return {
            "provider": {"lines": self.lines[0], **{n: _rounded(self.provider[n]) for n in names}},
            "here": {"lines": self.lines[1], **{n: _rounded(self.here[n]) for n in names}},
            "difference": {
                "lines": self.lines[0] - self.lines[1],
                **{n: _rounded(self.provider[n] - self.here[n]) for n in names},
            },
        }


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How a bill and a ledger agree.

    Attributes:
        columns: of the bill, for what they were read as.
        lines: all of them: those of the bill in its order, then what is only here.
        aside: answers that were not looked at, for they are not of the time that was asked for.
    """

    columns: dict[str, str]
    lines: tuple[Line, ...]
    aside: int

    @property
    def agrees(self) -> bool:
        """Say whether both sides are the same."""
        return all(line.standing == "matched" for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        counts = Counter(line.standing for line in self.lines)
        total = Sums()
        hours: defaultdict[tuple[str | None, str], Sums] = defaultdict(Sums)
        for line in self.lines:
            total.add(line)
            hours[_hour(line.at), line.model].add(line)
        return {
            **{standing: counts[standing] for standing in STANDINGS},
            "by": dict(Counter(line.by for line in self.lines if line.by)),
            "aside": self.aside,
            "columns": self.columns,
            "sums": total.to_dict(),
            "hours": [
                {"hour": hour, "model": model, **sums.to_dict()}
                for (hour, model), sums in sorted(
                    hours.items(), key=lambda item: (item[0][0] or "", item[0][1])
                )
            ],
            "findings": [_plain(line.row()) for line in self.lines if line.standing != "matched"],
        }

    def text(self) -> Iterator[str]:
        """Say it for people."""
        said = self.to_dict()
        yield f"matched        {said['matched']:,}" + _by(said["by"])
        yield f"differing      {said['differing']:,}"
        yield f"only provider  {said['only_provider']:,}"
        yield f"only here      {said['only_here']:,}"
        if self.aside:
            yield f"(left aside: {counted(self.aside, 'answer')} of another time)"
        yield from _table(said["sums"], said["hours"])
        for standing in STANDINGS[1:]:
            found = [line for line in self.lines if line.standing == standing]
            yield from (f"{standing.replace('_', ' '):14} {_said(line)}" for line in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"{'':14} … and {len(found) - SHOWN:,} more; --out writes them all"


async def reconcile(
    location: str,
    bill: str,
    told: Mapping[str, str],
    *,
    since: float = -math.inf,
    until: float = math.inf,
    within: float = WITHIN,
) -> Reconciliation:
    """Match a bill's lines with a ledger's requests; nothing is changed.

    Args:
        location: of the ledger.
        bill: the provider's table.
        told: its columns, see `read_bill`.
        since: only answers here from then on count as missing on the bill, in seconds since the epoch.
        until: likewise, before then.
        within: seconds by which both sides' times may differ where time is what a line is matched by.

    Raises:
        InputError, ConfigError: the bill cannot be read.
        LedgerError: the ledger cannot.
    """
    columns, charges = await asyncio.to_thread(read_bill, bill, told)
    ledger = await open_ledger(location, read_only=True, make=False)
    try:
        known = [known_request(entry) async for entries in ledger.scan() for entry in entries]
    finally:
        await ledger.close()
    matched = await asyncio.to_thread(lambda: list(_lines(list(charges), known, within)))
    missing = [one for one in known if one.answered and not one.taken]
    inside = [one for one in missing if since <= one.at < until]
    alone = [Line("only_here", "", "not on the bill", None, one) for one in inside]
    return Reconciliation(columns, (*matched, *alone), len(missing) - len(inside))


def write_lines(found: Reconciliation, out: str, location: str, config: Config | None) -> int:
    """Write every line to a file; its suffix says the format. Gives how many there are.

    Raises:
        OutputError: it cannot be written there.
    """
    output = OutputConfig(path=destination(out))
    refuse_target(Place("the reconciliation", output.path), config, location)
    with open_sink(output, LINES) as sink:
        for start in range(0, len(found.lines), ROWS_AT_ONCE):
            rows = [line.row() for line in found.lines[start : start + ROWS_AT_ONCE]]
            sink.write(pa.RecordBatch.from_pylist(rows, schema=LINES))
        sink.commit({"version": __version__, "lines": len(found.lines)})
    return len(found.lines)


def _lines(charges: list[Charge], known: list[Known], within: float) -> Iterator[Line]:
    """Say what became of every line of the bill, in its order."""
    found, twins = match(charges, known, within)
    for charge in charges:
        if charge.line in found:
            one, by = found[charge.line]
            why = "; ".join(_differences(charge, one))
            yield Line("differing" if why else "matched", by, why, charge, one)
        else:
            twin = twins.get(charge.line)
            why = (
                "no such request here" if twin is None else f"another line has the request {twin.key} already"
            )
            yield Line("only_provider", "", why, charge, None)


def _differences(charge: Charge, known: Known) -> Iterator[str]:
    if not known.answered:
        yield f"no answer here ({known.standing})"
        return
    if charge.model is not None and charge.model != known.model:
        yield f"model {charge.model}, here {known.model}"
    for name in AMOUNTS:
        theirs, ours = charge.amounts.get(name), known.amounts.get(name)
        if theirs is None or ours is None:
            continue
        if not math.isclose(theirs, ours, rel_tol=SAME, abs_tol=SAME * SAME):
            yield f"{name} {theirs:,.9g}, here {ours:,.9g}"


# --- in words ----------------------------------------------------------------------------------------------


def _rounded(amount: float) -> float:
    found = round(amount, 9)
    return int(found) if found == int(found) else found


def _hour(at: float | None) -> str | None:
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:00Z}"


def _by(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{count:,} by {name.replace('_', ' ')}" for name, count in counts.items())
    return f"  ({told}, differing ones included)" if told else ""


def _table(total: dict[str, Any], hours: Iterable[dict[str, Any]]) -> Iterator[str]:
    names = [
        name for name in total["provider"] if name in ("lines", "total_tokens", "credits", "credits_usd")
    ]
    yield f"{'hour (UTC)':18} {'model':20} " + " ".join(f"{name + ' (here)':>28}" for name in names)
    for one in [*hours, {"hour": "all", "model": "", **total}]:
        figures = (f"{one['provider'].get(n, 0):,.9g} ({one['here'].get(n, 0):,.9g})" for n in names)
        yield f"{one['hour'] or '–':18} {one['model'][:20]:20} " + " ".join(f"{text:>28}" for text in figures)


def _said(line: Line) -> str:
    row = line.row()
    where = f"line {row['line']:,}" if row["line"] is not None else f"key {row['key']}"
    at = f" {row['at']:%Y-%m-%d %H:%M:%S}" if row["at"] is not None else ""
    return f"{where}{at} {row['request_id'] or row['key'] or ''} {row['model'] or ''}: {line.why}".rstrip()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    at = row["at"]
    return {**{name: value for name, value in row.items() if value is not None}, "at": at and at.isoformat()}
