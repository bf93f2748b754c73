"""The command that takes rows to people and back: review."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from enrich.cli.app import main
from enrich.cli.execute import run_async
from enrich.cli.options import CONFIG, job_options, load
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 100  # rows of a sheet


@main.command(short_help="Have rows labelled by hand, and correct the counts by them.")
@CONFIG
@job_options
@click.option(
    "-n", "rows", type=click.IntRange(min=1), metavar="N", help=f"How many rows.  [default: {SIZE}]"
)
@click.option("-o", "--out", metavar="FILE", help="Draw rows, and write them to this sheet: .csv, .xlsx, ….")
@click.option("--read", "sheet", metavar="FILE", help="Take a sheet back, and say what it means.")
@click.option(
    "--as-examples", "examples", metavar="FILE", help="Write the corrected rows as an examples_file (.jsonl)."
)
@click.option(
    "--column", metavar="NAME", help="The answers that are reviewed.  [default: the first column of them]"
)
@click.option(
    "--by",
    type=click.Choice(["label", "confidence", "status"]),
    default="label",
    show_default=True,
    help="What the sample is stratified by.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Draws the rows."
)
@click.option(
    "--unseen",
    is_flag=True,
    help="Draw of the rows without a value by hand (`gold`); the others count as they are.",
)
@click.option("--show-answers", is_flag=True, help="Put the model's answers into the sheet.")
@click.option(
    "--margin",
    type=click.FloatRange(min=0, max=0.5, min_open=True),
    default=0.05,
    show_default=True,
    metavar="X",
    help="How closely the accuracy is to be known.",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def review(
    config: Path,
    *,
    rows: int | None,
    out: str | None,
    sheet: str | None,
    examples: str | None,
    column: str | None,
    by: Any,
    seed: int,
    unseen: bool,
    show_answers: bool,
    margin: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Have rows of the output labelled by hand; send nothing.

    Draws a stratified sample to a sheet, takes it back, and says: the accuracy with its interval, whether the sample
    was too small, and corrected counts of each label over the whole table. Without -o and --read: what it says so far.

    \b
    Examples:
      beatra-enrich review config.yaml -n 100 -o sheet.csv
      beatra-enrich review config.yaml --read sheet.csv
      beatra-enrich review config.yaml --as-examples corrected.jsonl
    """
    from enrich.verbs.review import draw_sheet, read_sheet, review_of
    from enrich.verbs.review_examples import write_examples

    if sum(given is not None for given in (out, sheet, examples)) > 1:
        raise ConfigError("-o, --read and --as-examples exclude each other", hint="one after the other.")
    if rows is not None and out is None:
        raise ConfigError("-n goes with -o FILE, the sheet that is written", hint="such as -o sheet.csv.")
    if unseen and out is None:
        raise ConfigError(
            "--unseen goes with -o FILE, the sheet that is written", hint="such as -o sheet.csv."
        )
    loaded = load(config, options)
    if examples is not None:
        path, count = run_async(lambda: write_examples(loaded, examples, column))
        click.echo(
            json.dumps({"examples": path, "rows": count}) if as_json else f"{count:,} corrected rows → {path}"
        )
        return
    if out is not None:
        found: Any = run_async(
            lambda: draw_sheet(
                loaded,
                out,
                size=rows or SIZE,
                seed=seed,
                by=by,
                column=column,
                show=show_answers,
                unseen=unseen,
            )
        )
    elif sheet is not None:
        found = run_async(lambda: read_sheet(loaded, sheet, margin=margin))
    else:
        found = run_async(lambda: review_of(loaded, column, margin=margin))
    click.echo(json.dumps(found.to_dict()) if as_json else found.text())
