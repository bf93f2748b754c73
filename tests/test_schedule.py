"""The lines for cron and systemd work in the environment that those give: no profile, and a PATH of two folders."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import KEY, BookedEndpoint
from tests.helpers.pages import files_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "schedule.md"
FILES = files_of(PAGE)
BARE = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that knows one key and keeps books."""
    with BookedEndpoint() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, endpoint: BookedEndpoint) -> Path:
    """The page's job in a folder of its own, with an environment that holds the program, and the key in a file."""
    for name in ("config.yaml", "tickets.csv"):
        (tmp_path / name).write_text(FILES[name])
    with (tmp_path / "config.yaml").open("a") as config:
        config.write(f"endpoint: {{base_url: {endpoint.base_url}}}\n")
    (tmp_path / "beatra").write_text(f"{KEY}\n")
    (tmp_path / "beatra").chmod(0o600)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "beatra-enrich").symlink_to(Path(sys.executable).with_name("beatra-enrich"))
    return tmp_path


def test_the_crontab_line_runs_as_cron_runs_it(folder: Path, endpoint: BookedEndpoint) -> None:
    """`/bin/sh -c` with nothing but a PATH; what is said goes to the log that the line names."""
    (line,) = [line for line in FILES["crontab"].splitlines() if not line.startswith("#")]
    command = re.fullmatch(r"(?:\S+ ){5} *(.*)", line)
    assert command is not None
    assert "%" not in command[1]  # to cron, a new line
    here = command[1].replace("/srv/tickets", str(folder)).replace("/etc/beatra/key", str(folder / "beatra"))
    done = subprocess.run(["/bin/sh", "-c", here], cwd="/", env=BARE, capture_output=True, check=False)
    said = (folder / "run.log").read_text()
    assert done.returncode == 0, said
    assert (done.stdout, done.stderr) == (b"", b"")
    assert pq.read_table(folder / "out" / "tickets.parquet")["topic_status"].to_pylist() == ["ok", "ok"]
    assert len(endpoint.charges) == 2
    assert KEY not in said


def test_the_service_runs_as_systemd_runs_it(folder: Path, endpoint: BookedEndpoint) -> None:
    """The program is named by its path, and finds the key among the unit's credentials."""
    service = _unit("/etc/systemd/system/tickets.service")["Service"]
    words = [
        word.replace("/srv/tickets", str(folder)).replace("%d", str(folder))
        for word in shlex.split(service["ExecStart"])
    ]
    assert Path(words[0]).is_absolute()
    assert service["LoadCredential"].partition(":")[0] == "beatra"
    done = subprocess.run(words, cwd=folder, env=BARE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(endpoint.charges) == 2


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_knows_the_units(folder: Path) -> None:
    """Every key and value is one that systemd accepts."""
    for name in ("/etc/systemd/system/tickets.service", "/etc/systemd/system/tickets.timer"):
        (folder / Path(name).name).write_text(FILES[name].replace("/srv/tickets", str(folder)))
    units = [str(folder / "tickets.service"), str(folder / "tickets.timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "tickets." in line]
    assert complaints == []


def _unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # a key's case counts
    unit.read_string(FILES[name])
    return unit
