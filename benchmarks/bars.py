"""Draws a small bar chart as an SVG that reads well on light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDTH, LABEL, BAR, GAP, TOP = 720, 250, 22, 10, 44  # pixels
INK, OURS, OTHERS = "#777777", "#2a9d8f", "#9aa5b1"


def draw(path: Path, title: str, values: Mapping[str, float], *, ours: str) -> None:
    """Write a chart of horizontal bars, the longest one filling the width.

    Args:
        path: of the SVG.
        title: says what the lengths are.
        values: label → length.
        ours: the label of the bar that stands out.
    """
    longest = max(values.values())
    height = TOP + len(values) * (BAR + GAP)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="sans-serif" font-size="14" fill="{INK}">'
        ),
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (label, value) in enumerate(values.items()):
        y = TOP + number * (BAR + GAP)
        length = max(1.0, value / longest * (WIDTH - LABEL - 60))
        colour = OURS if label == ours else OTHERS
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>',
            f'<text x="{LABEL + length + 6:.1f}" y="{y + 16}">{value:.2f}</text>',
        ]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
