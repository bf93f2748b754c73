"""The commands for agents: mcp, skill."""

from __future__ import annotations

from pathlib import Path

import click

from enrich.cli.app import main
from enrich.errors import UsageError


@main.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    show_default="this one",
    help="Where configurations lie; none from elsewhere is taken.",
)
def mcp(folder: Path) -> None:
    """Serve an agent's tools on stdin and stdout, by the Model Context Protocol.

    plan, run, status, collect, preview and show, for configurations of one folder. `run` takes a number of rows and a budget,
    and asks the agent's user before anything is spent. An agent's host starts it; its settings name this command.

    \b
    Example, and how an agent's host writes it down:
      beatra-enrich mcp --folder jobs
      {"mcpServers": {"beatra-enrich": {"command": "beatra-enrich", "args": ["mcp", "--folder", "jobs"]}}}
    """
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise UsageError("the MCP SDK is not installed", hint="pip install 'beatra-enrich[mcp]'")
    from enrich.agents.server import make_server

    make_server(folder).run("stdio")


@main.command()
def skill() -> None:
    """Print a page that teaches an agent this command line.

    \b
    Example:
      mkdir -p skills/beatra-enrich && beatra-enrich skill > skills/beatra-enrich/SKILL.md
    """
    from enrich.agents.skill import skill

    click.echo(skill(), nl=False)
