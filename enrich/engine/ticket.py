"""One request on its way through the engine, and what all of them came to."""

from __future__ import annotations

import enum
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from enrich.engine.retry import History
from enrich.records import UsageSum

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.pace.budget import Reservation
    from enrich.pace.purse import Wish
    from enrich.pace.sent import Sent
    from enrich.records import Ask, Failure, Settled, Usage


class Stage(enum.Enum):
    """Where a request is."""

    NEW = "new"
    CLAIMING = "claiming"
    READY = "ready"
    FLYING = "flying"
    RECORDING = "recording"
    LATER = "later"
    TOLD = "told"


BUSY_STAGES = frozenset({Stage.CLAIMING, Stage.FLYING, Stage.RECORDING})


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the engine.

    Attributes:
        attempt: the number of the attempt that is allowed, over all runs; 0 before the ledger was asked.
        claimed_at: when the ledger was asked for that, in seconds since the machine started.
        fresh: whether this run was the first to send it: no earlier attempt can have been charged.
        sent: the latest attempt, as the pace knows it.
        went_out: whether this run really sent it: an attempt reached the endpoint, or may have.
        doubled: whether it was sent again after an unknown outcome where that may be paid for.
        wish: what is reserved for it in budgets that outlive the run; None where nothing is.
    """

    ask: Ask
    done: list[Callable[[Settled], bool]]
    stream: bool
    fallback: Callable[[], bool] | None
    resend: bool
    max_tokens: int | None
    own_model: bool = False
    stage: Stage = Stage.NEW
    body: bytes = b""
    attempt: int = 0
    claimed_at: float = 0.0
    fresh: bool = True
    went_out: bool = False
    doubled: bool = False
    first_sent: float = 0.0
    sent_at: float = 0.0
    history: History = field(default_factory=History)
    failure: Failure | None = None
    sent: Sent | None = None
    tokens: float = 0.0
    reservation: Reservation | None = None
    wish: Wish | None = None

    @property
    def surely_unpaid(self) -> bool:
        """Say whether it was claimed, but every attempt was refused or never left this machine."""
        waiting = self.stage in (Stage.READY, Stage.LATER)
        return waiting and self.fresh and self.attempt > 0 and self.history.unknowns == 0


class Landing(NamedTuple):
    """How one attempt ended, for who looks on.

    Attributes:
        asked: the model that was asked.
        served: the model that answered.
        number: of the attempt, over all runs.
        usage: of an answer.
        error: the code of a failure; None of an answer that can be read.
    """

    asked: str
    served: str | None
    seconds: float
    number: int
    stream: bool
    request_id: str | None
    usage: Usage | None
    finish_reason: str | None
    error: str | None


@dataclass(slots=True)
class Stats(UsageSum):
    """What the run has done so far. The engine writes it; the progress display and the summary read it.

    Attributes:
        lost: attempts of unknown outcome: cut streams, connections that broke, time that ran out.
    """

    requests: int = 0
    attempts: int = 0
    perhaps_paid_twice: int | None = None
    answered: int = 0
    lost: int = 0
    failed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=1_000))
    last_event: float = field(default_factory=time.monotonic)
