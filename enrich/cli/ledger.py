"""The commands under `ledger`, which look after one."""

from __future__ import annotations

import click

from enrich.cli.app import main
from enrich.cli.execute import run_async
from enrich.cli.options import names_in


@main.group()
def ledger() -> None:
    """Look after a ledger: list, export, import, verify, reconcile, add up, repair, prune.

    LEDGER is a configuration that names one, or the ledger's own file or URL.
    """


LEDGER = click.argument("where", metavar="LEDGER")


@ledger.command("ls")
@LEDGER
@click.option(
    "--state",
    "states",
    default="",
    metavar="NAMES",
    help="Only these: answered, failed, sent, in_doubt, skipped; several with commas.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ledger_ls(where: str, states: str, *, as_json: bool) -> None:
    """List the requests a ledger holds, oldest first.

    \b
    Example:
      beatra-enrich ledger ls config.yaml --state failed,in_doubt
    """
    from enrich.records import STATES
    from enrich.verbs.ledger import HEADER, ledger_location, list_requests

    chosen = names_in("--state", states, STATES) or frozenset(STATES)
    location = ledger_location(where)
    if not as_json:
        click.echo(HEADER)
    run_async(
        lambda: list_requests(
            location,
            click.echo,
            states=chosen,
            as_json=as_json,
        )
    )


@ledger.command("export", short_help="Write everything a ledger holds to a file.")
@LEDGER
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    required=True,
    help="Where to; its suffix says the format, such as .parquet.",
)
def ledger_export(where: str, out: str) -> None:
    """Write everything a ledger holds to a file, raw requests and answers included.

    The file may be read by its owner only. Of a damaged ledger, all that is left is written.

    \b
    Example:
      beatra-enrich ledger export config.yaml -o ledger.parquet
    """
    from enrich.base.words import counted
    from enrich.verbs.ledger import export_ledger, find_ledger, given_back

    location, config = find_ledger(where)
    count, salvage = run_async(lambda: export_ledger(location, out, config))
    click.echo(f"{counted(count, 'request')} → {out}")
    if salvage is not None:
        click.echo("the ledger is damaged; this is what is left of it:", err=True)
        for line in given_back(salvage):
            click.echo(line, err=True)


@ledger.command("verify", short_help="Check a whole ledger, every checksum included.")
@LEDGER
def ledger_verify(where: str) -> None:
    """Check a whole ledger: structure, every checksum, every key there once. Exit code 2 when it is damaged.

    \b
    Example:
      beatra-enrich ledger verify config.yaml
    """
    from enrich.verbs.ledger import findings, ledger_location, verify_ledger

    report = run_async(lambda: verify_ledger(ledger_location(where)))
    for line in findings(report):
        click.echo(line)
    if not report.sound:
        raise click.exceptions.Exit(2)


@ledger.command("import", short_help="Take answers that were paid for elsewhere, at no cost.")
@click.argument("config", metavar="CONFIG")
@click.argument("file", metavar="FILE")
@click.option(
    "--step", metavar="NAME", help="Whose prompts a table holds, where several steps ask by rows alone."
)
@click.option(
    "--map",
    "told",
    multiple=True,
    metavar="WHAT=COLUMN",
    help="A table's column for prompt, answer or model, where it is not called that. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def ledger_import(config: str, file: str, *, step: str | None, told: tuple[str, ...], as_json: bool) -> None:
    """Take answers from FILE into the ledger of a job: requests that have one are not asked any more.

    FILE is what `ledger export` wrote of another ledger of the same endpoint, or a table of prompts and answers, as other
    tools cache them: then each row of the job's input whose prompt is there has its answer. All are checked, marked as
    imported, and cost nothing.

    \b
    Example:
      beatra-enrich ledger import config.yaml other-ledger.parquet
      beatra-enrich ledger import config.yaml cache.jsonl --map prompt=question --map answer=reply
    """
    from enrich.base.texts import json_bytes
    from enrich.config import load_config
    from enrich.verbs.import_answers import import_answers

    job, columns = load_config(config), dict(_pair(text) for text in told)
    done = run_async(lambda: import_answers(job, file, columns, step))
    click.echo(json_bytes(done.to_dict()).decode() if as_json else "\n".join(done.text()))


@ledger.command("reconcile", short_help="Hold a provider's bill to a ledger, line by line.")
@LEDGER
@click.argument("bill", metavar="BILL")
@click.option(
    "--map",
    "told",
    multiple=True,
    metavar="WHAT=COLUMN",
    help="The bill's column for request_id, key, time, model, prompt_tokens, completion_tokens, total_tokens, credits or "
    "credits_usd, where its name does not tell. May be repeated.",
)
@click.option("--since", metavar="TIME", help="Only answers from then on may be missing on the bill.")
@click.option("--until", metavar="TIME", help="Only answers before then.")
@click.option(
    "--within",
    type=click.FloatRange(min=0, max=86_400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="By which both clocks may differ, for lines that are matched by time, model and tokens.",
)
@click.option("-o", "--out", metavar="FILE", help="Write every line to a table; its suffix says the format.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def ledger_reconcile(
    where: str,
    bill: str,
    *,
    told: tuple[str, ...],
    since: str | None,
    until: str | None,
    within: float,
    out: str | None,
    as_json: bool,
) -> None:
    """Hold a provider's bill (CSV, Parquet, JSON Lines) to what a ledger holds, line by line.

    Lines are matched by request id, else by idempotency key, else by time, model and tokens. Exit code 3 when both sides
    are not the same.

    \b
    Example:
      beatra-enrich ledger reconcile config.yaml usage.csv
      beatra-enrich ledger reconcile config.yaml usage.csv --map request_id=Id -o lines.parquet
    """
    from enrich.base.texts import json_bytes
    from enrich.verbs.ledger import find_ledger
    from enrich.verbs.reconcile import reconcile, write_lines

    location, config = find_ledger(where)
    columns = dict(_pair(text) for text in told)
    bounds = {"since": _moment("--since", since), "until": _moment("--until", until)}
    span = {name: at for name, at in bounds.items() if at is not None}
    found = run_async(lambda: reconcile(location, bill, columns, within=within, **span))
    if out is not None:
        write_lines(found, out, location, config)
    click.echo(json_bytes(found.to_dict()).decode() if as_json else "\n".join(found.text()))
    if not found.agrees:
        raise click.exceptions.Exit(3)


@ledger.command("spend", short_help="Add up what a ledger's answers cost.")
@LEDGER
@click.option(
    "--by",
    default="day",
    show_default=True,
    metavar="NAMES",
    help="What to tell apart: day, tag, model, step, config; several with commas.",
)
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    metavar="ZONE",
    help="In which days begin, such as Europe/Berlin.",
)
@click.option(
    "-o", "--parquet", "out", metavar="FILE", help="Write the lines to a table; its suffix says the format."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def ledger_spend(where: str, *, by: str, zone: str, out: str | None, as_json: bool) -> None:
    """Add up what a ledger's answers cost: requests, tokens, credits, and US dollars.

    Dollars are counted by `prices` where a configuration is given that names the model, else as the endpoint told them.

    \b
    Example:
      beatra-enrich ledger spend config.yaml
      beatra-enrich ledger spend team.db --by tag,day --zone Europe/Berlin --parquet spend.parquet
    """
    from enrich.base.texts import json_bytes
    from enrich.config.budget import known_zone
    from enrich.verbs.ledger import find_ledger
    from enrich.verbs.spend import WAYS, spending_of, write_spending

    chosen = names_in("--by", by, WAYS)
    if not chosen:
        raise click.BadParameter("--by names nothing", param_hint="--by")
    try:
        known_zone(zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--zone") from None
    location, config = find_ledger(where)
    prices = config.prices if config is not None else {}
    order = [name for name in (part.strip() for part in by.split(",")) if name in chosen]
    found = run_async(lambda: spending_of(location, list(dict.fromkeys(order)), zone=zone, prices=prices))  # type: ignore[arg-type]  # they are of WAYS
    if out is not None:
        write_spending(found, out, location, config)
    click.echo(json_bytes(found.to_dict()).decode() if as_json else "\n".join(found.text()))


def _pair(text: str) -> tuple[str, str]:
    what, given, column = text.partition("=")
    if not given:
        raise click.BadParameter(f"{text!r} is not of the form WHAT=COLUMN", param_hint="--map")
    return what.strip(), column.strip()


def _moment(flag: str, text: str | None) -> float | None:
    from enrich.verbs.bill import seconds_of

    try:
        return seconds_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=flag) from None


@ledger.command("repair", short_help="Make a sound ledger of what is left of a damaged one.")
@LEDGER
@click.option(
    "-o", "--out", metavar="FILE", required=True, help="The new ledger; the old one stays as it is."
)
def ledger_repair(where: str, out: str) -> None:
    """Make a sound ledger of what is left of a damaged one.

    Every page that is whole gives its lines, each is held to its checksum. What is lost is asked again under its key,
    at no second charge for 23 hours after it was sent; then it is in doubt.

    \b
    Example:
      beatra-enrich ledger repair .beatra/ledger.db -o .beatra/repaired.db
      beatra-enrich run config.yaml --set ledger=.beatra/repaired.db
    """
    from enrich.verbs.ledger import given_back, ledger_location, repair_ledger

    for line in given_back(run_async(lambda: repair_ledger(ledger_location(where), out))):
        click.echo(line)
    click.echo(f"→ {out}\nHint: put it in the old one's place, or name it by `ledger:`.")


@ledger.command("prune", short_help="Forget requests that were settled long ago.")
@LEDGER
@click.option(
    "--older-than", required=True, metavar="AGE", help="A number and s, m, h, d or w, for example 30d."
)
def ledger_prune(where: str, older_than: str) -> None:
    """Forget requests that were answered or failed long ago; what has no answer yet stays.

    A forgotten request is asked, and paid for, anew when it turns up again.

    \b
    Example:
      beatra-enrich ledger prune config.yaml --older-than 30d
    """
    from enrich.base.words import counted
    from enrich.verbs.ledger import ledger_location, parse_age, prune_ledger

    age = parse_age(older_than)
    count = run_async(lambda: prune_ledger(ledger_location(where), age))
    click.echo(f"{counted(count, 'request')} forgotten")
