from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from enrich.base.version import __version__


def test_the_package_has_this_version() -> None:
    """What the program says of itself is what it was installed as, in the form that installers compare."""
    assert version("beatra-enrich") == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", __version__)


def test_it_stands_in_one_place() -> None:
    """No other module writes the version down."""
    root = Path(__file__).parents[2] / "enrich"
    written = [path.name for path in root.rglob("*.py") if f'"{__version__}"' in path.read_text("utf-8")]
    assert written == ["version.py"]
