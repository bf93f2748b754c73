"""A ledger's URL without the password that may stand in it."""

from __future__ import annotations

import re
from urllib.parse import unquote


def without_password(location: str) -> str:
    """Write a ledger's URL without its password, wherever that stands in it; a path stays as it is.

    Of a URL that libpq would take apart in another way than was meant, such as one with a ``/`` in its password,
    nothing is left but its scheme.
    """
    if "://" not in location:
        return location
    parts = _LEDGER_URL.fullmatch(location)
    if parts is None:
        return f"{location.partition('://')[0]}://…"
    return f"{parts['scheme']}://{parts['user'] or ''}{'@' if parts['user'] else ''}{parts['place']}"


def holds_password(location: str) -> bool:
    """Tell whether a ledger's URL holds a password, or what may be one."""
    if "://" not in location:
        return False
    parts = _LEDGER_URL.fullmatch(location)
    if parts is None:
        return True
    query = unquote(parts["query"] or "")
    before_at = (
        "@" in query and "/" not in parts["place"]
    )  # libpq takes all of that for a user and a password
    return bool(parts["password"]) or "password=" in query or before_at


_HOST = r"(?:\[[^\]@/]*\]|[^][:@/?#,]*)(?::\d*)?"
_OPTION = "[^=&@]+=[^&]*"
_LEDGER_URL = re.compile(
    r"(?P<scheme>[^:/]*)://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    rf"(?P<place>{_HOST}(?:,{_HOST})*(?:/[^@?]*)?)(?:\?(?P<query>(?:{_OPTION}(?:&{_OPTION})*&?)?))?",
    re.DOTALL,
)
