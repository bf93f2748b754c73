"""The commands that help to begin: init, models, completion, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enrich.cli.app import main
from enrich.cli.execute import run_async
from enrich.cli.options import (
    load,
)

if TYPE_CHECKING:
    from enrich.verbs.draft import Draft
    from enrich.verbs.init import Proposal

TABLES = frozenset(
    {".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods"}
)
TASK = "Summarize in one sentence."


@main.command()
@click.argument("path", metavar="[TABLE] [DIRECTORY]", type=click.Path(path_type=Path), required=False)
@click.argument("directory", metavar="", type=click.Path(path_type=Path), required=False)
@click.option("--task", help=f"What is to be done with each row of TABLE.  [default: {TASK}]")
@click.option(
    "--labels", metavar="NAMES", help="What an answer may be, with commas; without them it is free text."
)
@click.option(
    "--describe",
    metavar="TEXT",
    help="What is wanted of each row, in your words: the endpoint is asked once for a draft of prompt and schema. It is shown the "
    "columns and the first three rows. What it costs is said first.",
)
@click.option("--model", default="auto", show_default=True, help="Who is asked, with --describe.")
@click.option("--sandbox", is_flag=True, help="With --describe: a made-up draft, at no cost.")
@click.option("--yes", is_flag=True, help="With --describe: ask without a question, for scripts.")
def init(
    path: Path | None, directory: Path | None, task: str | None, labels: str | None, **draft: Any
) -> None:
    """Make a configuration: for a table of yours, or a starter that runs at once on the sandbox.

    With a TABLE its columns are looked at: the prompt shows those that tell something, and it is said why. Without one
    it makes up data as well. Without either, on a terminal, it asks for your data and what is to be done with each row.

    \b
    Examples:
      beatra-enrich init demo
      beatra-enrich init reviews.csv --task "Label the mood." --labels good,bad,mixed
      beatra-enrich init reviews.csv --describe "label the mood, and quote what shows it"
    """
    from enrich.verbs.init import propose, write_for, write_starter

    if path is not None and path.is_file():
        folder = directory or Path()
        proposal = propose(path)
        if draft["describe"]:
            if task is not None or labels is not None:
                raise click.UsageError("--describe drafts what --task and --labels say: give it, or them")
            drafted = _drafted(path, folder, proposal, **draft)
            proposal = drafted.proposal
            made = write_for(folder, path, drafted.task, proposal=proposal, schema=drafted.schema)
        else:
            made = write_for(folder, path, task or TASK, _listed(labels or ""), proposal)
        for line in proposal.why:
            click.echo(line)
    elif (
        (path or Path()).suffix.lower() in TABLES
        or directory is not None
        or task is not None
        or labels is not None
        or draft["describe"]
    ):
        raise click.UsageError(
            f"{path or Path()} is no file: name the table, such as beatra-enrich init reviews.csv"
        )
    else:
        folder = path or Path()
        asks = path is None and sys.stdin.isatty() and sys.stdout.isatty()
        data = _asked_for_data() if asks else None
        if data is None:
            made = write_starter(folder)
        else:
            task = click.prompt("What is to be done with each row", default=TASK)
            labels = click.prompt(
                "Labels to choose from, with commas (Enter for free text)", default="", show_default=False
            )
            made = write_for(folder, data, task or TASK, _listed(labels or ""))
    for each in made:
        click.echo(f"made {each}")
    click.echo(f"\nNow: beatra-enrich run {folder / 'config.yaml'}")


def _drafted(
    data: Path, folder: Path, proposal: Proposal, *, describe: str, model: str, sandbox: bool, yes: bool
) -> Draft:
    """Say what a draft costs, ask whether to go on, and have it made; leaves with 130 when not."""
    from enrich.errors import UsageError
    from enrich.verbs.draft import Drafting

    if not (yes or sandbox) and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "--describe says what it costs and asks on a terminal, and there is none",
            hint="--yes asks without a question; nothing was sent.",
        )
    drafting = Drafting(
        data, folder, describe, proposal, model=model, base_url="sandbox" if sandbox else None
    )
    if not sandbox:
        click.echo(
            f"A draft takes one request that shows {len(proposal.shown):,} columns and three rows of {data.name}:"
        )
        click.echo(run_async(drafting.plan).text())
        if not yes and not click.confirm("Ask for it?"):
            click.echo("Nothing was sent.")
            raise click.exceptions.Exit(130)
    drafted: Draft = run_async(drafting.ask)
    if sandbox:
        click.echo("sandbox: the draft is made up")
    return drafted


def _listed(labels: str) -> list[str]:
    return [label.strip() for label in labels.split(",") if label.strip()]


def _asked_for_data() -> Path | None:
    """Ask for a table until one is named that can be read; None for an example."""
    from enrich.errors import InputError
    from enrich.verbs.init import check_data

    while True:
        named = click.prompt(
            "Your data (a CSV, JSON Lines or Parquet file; Enter for an example)",
            default="",
            show_default=False,
        )
        if not named:
            return None
        data = Path(named).expanduser()
        try:
            check_data(data)
        except InputError as error:
            click.echo(error)
        else:
            return data


@main.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
def models(config: Path | None) -> None:
    """List the account's models.

    Endpoint and key come from CONFIG when it is given, else from BEATRA_BASE_URL and BEATRA_API_KEY.

    \b
    Example:
      beatra-enrich models
    """
    from enrich.verbs.models import list_models

    endpoint = None if config is None else load(config, {}).endpoint
    for name in run_async(lambda: list_models(endpoint)):
        click.echo(name)


@main.command(short_help="Print the shell completion of beatra-enrich.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and files of beatra-enrich.

    \b
    Once, then open a new terminal:
      bash   beatra-enrich completion bash >> ~/.bashrc
      zsh    beatra-enrich completion zsh >> ~/.zshrc
      fish   beatra-enrich completion fish > ~/.config/fish/completions/beatra-enrich.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click knows the three
    click.echo(kind(main, {}, "beatra-enrich", "_BEATRA_ENRICH_COMPLETE").source())


@main.command(short_help="Print the JSON Schema of the configuration file.")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors and checks.

    \b
    Example:
      beatra-enrich schema > config.schema.json
    """
    from enrich.config import Config

    click.echo(json.dumps(Config.model_json_schema(by_alias=True), indent=2))
