"""The command `sandbox`: the emulator as a server."""

from __future__ import annotations

from typing import Any

import click

from enrich.cli.app import main


@main.command(short_help="Serve an emulator of the API, with faults on demand.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="N",
    help="0 takes a free one.",
)
@click.option(
    "--latency",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    metavar="SECONDS",
    help="The median.",
)
@click.option(
    "--spread",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SIGMA",
    help="Of the latency, which is log-normal.",
)
@click.option(
    "--rpm",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Requests per minute before 429s.",
)
@click.option(
    "--balance", type=click.FloatRange(min=0), metavar="N", help="Credits on the account before 402s."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=PROBABILITY[:TIMES]",
    help="What goes wrong, and how often. May be repeated; `--fault list` shows the kinds.",
)
@click.option(
    "--cache",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Prompts that begin with so many tokens of an earlier one pay a tenth for these.",
)
@click.option("--parts", is_flag=True, help="Take pictures as content parts, which the contract has not.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of latencies and faults.")
def sandbox(port: int, latency: float, spread: float, faults: tuple[str, ...], **limits: Any) -> None:
    """Serve an emulator of the API on this machine, with faults on demand.

    It obeys the API's contract, charges made-up credits and keeps books: GET /sandbox/ledger.

    \b
    Example:
      beatra-enrich sandbox --port 8080 --rpm 600 --fault reset_after_charge=0.01
      BEATRA_BASE_URL=http://127.0.0.1:8080/v1 BEATRA_API_KEY=sk-any beatra-enrich run config.yaml
    """
    from enrich.sandbox import FAULTS, SandboxOptions, parse_fault

    if "list" in faults:
        for kind, meaning in FAULTS.items():
            click.echo(f"{kind:28} {meaning}")
        return
    from enrich.sandbox import serve

    options = SandboxOptions(
        port=port,
        latency=latency,
        latency_spread=spread,
        faults=tuple(parse_fault(text) for text in faults),
        **limits,
    )
    serve(options)
