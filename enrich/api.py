"""The Python face of a file job: `enrich.run` does what the command line does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich.base.interrupt import DRAIN
from enrich.base.loops import run_stoppable, run_sync
from enrich.config import Config, complete_config, load_config
from enrich.runs.collect import collect_job
from enrich.runs.job import SANDBOX
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enrich.records import Summary
    from enrich.runs.lock import Lock


def run(
    config: str | Path | Mapping[str, Any] | Config,
    *,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    input: str | None = None,  # noqa: A002  # named as the flag and the key
    output: str | None = None,
    fresh: bool = False,
    force: bool = False,
    sandbox: bool = False,
    base_url: str | None = None,
    api_key: str | None = None,
    drain: float = DRAIN,
    lock: Lock = "fail",
    partitions: Sequence[str] = (),
    accept_model: bool = False,
) -> Summary:
    """Run a job: read the rows, ask what is not answered yet, write the output.

    An exception that a signal handler raises meanwhile (KeyboardInterrupt, or a scheduler's own) stops the run in good
    order, and is raised on then.

    Args:
        config: a YAML file's path, its content as a mapping, or a `Config`.
        limit: only the first so many rows.
        overrides: ``key.path=value`` assignments.
        input: read these rows instead.
        output: write here instead.
        fresh: ask everything anew, and pay for it.
        force: go through all rows though nothing has changed since the last finished run.
        sandbox: send to the built-in emulator instead of the endpoint.
        base_url: of the endpoint, instead of the configuration's.
        api_key: instead of the one that the configuration names.
        drain: seconds that what is in flight may take after a stop; an answer that comes later is fetched for
            nothing by the next run.
        lock: when another run holds the output: ``fail`` raises, ``wait`` waits for its end, ``skip`` does nothing
            and says so in ``reason``.
        partitions: only these Hive partitions of the input, ``key=value`` each: of one key any, of several keys all.
        accept_model: take a model that answers in place of the one that a step is pinned to, and keep that.

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
    base_url = SANDBOX if sandbox else base_url
    loaded = any_config(
        config, overrides, input=input, output=output, partitions=partitions, base_url=base_url
    )
    options = RunOptions(
        limit=limit,
        fresh=fresh,
        force=force,
        drain=drain,
        api_key=api_key,
        lock=lock,
        accept_model=accept_model,
    )
    return run_stoppable(lambda: run_job(loaded, options), options.interrupt.fire)


def collect(
    config: str | Path | Mapping[str, Any] | Config, *, limit: int | None = None, output: str | None = None
) -> Summary:
    """Write an output from what the ledger holds now; send nothing. Rows without an answer are ``pending``."""
    loaded = any_config(config, (), output=output)
    return run_sync(lambda: collect_job(loaded, RunOptions(limit=limit)))


def any_config(
    config: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str], **flags: Any
) -> Config:
    """Load a configuration, however it is given; overrides and flags are as for `load_config`."""
    if isinstance(config, str | os.PathLike):
        return load_config(config, overrides=list(overrides), **flags)
    if isinstance(config, Config):
        config = config.model_dump(by_alias=True, exclude_unset=True)
    return complete_config(config, folder=Path.cwd(), overrides=overrides, **flags)
