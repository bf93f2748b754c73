"""The commands that make an output: run, retry, collect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from enrich.cli.app import EXIT_CODES, main
from enrich.cli.execute import confirm_plan, execute
from enrich.cli.options import (
    CONFIG,
    command_line,
    job_options,
    load,
    lock_option,
    output_options,
    statuses_of,
)

if TYPE_CHECKING:
    from pathlib import Path


@main.command(epilog=EXIT_CODES)
@CONFIG
@job_options
@click.option("--fresh", is_flag=True, help="Ask everything anew, and pay for it again.")
@click.option(
    "--force",
    is_flag=True,
    help="Go through all rows though nothing has changed since the last finished run.",
)
@click.option("--confirm", is_flag=True, help="Show the plan first, and ask whether to go on.")
@lock_option
@output_options
def run(config: Path, *, confirm: bool, **options: Any) -> None:
    """Run the job CONFIG: read, ask, write.

    A second run resumes and sends nothing that is paid for. The output is only ever replaced whole.

    \b
    Examples:
      beatra-enrich run config.yaml
      beatra-enrich run config.yaml --limit 20 --sandbox
      beatra-enrich run config.yaml --set steps.label.model=fast-1 --json
    """
    from enrich.runs.pipeline import run_job

    loaded = load(config, options)
    if confirm:
        confirm_plan(loaded, options)
    command = command_line("run", config, options)
    execute(run_job, loaded, options, command=command, fresh=options["fresh"], force=options["force"])


@main.command(epilog=EXIT_CODES)
@CONFIG
@job_options
@click.option(
    "--status",
    "statuses",
    default="error,invalid_output",
    show_default=True,
    metavar="NAMES",
    help="Which rows, by their status: error, invalid_output, truncated, filtered; several with commas.",
)
@click.option(
    "--in-doubt",
    type=click.Choice(["resend", "skip"]),
    help="What to do with rows in doubt: send them again (may be charged twice) or give them up.",
)
@lock_option
@output_options
def retry(config: Path, statuses: str, in_doubt: Literal["resend", "skip"] | None, **options: Any) -> None:
    """Ask again for the rows that failed, and only for them.

    \b
    Examples:
      beatra-enrich retry config.yaml
      beatra-enrich retry config.yaml --status truncated,filtered
      beatra-enrich retry config.yaml --in-doubt resend
    """
    from enrich.runs.retry import retry_job

    chosen = statuses_of(statuses)
    loaded = load(config, options)
    command = command_line("retry", config, options)
    execute(retry_job(in_doubt), loaded, options, command=command, retry=chosen)


@main.command()
@CONFIG
@job_options
@click.option("-o", "--out", metavar="FILE", help="Write here instead of `output`.")
@lock_option
@output_options
def collect(config: Path, out: str | None, **options: Any) -> None:
    """Write an output from the ledger as it stands; send nothing.

    Rows without an answer have the status `pending`.

    \b
    Example:
      beatra-enrich collect config.yaml -o so-far.parquet
    """
    from enrich.runs.collect import collect_job

    command = command_line("run", config, options)
    options["output"] = out or options["output"]
    execute(collect_job, load(config, options), options, command=command)
