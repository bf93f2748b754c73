"""Print the lowest version that is declared of each library that the program needs, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
_LOWEST = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^>=]*>=(?P<version>[0-9.]+)")


def floors(project: Path = PROJECT) -> list[str]:
    """Give a constraint for each direct dependency.

    Raises:
        ValueError: one has no lower bound.
    """
    found = []
    for dependency in tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]:
        match = _LOWEST.match(dependency)
        if match is None:
            raise ValueError(f"{dependency} has no lower bound")
        found.append(f"{match['name']}=={match['version']}")
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(floors()) + "\n")
