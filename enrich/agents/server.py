"""The tools that an agent calls: plan, run, status, collect, preview, show; over MCP on stdio."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from enrich.agents.skill import skill
from enrich.base.interrupt import Interrupt
from enrich.base.version import __version__
from enrich.base.words import counted
from enrich.config import URL_VARIABLE, Config, load_config
from enrich.config.endpoint import resolve_endpoint
from enrich.errors import EnrichError
from enrich.runs.collect import collect_job
from enrich.runs.job import SANDBOX
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.show.watch import Watch
from enrich.verbs.plan import plan_job
from enrich.verbs.preview import preview_job
from enrich.verbs.show import Wanted, show_job
from enrich.verbs.status import status_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from enrich.verbs.plan_result import JobPlan

MOST_SHOWN: Final = 50  # rows that one call shows: an agent's context is small
TELL_EVERY: Final = 1.0  # seconds between notices of progress
LOOKS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
WRITES: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
SPENDS: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True
)
INSTRUCTIONS: Final = """\
Runs a language model over the rows of a table. Each request is paid for once: running again asks only what has no answer yet.
Work in this order: preview (what will be sent), plan (what it costs), run on few rows, show, then run on more.
`run` needs a number of rows and a budget, and its user's word. With sandbox: true answers are made up and nothing is charged.
The resource skill://beatra-enrich teaches how a configuration is written."""

ConfigPath = Annotated[str, Field(description="A configuration (YAML), relative to the server's folder.")]
Rows = Annotated[int, Field(ge=1, description="Only the first so many rows of the table.")]
Shown = Annotated[int, Field(ge=1, le=MOST_SHOWN, description="How many rows.")]
Credits = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="Credits that this run may spend at most.")
]
Tokens = Annotated[
    int | None,
    Field(gt=0, description="Tokens that it may use at most; needed where the endpoint tells no charge."),
]
Sandbox = Annotated[
    bool, Field(description="Ask the built-in emulator: answers are made up, nothing is charged.")
]
Confirmation = Annotated[
    str | None,
    Field(
        description="What `plan` gave for these very arguments; needed where this client cannot ask its user."
    ),
]


class GoAhead(BaseModel):
    """What the user is asked before anything is spent."""

    go_ahead: bool = Field(description="Send these requests and pay for them?")


class _Desk:
    """Where the configurations lie, and what was confirmed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._secret = secrets.token_bytes(32)

    def load(self, path: str, *, sandbox: bool = False, overrides: list[str] | None = None) -> Config:
        """Read a configuration of this folder.

        Raises:
            ToolError: it lies elsewhere.
            ConfigError: it is none.
        """
        return load_config(self._within(path), overrides=overrides, base_url=SANDBOX if sandbox else None)

    def budgeted(self, path: str, credits: float, tokens: int | None, *, sandbox: bool) -> Config:  # noqa: A002  # as the key
        """Read a configuration under a budget, which is never more than its own."""
        own = self.load(path, sandbox=sandbox).budget
        given = {
            "credits": min(credits, own.credits if own.credits is not None else credits),
            "tokens": own.tokens if tokens is None else min(tokens, own.tokens or tokens),
        }
        overrides = [f"budget.{name}={amount}" for name, amount in given.items() if amount is not None]
        return self.load(path, sandbox=sandbox, overrides=overrides)

    def code(self, path: str, *terms: object) -> str:
        """Give what confirms a run on these terms, as long as the configuration is what it is now."""
        told = hashlib.sha256(self._within(path).read_bytes()).hexdigest()
        message = "\n".join([str(self._within(path)), told, *map(str, terms)])
        return hmac.new(self._secret, message.encode(), "sha256").hexdigest()[:12]

    def _within(self, path: str) -> Path:
        whole = (self.folder / path).resolve()
        if not whole.is_relative_to(self.folder):
            raise ToolError(
                f"{path} lies outside of {self.folder}\nHint: start the server with --folder above your configurations."
            )
        return whole


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Give the agent the words that the command line has for an error."""
    try:
        yield
    except EnrichError as error:
        hint = f"\nHint: {error.hint}" if error.hint else ""
        raise ToolError(f"{error.message}{hint}") from None


class _Server(MCPServer[Any]):
    """The server, with the desk that its tools work at."""

    desk: _Desk


def make_server(folder: Path) -> MCPServer[Any]:
    """Make the server.

    Args:
        folder: configurations are read from it and what lies below, and from nowhere else.
    """
    server = _Server(
        "beatra-enrich",
        title="beatra-enrich",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="ERROR",
    )
    server.desk = _Desk(folder)
    for tool, kind in TOOLS.items():
        server.add_tool(tool, annotations=kind)
    server.resource("skill://beatra-enrich", title="How to use beatra-enrich", mime_type="text/markdown")(
        skill
    )
    return server


def _desk(context: Context) -> _Desk:
    server = context.mcp_server
    assert isinstance(server, _Server)  # noqa: S101  # there is no other
    return server.desk


async def ask_user(
    context: Context,
    *,
    config: str,
    rows: int,
    credits: float,  # noqa: A002  # named as the key
    tokens: int | None = None,
    confirmation: str | None = None,
    sandbox: bool = False,
) -> GoAhead | Elicit[GoAhead]:
    """Have a run's user agree to it; who asks the sandbox, or has nothing to ask, or brings what confirms it, is not asked."""
    desk = _desk(context)
    with _told():
        terms = desk.budgeted(config, credits, tokens, sandbox=sandbox)
        given = confirmation or ""
        if _asked(terms) == SANDBOX or hmac.compare_digest(given, desk.code(config, rows, credits, tokens)):
            return GoAhead(go_ahead=True)
        found = await plan_job(terms, RunOptions(limit=rows))
        if not found.to_ask:
            return GoAhead(go_ahead=True)
        words = _words(terms, found, rows)
    capabilities = context.client_capabilities
    if capabilities is None or capabilities.elicitation is None:
        raise ToolError(
            f"{words}\nThis client cannot ask its user. Show them this; when they agree, call `plan` with the same "
            f"arguments and pass the `confirmation` that it gives. Nothing was sent."
        )
    return Elicit(f"{words}\nGo on?", GoAhead)


async def plan(
    context: Context,
    *,
    config: ConfigPath,
    rows: Rows,
    credits: Credits,  # noqa: A002
    tokens: Tokens = None,
    sandbox: Sandbox = False,
) -> dict[str, Any]:
    """Say what a run would send and cost: rows, requests, what is paid for already, tokens, credits and time. Sends nothing."""
    desk = _desk(context)
    with _told():
        loaded = desk.budgeted(config, credits, tokens, sandbox=sandbox)
        found = await plan_job(loaded, RunOptions(limit=rows))
        code = desk.code(config, rows, credits, tokens)
        return {**found.to_dict(), "text": found.text(), "confirmation": code}


async def run(
    context: Context,
    *,
    config: ConfigPath,
    rows: Rows,
    credits: Credits,  # noqa: A002
    answer: Annotated[ElicitationResult[GoAhead], Resolve(ask_user)],
    tokens: Tokens = None,
    confirmation: Confirmation = None,  # noqa: ARG001  # read by ask_user
    sandbox: Sandbox = False,
) -> dict[str, Any]:
    """Ask the rows that have no answer yet and write the output, within a budget; its user is asked first.

    Calling it again resumes, and pays for nothing twice. The output has the first `rows` rows. `exit_code` is 0 when every
    row is fine, 3 when some failed (see `causes`), 4 when it stopped early and can be resumed (see `reason`).
    """
    if not isinstance(answer, AcceptedElicitation) or not answer.data.go_ahead:
        raise ToolError("the user did not agree: nothing was sent.")
    with _told():
        loaded = _desk(context).budgeted(config, credits, tokens, sandbox=sandbox)
        return await _run(loaded, rows, context)


async def status(context: Context, *, config: ConfigPath) -> dict[str, Any]:
    """Say what the job's ledger holds: requests by state, tokens, credits, and the last run."""
    with _told():
        return (await status_job(_desk(context).load(config))).to_dict()


async def collect(context: Context, *, config: ConfigPath, rows: Rows | None = None) -> dict[str, Any]:
    """Write the output from what is paid for already. Sends nothing; rows without an answer are pending."""
    with _told():
        return (await collect_job(_desk(context).load(config), RunOptions(limit=rows))).to_dict()


async def preview(context: Context, *, config: ConfigPath, rows: Shown = 1) -> str:
    """Show the requests of the first rows as they would be sent. Sends nothing."""
    with _told():
        loaded = _desk(context).load(config)
        return await asyncio.to_thread(lambda: "\n".join(preview_job(loaded, rows)))


async def show(
    context: Context,
    *,
    config: ConfigPath,
    rows: Shown = 10,
    failed: Annotated[bool, Field(description="Only rows without a usable answer.")] = False,
    where: Annotated[str | None, Field(description="Only rows for which this is true: `stars < 3`.")] = None,
) -> str:
    """Show rows of the output, one JSON object a line: what the prompts use and what was answered."""
    wanted = Wanted(rows=rows, failed=failed, where=where)
    with _told():
        loaded = _desk(context).load(config)
        shown = await asyncio.to_thread(lambda: show_job(loaded, wanted))
        return "\n".join([shown.head(), *shown.json_lines()])


TOOLS: Final[dict[Callable[..., Any], ToolAnnotations]] = {
    plan: LOOKS,
    run: SPENDS,
    status: LOOKS,
    collect: WRITES,
    preview: LOOKS,
    show: LOOKS,
}


def _asked(config: Config) -> str:
    """Give the URL that is asked, or ``sandbox``."""
    if (config.endpoint.base_url or config.endpoint.url or os.environ.get(URL_VARIABLE)) == SANDBOX:
        return SANDBOX
    return resolve_endpoint(config.endpoint, os.environ, key_needed=False).base_url


def _words(config: Config, plan: JobPlan, rows: int) -> str:
    models = ", ".join(sorted({step.model for step in config.steps}))
    cost = "not known before an answer was seen"
    if plan.credits is not None:
        cost = (
            f"about {plan.credits.likely:,.4g} credits ({plan.credits.low:,.4g} to {plan.credits.high:,.4g})"
        )
    most = f"{config.budget.credits:,.6g} credits"
    if config.budget.tokens is not None:
        most += f" and {config.budget.tokens:,} tokens"
    return (
        f"Ask {_asked(config)} (model {models}) about the first {counted(rows, 'row')}: {counted(plan.to_ask, 'request')}, "
        f"{plan.in_ledger:,} answered already. Cost: {cost}; at most {most}."
    )


async def _run(config: Config, rows: int, context: Context) -> dict[str, Any]:
    """Run a job with notices of its progress; when the call is cancelled it stops in good order."""
    watch, interrupt = Watch(config.limits), Interrupt()
    options = RunOptions(limit=rows, progress=watch, interrupt=interrupt, command=None)
    running = asyncio.ensure_future(run_job(config, options))
    try:
        while not (await asyncio.wait([running], timeout=TELL_EVERY))[0]:
            now = watch.snapshot()
            await context.report_progress(now.done, now.total, now.line())
        summary = await running
    except asyncio.CancelledError:
        interrupt.fire()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([running])
        raise
    return summary.to_dict()
