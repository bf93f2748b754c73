"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from enrich.base.command import Command
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from enrich.config import Config


CONFIG = click.argument("config", type=click.Path(path_type=Path))


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command with a CONFIG takes."""
    for option in (
        click.option(
            "--sandbox", is_flag=True, help="Send to the built-in emulator instead of the endpoint."
        ),
        click.option("--output", metavar="PATH", help="Write here instead of `output`."),
        click.option("--input", metavar="PATH", help="Read this instead of `input`."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY.PATH=VALUE",
            help="Override a key, for example --set limits.concurrency=8. May be repeated.",
        ),
        click.option(
            "--partition",
            "partitions",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only this Hive partition of the input, for example --partition day=2026-11-22. May be repeated: "
            "of one key any, of several keys all.",
        ),
        click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the first N rows."),
    ):
        command = option(command)
    return command


def lock_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option for what to do when the output is held."""
    return click.option(
        "--lock",
        type=click.Choice(["fail", "wait", "skip"]),
        default="fail",
        show_default=True,
        help="When another run holds the output: fail with exit code 5, wait for its end, or leave it with 0.",
    )(command)


def _write_logs_so(_: click.Context, __: click.Parameter, form: Literal["text", "json"]) -> str:
    """Have stderr written in this form from here on, what is wrong with the other options included."""
    from enrich.show.logs import set_up_logs

    set_up_logs(0, form, quiet=False)
    return form


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for what is shown and how."""
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            is_eager=True,
            callback=_write_logs_so,
            help="How stderr is written.",
        ),
        click.option("-v", "--verbose", count=True, help="Tell of every retry on stderr."),
        click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
        click.option("--no-progress", is_flag=True, help="No progress on stderr."),
        click.option("--json", "as_json", is_flag=True, help="One JSON summary on stdout."),
    ):
        command = option(command)
    return command


def metrics_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option for the file with a run's figures."""
    return click.option(
        "--metrics-file",
        metavar="FILE",
        help="Keep the run's figures in FILE for Prometheus' node exporter, such as "
        "/var/lib/node_exporter/reviews.prom.  [default: `metrics_file` of the configuration]",
    )(command)


def page_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the live page."""
    for option in (
        click.option(
            "--ui-port",
            type=click.IntRange(0, 65_535),
            metavar="N",
            help="With --ui: the page's port.  [default: a free one]",
        ),
        click.option(
            "--ui",
            is_flag=True,
            help="Serve a live page on the run, to this machine alone; its address is told.",
        ),
    ):
        command = option(command)
    return command


def load(path: Path, options: dict[str, Any]) -> Config:
    """Read the configuration with what the job options say put in."""
    from enrich.config import load_config

    return load_config(
        path,
        overrides=list(options.get("overrides", ())),
        input=options.get("input"),
        output=options.get("output"),
        partitions=options.get("partitions"),
        metrics_file=options.get("metrics_file"),
        base_url="sandbox" if options.get("sandbox") else None,
    )


def statuses_of(text: str) -> Any:
    """Read the statuses that `retry --status` names."""
    from enrich.records import FAILED

    known = sorted(status for status in FAILED if status != "in_doubt")
    found = names_in("--status", text, known)
    if not found:
        raise ConfigError(f"--status {text!r} names no status", hint=f"name some of {', '.join(known)}.")
    return found


def names_in(option: str, text: str, known: Iterable[str]) -> frozenset[str]:
    """Read names with commas between them."""
    chosen = frozenset(part.strip() for part in text.split(",") if part.strip())
    for name in sorted(chosen.difference(known)):
        raise ConfigError(
            f"{option} {name}: no such {option.removeprefix('--')}",
            hint=f"one of {', '.join(sorted(known))}.",
        )
    return chosen


def command_line(verb: str, config: Path, options: dict[str, Any]) -> Command:
    """Write a command for the same job as this one's, ready to be typed; what may be a secret is left out."""
    from enrich.config.secrets import without_secret

    words = [str(config)]
    for flag in ("limit", "input", "output"):
        if options[flag] is not None:
            words += [f"--{flag}", str(options[flag])]
    for partition in options["partitions"]:
        words += ["--partition", partition]
    for override in options["overrides"]:
        words += ["--set", without_secret(override)]
    return Command(verb, shlex.join([*words, "--sandbox"] if options["sandbox"] else words))
