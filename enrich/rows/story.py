"""One row's way through the steps, told as a generator: it yields a `Query` whenever it needs to know how a request ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from enrich.engine.outage import unfit_error
from enrich.errors import DiskFull
from enrich.prompt.cells import given
from enrich.prompt.idempotency import GENERATION_STRIDE
from enrich.prompt.request import Prepared
from enrich.prompt.template import RowError
from enrich.records import FAILED, STATUSES, Outcome, Settled, frozen
from enrich.rows.conversation import UNFIT
from enrich.rows.step import given_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from enrich.errors import RunStopped
    from enrich.prompt.request import RequestBuilder
    from enrich.records import RowStatus
    from enrich.rows.account import Account
    from enrich.rows.conversation import Query
    from enrich.rows.occurrences import Occurrences
    from enrich.rows.statuses import Marks
    from enrich.rows.step import Step
    from enrich.rows.troubles import Troubles


StoryResult = Settled | list[Settled] | Prepared | RowError | None
Story = Generator["Query | Look", StoryResult, None]

UNFIT_ROWS = 20  # answers, the first ones, that must be unfit to stop a run in which none is fit
# From what needs no attention to what needs most: a row counts under the last of its steps' statuses here.
_GRAVITY: dict[RowStatus, int] = {
    "ok": 0,
    "skipped": 1,
    "filtered": 2,
    "truncated": 3,
    "unsupported": 4,
    "invalid_output": 5,
    "error": 6,
    "in_doubt": 7,
    "pending": 8,
}
assert set(_GRAVITY) == set(STATUSES)  # noqa: S101  # a status added in one place is added in both


class NotAsked(Exception):
    """Thrown into a row's story: the request is not known and is not to be sent."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key


@frozen
class Look:
    """What a row yields to have its pictures looked at, which may take a while; it is sent what comes of it.

    Attributes:
        builder: of the step.
        prepared: the row.
    """

    builder: RequestBuilder
    prepared: Prepared

    @property
    def held(self) -> int:
        """Give the bytes of pictures that the row has with it."""
        return sum(len(one.source) for one in self.prepared.named if isinstance(one.source, bytes))

    def __call__(self) -> Prepared | RowError:
        """Look at them; what is wrong with them is the row's own."""
        try:
            return self.builder.look(self.prepared)
        except RowError as error:
            return error


class RowOnItsWay:
    """One row on its way.

    Attributes:
        held: bytes of pictures that it has with it.
        paid: the answers that this run paid for on the way to its next verdict.
    """

    __slots__ = ("asked", "began", "held", "index", "known", "paid", "step", "story", "worst")

    def __init__(self, index: int) -> None:
        self.index = index
        self.step = 0
        self.worst: RowStatus = "ok"
        self.asked = False
        self.known = False
        self.began: float | None = None  # monotonic seconds: the step's first attempt
        self.held = 0
        self.paid: list[Settled] = []
        self.story: Story


def _looked(builder: RequestBuilder, prepared: Prepared) -> Generator[Query | Look, StoryResult, Prepared]:
    """Have a row's pictures looked at, where it names any.

    Raises:
        RowError: one cannot be had.
    """
    if not prepared.named:
        return prepared
    seen = yield Look(builder, prepared)
    if isinstance(seen, RowError):
        raise seen
    assert isinstance(seen, Prepared)  # noqa: S101  # who drives a story answers a `Look` so
    return seen


class _Fitness:
    """Tells when the first answers of a step that this run got, without exception, are unfit.

    Args:
        stop: called with the step's number and the rows by status, once; None where nothing stops.
    """

    def __init__(self, stop: Callable[[int, Counter[RowStatus]], None] | None) -> None:
        self._stop = stop
        self._fit: set[int] = set()
        self._unfit: dict[int, Counter[RowStatus]] = {}

    def note(self, step: int, status: RowStatus) -> None:
        """Note how a row stands whose request was answered in this run."""
        if self._stop is None or step in self._fit:
            return
        if status not in UNFIT:
            self._fit.add(step)
            return
        seen = self._unfit.setdefault(step, Counter())
        seen[status] += 1
        if seen.total() >= UNFIT_ROWS:
            stop, self._stop = self._stop, None
            stop(step, seen)


class Stories:
    """Tells the stories of rows, and marks how each stands.

    Args:
        steps: in order.
        marks: where verdicts go.
        occurrences: counts equal requests when each is to have an answer of its own.
        troubles: counts failed rows by their cause.
        account: told what became of answers.
        before: rows that other flows had before these, for the rows' numbers in ``troubles``.
        anew: whether each row is asked anew, at the steps that are.
        stop: stops the run in which every answer is unfit; None where nothing does.
    """

    def __init__(
        self,
        steps: list[Step],
        *,
        marks: Marks,
        occurrences: Occurrences | None,
        troubles: Troubles,
        account: Account,
        before: int,
        stop: Callable[[RunStopped], None] | None,
        anew: np.ndarray[Any, np.dtype[np.bool]] | None = None,
    ) -> None:
        self._steps = steps
        self._anew = anew
        self._marks = marks
        self._occurrences = occurrences
        self._troubles = troubles
        self._account = account
        self._before = before
        self._stop = stop
        self._fitness = _Fitness(self._stop_unfit if stop is not None else None)

    def tell(self, row: RowOnItsWay, spelled: dict[int, dict[str, Any]]) -> Story:
        """Tell one row's way through the steps."""
        done: dict[str, Outcome] = {}
        for number, step in enumerate(self._steps):
            row.step = number
            row.known = False
            row.began = None
            anew = step.anew and self._anew is not None and bool(self._anew[row.index])
            outcome = yield from self._step(step, spelled[step.builder.step.prompt_text], done, anew=anew)
            self._mark(row, number, outcome)
            if number + 1 < len(self._steps):
                done[step.name] = outcome
                for spelling, values in spelled.items():
                    found = given_by(step, outcome)
                    values.update(found if spelling == 1 else {k: given(v) for k, v in found.items()})

    def mark(self, row: RowOnItsWay, outcomes: Sequence[Outcome]) -> None:
        """Mark how a row stands at every step, where that is known without its story."""
        for number, outcome in enumerate(outcomes):
            self._mark(row, number, outcome)

    def _step(
        self, step: Step, values: dict[str, Any], done: Mapping[str, Outcome], *, anew: bool
    ) -> Generator[Query | Look, StoryResult, Outcome]:
        if any(done[name].status == "pending" for name in step.follows):
            return Outcome("pending")
        for name in step.needs:
            if done[name].status != "ok":
                because = done[name].error or done[name].status
                return Outcome("skipped", f"no_{name}: step `{name}` has no answer ({because})")
        try:
            if not step.builder.wanted(values):
                return Outcome("skipped")
            prepared = yield from _looked(step.builder, step.builder.prepare(values))
            ordinal = self._ordinal(step, prepared)
            return (yield from step.conversation.hold(prepared, ordinal, anew=anew))
        except NotAsked as left:
            return Outcome("pending", key=left.key)
        except RowError as error:
            skip = step.builder.skips(error.code)
            return Outcome("skipped" if skip else "error", str(error))

    def _ordinal(self, step: Step, prepared: Any) -> int:
        ordinal = step.generation * GENERATION_STRIDE
        if self._occurrences is None:
            return ordinal
        return ordinal + self._occurrences.count(step.builder.ask(prepared, ordinal=ordinal).key)

    def _mark(self, row: RowOnItsWay, step: int, outcome: Outcome) -> None:
        try:
            self._marks.set(row.index, step, outcome)
        except DiskFull as error:
            if self._stop is None:
                raise
            self._stop(error)
        self._account.decided(self._steps[step].name, outcome, row.paid)
        row.paid.clear()
        if outcome.status in FAILED:
            self._troubles.add(self._steps[step].name, self._before + row.index, outcome, again=row.asked)
        elif outcome.status == "ok":
            self._troubles.note_ending(outcome.finish_reason)
        if outcome.source == "api":
            self._fitness.note(step, outcome.status)
        if _GRAVITY[outcome.status] > _GRAVITY[row.worst]:
            row.worst = outcome.status

    def _stop_unfit(self, step: int, statuses: Counter[RowStatus]) -> None:
        if self._stop is not None:
            self._stop(unfit_error(statuses, self._steps[step].name))
