"""Each integration works in a fresh environment that holds the project with that one extra, or that one program."""

from __future__ import annotations

import os
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTING = ("pytest>=9.0", "pytest-timeout>=2.4")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# What tests/integrations/test_<name>.py needs besides the project, with its extra of that name where there is one.
NEEDS: dict[str, tuple[str, ...]] = {
    "airflow": ("apache-airflow-providers-openlineage>=2.20",),
    "dagster": (),
    "dbt": ("dbt-core>=1.11,<1.12", "dbt-duckdb>=1.10"),  # 1.12 fetches a parser from the web as it installs
    "prefect": ("prefect>=3.4", "fastapi<0.150"),  # what Prefect 3.8 calls is gone from later ones
    "ray": (),
    "recipes": (
        "daft>=0.7",
        "dask[dataframe,distributed]>=2026.8",
        "dlt[duckdb]>=1.31",
        "duckdb>=1.4",
        "polars>=1.34",
    ),
    "spark": (),
    "tables": (
        *(
            "pyspark>=4.0",
            "deltalake>=1.6",
            "fastparquet>=2026.9",
            "duckdb>=1.4",
            "polars>=1.34",
            "pandas>=3",
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_integration(name: str, tmp_path: Path) -> None:
    """The tests of an integration pass where nothing is installed but what it needs."""
    project = f"{ROOT}[{name}]" if name in EXTRAS else str(ROOT)
    python = fresh_environment(tmp_path / "env", project, *NEEDS[name])
    ended = run_tests(python, ROOT / "tests" / "integrations" / f"test_{name}.py", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def fresh_environment(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment that holds these and what the tests run with; gives its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *TESTING, *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return python


def run_tests(python: Path, tests: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Run a test module there, on the installed package, without this project's own pytest settings and fixtures."""
    settings = ["-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-p", "no:cacheprovider"]
    # Appended to the path, the checkout gives `tests`, and what is installed gives `enrich`.
    settings += ["--import-mode=append", "--timeout", "600", "--basetemp", str(scratch / "base")]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("BEATRA_", "PYTEST_"))}
    return subprocess.run(
        [python, "-m", "pytest", "-ra", *settings, tests],
        cwd=scratch,
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_integration_is_tested() -> None:
    """A module of `enrich.integrations` without tests of its own is an oversight."""
    modules = {path.stem for path in (ROOT / "enrich" / "integrations").glob("[a-z]*")}
    assert modules <= set(NEEDS), f"add {sorted(modules - set(NEEDS))} to NEEDS"
