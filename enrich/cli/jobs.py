"""The commands that make an output: run, retry, collect."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Literal

import click

from enrich.cli.app import EXIT_CODES, main
from enrich.cli.execute import confirm_plan, confirmed, execute, tried
from enrich.cli.options import (
    CONFIG,
    command_line,
    job_options,
    load,
    lock_option,
    metrics_option,
    output_options,
    page_options,
    statuses_of,
)
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

RETRIED = "error,invalid_output"  # statuses whose rows are asked again where nothing else is said


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
@click.option(
    "--trial",
    type=click.IntRange(min=1),
    metavar="N",
    help="Ask N rows first, drawn at random, show what came of them and what the rest costs, and ask whether to go on.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Draws the rows of --trial.",
)
@click.option("--yes", is_flag=True, help="With --trial: go on without asking, for scripts.")
@click.option(
    "--accept-model",
    is_flag=True,
    help="Take a model that answers in place of the one that a step is pinned to (`pin`), and keep that.",
)
@lock_option
@metrics_option
@page_options
@output_options
def run(
    config: Path,
    *,
    confirm: bool,
    trial: int | None,
    seed: int,
    yes: bool,
    accept_model: bool,
    **options: Any,
) -> None:
    """Run the job CONFIG: read, ask, write.

    A second run resumes and sends nothing that is paid for. The output is only ever replaced whole.

    \b
    Examples:
      beatra-enrich run config.yaml
      beatra-enrich run config.yaml --limit 20 --sandbox
      beatra-enrich run config.yaml --trial 100
      beatra-enrich run config.yaml --set steps.label.model=fast-1 --json
    """
    from enrich.runs.run import run_job

    refuse_together(trial, confirm=confirm, yes=yes, options=options)
    loaded = load(config, options)
    if confirm:
        confirm_plan(loaded, options)
    options["accept_model"] = accept_model
    if trial is not None:
        options["trial"] = tried(loaded, options, trial, seed, yes=yes)
    command = command_line("run", config, options)
    execute(
        run_job,
        loaded,
        options,
        command=command,
        fresh=options["fresh"],
        force=options["force"],
        accept_model=accept_model,
    )


def refuse_together(trial: int | None, *, confirm: bool, yes: bool, options: dict[str, Any]) -> None:
    """Refuse options of `run` that do not go together.

    Raises:
        ConfigError: some do not.
    """
    if yes and trial is None:
        raise ConfigError("--yes goes with --trial", hint="without it nothing is asked before a run.")
    if trial is not None and (confirm or options["fresh"]):
        other = "--confirm" if confirm else "--fresh"
        raise ConfigError(
            f"--trial does not go with {other}",
            hint="--trial shows the plan and asks by itself."
            if confirm
            else "what a trial asks is kept, and --fresh would ask it again.",
        )


@main.command(epilog=EXIT_CODES)
@CONFIG
@job_options
@click.option(
    "--status",
    "statuses",
    metavar="NAMES",
    help="Which rows, by their status: error, invalid_output, unsupported, truncated, filtered; several with commas.  "
    "[default: error,invalid_output]",
)
@click.option(
    "--where",
    metavar="EXPRESSION",
    help='Which rows, by what the output says, such as "sentiment_score < 0.2", in DuckDB\'s language. Their answers are '
    "asked anew, and paid for; the old ones stay in the ledger.",
)
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="NAME",
    help="With --where: ask this step anew. May be repeated.  [default: those whose columns it names, else all]",
)
@click.option("--yes", is_flag=True, help="With --where: go on without asking, for scripts.")
@click.option(
    "--in-doubt",
    type=click.Choice(["resend", "skip"]),
    help="What to do with rows in doubt: send them again (may be charged twice) or give them up.",
)
@lock_option
@metrics_option
@page_options
@output_options
def retry(
    config: Path,
    statuses: str | None,
    in_doubt: Literal["resend", "skip"] | None,
    where: str | None,
    steps: tuple[str, ...],
    *,
    yes: bool,
    **options: Any,
) -> None:
    """Ask again for the rows that failed, or, with --where, for those whose answers say what they should not.

    With --where the plan and its price are shown first, and whether to go on is asked. Rows in doubt are left alone.

    \b
    Examples:
      beatra-enrich retry config.yaml
      beatra-enrich retry config.yaml --status truncated,filtered
      beatra-enrich retry config.yaml --in-doubt resend
      beatra-enrich retry config.yaml --where "sentiment_score < 0.2"
    """
    from enrich.runs.retry import retry_job

    if where is not None:
        if statuses is not None or in_doubt is not None:
            raise ConfigError(
                "--where does not go with --status or --in-doubt",
                hint="say it in the expression, as --where \"sentiment_status = 'truncated'\"; rows in doubt are settled apart.",
            )
        retry_where(config, where, steps, yes=yes, options=options)
        return
    if steps or yes:
        raise ConfigError("--step and --yes go with --where", hint="--where chooses rows by what they say.")
    chosen = statuses_of(RETRIED if statuses is None else statuses)
    loaded = load(config, options)
    command = command_line("retry", config, options)
    execute(retry_job(in_doubt), loaded, options, command=command, retry=chosen)


def retry_where(
    config: Path, where: str, steps: tuple[str, ...], *, yes: bool, options: dict[str, Any]
) -> None:
    """Choose rows, show what asking them anew costs, and ask them if that is wanted."""
    from enrich.base.command import Command
    from enrich.runs.run import run_job

    loaded = load(config, options)
    further = [
        "--where",
        where,
        *(word for name in steps for word in ("--step", name)),
        *(["--yes"] if yes else []),
    ]
    command = command_line("retry", config, options)
    found = confirmed(loaded, where, steps, options, yes=yes)
    command = Command("retry", command.rest, shlex.join(further))
    execute(run_job, loaded, options, command=command, anew=found)


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
