"""Imports point one way: a package knows those above it in this picture, never one below or beside it.

errors, records                    what passes between all of them, and what can go wrong
base                             clocks, places, words, event loops, values and their texts
sandbox  config  measure       the API's emulator │ the configuration │ figures of agreement
schema  files  pace          what an answer must be │ tables in and out │ when the next request may go
wire  prompt  ledger       one attempt over HTTP │ what is asked │ what is paid for
answer  engine  report   what was answered │ every request ends once │ the page on a run
rows  show             rows through steps │ what a person sees meanwhile
runs                 a whole job
verbs  api         plan, check, … │ `enrich.run`
agents  frames  live   an agent's tools │ data frames and record batches │ the page while it runs
cli, pandas, polars, spread
integrations Airflow, Dagster, Spark, Ray
"""

from __future__ import annotations

import ast
import graphlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "enrich"

# The picture above, from the ground up; two of one line do not know each other.
LAYERS = (
    ("errors", "records"),
    ("base",),
    ("sandbox", "config", "measure"),
    ("schema", "files", "pace"),
    ("wire", "prompt", "ledger"),
    ("answer", "engine", "report"),
    ("rows", "show"),
    ("runs",),
    ("verbs", "api"),
    ("agents", "frames", "live"),
    ("cli", "pandas", "polars", "spread"),
    ("integrations",),
    ("__init__",),
)
# Who may know these: the ways out of the process are few.
ONLY = {
    "aiohttp": {"wire", "sandbox", "live"},
    "sqlite3": {"base", "ledger", "rows"},  # in base for its locks, where the system has none
    "psycopg": {"ledger"},
    "click": {"cli"},
    "opentelemetry": {"show"},
    "duckdb": {"files"},
    "jinja2": {"prompt", "report"},
    "yaml": {"config"},
}


@cache
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
    ours = {found.partition(".")[2] for found in imported(modules()[name]) if found.startswith("enrich.")}
    return {other for other in ours if other in modules()} - {name}


def layer_of(name: str) -> int:
    """Give the number of a module's layer."""
    head = name.partition(".")[0]
    numbers = [number for number, layer in enumerate(LAYERS) if head in layer]
    assert numbers, f"{name}: give it a place in LAYERS"
    return numbers[0]


def test_imports_point_one_way() -> None:
    """No module imports from a layer below its own, nor from another package of its own layer."""
    wrong = [
        f"{name} imports {other}"
        for name in modules()
        for other in known_to(name)
        if name.partition(".")[0] != other.partition(".")[0] and layer_of(other) >= layer_of(name)
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


def test_private_names_stay_in_their_module() -> None:
    """What begins with an underscore is imported by nobody."""
    wrong = [
        f"{name} imports {found}"
        for name, path in modules().items()
        for found in imported_names(path)
        if found.startswith("_") and not found.startswith("__")
    ]
    assert wrong == []


def imported_names(path: Path) -> set[str]:
    """Give the last names that a module imports of ours."""
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("enrich")
        for alias in node.names
    }


def test_every_package_says_what_it_is_for() -> None:
    """What goes in, what comes out, and which rule it keeps: that takes more than one sentence."""
    told = {
        path.parent.name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for path in PACKAGE.glob("*/__init__.py")
    }
    assert len(told) > 15
    assert [name for name, text in told.items() if text.count(".") < 2] == []
