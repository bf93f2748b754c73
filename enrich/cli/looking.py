"""The commands that look at a job and send nothing, or a sample: plan, preview, check, status, report."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from enrich.cli.app import EXIT_CODES, main
from enrich.cli.execute import planned, run_async, watch_run
from enrich.cli.options import (
    CONFIG,
    job_options,
    load,
)

if TYPE_CHECKING:
    from pathlib import Path


@main.command(epilog=EXIT_CODES)
@CONFIG
@job_options
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Really ask N rows, chosen at random, and measure. Their answers are kept.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Chooses the sample.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
def plan(config: Path, *, sample: int | None, seed: int, as_json: bool, quiet: bool, **options: Any) -> None:
    """Say what a run would do and cost; send nothing, or a sample.

    Rows, distinct requests, what the ledger knows already, and tokens, credits and time with a range: guessed, or
    measured on answers in the ledger. Exit code 4 when that is over the budget.

    \b
    Examples:
      beatra-enrich plan config.yaml
      beatra-enrich plan config.yaml --sample 50
    """
    from enrich.show.logs import set_up_logs

    set_up_logs(0, "text", quiet=quiet)
    found = planned(load(config, options), options["limit"], sample or 0, seed=seed, quiet=quiet)
    click.echo(json.dumps(found.to_dict()) if as_json else found.text())
    raise click.exceptions.Exit(found.exit_code)


@main.command()
@CONFIG
@job_options
@click.option(
    "-n", "rows", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="How many rows."
)
def preview(config: Path, rows: int, **options: Any) -> None:
    """Show the request bodies of the first rows; send nothing.

    \b
    Example:
      beatra-enrich preview config.yaml -n 1
    """
    from enrich.verbs.preview import preview_job

    for line in preview_job(load(config, options), min(rows, options["limit"] or rows)):
        click.echo(line)


@main.command(short_help="Check all that can be checked without a completion.")
@CONFIG
@job_options
def check(config: Path, **options: Any) -> None:
    """Check everything that can be checked without asking for a completion.

    Configuration, templates against the input's columns, output, ledger, the endpoint's health, key and models.

    \b
    Example:
      beatra-enrich check config.yaml
    """
    from enrich.verbs.check import check_job

    good = True
    for finding in run_async(lambda: check_job(load(config, options), options["limit"])):
        good = good and finding.ok
        click.echo(finding.line(color=sys.stdout.isatty()))
    if not good:
        raise click.exceptions.Exit(2)


@main.command(short_help="Show what the ledger knows: states, spent, in doubt.")
@CONFIG
@job_options
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--watch", is_flag=True, help="Follow the run that is going on, until it ends.")
def status(config: Path, *, as_json: bool, watch: bool, **options: Any) -> None:
    """Show what the ledger knows: requests per state, spent so far, in doubt.

    With --watch, from another terminal: how far the run is, its rate, what it spent, why it waits. It reads the
    ledger and leaves the run alone.

    \b
    Examples:
      beatra-enrich status config.yaml
      beatra-enrich status config.yaml --watch
    """
    from enrich.verbs.status import status_job

    if watch:
        watch_run(load(config, options), as_json=as_json)
        return
    found = run_async(lambda: status_job(load(config, options)))
    click.echo(json.dumps(found.to_dict()) if as_json else found.text())


@main.command()
@CONFIG
@job_options
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="Write here. [default: `report` of the configuration, else report.html beside the output]",
)
@click.option(
    "--no-content", is_flag=True, help="Leave out what prompts and answers say: numbers, statuses, ids only."
)
def report(config: Path, out: str | None, *, no_content: bool, **options: Any) -> None:
    """Write a page on the last run; send nothing.

    One HTML file that needs no network: status, throughput, latency, costs, retries, failures, samples.

    \b
    Examples:
      beatra-enrich report config.yaml
      beatra-enrich report config.yaml -o night.html --no-content
    """
    from enrich.report.page import report_job

    click.echo(run_async(lambda: report_job(load(config, options), out, content=not no_content)))
