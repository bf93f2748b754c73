"""Run a language model over the rows of a table: every answer paid for once, none lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.base.version import __version__

if TYPE_CHECKING:
    from enrich.api import collect, run
    from enrich.config import Config, load_config
    from enrich.errors import (
        BalanceSpent,
        BudgetSpent,
        ConfigError,
        DiskFull,
        EndpointFailing,
        EnrichError,
        GuaranteeUnmet,
        InputError,
        KeyRefused,
        LedgerError,
        LedgerFailing,
        ModelChanged,
        OutputError,
        OutputLocked,
        RowsFailed,
        RowsUnasked,
        RunInterrupted,
        RunStopped,
        TemplateError,
        UsageError,
    )
    from enrich.frames.batches import aenrich_batches, enrich_batches, output_schema
    from enrich.records import Summary

_HOMES = {
    "aenrich_batches": "enrich.frames.batches",
    "collect": "enrich.api",
    "enrich_batches": "enrich.frames.batches",
    "output_schema": "enrich.frames.batches",
    "run": "enrich.api",
    "Config": "enrich.config",
    "load_config": "enrich.config",
    "Summary": "enrich.records",
}

__all__ = [
    "BalanceSpent",
    "BudgetSpent",
    "Config",
    "ConfigError",
    "DiskFull",
    "EndpointFailing",
    "EnrichError",
    "GuaranteeUnmet",
    "InputError",
    "KeyRefused",
    "LedgerError",
    "LedgerFailing",
    "ModelChanged",
    "OutputError",
    "OutputLocked",
    "RowsFailed",
    "RowsUnasked",
    "RunInterrupted",
    "RunStopped",
    "Summary",
    "TemplateError",
    "UsageError",
    "__version__",
    "aenrich_batches",
    "collect",
    "enrich_batches",
    "load_config",
    "output_schema",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used: `import enrich` alone stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module 'enrich' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "enrich.errors")), name)


def __dir__() -> list[str]:
    return __all__
