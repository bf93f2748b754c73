"""A job is a step of any shell script or scheduler: no terminal, no home, no writable folder of its own is needed."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint

BARE = {"PATH": "/usr/bin:/bin"}  # what cron gives, without HOME and TERM


def shell(
    endpoint: BookedEndpoint, command: str, cwd: str | Path = "/", umask: int = 0o022
) -> subprocess.CompletedProcess[str]:
    """Run a shell command with the installed script as ``$ENRICH``, and nothing of this process's environment."""
    env = BARE | {
        "ENRICH": str(SCRIPT),
        "BEATRA_BASE_URL": endpoint.base_url,
        "BEATRA_API_KEY": KEY,
    }
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=cwd,
        env=env,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"], ids=lambda text: f"[{text}]")
def test_it_runs_with_closed_streams(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path, closed: str
) -> None:
    """Without stdin, stdout or stderr the job is done all the same."""
    done = shell(endpoint, f'"$ENRICH" run {shlex.quote(str(job()))} {closed}')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.parquet").exists()
    assert len(endpoint.charges) == 3


def test_it_needs_no_home_no_terminal_and_no_folder_to_write_to(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """What it writes lies beside the output; the working directory may be read-only, HOME and TERM unset."""
    done = shell(endpoint, f'"$ENRICH" run {shlex.quote(str(job()))} --json', cwd="/proc")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] == 3
    assert "\x1b" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        ".beatra",
        "config.yaml",
        "in.parquet",
        "out.parquet",
    }


def test_a_second_run_is_the_same_and_costs_nothing(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path
) -> None:
    """Started again, as schedulers do, it sends nothing and says so in one line of JSON."""
    command = f'"$ENRICH" run {shlex.quote(str(job()))} --no-progress --json'
    first = shell(endpoint, command)
    again = shell(endpoint, command)
    assert (first.returncode, again.returncode) == (0, 0)
    assert len(first.stdout.splitlines()) == len(again.stdout.splitlines()) == 1
    assert json.loads(first.stdout)["requests"] == 3
    assert json.loads(again.stdout)["requests"] == 0
    assert len(endpoint.posts) == 3


def test_the_log_is_one_json_object_a_line(endpoint: BookedEndpoint, job: Callable[..., Path]) -> None:
    """With --log-format json a machine reads stderr line by line, up to the closing sentence."""
    done = shell(endpoint, f'"$ENRICH" run {shlex.quote(str(job()))} -v --log-format json --json')
    assert done.returncode == 0
    for line in done.stderr.splitlines()[:-1]:
        assert {"time", "level", "message"} <= set(json.loads(line))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('"$ENRICH" run {config} --set steps.s.prompt="{{{{ nosuch }}}}"', 2),
        ('BEATRA_API_KEY=sk-wrong "$ENRICH" run {config}', 4),
        ('"$ENRICH" run {config} && echo and on', 0),
        ('set -e; "$ENRICH" run nosuch.yaml; echo not reached', 2),
    ],
)
def test_the_exit_code_steers_the_shell(
    endpoint: BookedEndpoint, job: Callable[..., Path], line: str, code: int
) -> None:
    """`&&`, `set -e` and schedulers see by the exit code how it went."""
    done = shell(endpoint, line.format(config=shlex.quote(str(job()))))
    assert done.returncode == code, done.stderr
    assert ("and on" in done.stdout) == ("and on" in line)
    assert "not reached" not in done.stdout
    assert "Traceback" not in done.stderr
