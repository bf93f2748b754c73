"""The Python face of a file job: `enrich.run` does what the command line does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.config import Config, load_config, validate_config
from enrich.job import SANDBOX
from enrich.pipeline import RunOptions, collect_job, run_job
from enrich.runner import run_sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from enrich.records import Summary


def run(
    config: str | Path | Mapping[str, Any] | Config,
    *,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    input: str | None = None,  # noqa: A002  # named as the flag and the key
    output: str | None = None,
    fresh: bool = False,
    sandbox: bool = False,
) -> Summary:
    """Run a job: read the rows, ask what is not answered yet, write the output.

    Args:
        config: a YAML file's path, its content as a mapping, or a `Config`.
        limit: only the first so many rows.
        overrides: ``key.path=value`` assignments.
        input: read these rows instead.
        output: write here instead.
        fresh: ask everything anew, and pay for it.
        sandbox: send to the built-in emulator instead of the endpoint.

    Returns:
        How it ended: ``exit_code`` 0 when every row is fine, 3 when more failed than tolerated, 4 when it had
        to stop early and can be resumed, 130 when it was interrupted.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        OutputLocked: another run holds this output.

    Example:
        >>> import enrich
        >>> summary = enrich.run("config.yaml", limit=100)  # doctest: +SKIP
        >>> summary.statuses["ok"]  # doctest: +SKIP
        100
    """
    loaded = _load(config, overrides, input, output, sandbox=sandbox)
    return run_sync(lambda: run_job(loaded, RunOptions(limit=limit, fresh=fresh)))


def collect(
    config: str | Path | Mapping[str, Any] | Config, *, limit: int | None = None, output: str | None = None
) -> Summary:
    """Write an output from what the ledger holds now; send nothing. Rows without an answer are ``pending``."""
    loaded = _load(config, (), None, output, sandbox=False)
    return run_sync(lambda: collect_job(loaded, RunOptions(limit=limit)))


def _load(
    config: str | Path | Mapping[str, Any] | Config,
    overrides: Sequence[str],
    input_: str | None,
    output: str | None,
    *,
    sandbox: bool,
) -> Config:
    if isinstance(config, Config):
        return config
    if not isinstance(config, str) and hasattr(config, "keys"):
        return validate_config(config)  # type: ignore[arg-type]  # a mapping, as its keys show
    return load_config(
        config,
        overrides=list(overrides),
        input=input_,
        output=output,
        base_url=SANDBOX if sandbox else None,
    )
