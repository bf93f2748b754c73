"""Between click and the job: signals, logs, progress on stderr, the result on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, cast

import click

from enrich.cli.closing import closing
from enrich.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from enrich.base.command import Command
    from enrich.base.interrupt import Interrupt
    from enrich.config import Config
    from enrich.live.server import LivePage
    from enrich.records import Summary
    from enrich.runs.anew import Anew
    from enrich.runs.options import RunOptions
    from enrich.show.snapshot import Snapshot
    from enrich.show.watch import Watch
    from enrich.verbs.plan_result import JobPlan


def execute(
    job: Callable[[Config, RunOptions], Coroutine[object, object, Summary]],
    config: Config,
    options: dict[str, Any],
    *,
    command: Command,
    **run_options: Any,
) -> None:
    """Run a job with its progress on stderr and its result on stdout, and leave with its exit code."""
    from enrich.base.collector import keep_imports
    from enrich.base.interrupt import Interrupt
    from enrich.cli.signals import graceful
    from enrich.runs.options import RunOptions
    from enrich.show.logs import PROGRESS, set_up_logs, tell
    from enrich.show.progress import shown
    from enrich.show.watch import Watch

    set_up_logs(options["verbose"], options["log_format"], quiet=options["quiet"])
    silent = options["quiet"] or options["no_progress"]
    as_events = options["log_format"] == "json"
    live = sys.stderr.isatty() and not options["verbose"] and not as_events

    async def main_path(*, accept_model: bool) -> Summary:
        watch, interrupt = Watch(config.limits), Interrupt()
        given = RunOptions(
            limit=options["limit"],
            progress=watch,
            interrupt=interrupt,
            command=command,
            lock=options["lock"],
            accept_model=accept_model,
            **run_options,
        )
        with graceful(interrupt):
            async with contextlib.AsyncExitStack() as beside:
                page = None
                if options.get("ui"):
                    page = await beside.enter_async_context(_page(config, options, watch, interrupt))
                if not silent:
                    log = PROGRESS if as_events else None
                    await beside.enter_async_context(shown(watch, sys.stderr, live=live, log=log))
                summary = await job(config, given)
                if page is not None:
                    await page.ended(summary.reason)
                return summary

    keep_imports()
    accept = bool(run_options.pop("accept_model", False))
    summary = run_async(lambda: main_path(accept_model=accept))
    if not accept and _is_accepted(summary):
        summary = run_async(lambda: main_path(accept_model=True))
    if options["as_json"]:
        told = summary.to_dict()
        click.echo(json.dumps({**told, "trial": options["trial"]} if "trial" in options else told))
    if not options["quiet"] or summary.exit_code:
        tell(closing(summary, command, config), failed=bool(summary.exit_code))
    raise click.exceptions.Exit(summary.exit_code)


@contextlib.asynccontextmanager
async def _page(
    config: Config, options: dict[str, Any], watch: Watch, interrupt: Interrupt
) -> AsyncIterator[LivePage]:
    """Serve the live page on a run while the block runs, and tell where it is."""
    from enrich.cli.signals import STOPPING
    from enrich.live.server import LivePage
    from enrich.show.logs import tell

    def stop() -> None:
        if not interrupt.fired:
            tell(STOPPING)
            interrupt.fire()

    async with LivePage(config, watch=watch, stop=stop, port=options["ui_port"] or 0) as page:
        tell(f"live page: {page.url}")
        yield page


def watch_page(config: Config, port: int) -> None:
    """Serve the live page on runs of a job that go on elsewhere, until Ctrl-C."""
    from enrich.live.server import LivePage

    async def serve() -> None:
        async with LivePage(config, port=port) as page:
            click.echo(page.url)
            await asyncio.Event().wait()

    try:
        run_async(serve)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


def _is_accepted(summary: Summary) -> bool:
    """Ask on a terminal whether a model that a step is not pinned to is taken, where its `pin` says so."""
    change = summary.model_changed
    if change is None or not change["asks"] or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(summary.reason, err=True)
    return click.confirm("Take the new model, and go on?", err=True)


def watch_run(config: Config, *, as_json: bool) -> None:
    """Show a run that goes on elsewhere: redrawn in place on a terminal, else a line now and then."""
    from enrich.show.progress import BAR_EVERY, LINE_EVERY, Picture
    from enrich.verbs.status import watch_job

    def line(now: Snapshot) -> None:
        click.echo(json.dumps(now.to_dict()) if as_json else now.line())

    try:
        if as_json or not sys.stdout.isatty():
            ending = run_async(lambda: watch_job(config, line, every=LINE_EVERY))
        else:
            with Picture(sys.stdout) as picture:
                ending = run_async(lambda: watch_job(config, picture.draw, every=4 * BAR_EVERY))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    click.echo(ending, err=as_json)


def planned(config: Config, limit: int | None, sample: int, *, seed: int = 0, quiet: bool = False) -> JobPlan:
    """Make a plan, with progress on stderr."""
    from enrich.verbs.plan import plan_job

    def plan(given: RunOptions) -> Coroutine[object, object, JobPlan]:
        return plan_job(config, given, sample=sample, seed=seed)

    return cast("JobPlan", looked(config, plan, limit=limit, quiet=quiet))


def looked(
    config: Config,
    look: Callable[[RunOptions], Coroutine[object, object, Any]],
    *,
    quiet: bool,
    **run_options: Any,
) -> Any:
    """Look at a job, with progress on stderr, and give what was found."""
    from enrich.base.interrupt import Interrupt
    from enrich.cli.signals import graceful
    from enrich.runs.options import RunOptions
    from enrich.show.progress import shown
    from enrich.show.watch import Watch

    watch, interrupt = Watch(config.limits), Interrupt()
    given = RunOptions(progress=watch, interrupt=interrupt, **run_options)

    async def main_path() -> Any:
        with graceful(interrupt):
            if quiet:
                return await look(given)
            async with shown(watch, sys.stderr, live=sys.stderr.isatty()):
                return await look(given)

    return run_async(main_path)


def confirmed(
    config: Config, where: str, steps: Sequence[str], options: dict[str, Any], *, yes: bool
) -> Anew:
    """Choose rows, show what it takes to ask them anew, and ask whether to go on; leaves with 130 when not."""
    from enrich.runs.chosen import choose_rows
    from enrich.show.logs import set_up_logs
    from enrich.verbs.plan import plan_job

    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "--where shows what it takes and asks on a terminal, and there is none",
            hint="--yes goes on without asking; nothing was sent.",
        )
    set_up_logs(options["verbose"], options["log_format"], quiet=options["quiet"])
    silent = options["quiet"] or options["no_progress"]
    limit = options["limit"]
    anew = cast(
        "Anew",
        looked(config, lambda given: choose_rows(config, given, where, steps), quiet=silent, limit=limit),
    )
    if not options["quiet"]:
        click.echo(anew.text(), err=True)
    if not anew.met:
        return anew
    if not options["quiet"] or not yes:
        found = looked(config, lambda given: plan_job(config, given), quiet=silent, limit=limit, anew=anew)
        click.echo(found.text(), err=True)
    if not yes and not click.confirm("Go on?", err=True):
        click.echo("Nothing was sent.", err=True)
        raise click.exceptions.Exit(130)
    return anew


def confirm_plan(config: Config, options: dict[str, Any]) -> None:
    """Show what a run would do and ask whether to go on; leaves with 130 when not."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "--confirm asks on a terminal, and there is none",
            hint="leave --confirm out, or look at `beatra-enrich plan CONFIG` first.",
        )
    if options["fresh"]:
        click.echo("--fresh asks everything anew: what the ledger holds does not count.", err=True)
    found = planned(config, options["limit"], 0)
    click.echo(found.text(), err=True)
    if not click.confirm("Go on?", err=True):
        click.echo("Nothing was sent.", err=True)
        raise click.exceptions.Exit(130)


def tried(config: Config, options: dict[str, Any], size: int, seed: int, *, yes: bool) -> dict[str, Any]:
    """Ask a sample, show what came of it, and ask whether to go on; leaves with 0 when not, or where there is nobody to ask.

    Returns:
        The trial as plain JSON, where the run is to go on.
    """
    from enrich.show.logs import set_up_logs
    from enrich.verbs.trial import try_job

    set_up_logs(options["verbose"], options["log_format"], quiet=options["quiet"])
    silent = options["quiet"] or options["no_progress"]
    limit = options["limit"]
    accept = options["accept_model"]
    trial = looked(
        config,
        lambda given: try_job(config, given, size, seed),
        quiet=silent,
        limit=limit,
        accept_model=accept,
    )
    found: dict[str, Any] = trial.to_dict()
    asked = sys.stdin.isatty() and sys.stderr.isatty()
    unseen = options["as_json"] or (asked and not sys.stdout.isatty())  # who is asked must see what about
    if not options["quiet"]:
        click.echo(trial.text(), err=unseen)  # a result, and so on stdout
    if yes or (asked and click.confirm("Go on?", err=True)):
        return found
    if options["as_json"]:
        click.echo(json.dumps({"trial": found, "exit_code": 0}))
    if not options["quiet"]:
        way_on = "" if asked else "--yes goes on by itself, and "
        click.echo(f"The answers are kept: {way_on}no run asks these rows again.", err=True)
    raise click.exceptions.Exit(0)


def run_async(main_path: Callable[[], Coroutine[object, object, Any]]) -> Any:
    """Run a coroutine to its end and give what it returns."""
    from enrich.base.loops import run_sync

    return run_sync(main_path)
