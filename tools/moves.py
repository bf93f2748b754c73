"""Print the way through the packages until a job is ready: how often who reads along has to move, and to climb back up.

`python -m tools.moves` plans and runs a small job on the sandbox. The functions of this program are noted in the order in which
they are first called, each once; a move is a step from one package to another, a climb a move into one that stands higher
in the imports. Calls at import time do not count, nor do comprehensions and lambdas. The second figures leave out `base`, the words that everybody knows.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import enrich
from enrich.base.loops import run_sync
from enrich.config import load_config
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.verbs.plan import plan_job
from tests.test_layers import layer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, FrameType

PACKAGE = Path(enrich.__file__).parent
JOB = """
input: in.csv
output: out.parquet
endpoint: {base_url: sandbox}
steps:
  - {name: tone, prompt: "The tone of: {{ text }}", limits: {concurrency: 2}}
"""


class Steps:
    """Notes which functions are called between two of them.

    Args:
        first: the function with which it begins.
        last: the one before which it ends.
    """

    def __init__(self, first: str, last: str) -> None:
        self._first = first
        self._last = last
        self._seen: set[CodeType] = set()
        self._on = False
        self.found: list[str] = []

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Take one event of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code in self._seen or not code.co_flags & inspect.CO_OPTIMIZED:
            return
        if code.co_name.startswith("<"):
            return
        file = Path(code.co_filename)
        if not file.is_relative_to(PACKAGE):
            return
        self._seen.add(code)
        if code.co_qualname == self._first:
            self._on = True
        if code.co_qualname == self._last:
            self._on = False
        if self._on:
            parts = file.relative_to(PACKAGE).with_suffix("").parts
            self.found.append(".".join(parts).removesuffix(".__init__"))


def walked(first: str, last: str, act: Callable[[], Any]) -> list[str]:
    """Give the modules of the functions that are called from ``first`` until ``last``, in order, while something is done."""
    act()  # everything is imported
    steps = Steps(first, last)
    threading.setprofile(steps.note)
    sys.setprofile(steps.note)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return steps.found


def counted(modules: Sequence[str], height: Callable[[str], int]) -> tuple[int, int, int]:
    """Count the packages, the moves between them, and those that climb to a higher one."""
    rooms = [name.partition(".")[0] for name in modules]
    moves = [(one, other) for one, other in pairwise(rooms) if one != other]
    return len(set(rooms)), len(moves), sum(height(other) > height(one) for one, other in moves)


def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.csv").write_text("text\nOn time\nLate\n", encoding="utf-8")
        file = Path(folder, "config.yaml")
        file.write_text(JOB, encoding="utf-8")
        config = load_config(file)
        ways: tuple[tuple[str, str, Callable[[], Any]], ...] = (
            ("plan_job", "Flow.run", lambda: run_sync(lambda: plan_job(config, RunOptions()))),
            (
                "open_session",
                "Session.flow",
                lambda: run_sync(lambda: run_job(config, RunOptions(fresh=True))),
            ),
        )
        for first, last, act in ways:
            found = walked(first, last, act)
            rooms, moves, climbs = counted(found, layer_of)
            _, further, up = counted([name for name in found if not name.startswith("base.")], layer_of)
            sys.stdout.write(f"{first} to {last}: {rooms} packages, {moves} moves, {climbs} climbs")
            sys.stdout.write(f"; without base {further} moves, {up} climbs\n")
            if "--names" in sys.argv:
                sys.stdout.write("  " + " ".join(found) + "\n")


if __name__ == "__main__":
    _main()
