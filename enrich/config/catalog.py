"""The catalogue of Apache Iceberg that a table lies in: a name, or pyiceberg's properties, and never who may open it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from enrich.base.location import is_url
from enrich.config.ledger_url import holds_password

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NAME = "default"  # as pyiceberg calls a catalogue that has no other name
PLACES = ("uri", "warehouse")  # properties that may be a path of this machine
SECRET = re.compile(
    r"token$|credential$|password|secret|access-key$|account-key$|connection-string$|sas-token", re.IGNORECASE
)


def catalog(value: str | dict[str, str]) -> str | dict[str, str]:
    """Hold a catalogue to what may stand in a configuration.

    Raises:
        ValueError: it holds a secret; the text holds none.
    """
    name = catalog_name(value)
    for key, text in value.items() if isinstance(value, dict) else ():
        if SECRET.search(key) or ("://" in text and "@" in text and holds_password(text)):
            variable = f"PYICEBERG_CATALOG__{name}__{key.replace('.', '__').replace('-', '_')}".upper()
            raise ValueError(
                f"`{key}` carries a secret, which would come into logs and reports; take it out and export {variable}=…, "
                "or keep it in ~/.pyiceberg.yaml"
            )
    return value


def catalog_name(value: str | Mapping[str, str]) -> str:
    """Give a catalogue's name: what its own configuration, and its tables' entries, are found by."""
    return value if isinstance(value, str) else value.get("name", DEFAULT_NAME)


def catalog_file(value: str | Mapping[str, str]) -> Path | None:
    """Give the file that a catalogue of SQLite is; None of any other."""
    lite = None if isinstance(value, str) else re.fullmatch(r"sqlite:///([^:?]+)", value.get("uri", ""))
    return Path(lite[1]) if lite else None


def resolved_catalog(value: object, base: Path) -> object:
    """Make relative paths in a catalogue's properties absolute."""
    if not isinstance(value, dict):
        return value
    return {k: _resolved(v, base) if k in PLACES and isinstance(v, str) else v for k, v in value.items()}


def _resolved(place: str, base: Path) -> str:
    lite = re.fullmatch(r"sqlite:///([^/].*)", place)
    if lite is not None:
        return place if lite[1].startswith(":memory:") else f"sqlite:///{base / lite[1]}"
    return place if is_url(place) or "://" in place else str(base / Path(place).expanduser())


Catalog = Annotated[str | dict[str, str], AfterValidator(catalog)]
