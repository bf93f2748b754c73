"""The command group: every error becomes one message and its exit code."""

from __future__ import annotations

import io
import itertools
import os
import sys
from typing import Any, Final, NoReturn

import click

from enrich.base.collector import collect_seldom
from enrich.base.descriptors import NONE_LEFT, RAISE_IT
from enrich.base.version import __version__
from enrich.errors import EnrichError, RunStopped, UsageError
from enrich.show.logs import as_json, set_up_logs, tell

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

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
        _be_patient()
        collect_seldom()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the only place where an error ends the process."""
        try:
            return super().invoke(ctx)
        except EnrichError as error:
            tell(f"Error: {error.message}", failed=True, hint=error.hint)
            ctx.exit(error.exit_code)
        except click.ClickException as error:
            if not (as_json() or _asks_for_json(sys.argv)):
                raise
            set_up_logs(0, "json", quiet=False)
            tell(f"Error: {error.format_message()}", failed=True)
            ctx.exit(error.exit_code)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            if error.errno not in NONE_LEFT:
                self._tell_defect(ctx, error)
            tell(f"Error: this process may have no more files open: {error}", failed=True, hint=RAISE_IT)
            ctx.exit(RunStopped.exit_code)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "can't start new thread" not in str(error):
                self._tell_defect(ctx, error)
            tell(
                f"Error: this machine gives the program too little memory, or too few threads: {error}",
                failed=True,
                hint="raise the limit (`ulimit -v`, `ulimit -u`, a container's memory), then run the same command again:"
                " what was paid for is kept.",
            )
            ctx.exit(UsageError.exit_code)
        except Exception as error:  # noqa: BLE001  # the edge: a defect is told in one line too, with a way to see more
            self._tell_defect(ctx, error)

    def _tell_defect(self, ctx: click.Context, error: Exception) -> NoReturn:
        if os.environ.get("BEATRA_TRACEBACK"):
            raise error
        tell(
            f"Error: unexpected {type(error).__name__}: {error}",
            failed=True,
            hint="this is a defect; run again with BEATRA_TRACEBACK=1 and report what it prints.",
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


def _asks_for_json(words: list[str]) -> bool:
    """Say whether a command line that click could not take apart wants what is wrong as JSON."""
    return "--log-format=json" in words or ("--log-format", "json") in itertools.pairwise(words)


STDERR: Final = 2


class _Patient(io.FileIO):
    """A stream whose reader may go away, and a stderr that cannot be written: the words go nowhere, the work goes on."""

    def write(self, data: Any) -> int:
        """Write, to nowhere once nobody reads."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if not (isinstance(error, BrokenPipeError) or self.fileno() == STDERR):
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _be_patient() -> None:
    """Keep a reader of stdout or stderr that goes away from ending the work."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        try:
            ours = isinstance(stream, io.TextIOWrapper) and stream.fileno() == number
        except (OSError, ValueError):  # a stream of a test, or of a notebook
            continue
        if ours:
            stream.flush()
            raw = io.BufferedWriter(_Patient(number, "w", closefd=False))
            buffering = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            patient = io.TextIOWrapper(raw, stream.encoding, stream.errors, **buffering)
            setattr(sys, name, patient)


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
    # Plugins are looked for in every installed package as the configuration's first section is made, for 30 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if (
        sys.platform == "linux"
    ):  # Arrow's other pools keep memory that was freed: a sixth more at a run's peak
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
