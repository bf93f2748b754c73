from __future__ import annotations

import pytest

from enrich.config.secrets import without_secret


@pytest.mark.parametrize(
    ("assignment", "shown"),
    [
        ("endpoint.headers.api-key=hush", "endpoint.headers.api-key=…"),
        ("endpoint.headers={api-key: hush}", "endpoint.headers=…"),
        ("endpoint.proxy=http://u:hush@h:1", "endpoint.proxy=…"),
        (" endpoint.proxy =http://u:hush@h:1", "endpoint.proxy=…"),
        ("endpoint={proxy: hush}", "endpoint=…"),
        ("ledger=postgresql://me:hush@h/d", "ledger=postgresql://me@h/d"),
        ("ledger=postgresql://h/d?password=hush", "ledger=postgresql://h/d"),
    ],
)
def test_what_may_be_a_secret_is_left_out(assignment: str, shown: str) -> None:
    """Gateways' keys, a proxy's password and a ledger's are not shown; the rest of the assignment is."""
    assert without_secret(assignment) == shown
    assert "hush" not in without_secret(assignment)


@pytest.mark.parametrize(
    "assignment",
    ["limits.concurrency=8", "steps.s.prompt=a=b", "ledger=/a/l.db", "dedupe", ""],
)
def test_all_else_stays(assignment: str) -> None:
    """An assignment without a secret is shown as it was typed."""
    assert without_secret(assignment) == assignment
