"""The command line: click commands, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from enrich.base.version import __version__
from enrich.errors import ConfigError, EnrichError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from enrich.config import Config
    from enrich.records import Summary
    from enrich.runs.pipeline import RunOptions
    from enrich.verbs.plan import Plan

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
CONFIG = click.argument("config", type=click.Path(path_type=Path))

EXIT_CODES = """\b
Exit codes:
  0    every row ok, skipped or tolerated
  1    an unexpected failure (a defect)
  2    usage, config or input error: nothing was sent
  3    finished, but more rows failed than `tolerate`
  4    stopped early and resumable: key refused, balance or budget spent,
       endpoint out of service, disk full, input changed
  5    another run holds this output
  130  interrupted, resumable"""


class Commands(click.Group):
    """The command group: turns every error of ours into one message and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        _open_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the only place where an error ends the process."""
        try:
            return super().invoke(ctx)
        except EnrichError as error:
            _report_error(error)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # the edge: a defect is told in one line too, with a way to see more
            if os.environ.get("BEATRA_TRACEBACK"):
                raise
            click.echo(
                f"Error: unexpected {type(error).__name__}: {error}\n"
                "Hint: this is a defect; run again with BEATRA_TRACEBACK=1 and report what it prints.",
                err=True,
            )
            ctx.exit(1)


def _open_streams() -> None:
    """Put /dev/null in the place of streams that a scheduler closed: the next file opened would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(number, "r+" if number else "r", closefd=False))  # noqa: SIM115  # open as long as the process lives


def _report_error(error: EnrichError) -> None:
    click.echo(f"Error: {error}", err=True)


@click.group(cls=Commands, context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="beatra-enrich")
def main() -> None:
    """Run a language model over the rows of a table.

    Every answer is paid for once and none is lost: run a job again and it goes on from where it stood.

    \b
    Start here:
      beatra-enrich init demo            a small job that runs at once
      beatra-enrich run demo/config.yaml
    """
    if (
        sys.platform == "linux"
    ):  # Arrow's other pools keep memory that was freed: a sixth more at a run's peak
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")


def _job_options(command: Callable[..., None]) -> Callable[..., None]:
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


def _lock_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option for what to do when the output is held."""
    return click.option(
        "--lock",
        type=click.Choice(["fail", "wait", "skip"]),
        default="fail",
        show_default=True,
        help="When another run holds the output: fail with exit code 5, wait for its end, or leave it with 0.",
    )(command)


def _output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for what is shown and how."""
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="How stderr is written.",
        ),
        click.option("-v", "--verbose", count=True, help="Tell of every retry on stderr."),
        click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
        click.option("--no-progress", is_flag=True, help="No progress on stderr."),
        click.option("--json", "as_json", is_flag=True, help="One JSON summary on stdout."),
    ):
        command = option(command)
    return command


@main.command(epilog=EXIT_CODES)
@CONFIG
@_job_options
@click.option("--fresh", is_flag=True, help="Ask everything anew, and pay for it again.")
@click.option("--confirm", is_flag=True, help="Show the plan first, and ask whether to go on.")
@_lock_option
@_output_options
def run(config: Path, *, confirm: bool, **options: Any) -> None:
    """Run the job CONFIG: read, ask, write.

    A second run resumes and sends nothing that is paid for. The output is only ever replaced whole.

    \b
    Examples:
      beatra-enrich run config.yaml
      beatra-enrich run config.yaml --limit 20 --sandbox
      beatra-enrich run config.yaml --set steps.label.model=fast-1 --json
    """
    from enrich.runs.pipeline import run_job

    loaded = _load(config, options)
    if confirm:
        _confirm(loaded, options)
    _execute(run_job, loaded, options, command=_command("run", config, options), fresh=options["fresh"])


@main.command(epilog=EXIT_CODES)
@CONFIG
@_job_options
@click.option(
    "--status",
    "statuses",
    default="error,invalid_output",
    show_default=True,
    metavar="NAMES",
    help="Which rows, by their status: error, invalid_output, truncated, filtered; several with commas.",
)
@click.option(
    "--in-doubt",
    type=click.Choice(["resend", "skip"]),
    help="What to do with rows in doubt: send them again (may be charged twice) or give them up.",
)
@_lock_option
@_output_options
def retry(config: Path, statuses: str, in_doubt: Literal["resend", "skip"] | None, **options: Any) -> None:
    """Ask again for the rows that failed, and only for them.

    \b
    Examples:
      beatra-enrich retry config.yaml
      beatra-enrich retry config.yaml --status truncated,filtered
      beatra-enrich retry config.yaml --in-doubt resend
    """
    from enrich.runs.pipeline import settle_doubt_job

    chosen = _statuses(statuses)
    loaded = _load(config, options)
    command = _command("retry", config, options)
    _execute(settle_doubt_job(in_doubt), loaded, options, command=command, retry=chosen)


@main.command()
@CONFIG
@_job_options
@click.option("-o", "--out", metavar="FILE", help="Write here instead of `output`.")
@_lock_option
@_output_options
def collect(config: Path, out: str | None, **options: Any) -> None:
    """Write an output from the ledger as it stands; send nothing.

    Rows without an answer have the status `pending`.

    \b
    Example:
      beatra-enrich collect config.yaml -o so-far.parquet
    """
    from enrich.runs.pipeline import collect_job

    command = _command("run", config, options)
    options["output"] = out or options["output"]
    _execute(collect_job, _load(config, options), options, command=command)


@main.command(epilog=EXIT_CODES)
@CONFIG
@_job_options
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
    found = _planned(_load(config, options), options["limit"], sample or 0, seed=seed, quiet=quiet)
    click.echo(json.dumps(found.to_dict()) if as_json else found.text())
    raise click.exceptions.Exit(found.exit_code)


@main.command()
@CONFIG
@_job_options
@click.option(
    "-n", "rows", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="How many rows."
)
def preview(config: Path, rows: int, **options: Any) -> None:
    """Show the request bodies of the first rows; send nothing.

    \b
    Example:
      beatra-enrich preview config.yaml -n 1
    """
    from enrich.verbs.inspect import preview_job

    for line in preview_job(_load(config, options), min(rows, options["limit"] or rows)):
        click.echo(line)


@main.command(short_help="Check all that can be checked without a completion.")
@CONFIG
@_job_options
def check(config: Path, **options: Any) -> None:
    """Check everything that can be checked without asking for a completion.

    Configuration, templates against the input's columns, output, ledger, the endpoint's health, key and models.

    \b
    Example:
      beatra-enrich check config.yaml
    """
    from enrich.verbs.inspect import check_job

    good = True
    for finding in _run_async(lambda: check_job(_load(config, options), options["limit"])):
        good = good and finding.ok
        click.echo(finding.line(color=sys.stdout.isatty()))
    if not good:
        raise click.exceptions.Exit(2)


@main.command(short_help="Show what the ledger knows: states, spent, in doubt.")
@CONFIG
@_job_options
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
    from enrich.verbs.inspect import status_job

    if watch:
        _watch(_load(config, options), as_json=as_json)
        return
    found = _run_async(lambda: status_job(_load(config, options)))
    click.echo(json.dumps(found.to_dict()) if as_json else found.text())


@main.command()
@CONFIG
@_job_options
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

    click.echo(_run_async(lambda: report_job(_load(config, options), out, content=not no_content)))


@main.group()
def ledger() -> None:
    """Look after a ledger: list, export, verify, prune.

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

    chosen = _chosen("--state", states, STATES) or frozenset(STATES)
    location = ledger_location(where)
    if not as_json:
        click.echo(HEADER)
    _run_async(
        lambda: list_requests(
            location,
            lambda line: click.echo(json.dumps(line.to_dict()) if as_json else line.text()),
            states=chosen,
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

    \b
    Example:
      beatra-enrich ledger export config.yaml -o ledger.parquet
    """
    from enrich.base.words import counted
    from enrich.verbs.ledger import export_ledger, ledger_location

    count = _run_async(lambda: export_ledger(ledger_location(where), out))
    click.echo(f"{counted(count, 'request')} → {out}")


@ledger.command("verify", short_help="Check a whole ledger, every checksum included.")
@LEDGER
def ledger_verify(where: str) -> None:
    """Check a whole ledger: structure, every checksum, every key there once. Exit code 2 when it is damaged.

    \b
    Example:
      beatra-enrich ledger verify config.yaml
    """
    from enrich.verbs.ledger import findings, ledger_location, verify_ledger

    report = _run_async(lambda: verify_ledger(ledger_location(where)))
    for line in findings(report):
        click.echo(line)
    if not report.sound:
        raise click.exceptions.Exit(2)


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
    count = _run_async(lambda: prune_ledger(ledger_location(where), age))
    click.echo(f"{counted(count, 'request')} forgotten")


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

    data = task = ""
    if sys.stdin.isatty() and sys.stdout.isatty():
        data = click.prompt(
            "Your data (a CSV, JSON Lines or Parquet file; Enter for an example)",
            default="",
            show_default=False,
        )
        if data:
            task = click.prompt("What is to be done with each row", default="Summarize in one sentence.")
    for path in write_for(directory, Path(data), task) if data else write_starter(directory):
        click.echo(f"made {path}")
    click.echo(f"\nNow: beatra-enrich run {directory / 'config.yaml'}")


@main.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
def models(config: Path | None) -> None:
    """List the account's models.

    Endpoint and key come from CONFIG when it is given, else from BEATRA_BASE_URL and BEATRA_API_KEY.

    \b
    Example:
      beatra-enrich models
    """
    from enrich.verbs.inspect import list_models

    endpoint = None if config is None else _load(config, {}).endpoint
    for name in _run_async(lambda: list_models(endpoint)):
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


# --- between click and the pipeline ---------------------------------------------------------------------


def _load(path: Path, options: dict[str, Any]) -> Config:
    from enrich.config import load_config

    return load_config(
        path,
        overrides=list(options.get("overrides", ())),
        input=options.get("input"),
        output=options.get("output"),
        partitions=options.get("partitions"),
        base_url="sandbox" if options.get("sandbox") else None,
    )


def _statuses(text: str) -> Any:
    from enrich.records import FAILED

    return _chosen("--status", text, [status for status in FAILED if status != "in_doubt"])


def _chosen(option: str, text: str, known: Iterable[str]) -> frozenset[str]:
    """Read names with commas between them."""
    chosen = frozenset(part.strip() for part in text.split(",") if part.strip())
    for name in sorted(chosen.difference(known)):
        raise ConfigError(
            f"{option} {name}: no such {option.removeprefix('--')}",
            hint=f"one of {', '.join(sorted(known))}.",
        )
    return chosen


def _execute(
    job: Callable[[Config, RunOptions], Coroutine[object, object, Summary]],
    config: Config,
    options: dict[str, Any],
    *,
    command: str,
    **run_options: Any,
) -> None:
    """Run a job with its progress on stderr and its result on stdout, and leave with its exit code."""
    from enrich.base.interrupt import Interrupt
    from enrich.base.loops import tune_collector
    from enrich.cli.signals import graceful
    from enrich.runs.pipeline import RunOptions
    from enrich.show.logs import PROGRESS, set_up_logs
    from enrich.show.progress import Watch, shown

    set_up_logs(options["verbose"], options["log_format"], quiet=options["quiet"])
    watch, interrupt = Watch(config.limits), Interrupt()
    given = RunOptions(
        limit=options["limit"],
        progress=watch,
        interrupt=interrupt,
        command=command,
        lock=options["lock"],
        **run_options,
    )
    silent = options["quiet"] or options["no_progress"]
    as_events = options["log_format"] == "json"
    live = sys.stderr.isatty() and not options["verbose"] and not as_events

    async def main_path() -> Summary:
        with graceful(interrupt):
            if silent:
                return await job(config, given)
            async with shown(watch, sys.stderr, live=live, log=PROGRESS if as_events else None):
                return await job(config, given)

    tune_collector()
    summary = _run_async(main_path)
    if options["as_json"]:
        click.echo(json.dumps(summary.to_dict()))
    if not options["quiet"] or summary.exit_code:
        click.echo(_closing(summary, command), err=True)
    raise click.exceptions.Exit(summary.exit_code)


def _watch(config: Config, *, as_json: bool) -> None:
    """Show a run that goes on elsewhere: redrawn in place on a terminal, else a line now and then."""
    from enrich.show.progress import BAR_EVERY, LINE_EVERY, Picture, Snapshot
    from enrich.verbs.inspect import watch_job

    def line(now: Snapshot) -> None:
        click.echo(json.dumps(now.to_dict()) if as_json else now.line())

    try:
        if as_json or not sys.stdout.isatty():
            ending = _run_async(lambda: watch_job(config, line, every=LINE_EVERY))
        else:
            with Picture(sys.stdout) as picture:
                ending = _run_async(lambda: watch_job(config, picture.draw, every=4 * BAR_EVERY))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    click.echo(ending, err=as_json)


def _planned(config: Config, limit: int | None, sample: int, *, seed: int = 0, quiet: bool = False) -> Plan:
    """Make a plan, with progress on stderr."""
    from enrich.base.interrupt import Interrupt
    from enrich.cli.signals import graceful
    from enrich.runs.pipeline import RunOptions
    from enrich.show.progress import Watch, shown
    from enrich.verbs.plan import plan_job

    watch, interrupt = Watch(config.limits), Interrupt()
    given = RunOptions(limit=limit, progress=watch, interrupt=interrupt)

    async def main_path() -> Plan:
        with graceful(interrupt):
            if quiet:
                return await plan_job(config, given, sample=sample, seed=seed)
            async with shown(watch, sys.stderr, live=sys.stderr.isatty()):
                return await plan_job(config, given, sample=sample, seed=seed)

    return cast("Plan", _run_async(main_path))


def _confirm(config: Config, options: dict[str, Any]) -> None:
    """Show what a run would do and ask whether to go on; leaves with 130 when not."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "--confirm asks on a terminal, and there is none",
            hint="leave --confirm out, or look at `beatra-enrich plan CONFIG` first.",
        )
    if options["fresh"]:
        click.echo("--fresh asks everything anew: what the ledger holds does not count.", err=True)
    found = _planned(config, options["limit"], 0)
    click.echo(found.text(), err=True)
    if not click.confirm("Go on?", err=True):
        click.echo("Nothing was sent.", err=True)
        raise click.exceptions.Exit(130)


def _run_async(main_path: Callable[[], Coroutine[object, object, Any]]) -> Any:
    from enrich.base.loops import run_sync

    return run_sync(main_path)


def _command(name: str, config: Path, options: dict[str, Any]) -> str:
    """Write a command for the same job as this one's, ready to be typed."""
    words = ["beatra-enrich", name, str(config)]
    for flag in ("limit", "input", "output"):
        if options[flag] is not None:
            words += [f"--{flag}", str(options[flag])]
    for partition in options["partitions"]:
        words += ["--partition", partition]
    for override in options["overrides"]:
        words += ["--set", override]
    return shlex.join([*words, "--sandbox"] if options["sandbox"] else words)


def _closing(summary: Summary, command: str) -> str:
    """Say in one sentence how a run ended, and what to type next when it did not end well."""
    from enrich.base.words import counted

    spent = f"{counted(summary.requests, 'request')} sent"
    if summary.credits:
        spent += f", {summary.credits:,.6g} credits"
    took = f"{summary.seconds:,.1f} s"
    if summary.exit_code in (0, 3):
        text = f"{summary.reason}: {spent}, {took} → {summary.output}"
        return f"{text}\n{_way_on(summary, command)}" if summary.exit_code == 3 else text
    return f"{summary.reason[:1].upper()}{summary.reason[1:]} ({spent}, {took})"


def _way_on(summary: Summary, command: str) -> str:
    """Say what to type when rows were not done, by what most needs it."""
    run = command.replace(" retry ", " run ", 1)
    retry = run.replace(" run ", " retry ", 1)
    counts = summary.statuses
    if counts["error"] or counts["invalid_output"]:
        way = f"`{retry}` asks those rows again."
    elif counts["in_doubt"]:
        way = f"`{run}` sends what is in doubt once more under its key, at no second charge."
    else:
        cut = ",".join(status for status in ("truncated", "filtered") if counts[status])
        way = f"`{retry} --status {cut}` asks those rows again."
    return f"Hint: the columns ending in _error say why; {way}"
