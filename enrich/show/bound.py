"""What held a run up, in words: the cause, its figure, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.base.concurrency import reach
from enrich.pace.bound import Cause
from enrich.pace.windows import request_windows, token_windows

if TYPE_CHECKING:
    from enrich.config.limits import LimitsConfig
    from enrich.pace.pace import Pace


def bound_by(pace: Pace, limits: LimitsConfig) -> dict[str, Any] | None:
    """Say what held a run up longest.

    Returns:
        ``by`` (endpoint, queueing, limits, source, cpu, ledger, budget or outage), ``share`` of the time that it
        did, ``text`` with the figure, ``change``: what would make it faster. None where nothing did.
    """
    worst = pace.bound.worst()
    if worst is None:
        return None
    cause, share = worst
    by, text, change = _said(cause, pace, limits, share)
    return {"by": by, "share": round(share, 3), "text": text, "change": change}


def _said(cause: Cause, pace: Pace, limits: LimitsConfig, share: float) -> tuple[str, str, str]:
    """Give the cause's name, its text with the figure, and what to change."""
    if cause is Cause.CONCURRENCY:
        return _concurrency(limits)
    found = "; ".join(pace.found()) or "refusals (429)"
    said = {
        Cause.ENDPOINT: (
            "endpoint",
            f"the endpoint's limit: {found}",
            "ask the provider for a higher limit",
        ),
        Cause.QUEUEING: (
            "queueing",
            f"queueing at the endpoint: with more than about {pace.ceiling:,} in flight, answers only take longer",
            "give the endpoint more capacity",
        ),
        Cause.LIMITS: (
            "limits",
            f"the limits that were told: {told(limits) or 'those of a step'}",
            "raise them if the account allows more",
        ),
        Cause.SOURCE: (
            "source",
            f"the source: rows came too slowly for {share:.0%} of the time",
            "read them from something faster",
        ),
        Cause.MACHINE: (
            "cpu",
            f"this machine's CPU: the process took {share:.0%} of a core",
            "spread the run over several processes or machines",
        ),
        Cause.LEDGER: (
            "ledger",
            f"the ledger: requests waited for it {share:.0%} of the time",
            "put the ledger on a faster disk, or nearer to this machine",
        ),
        Cause.BUDGET: (
            "budget",
            "the budget: what is left was reserved for requests in flight",
            "raise the budget, or set max_tokens so that less is reserved",
        ),
    }
    return said.get(cause, ("outage", "an endpoint that was out of service", "run again when it is well"))


def _concurrency(limits: LimitsConfig) -> tuple[str, str, str]:
    if limits.concurrency is not None:
        return "limits", f"limits.concurrency: {limits.concurrency:,} in flight", "raise limits.concurrency"
    if not limits.adaptive:
        return "limits", f"{limits.most:,} in flight, as limits.adaptive is false", "set limits.concurrency"
    able = reach()
    text = f"{able.requests:,} in flight: {able.why}"
    return "limits", text, "spread the run over several processes or machines"


def told(limits: LimitsConfig) -> str:
    """Name the limits over a span of time that a configuration tells."""
    requests = [f"{w.amount:,.6g} requests per {w.seconds:g} s" for w in request_windows(limits)]
    tokens = [f"{w.amount:,.6g} tokens per {w.seconds:g} s" for w in token_windows(limits)]
    return ", ".join(requests + tokens)
