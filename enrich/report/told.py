"""What a report shows, as the plain JSON of `report --json`: how the last run ended, rows, requests, cost, findings."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enrich.report.facts import ModelChange, Report, Requests, StepRows

SAYING = ("reason", "causes")  # of a summary, what may quote a row or an answer


def told(report: Report) -> dict[str, Any]:
    """Give a report as plain JSON; without content nothing that quotes a row or an answer.

    Returns:
        ``last_run`` as ``run --json`` prints it; ``steps``, the output's rows by step; ``requests``, ``models``,
        ``failures`` and ``latency_ms``, of all runs; ``runs``, how many; ``waste``, what became of what they paid for;
        ``findings``; and ``gold``, where there are gold columns.
    """
    summary = {name: value for name, value in report.summary.items() if report.content or name not in SAYING}
    gold = {score.column: score.to_dict(content=report.content) for score in report.gold}
    return {
        "last_run": summary,
        "output": report.output,
        "ledger": report.ledger,
        "rows": report.rows.count,
        "failed_rows": report.rows.failed,
        "failure_codes": dict(report.rows.failure_codes),
        "steps": {step.name: _step(step, content=report.content) for step in report.rows.steps},
        **_requests(report.requests),
        "runs": len(report.runs),
        "waste": asdict(report.waste) if report.waste is not None else None,
        "findings": [asdict(finding) for finding in report.findings],
        **({"gold": gold} if gold else {}),
    }


def _step(step: StepRows, *, content: bool) -> dict[str, Any]:
    """Tell how rows stand at a step, and with content how often each answer came."""
    labels = {spread.column: dict(spread.values) for spread in step.spreads if spread.values}
    return {
        "statuses": dict(step.statuses),
        "sources": dict(step.sources),
        "credits": round(step.credits, 9),
        "models": [asdict(cost) for cost in step.costs],
        **({"labels": labels} if content else {}),
        **({"model_change": _change(step.change, content=content)} if step.change is not None else {}),
    }


def _change(change: ModelChange, *, content: bool) -> dict[str, Any]:
    """Tell who answered before and after, and with content how often each label came."""
    labels = {
        shift.column: {name: {"before": before, "after": after} for name, before, after in shift.labels}
        for shift in change.shifts
    }
    return {
        "before": {"rows": change.before, "models": list(change.models_before)},
        "after": {"rows": change.after, "models": list(change.models_after)},
        **({"labels": labels} if content else {}),
    }


def _requests(requests: Requests) -> dict[str, Any]:
    latency = requests.latency
    return {
        "requests": {
            "sent": requests.requests,
            "attempts": requests.attempts,
            "failed_attempts": requests.failed_attempts,
        },
        "models": [asdict(model) for model in requests.models],
        "failures": {
            cause.code: {"attempts": cause.attempts, "recovered": cause.recovered}
            for cause in requests.causes
        },
        "latency_ms": None
        if latency is None
        else {"p50": latency.p50, "p95": latency.p95, "p99": latency.p99, "longest": latency.longest},
    }
