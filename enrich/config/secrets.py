"""What of a configuration may be a secret, and how it is shown all the same."""

from __future__ import annotations

import re

from enrich.config.ledger_url import without_password

HIDDEN = "…"


def without_secret(assignment: str) -> str:
    """Write ``key.path=value`` so that it can be shown: without the value under ``endpoint``, where any may be a secret."""
    path, equals, value = assignment.partition("=")
    path = path.strip()
    if path == "ledger":
        return f"ledger={without_password(value)}"
    if path.startswith("endpoint"):
        return f"{'.'.join(map(_name, path.partition(':')[0].split('.')))}{equals}{HIDDEN}"
    return assignment


def _name(part: str) -> str:
    """Give a part of a path if it may be a name: what holds a digit, or a blank, may be a key in the wrong place."""
    return part if re.fullmatch(r"[A-Za-z_-]{1,40}", part) else HIDDEN
