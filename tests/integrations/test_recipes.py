"""The recipes for data frames of other makers: they run as they stand, and pay once through kills and repeats."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, answer_to

FOLDER = Path(__file__).parent.parent.parent / "examples" / "recipes"
RECIPES = sorted(path.stem.removesuffix("_recipe") for path in FOLDER.glob("*_recipe.py"))
ROWS, DISTINCT = 200, 150  # as in each of them


def start(name: str, folder: Path, endpoint: BookedEndpoint) -> subprocess.Popen[bytes]:
    """Start a recipe in a folder, with processes that end together."""
    there = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    log = (folder / "log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, FOLDER / f"{name}_recipe.py"],
            cwd=folder,
            env={**os.environ, **there},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run(name: str, folder: Path, endpoint: BookedEndpoint) -> None:
    """Run a recipe to its end, and check what it wrote."""
    assert start(name, folder, endpoint).wait(100) == 0, (folder / "log").read_text()
    (written,) = [path for path in folder.glob("reviews*") if path.name != ".beatra"]
    rows = ds.dataset(written).to_table().to_pylist()
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    for row in rows:
        prompt = f"The tone of this review: {row['review']}"
        assert row["tone"] == answer_to(prompt)


def check(name: str, folder: Path) -> None:
    """Kill a recipe in the middle, run it, and run it again: one charge for each request."""
    with BookedEndpoint() as endpoint:
        killed: list[int] = []

        def murder(seen: Seen) -> Raw | None:
            if len(endpoint.charges) >= 40 and not killed:
                killed.append(running.pid)
                os.killpg(running.pid, signal.SIGKILL)
            return None

        endpoint.script = murder
        running = start(name, folder, endpoint)
        assert running.wait(100) == -signal.SIGKILL, (folder / "log").read_text()
        run(name, folder, endpoint)
        sent = len(endpoint.posts)
        run(name, folder, endpoint)
        assert len(endpoint.posts) == sent
        assert Counter(endpoint.charges_per_body.values()) == {1: DISTINCT}
        assert endpoint.conflicts == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_pays_once(name: str, tmp_path: Path) -> None:
    """Killed in the middle, run to the end and run once more, it is charged once per request."""
    check(name, tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """Without a key or an endpoint it asks the sandbox, and says how it went."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("BEATRA_")}
    command = [sys.executable, str(FOLDER / f"{name}_recipe.py")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok" in done.stdout
