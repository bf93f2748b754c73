"""Libraries that belong to one place alone: imported when that place is used, and told how to get when missing."""

from __future__ import annotations

import importlib
from typing import Any

from enrich.errors import ConfigError


def driver(module: str, extra: str, what: str) -> Any:
    """Import a library.

    Args:
        module: its dotted name.
        extra: of this package, which brings it.
        what: needs it, as a message begins.

    Raises:
        ConfigError: it is not installed; says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise ConfigError(
            f"{what} needs {module}, which is not installed", hint=f"pip install 'beatra-enrich[{extra}]'"
        ) from None
