# ruff: noqa: INP001  # a script, not a package
"""Prefect: a job as a task that is retried after an outage, and stopped in good order by a cancellation.

Run it as it stands: `python examples/prefect/flow.py`. It asks the built-in sandbox, for nothing.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

import enrich

CONFIG = Path(__file__).parent.parent / "tickets" / "config.yaml"


class Unfinished(Exception):
    """A run that ended early; everything paid for is kept."""

    def __init__(self, summary: enrich.Summary) -> None:
        super().__init__(summary.reason)
        self.passes = summary.resumable


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Retry after an outage, an interrupt or a lock; a refused key or a wrong configuration needs a person."""
    return getattr(state.data, "passes", False)


@task(retries=3, retry_delay_seconds=60, retry_condition_fn=may_pass)
def ask(config: Path, overrides: list[str]) -> dict[str, Any]:
    """Run the job; a retry, or the next run of the flow, asks only what has no answer yet."""
    summary = enrich.run(config, overrides=overrides, drain=5)  # a cancelled run has thirty seconds
    if summary.exit_code not in {0, 3}:
        raise Unfinished(summary)
    return summary.to_dict()


@flow
def tickets(config: Path = CONFIG, overrides: list[str] | None = None) -> dict[str, Any]:
    """Ask about every ticket; more failed rows than `tolerate` fail the flow after the output is written."""
    summary = ask(config, overrides or [])  # called, not submitted: a cancellation has to reach it
    get_run_logger().info("%s: %s credits → %s", *map(summary.get, ("reason", "credits", "output")))
    if summary["exit_code"]:
        raise RuntimeError(summary["reason"])
    return summary


if __name__ == "__main__":
    tickets()
