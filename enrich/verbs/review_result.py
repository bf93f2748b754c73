"""What a review gives: the sheet that was written, and what its labels say of the whole table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted
from enrich.measure.scores import DIGITS

if TYPE_CHECKING:
    from enrich.measure.corrected import Corrected
    from enrich.measure.scores import Figure

SUFFIX = "_review"  # behind the name of the answers' column: the sheet's column for what a person says
METHOD = "prediction-powered inference, stratified (Angelopoulos et al., Science 382, 2023)"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet that was written.

    Attributes:
        strata: rows drawn per stratum.
        known: rows drawn that have a label from before, which stands in the sheet.
        left_out: rows that the prompt shows as examples, and that were not drawn.
    """

    path: str
    column: str
    rows: int
    strata: dict[str, int]
    known: int
    left_out: int = 0

    def text(self) -> str:
        """Say it for people."""
        parts = ", ".join(f"{count:,} {name}" for name, count in self.strata.items())
        known = f"; {self.known:,} of them are labelled already" if self.known else ""
        known += f"; {_shown(self.left_out)}" if self.left_out else ""
        return f"{counted(self.rows, 'row')} to review ({parts}){known}: fill in `{self.column}{SUFFIX}`, then --read {self.path}"

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "sheet": self.path,
            "column": self.column,
            "rows": self.rows,
            "strata": self.strata,
            "known": self.known,
            "left_out": self.left_out,
        }


@dataclass(frozen=True, slots=True)
class Review:
    """What the labelled rows say.

    Attributes:
        n: rows that were labelled, of those drawn.
        total: rows that they stand for.
        margin: the half width of the accuracy's interval that was asked for.
        needed: rows that would give it, as far as these tell; None where there is no interval.
        counts: of each label over the whole table; empty of a column that has too many different answers.
        by_hand: rows of the table that were known by hand before, and count as they are.
        left_out: rows that the prompt shows as examples, and that are not among the others.
    """

    column: str
    n: int
    drawn: int
    total: int
    accuracy: Figure
    margin: float
    needed: int | None
    counts: tuple[Corrected, ...]
    by_hand: int = 0
    left_out: int = 0

    @property
    def enough(self) -> bool:
        """Say whether the accuracy is known as closely as was asked for."""
        return self.needed is not None and self.needed <= self.n

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "column": self.column,
            "n": self.n,
            "drawn": self.drawn,
            "rows": self.total,
            "by_hand": self.by_hand,
            "left_out": self.left_out,
            **self.accuracy.to_dict("accuracy"),
            "margin": self.margin,
            "enough": self.enough,
            "needed": self.needed,
            "method": METHOD,
            "counts": {
                one.label: {
                    "answered": one.answered,
                    "corrected": None if one.count is None else round(one.count, DIGITS),
                    "corrected_ci": None
                    if one.interval is None
                    else [round(end, DIGITS) for end in one.interval],
                }
                for one in self.counts
            },
        }

    def text(self) -> str:
        """Say it for people."""
        before = f", of which {self.by_hand:,} were known by hand" if self.by_hand else ""
        left = f"; {_shown(self.left_out)}" if self.left_out else ""
        lines = [
            f"{self.n:,} of {counted(self.drawn, 'drawn row')} labelled, for {counted(self.total, 'row')}{before}{left}"
        ]
        if self.accuracy.value is None or self.accuracy.interval is None:
            return "\n".join(
                [
                    *lines,
                    "label a row of each stratum at least: of one that nobody looked at nothing is known",
                ]
            )
        low, high = self.accuracy.interval
        lines.append(f"{self.column}: accuracy {self.accuracy.value:.3g} ({low:.3g} to {high:.3g})")
        if not self.enough:
            lines.append(
                f"too few for an accuracy within ±{self.margin:g}: about {self.needed:,} rows would tell"
            )
        for one in self.counts:
            if one.count is not None and one.interval is not None:
                ends = f"{one.interval[0]:,.0f} to {one.interval[1]:,.0f}"
                lines.append(f"  {one.label}: {one.answered:,} answered, {one.count:,.0f} corrected ({ends})")
        return "\n".join([*lines, f"by {METHOD}"])


def _shown(left_out: int) -> str:
    return f"{counted(left_out, 'row')} that the prompt shows as examples left out"
