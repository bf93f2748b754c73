"""What of a configuration may be a secret, and how it is shown all the same."""

from __future__ import annotations

from enrich.config.ledger_url import without_password

HIDDEN = "…"
SECRET = (
    "endpoint.headers",
    "endpoint.proxy",
)  # gateways keep keys in the one, the other may hold a password


def without_secret(assignment: str) -> str:
    """Write ``key.path=value`` so that it can be shown: without the value where that may be a secret."""
    path, equals, value = assignment.partition("=")
    path = path.strip()
    if path == "ledger":
        return f"ledger={without_password(value)}"
    if path == "endpoint" or any(path == secret or path.startswith(f"{secret}.") for secret in SECRET):
        return f"{path}{equals}{HIDDEN if equals else ''}"
    return assignment
