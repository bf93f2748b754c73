"""The commands that look at a job and send nothing, or a sample: plan, preview, check, status, report."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from enrich.cli.app import EXIT_CODES, main
from enrich.cli.execute import planned, run_async, watch_page, watch_run
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

    for line in preview_job(
        load(config, options), rows if options["limit"] is None else min(rows, options["limit"])
    ):
        click.echo(line)


@main.command(short_help="Check all that can be checked without a completion.")
@CONFIG
@job_options
@click.option(
    "--probe",
    is_flag=True,
    help="Send one tiny request twice under one key: does the endpoint answer it once? One completion is paid for, or two.",
)
def check(config: Path, *, probe: bool, **options: Any) -> None:
    """Check everything that can be checked without asking for a completion.

    Configuration, templates against the input's columns, output, ledger, the endpoint's health, key and models.

    \b
    Examples:
      beatra-enrich check config.yaml
      beatra-enrich check config.yaml --probe
    """
    from enrich.verbs.check import check_job

    good = True
    for finding in run_async(lambda: check_job(load(config, options), options["limit"], probe=probe)):
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


@main.command(short_help="Serve a live page on a run that goes on elsewhere.")
@CONFIG
@job_options
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="N",
    help="Of the page.  [default: a free one]",
)
def watch(config: Path, *, port: int, **options: Any) -> None:
    """Serve a live page on the job's runs, to this machine alone, until Ctrl-C; its address is printed.

    How far a run is, what it waits for, its newest requests. It reads the ledger and leaves the run alone: what was
    started elsewhere is stopped there.

    \b
    Example:
      beatra-enrich watch config.yaml
    """
    watch_page(load(config, options), port)


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
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object: where the page lies, and what it shows."
)
def report(config: Path, out: str | None, *, no_content: bool, as_json: bool, **options: Any) -> None:
    """Write a page on the job and its runs; send nothing.

    One HTML file that needs no network: rows, answers, runs, throughput, latency, costs, failures, samples.

    \b
    Examples:
      beatra-enrich report config.yaml
      beatra-enrich report config.yaml -o night.html --no-content
    """
    from enrich.report.page import written_report

    written = run_async(lambda: written_report(load(config, options), out, content=not no_content))
    click.echo(json.dumps(written.to_dict()) if as_json else written.path)


@main.command(short_help="Show rows of the output, with prompt and answer.")
@CONFIG
@job_options
@click.option(
    "-n",
    "rows",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many rows.",
)
@click.option("--failed", is_flag=True, help="Only rows without a usable answer.")
@click.option(
    "--where",
    metavar="EXPRESSION",
    help='Only rows for which this is true, such as "stars < 3", in DuckDB\'s language.',
)
@click.option("--columns", metavar="NAMES", help="Only these columns; several with commas.")
@click.option("--prompts", is_flag=True, help="Each row with its prompt and its answer, instead of a table.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
def show(config: Path, *, prompts: bool, as_json: bool, columns: str | None, **options: Any) -> None:
    """Show rows of the output in the terminal; send nothing.

    The columns that the prompts use, the answers and how the rows stand; with --prompts each row with what was asked.

    \b
    Examples:
      beatra-enrich show config.yaml
      beatra-enrich show config.yaml --failed --prompts
      beatra-enrich show config.yaml --where "sentiment_label = 'neg'" --columns review,sentiment_score
    """
    import shutil

    from enrich.verbs.show import Wanted, show_job, table_text

    names = tuple(name.strip() for name in columns.split(",") if name.strip()) if columns else ()
    rows = options["rows"] if options["limit"] is None else min(options["rows"], options["limit"])
    shown = show_job(load(config, options), Wanted(rows, options["failed"], options["where"], names))
    if as_json:
        for line in shown.json_lines():
            click.echo(line)
        return
    click.echo(shown.head(), err=True)
    if prompts:
        for line in shown.blocks():
            click.echo(line)
    elif shown.rows:
        click.echo(table_text(shown, shutil.get_terminal_size().columns))
