"""The command that asks one sample in several ways: compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enrich.cli.app import EXIT_CODES, main
from enrich.cli.closing import SANDBOX_NOTE
from enrich.cli.execute import looked
from enrich.cli.options import load
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.measure.comparison import Comparison, Pair
    from enrich.verbs.compare import Contender

SAMPLE = 200  # rows asked where nothing else is said


@main.command(epilog=EXIT_CODES, short_help="Ask the same rows in two to five ways, and compare the answers.")
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="With one CONFIG: a variant of it. One is held against CONFIG as it stands, several against each other.  With several CONFIGs: for each of them.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"How many rows, drawn at random.  [default: {SAMPLE}; with --limit all of those]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Draws the rows."
)
@click.option("--by", metavar="COLUMN", help="Stratify the sample: of each value of this column its share.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows.")
@click.option(
    "--where",
    metavar="EXPRESSION",
    help="Only rows of the input for which this is true, in DuckDB's language.",
)
@click.option("--cohort", metavar="NAME", help="Keep, or take, the rows that were drawn under this name.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="X",
    help="Up to which two numbers are the same.",
)
@click.option("--input", metavar="PATH", help="Read this instead of each `input`.")
@click.option("--sandbox", is_flag=True, help="Send to the built-in emulator instead of the endpoint.")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="Write the page here.  [default: compare.html beside the first output]",
)
@click.option("--no-content", is_flag=True, help="Leave out what rows and answers say.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
def compare(
    configs: tuple[Path, ...],
    *,
    sample: int | None,
    cohort: str | None,
    tolerance: float,
    out: str | None,
    no_content: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Ask the same rows in two to five ways, and show side by side what came of it.

    Statuses, cost, tokens, latency, labels; agreement of each pair; both answers of every row that differs; what all
    rows would cost. The answers are kept: the run of the variant that wins does not ask these rows again.

    \b
    Examples:
      beatra-enrich compare a.yaml b.yaml --sample 100 --seed 1
      beatra-enrich compare config.yaml --set steps.sentiment.model=fast-1
    """
    from enrich.report.compare_page import write_comparison
    from enrich.show.logs import set_up_logs
    from enrich.verbs.compare import Sample, compare_job

    set_up_logs(0, "text", quiet=quiet)
    found = contenders(configs, options)
    page = page_of(found, out)
    size = sample if sample is not None or options["limit"] is not None else SAMPLE
    chosen = Sample(size, options["seed"], options["where"], options["by"], cohort)
    comparison: Comparison = looked(
        found[0].config,
        lambda given: compare_job(found, given, chosen, tolerance=tolerance, content=not no_content),
        quiet=quiet,
        limit=options["limit"],
    )
    write_comparison(comparison, page)
    if as_json:
        click.echo(json.dumps({**comparison.to_dict(), "page": page}))
        return
    for line in lines(comparison):
        click.echo(line)
    click.echo(page)


def page_of(found: Sequence[Contender], out: str | None) -> str:
    """Give where the page goes, before anything is sent.

    Raises:
        OutputError: it would take the place of a file that one of the variants reads or writes.
    """
    from enrich.config import Place, refuse_target
    from enrich.files.sink import destination

    page = destination(out or beside(found[0]))
    for one in found:
        refuse_target(Place("the page", page), one.config, one.config.ledger_location())
    return page


def beside(first: Contender) -> str:
    """Give where the page lies unless it is told: beside the first variant's output."""
    from enrich.base.location import ObjectUrl, is_url

    output = first.config.output.path
    return str(
        ObjectUrl.parse(output).beside("compare.html")
        if is_url(output)
        else Path(output).parent / "compare.html"
    )


def contenders(configs: Sequence[Path], options: dict[str, Any]) -> list[Contender]:
    """Read the configurations, or the variants of one.

    Raises:
        ConfigError: one of them cannot be read.
    """
    from enrich.config.secrets import without_secret
    from enrich.verbs.compare import Contender

    overrides = options["overrides"]
    if len(configs) > 1:
        if len(set(configs)) < len(configs):
            raise ConfigError("one configuration is named twice", hint="--set makes variants of one.")
        names = [path.stem for path in configs]
        if len(set(names)) < len(names):
            names = [str(path) for path in configs]
        return [
            Contender(name, str(path), load(path, options)) for name, path in zip(names, configs, strict=True)
        ]
    path = configs[0]
    variants = (
        []
        if len(overrides) > 1
        else [Contender(path.stem, str(path), load(path, {**options, "overrides": ()}))]
    )
    for assignment in overrides:
        shown = without_secret(assignment)
        loaded = load(path, {**options, "overrides": (assignment,)})
        key, _, value = shown.partition("=")
        variants.append(Contender(f"{key.rpartition('.')[2]}={value}", shown, loaded))
    if len({one.name for one in variants}) < len(variants):
        variants = [one._replace(name=one.about) for one in variants]
    if len({one.name for one in variants}) < len(variants):
        raise ConfigError("two variants are the same", hint="each --set makes one.")
    return variants


def lines(comparison: Comparison) -> list[str]:
    """Say for people what a comparison found."""
    told = [comparison.drawn]
    width = max(len(variant.name) for variant in comparison.variants)
    for variant in comparison.variants:
        parts = [f"{count:,} {status}" for status, count in variant.statuses.items()]
        parts.append(f"{variant.per_thousand:,.4g} credits per 1,000 rows")
        parts += (
            [f"p50 {variant.latency[0]:,.0f} ms, p95 {variant.latency[1]:,.0f} ms"] if variant.latency else []
        )
        for score in variant.gold:
            if (accuracy := score.figures["accuracy"]).value is not None:
                parts.append(
                    f"{score.column} accuracy {accuracy.value:.3g}{_ends(accuracy.interval)}, n = {score.n:,}"
                )
        if variant.price is not None:
            price = variant.price
            parts.append(f"all rows {price.likely:,.4g} credits more ({price.low:,.4g} to {price.high:,.4g})")
        told.append(f"  {variant.name:{width}}  {', '.join(parts)}")
    told += [line for pair in comparison.pairs for line in _pair(pair)]
    if comparison.made_up:
        told.append(f"{SANDBOX_NOTE} ({', '.join(comparison.made_up)})")
    return told


def _pair(pair: Pair) -> list[str]:
    if pair.agreement.value is None:
        return [f"{pair.first} and {pair.second}: no row was answered by both"]
    agree = f"{pair.agreement.value:.3g}{_ends(pair.agreement.interval)}"
    told = [f"{pair.first} and {pair.second} agree on {agree} of {pair.n:,} rows"]
    for column, gain in pair.gains.items():
        if gain.value is not None and gain.interval is not None:
            unsure = (
                ": this sample does not tell which is better"
                if gain.interval[0] <= 0 <= gain.interval[1]
                else ""
            )
            told.append(
                f"  {column}: accuracy of {pair.second} {gain.value:+.3g}{_ends(gain.interval)}{unsure}"
            )
    return told


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"
