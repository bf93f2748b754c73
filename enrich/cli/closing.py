"""The last lines of a run: how it ended, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enrich.records import Summary


def closing(summary: Summary, command: str) -> str:
    """Say in one sentence how a run ended, and what to type next when it did not end well."""
    from enrich.base.words import counted

    spent = f"{counted(summary.requests, 'request')} sent"
    if summary.credits:
        spent += f", {summary.credits:,.6g} credits"
    took = f"{summary.seconds:,.1f} s"
    if summary.exit_code in (0, 3):
        text = f"{summary.reason}: {spent}, {took} → {summary.output}"
        return f"{text}\n{_way_on(summary, command)}" if summary.exit_code == 3 else text
    return f"{summary.reason[:1].upper()}{summary.reason[1:]} ({spent}, {took})"


def _way_on(summary: Summary, command: str) -> str:
    """Say what to type when rows were not done, by what most needs it."""
    run = command.replace(" retry ", " run ", 1)
    retry = run.replace(" run ", " retry ", 1)
    counts = summary.statuses
    if counts["error"] or counts["invalid_output"]:
        way = f"`{retry}` asks those rows again."
    elif counts["in_doubt"]:
        way = f"`{run}` sends what is in doubt once more under its key, at no second charge."
    else:
        cut = ",".join(status for status in ("truncated", "filtered") if counts[status])
        way = f"`{retry} --status {cut}` asks those rows again."
    return f"Hint: the columns ending in _error say why; {way}"
