"""Where an API key comes from, and how it is asked for again: given once, in a file that is renewed, or told by a program."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import stat
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import orjson
from pydantic import SecretStr

from enrich.base.reading import read_small
from enrich.base.system import HAS_MODES
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_KEY = 65_536  # bytes of a file, or of what a program writes; beyond that it is something else
COMMAND_SECONDS = 30.0  # that a program may take to tell the key
STILL_GOOD = 60.0  # seconds for which what a program said just now serves the other parts of the same start
# Names under which programs of clouds and vaults tell a token, and how many seconds it lives from now on.
TOKENS = ("access_token", "accessToken", "token", "api_key", "key", "id_token")
_READ_AT_ONCE = 4_096  # bytes
LONGEST_KEY = 16_384  # characters; servers and gateways take headers of 8 to 32 KiB
_VISIBLE_ASCII = re.compile(r"[!-~]+")


class Told(NamedTuple):
    """A key as its source tells it.

    Attributes:
        key: never shown.
        lives: seconds from when it was told until it is no good any more; None where that is not known.
    """

    key: SecretStr
    lives: float | None = None


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A key that was given once: by a variable of the environment, or as an argument.

    Attributes:
        name: of its place, for messages.
    """

    name: str

    def state(self) -> object:
        """Give what changes when the key may have changed: nothing here."""
        return None

    def read(self) -> Told | None:
        """Give the key anew; None: this one stays what it is."""
        return None


@dataclass(frozen=True, slots=True)
class FileKey:
    """A key in a file, which others may renew.

    Attributes:
        path: of the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name it for messages."""
        return f"endpoint.api_key_file {self.path}"

    def state(self) -> object:
        """Give what changes when the file does; None where it is not there."""
        try:
            info = self.path.stat()
        except OSError:
            return None
        return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev

    def read(self) -> Told:
        """Read it.

        Raises:
            ConfigError: it cannot be read, or holds no key.
        """
        return Told(checked_key(_read_key_file(self.path), self.name))


@dataclass(frozen=True, slots=True)
class CommandKey:
    """A key that a program tells: its output is the key, or JSON with a token and, perhaps, ``expires_in``.

    Attributes:
        arguments: the program and its arguments; no shell reads them.
        lives: seconds that a key is good for, where the program does not say so.
    """

    arguments: tuple[str, ...]
    lives: float | None = None

    @property
    def name(self) -> str:
        """Name it for messages: its arguments may hold secrets."""
        return f"endpoint.api_key_command `{self.arguments[0]}`"

    def state(self) -> object:
        """Give what changes when the key may have changed: nobody can tell."""
        return None

    def first(self) -> Told:
        """Give the key at the start; parts of one start that ask one after the other run the program once.

        Raises:
            ConfigError: as for `read`.
        """
        at, told = _told.get(self, (0.0, None))
        age = time.monotonic() - at
        if told is None or age >= min(STILL_GOOD, told.lives or STILL_GOOD):
            return self.read()
        return told._replace(lives=told.lives - age) if told.lives is not None else told

    def read(self) -> Told:
        """Run the program.

        Raises:
            ConfigError: it cannot be run, fails, takes too long, or tells no key. What it wrote is in no message.
        """
        began = time.monotonic()
        told = self._told(_output_of(self.arguments, self.name))
        _told[self] = (began, told)
        return told

    def _told(self, output: bytes) -> Told:
        text = output.decode("utf-8", "replace").removeprefix("\ufeff").strip()
        lives = self.lives
        if text.startswith("{"):
            try:
                said = orjson.loads(text)
            except ValueError:
                raise ConfigError(f"{self.name} wrote no whole JSON", hint=_BY_HAND) from None
            tokens = [said[name] for name in TOKENS if isinstance(said.get(name), str)]
            if not tokens:
                raise ConfigError(
                    f"{self.name} wrote JSON without a token",
                    hint=f"it is looked for under {', '.join(TOKENS)}.",
                )
            text, lives = tokens[0].strip(), _seconds(said.get("expires_in")) or lives
        return Told(checked_key(text, self.name), lives)


KeySource = GivenKey | FileKey | CommandKey
_told: dict[CommandKey, tuple[float, Told]] = {}
_BY_HAND = "run it by hand to see what it writes: the key alone, or JSON with access_token and expires_in."


def _seconds(value: object) -> float | None:
    try:
        seconds = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def _output_of(arguments: tuple[str, ...], name: str) -> bytes:
    """Run a program, with no shell and nothing to read, and give what it wrote."""
    try:
        process = subprocess.Popen(  # noqa: S603  # an argument list that the configuration's author wrote
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its arguments cannot be passed on"
        raise ConfigError(f"{name} cannot be run: {why}", hint="is the program there, and on PATH?") from None
    try:
        output = _written(process, time.monotonic() + COMMAND_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.poll() is None:
                _end(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if output is None:
        raise ConfigError(f"{name} took more than {COMMAND_SECONDS:g} seconds", hint=_BY_HAND)
    if len(output) > MAX_KEY:
        raise ConfigError(f"{name} wrote more than {MAX_KEY:,} bytes", hint=_BY_HAND)
    if process.returncode:
        raise ConfigError(f"{name} ended with {process.returncode}", hint=_BY_HAND)
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and, where the system knows groups of processes, what it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _written(process: subprocess.Popen[bytes], until: float) -> bytes | None:
    """Collect what a program writes until it ends; None when its time is over. What it left running is not waited for."""
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    output: bytes | None = None
    if not hasattr(os, "killpg"):  # nor can a pipe be selected then
        with contextlib.suppress(subprocess.TimeoutExpired):
            output = process.communicate(timeout=max(0.0, until - time.monotonic()))[0]
        return output
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= MAX_KEY:
            left = until - time.monotonic()
            if left <= 0:
                return None
            ended = process.poll() is not None
            if not selector.select(0 if ended else min(left, 0.1)):
                if ended:
                    return output
                continue
            piece = os.read(process.stdout.fileno(), _READ_AT_ONCE)
            if not piece:
                try:
                    process.wait(max(left, 0.0))
                except subprocess.TimeoutExpired:
                    return None
                return output
            output += piece
    return output


def _read_key_file(path: Path) -> str:
    try:
        content, info = read_small(path, MAX_KEY)
    except OSError as error:
        raise ConfigError(
            f"endpoint.api_key_file cannot be read: {error.strerror}",
            hint="it takes the path of a file that holds the key, relative to the configuration; never the key.",
        ) from None
    mode = stat.S_IMODE(info.st_mode)
    if HAS_MODES and mode & 0o077:
        raise ConfigError(
            f"endpoint.api_key_file {path} can be read by others (mode {mode:04o})",
            hint=f"chmod 600 {path}",
        )
    return content.decode("utf-8", "replace").removeprefix("\ufeff").strip()


def checked_key(key: str, where: str) -> SecretStr:
    """Give a key that can stand in a header.

    Raises:
        ConfigError: it cannot; the message holds none of it.
    """
    if not key:
        raise ConfigError(f"{where} is empty", hint="write the key into it, and nothing else.")
    if not _VISIBLE_ASCII.fullmatch(key):
        raise ConfigError(
            f"the API key in {where} holds blanks, line ends or characters beyond ASCII",
            hint="copy the key once more; it is one word such as sk-…",
        )
    if len(key) > LONGEST_KEY:
        raise ConfigError(
            f"the API key in {where} has {len(key):,} characters; a header has room for {LONGEST_KEY:,} at most",
            hint="copy the key once more; it is one word such as sk-…",
        )
    return SecretStr(key)
