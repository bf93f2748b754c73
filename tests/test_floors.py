"""The declared lower bounds: each library has one, and it is tried by `make test-floors`."""

from __future__ import annotations

from tools.floors import floors


def test_each_library_has_a_lowest_version() -> None:
    """What pip may choose at least is said for every direct dependency, in a form that it takes as a constraint."""
    found = dict(line.split("==") for line in floors())
    assert {"aiohttp", "click", "pyarrow", "pandas", "jsonschema-rs", "pydantic"} <= set(found)
    assert all(version[0].isdigit() for version in found.values())
