"""How the API key is found: in a file, from a program, or in the environment; one in the wrong place is told, never shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from enrich.config.key_source import CommandKey, FileKey, GivenKey, KeySource, checked_key
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import SecretStr

KEY_VARIABLE = "BEATRA_API_KEY"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # what is not written like this may be a key in the wrong place


def is_variable(name: str) -> str:
    """Give the name back if it can be that of an environment variable; ValueError where not."""
    if not re.fullmatch(r"[^\s=\0]{1,255}", name):
        raise ValueError("it is no name of an environment variable")
    return name


class FoundKey(NamedTuple):
    """A key, and where it came from.

    Attributes:
        key: never shown.
        source: which may give another one later.
        lives: seconds that it is good for; None where that is not known.
    """

    key: SecretStr
    source: KeySource
    lives: float | None = None


def find_key(
    env: Mapping[str, str],
    *,
    file: Path | None,
    command: CommandKey | None,
    variable: str,
    needed: bool,
    as_told: bool,
) -> FoundKey | None:
    """Find the key; None without one, where that is no slip.

    Args:
        env: the environment.
        file: that holds it (``endpoint.api_key_file``); it goes before the environment.
        command: that tells it (``endpoint.api_key_command``), likewise.
        variable: that holds it (``endpoint.api_key_env``).
        needed: whether there has to be one.
        as_told: a variable that was named, or that is empty, is a slip.

    Raises:
        ConfigError: there is none, or it is no key.
    """
    if file is not None:
        return FoundKey(FileKey(file).read().key, FileKey(file))
    if command is not None:
        told = command.first()
        return FoundKey(told.key, command, told.lives)
    called = variable if _VARIABLE.fullmatch(variable) else "that endpoint.api_key_env names"
    key = env.get(variable, "").strip()
    if key:
        name = f"the environment variable {called}"
        return FoundKey(checked_key(key, name), GivenKey(name))
    slip = as_told and (variable in env or variable != KEY_VARIABLE)
    if not needed and not slip:
        return None
    raise ConfigError(
        "there is no API key; searched in this order:\n"
        "  1. endpoint.api_key_file in the configuration: not set\n"
        f"  2. the environment variable {called}: {'empty' if variable in env else 'not set'}",
        hint=f"export {variable}=sk-…"
        if called == variable
        else "endpoint.api_key_env takes the name of a variable, such as BEATRA_API_KEY, never the key.",
    )
