"""What a caller asks of one run, beside the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enrich.base.command import Command
from enrich.base.interrupt import DRAIN, Interrupt
from enrich.show.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.base.clock import Clock
    from enrich.files.source import Source
    from enrich.records import RowStatus
    from enrich.runs.anew import Anew
    from enrich.runs.job import Job
    from enrich.runs.lock import Lock


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a caller asks of one run, beside the configuration.

    Attributes:
        limit: only the first so many rows.
        fresh: ask everything anew.
        force: go through all rows where nothing has changed since the last finished run, too.
        retry: only rows of these statuses, again.
        anew: only these rows, anew.
        progress: told what is going on; whoever made it may show it.
        interrupt: fired by a signal handler.
        clock: tells the age of requests.
        command: what a user types to go on, for messages; None where nobody types.
        drain: seconds that what is in flight may take after a stop.
        api_key: instead of the one that the configuration names; never shown.
        lock: what to do when another run holds the output.
        accept_model: take a model that answers in place of the one that a step is pinned to.
        prepared: told what is to be done, before anything is sent.
    """

    limit: int | None = None
    fresh: bool = False
    force: bool = False
    retry: frozenset[RowStatus] = frozenset()
    anew: Anew | None = None
    progress: Watch = field(default_factory=Watch)
    interrupt: Interrupt = field(default_factory=Interrupt)
    clock: Clock | None = None
    command: Command | None = field(default_factory=Command)
    drain: float = DRAIN
    api_key: str | None = field(default=None, repr=False)
    lock: Lock = "fail"
    accept_model: bool = False
    prepared: Callable[[Source, Job], None] | None = None
