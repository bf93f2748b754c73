"""What of a configuration may be a secret, and how it is shown all the same."""

from __future__ import annotations

from enrich.config.ledger_url import without_password

HIDDEN = "…"


def without_secret(assignment: str) -> str:
    """Write ``key.path=value`` so that it can be shown: without the value under ``endpoint``, where any may be a secret."""
    path, equals, value = assignment.partition("=")
    path = path.strip()
    if path == "ledger":
        return f"ledger={without_password(value)}"
    if path.startswith("endpoint"):
        return f"{path.partition(':')[0]}{equals}{HIDDEN}"
    return assignment
