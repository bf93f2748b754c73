"""The tool that measures the way through the packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.moves import counted

ROOT = Path(__file__).parent.parent


def test_moves_and_climbs_are_counted() -> None:
    """A package entered again is a move again; only a move to a higher one is a climb; modules of one package are one place."""
    heights = {"base": 0, "files": 1, "runs": 2}
    way = [
        "runs.job",
        "files.input_files",
        "files.source",
        "base.words",
        "files.source",
        "base.words",
        "runs.job",
    ]
    assert counted(way, heights.__getitem__) == (3, 5, 2)
    assert counted(["runs.job", "runs.lock"], heights.__getitem__) == (1, 0, 0)


def test_the_way_to_ready_is_measured() -> None:
    """Both ways are walked on a real job: through more packages than one, and down to the ground."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.moves", "--names"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    plan, plan_names, session, session_names = done.stdout.splitlines()
    assert plan.startswith("plan_job to Flow.run: ")
    assert "; without base " in plan
    assert session.startswith("open_session to Session.flow: ")
    assert {"verbs.plan", "files.source", "prompt.template", "ledger.opening"} <= set(plan_names.split())
    assert {"runs.session", "wire.client", "pace.pace", "engine.engine"} <= set(session_names.split())
    assert "pace.pace" not in plan_names.split()
