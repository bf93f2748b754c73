from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from enrich.config import key_source
from enrich.config.key_source import CommandKey, FileKey, GivenKey
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-0123456789-told-by-a-program"


def program(source: str, **more: float) -> CommandKey:
    """Make a program of Python."""
    return CommandKey((sys.executable, "-c", source), **more)


@pytest.mark.parametrize(
    ("written", "lives"),
    [
        (KEY, None),
        (f"\ufeff {KEY}\r\n", None),
        (f'{{"access_token": "{KEY}", "expires_in": 3600}}', 3600.0),
        (f'{{"accessToken": "{KEY}", "expires_in": "3599"}}', 3599.0),
        (f'{{"token": "{KEY}", "expires_in": null}}', None),
        (f'{{"key": "{KEY}", "expires_in": -1}}', None),
        (f'{{"api_key": "{KEY}", "expires_in": "soon"}}', None),
    ],
)
def test_what_a_program_writes(written: str, lives: float | None) -> None:
    """The key alone, or JSON as clouds' programs write it."""
    told = program(f"import sys; sys.stdout.buffer.write({written.encode()!r})").read()
    assert (told.key.get_secret_value(), told.lives) == (KEY, lives)
    set_here = program(f"import sys; sys.stdout.buffer.write({written.encode()!r})", lives=60.0).read()
    assert set_here.lives == (lives or 60.0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pass", "is empty"),
        (f"print('{KEY}', 'and more')", "holds blanks"),
        (f"print('{KEY}'); raise SystemExit(3)", "ended with 3"),
        (f'print(\'{{"access_token": "{KEY}"\')', "wrote no whole JSON"),
        (f'print(\'{{"jeton": "{KEY}"}}\')', "wrote JSON without a token"),
        (f"print('{KEY}' * 10_000)", "wrote more than 65,536 bytes"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended with -15"),
    ],
)
def test_what_is_no_key(source: str, message: str) -> None:
    """It is told by what went wrong, and nothing of what was written or of the arguments is shown."""
    with pytest.raises(ConfigError, match=message) as caught:
        program(source).read()
    said = f"{caught.value} {caught.value.hint}"
    assert f"endpoint.api_key_command `{sys.executable}`" in said
    assert KEY not in said
    assert "print" not in said


@pytest.mark.parametrize("arguments", [("no-such-program-here",), ("a\0b",), ("/",)])
def test_what_is_no_program(arguments: tuple[str, ...]) -> None:
    """It is told so before anything is sent."""
    with pytest.raises(ConfigError, match="cannot be run"):
        CommandKey(arguments).read()


def test_a_program_that_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is ended with all that it started, and so is one that closes its output and goes on."""
    monkeypatch.setattr(key_source, "COMMAND_SECONDS", 0.7)
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(alive)!r}).touch()"
    sources = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])",
        "import os, time; os.close(1); time.sleep(60)",
    )
    for source in sources:
        with pytest.raises(ConfigError, match=r"took more than 0\.7 seconds"):
            program(source).read()
    time.sleep(1.5)
    assert not alive.exists()


def test_a_program_that_leaves_another_one_behind() -> None:
    """An agent that it started and that holds its output is not waited for."""
    agent = "import time; time.sleep(20)"
    source = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {agent!r}]); print({KEY!r})"
    began = time.monotonic()
    assert program(source).read().key.get_secret_value() == KEY
    assert time.monotonic() - began < 15


def test_one_start_runs_it_once(tmp_path: Path) -> None:
    """Parts that ask one after the other get the same key; asked anew, it is run."""
    source = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); print({KEY!r})"
    told = program(source)
    assert told.first() == told.first() == program(source).first()
    assert (tmp_path / "runs").read_text() == "x"
    told.read()
    assert (tmp_path / "runs").read_text() == "xx"


def test_a_file_tells_that_it_changed(tmp_path: Path) -> None:
    """By its times, its size or what lies at its place; one that is not there has no state."""
    path = tmp_path / "key"
    file = FileKey(path)
    assert file.state() is None
    path.write_text(KEY)
    path.chmod(0o600)
    before = file.state()
    assert file.state() == before
    assert file.read().key.get_secret_value() == KEY
    fresh = tmp_path / "fresh"
    fresh.write_text(KEY)
    fresh.replace(path)
    assert file.state() != before
    with pytest.raises(ConfigError, match="can be read by others"):
        file.read()


def test_what_was_given_once_stays() -> None:
    """A variable of the environment is not read again."""
    given = GivenKey("the environment variable X")
    assert given.read() is None
    assert given.state() == given.state()
