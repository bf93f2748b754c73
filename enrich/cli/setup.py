"""The commands that help to begin: init, models, completion, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from enrich.cli.app import main
from enrich.cli.execute import run_async
from enrich.cli.options import (
    load,
)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".")
def init(directory: Path) -> None:
    """Make a starter configuration that runs at once on the sandbox.

    On a terminal it asks for your data and what is to be done with each row; with an empty answer, or without a
    terminal, it makes up data as well.

    \b
    Example:
      beatra-enrich init demo
    """
    from enrich.verbs.init import write_for, write_starter

    data = _asked_for_data() if sys.stdin.isatty() and sys.stdout.isatty() else None
    if data is None:
        made = write_starter(directory)
    else:
        task = click.prompt("What is to be done with each row", default="Summarize in one sentence.")
        labels = click.prompt(
            "Labels to choose from, with commas (Enter for free text)", default="", show_default=False
        )
        made = write_for(
            directory, data, task, [label.strip() for label in labels.split(",") if label.strip()]
        )
    for path in made:
        click.echo(f"made {path}")
    click.echo(f"\nNow: beatra-enrich run {directory / 'config.yaml'}")


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
