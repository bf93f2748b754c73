"""The program as a process: it leaves with the command's exit code, with everything written and tidied away."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

JOB = """\
input: in.csv
output: out.parquet
endpoint: {base_url: sandbox}
steps: [{name: s, prompt: "{{ t }}"}]
"""
TIDY = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
atexit.register(lambda: Path("tidied").touch())
pool = ThreadPoolExecutor()  # as a library may keep one, for good
pool.submit(int).result()
threading.Thread(target=lambda: (time.sleep(0.3), Path("finished").touch())).start()
sys.argv = ["beatra-enrich", *sys.argv[1:]]
from enrich.cli.program import program
program()
"""


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder."""
    command = [sys.executable, "-m", "enrich.cli", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("args", "code"), [(("--version",), 0), (("run", "nothing.yaml"), 2), (("nothing",), 2)]
)
def test_it_leaves_with_the_command_s_code(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    """Whatever the command line says of itself is what the process ends with."""
    assert run(tmp_path, *args).returncode == code


def test_everything_is_written(tmp_path: Path) -> None:
    """More than a pipe holds at once comes out to its last line."""
    (tmp_path / "in.csv").write_text("t\n" + f"{'x' * 1_000}\n" * 2_000, encoding="utf-8")
    (tmp_path / "config.yaml").write_text(JOB, encoding="utf-8")
    done = run(tmp_path, "preview", "config.yaml", "-n", "2000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# row ") == 2_000
    assert done.stdout.rstrip().endswith("}")


def test_what_was_to_be_done_at_the_end_is_done(tmp_path: Path) -> None:
    """Threads that work are waited for, pools that wait for work are not, and what is registered for the end is called."""
    done = subprocess.run([sys.executable, "-c", TIDY, "--version"], cwd=tmp_path, check=False, timeout=30)
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tidied", "finished"}


@pytest.mark.slow
def test_a_reader_that_is_left_ends_nothing(tmp_path: Path) -> None:
    """Two hundred looks at the first row of a file, two at a time: none is aborted on its way out."""
    (tmp_path / "in.csv").write_text("t\none\ntwo\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text(JOB, encoding="utf-8")
    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(lambda _: run(tmp_path, "preview", "config.yaml", "-n", "1"), range(200)))
    assert {done.returncode for done in ended} == {0}
