"""What a ledger's answers cost, by day, tag, model, step or configuration: `ledger spend`."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args
from zoneinfo import ZoneInfo

import pyarrow as pa

from enrich.base.version import __version__
from enrich.config import OutputConfig, Place, refuse_target
from enrich.files.sink import destination, open_sink
from enrich.ledger.opening import open_ledger
from enrich.pace.prices import usd_of
from enrich.records import AMOUNTS, Usage
from enrich.wire.completion import completion_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.config import Config, ModelPrices
    from enrich.ledger.protocol import Entry, RunInfo

By = Literal["day", "tag", "model", "step", "config"]
WAYS: tuple[By, ...] = get_args(By)
UNKNOWN = ""  # the step of what an earlier release asked, the tag of a job that has none
SHOWN = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "credits", "usd")


@dataclass(slots=True)
class Spent:
    """What some answers cost.

    Attributes:
        requests: that have an answer.
        counts: tokens, by name.
        charges: credits and US dollars, by name, an amount for each answer, so that sums do not depend on the order.
    """

    requests: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(AMOUNTS[:5], 0))
    charges: dict[str, list[float]] = field(
        default_factory=lambda: {"credits": [], "credits_usd": [], "usd": []}
    )

    def add(self, usage: Usage, usd: float | None) -> None:
        """Add one answer."""
        self.requests += 1
        for name in self.counts:
            self.counts[name] += getattr(usage, name) or 0
        for name, amount in (("credits", usage.credits), ("credits_usd", usage.credits_usd), ("usd", usd)):
            if amount:
                self.charges[name].append(amount)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        sums = {name: round(math.fsum(amounts), 12) for name, amounts in self.charges.items()}
        return {"requests": self.requests, **self.counts, **sums}


@dataclass(frozen=True, slots=True)
class Spending:
    """What a ledger's answers cost.

    Attributes:
        by: what the lines are told apart by.
        lines: what stands for each of these, and the figures; in the order of the former.
        total: the figures of all.
    """

    by: tuple[By, ...]
    lines: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]
    total: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """Give the lines as those of a table."""
        return [{**dict(zip(self.by, names, strict=True)), **figures} for names, figures in self.lines]

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {"by": list(self.by), "spend": self.rows(), "total": self.total}

    def text(self) -> Iterator[str]:
        """Say it for people."""
        heads = [*self.by, *SHOWN]
        table = [[*names, *(_shown(figures[name]) for name in SHOWN)] for names, figures in self.lines]
        total = [
            *("all", *[""] * len(self.by))[: len(self.by)],
            *(_shown(self.total[name]) for name in SHOWN),
        ]
        cells = [heads, *([text or "–" for text in line] for line in table), total]
        widths = [max(len(line[place]) for line in cells) for place in range(len(heads))]
        for line in cells:
            left = [text.ljust(width) for text, width in zip(line[: len(self.by)], widths, strict=False)]
            right = [
                text.rjust(width)
                for text, width in zip(line[len(self.by) :], widths[len(self.by) :], strict=True)
            ]
            yield "  ".join((*left, *right)).rstrip()


def _shown(amount: float) -> str:
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.6g}"


async def spending_of(
    location: str, by: Sequence[By], *, zone: str = "UTC", prices: Mapping[str, ModelPrices] | None = None
) -> Spending:
    """Add up what a ledger's answers cost.

    Args:
        location: of the ledger.
        by: what to tell apart: the day an answer came, the tags of the job's budgets, the model that served it, the step
            that asked it, the configuration.
        zone: in which days begin.
        prices: told ones, by which money is counted where they name the model.

    Raises:
        LedgerError: it cannot be read.
    """
    ledger = await open_ledger(location, read_only=True, make=False)
    groups: defaultdict[tuple[str, ...], Spent] = defaultdict(Spent)
    total = Spent()
    try:
        runs = {run.number: run for run in await ledger.runs()}
        namer = _Namer(runs, ZoneInfo(zone))
        async for entries in ledger.scan():
            for entry in entries:
                if entry.record.reply is None:
                    continue
                completion = completion_of(entry.record)
                served = completion.model if completion is not None else None
                usage = completion.usage if completion is not None else Usage()
                usd = usd_of(usage, prices or {}, served, entry.ask.model)
                names = tuple(namer.name(way, entry, served) for way in by)
                for spent in (groups[names], total):
                    spent.add(usage, usd)
    finally:
        await ledger.close()
    lines = tuple((names, spent.to_dict()) for names, spent in sorted(groups.items()))
    return Spending(tuple(by), lines, total.to_dict())


class _Namer:
    """Says what an answer belongs to."""

    def __init__(self, runs: Mapping[int, RunInfo], zone: ZoneInfo) -> None:
        self._runs = runs
        self._zone = zone

    def name(self, way: By, entry: Entry, served: str | None) -> str:
        """Give the day, tags, model, step or configuration of an answer."""
        run = self._runs.get(entry.answered_by)
        match way:
            case "day":
                at = entry.received_at
                return (
                    UNKNOWN
                    if at is None
                    else datetime.fromtimestamp(at, UTC).astimezone(self._zone).date().isoformat()
                )
            case "model":
                return served or entry.record.model
            case "step":
                return entry.ask.step
            case "tag":
                return ", ".join(run.tags) if run is not None else UNKNOWN
            case "config":
                return (run.config or run.output or UNKNOWN) if run is not None else UNKNOWN


def write_spending(found: Spending, out: str, location: str, config: Config | None) -> None:
    """Write the lines to a file; its suffix says the format.

    Raises:
        OutputError: it cannot be written there.
    """
    output = OutputConfig(path=destination(out))
    refuse_target(Place("the spending", output.path), config, location)
    fields: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in found.by]
    fields += [(name, pa.int64()) for name in ("requests", *AMOUNTS[:5])]
    fields += [(name, pa.float64()) for name in ("credits", "credits_usd", "usd")]
    schema = pa.schema(fields)
    with open_sink(output, schema) as sink:
        sink.write(pa.RecordBatch.from_pylist(found.rows(), schema=schema))
        sink.commit({"version": __version__, "total": found.total})
