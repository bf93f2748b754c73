"""How the API key is found: in a file, or in the environment; a key in the wrong place is told, never shown."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from pydantic import SecretStr

from enrich.base.reading import read_small
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY_VARIABLE = "BEATRA_API_KEY"
MAX_KEY_FILE = 65_536  # bytes; a file beyond that holds something else
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # what is not written like this may be a key in the wrong place


def is_variable(name: str) -> str:
    """Give the name back if it can be that of an environment variable; ValueError where not."""
    if not re.fullmatch(r"[^\s=\0]{1,255}", name):
        raise ValueError("it is no name of an environment variable")
    return name


def find_key(
    env: Mapping[str, str], *, file: Path | None, variable: str, needed: bool, as_told: bool
) -> SecretStr | None:
    """Find the key; None without one, where that is no slip.

    Args:
        env: the environment.
        file: that holds it (``endpoint.api_key_file``); it goes before the environment.
        variable: that holds it (``endpoint.api_key_env``).
        needed: whether there has to be one.
        as_told: a variable that was named, or that is empty, is a slip.

    Raises:
        ConfigError: there is none, or it is no key.
    """
    if file is not None:
        return _checked_key(_read_key_file(file), f"endpoint.api_key_file {file}")
    called = variable if _VARIABLE.fullmatch(variable) else "that endpoint.api_key_env names"
    key = env.get(variable, "").strip()
    if key:
        return _checked_key(key, f"the environment variable {called}")
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


def _read_key_file(path: Path) -> str:
    try:
        content, info = read_small(path, MAX_KEY_FILE)
    except OSError as error:
        raise ConfigError(
            f"endpoint.api_key_file cannot be read: {error.strerror}",
            hint="it takes the path of a file that holds the key, relative to the configuration; never the key.",
        ) from None
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"endpoint.api_key_file {path} can be read by others (mode {mode:04o})",
            hint=f"chmod 600 {path}",
        )
    return content.decode("utf-8", "replace").removeprefix("\ufeff").strip()


def _checked_key(key: str, where: str) -> SecretStr:
    if not key:
        raise ConfigError(f"{where} is empty", hint="write the key into it, and nothing else.")
    if not _VISIBLE_ASCII.fullmatch(key):
        raise ConfigError(
            f"the API key in {where} holds blanks, line ends or characters beyond ASCII",
            hint="copy the key once more; it is one word such as sk-…",
        )
    return SecretStr(key)
