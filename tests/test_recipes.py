"""Those recipes whose libraries are here; tests/integrations/test_recipes.py runs all of them, and says how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integrations.test_recipes import check

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["duckdb", "polars"])
def test_a_recipe_pays_once(name: str, tmp_path: Path) -> None:
    """Killed in the middle, run to the end and run once more, it is charged once per request."""
    check(name, tmp_path)
