"""The built-in emulator of the Beatra API: rehearse a pipeline, with faults on demand, for nothing.

It answers like the real endpoint (errors, idempotency, streaming, charges), keeps books of what was asked and charged
(``GET /sandbox/ledger``), and marks every answer as its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.sandbox.faults import FAULTS, Fault, parse_fault
from enrich.sandbox.options import SandboxOptions

if TYPE_CHECKING:
    from enrich.sandbox.app import create_app
    from enrich.sandbox.server import Sandbox, ThreadedSandbox, serve

__all__ = [
    "FAULTS",
    "Fault",
    "Sandbox",
    "SandboxOptions",
    "ThreadedSandbox",
    "create_app",
    "parse_fault",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Import the server, and aiohttp with it, only when it is asked for: `FAULTS` stays cheap."""
    if name == "create_app":
        from enrich.sandbox import app

        return app.create_app
    if name in __all__:
        from enrich.sandbox import server

        return getattr(server, name)
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
