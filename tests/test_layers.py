"""Imports point one way: a module knows its own layer and those above it, and no two modules know each other."""

from __future__ import annotations

import ast
import graphlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "enrich"

# From the ground up. A folder stands for the modules in it.
LAYERS = (
    ("errors", "records", "clock", "location", "runner", "words"),
    ("strict_yaml",),
    ("document",),
    ("config",),
    ("azure",),
    ("storage",),
    ("input_files", "csv_input", "jsonl_input", "source"),
    ("template", "parameters", "messages", "schema", "request", "columns", "answer", "writers", "sink"),
    ("sse", "envelope", "completion", "endpoint", "post", "exchange", "client", "retry"),
    ("ledger", "units"),
    ("slots", "leased", "pace", "gate", "budget", "outage", "response_ids", "engine"),
    ("fallback", "conversation", "occurrences", "spool", "marks", "flow", "assemble"),
    ("sandbox",),
    ("session", "job", "report", "hold"),
    ("pipeline", "progress", "work", "folder"),
    ("census", "lineage", "forecast", "plan", "inspect", "ledger_tools"),
    ("signals", "logs", "starter", "display"),
    ("batches", "spread", "api", "frames", "pandas", "polars", "integrations", "cli"),
    ("__init__",),
)
# Who may know these: the ways out of the process are few.
ONLY = {
    "aiohttp": {"client", "exchange", "post", "sandbox"},
    "sqlite3": {"ledger", "occurrences"},
    "psycopg": {"ledger"},
    "click": {"cli"},
    "jinja2": {"template", "report"},
    "yaml": {"strict_yaml"},
}


def modules() -> dict[str, Path]:
    """Give every module of the package by its dotted name, without `enrich.`."""
    names = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


OURS = {f"enrich.{name}" for name in modules()}


@cache
def imported(path: Path) -> frozenset[str]:
    """Give the dotted names that a module imports, also for type checks and within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= full if full <= OURS else {node.module or ""}
    return frozenset(found)


def known_to(name: str) -> set[str]:
    """Give the modules of ours that a module imports."""
    ours = {found.removeprefix("enrich.") for found in imported(modules()[name])}
    return {other for other in ours if other in modules()} - {name}


def layer_of(name: str) -> int:
    """Give the number of a module's layer."""
    head = name.partition(".")[0]
    numbers = [number for number, layer in enumerate(LAYERS) if head in layer]
    assert numbers, f"{name}: give it a place in LAYERS"
    return numbers[0]


def test_imports_point_one_way() -> None:
    """No module imports from a layer below its own."""
    wrong = [
        f"{name} imports {other}"
        for name in modules()
        for other in known_to(name)
        if name != "__init__" and layer_of(other) > layer_of(name)
    ]
    assert wrong == []


def test_no_two_modules_know_each_other() -> None:
    """The imports, those for type checks included, have no circle."""
    graph = {name: known_to(name) for name in modules() if name != "__init__"}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


def test_libraries_stay_where_they_belong() -> None:
    """HTTP, SQL, the command line and templates each have one place."""
    wrong = [
        f"{name} imports {found}"
        for name, path in modules().items()
        for found in imported(path)
        if name.partition(".")[0] not in ONLY.get(found.partition(".")[0], {name.partition(".")[0]})
    ]
    assert wrong == []
