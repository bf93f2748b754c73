"""What a run would ask again that was answered before, and why: found, and said, before anything is sent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import pyarrow as pa

from enrich.base.words import counted
from enrich.config import StepConfig
from enrich.errors import EnrichError, TooManyReasked
from enrich.files.prefetch import prefetched
from enrich.prompt.messages import without_files
from enrich.runs.job import compile_job
from enrich.runs.scratch import occurrences_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.records import Outcome, RowStatus
    from enrich.rows.statuses import Marks
    from enrich.runs.job import Job
    from enrich.runs.options import RunOptions
    from enrich.runs.prepare import Opened
    from enrich.runs.session import Session

KEPT = 4  # ways of asking that are remembered of one output
CONCERNED = (
    1_000  # rows answered before, above which a share of 10 % that is asked again stops a run by default
)
SHARE = 0.1
NEITHER: frozenset[RowStatus] = frozenset({"error", "in_doubt", "skipped"})
ANSWERED, LEFT = 1, 2
CAUSES = {
    "prompt": ("system", "prompt", "prompt_file", "messages", "messages_file", "examples", "examples_file"),
    "model": ("model", "fallback_models"),
    "schema": ("schema", "schema_mode", "reuse"),
    "the text of values (`prompt_text`)": ("prompt_text",),
}
NO_CAUSE = frozenset(
    {
        "name",
        "limits",
        "stream",
        "check",
        "evidence",
        "on_unsupported",
        "vote_on",
        "on_tie",
        "reask",
        "repair",
        "on_truncated",
        "when",
        "on_null",
        "on_empty",
        "columns",
        "rename",
        "explode",
        "pin",
    }
)


class Rows(Protocol):
    """Rows that can be gone through more than once: an input's, or a frame's."""

    @property
    def schema(self) -> pa.Schema:
        """Of their columns."""

    @property
    def num_rows(self) -> int:
        """How many there are."""

    @property
    def was_read(self) -> bool:
        """Whether they came as texts, whose types are a guess."""

    def batches(self, *, columns: Sequence[str], written: bool) -> Iterable[pa.RecordBatch]:
        """Give them in order, once more."""


@dataclass(frozen=True, slots=True)
class Reasked:
    """Rows that were answered before and would be asked again.

    Attributes:
        rows: how many.
        answered: of how many that were answered before.
        why: what changed since: `prompt`, `model`, `schema`, another key of the step, a column's type, or `data`.
        among: which rows were looked at, where not all were.
    """

    rows: int
    answered: int
    why: tuple[str, ...]
    among: str = ""

    def __str__(self) -> str:
        of = counted(self.answered, "row")
        causes = ", ".join(self.why)
        if self.why == ("data",):
            return f"up to {self.rows:,} of {of} that were answered before would be asked again, or are gone: their data changed"
        among = self.among and f" in {self.among}"
        return f"{self.rows:,} of {of}{among} that were answered before would be asked again; changed since: {causes}"


def too_many(found: Reasked, most: int | str | None) -> bool:
    """Say whether a run must not go on without being told so: rows whose own data changed are no reason."""
    if found.why == ("data",) or not found.rows:
        return False
    if most is None:
        return found.answered > CONCERNED and found.rows > SHARE * found.answered
    limit = most if isinstance(most, int) else found.answered * float(most.rstrip("% ")) / 100
    return found.rows > limit


async def refuse_reasked(begun: Opened) -> Reasked | None:
    """Look for rows that would be paid for again.

    Raises:
        TooManyReasked: there are more of them than `max_reasked` allows.
    """
    found, most = await find_reasked(begun), begun.config.max_reasked
    if found is not None and too_many(found, most):
        raise TooManyReasked(
            f"{found}; `max_reasked` is {most or '10%'}, and nothing was sent",
            hint="undo the change (`prompt_text: 1` in a step keeps the old text of values), or confirm it with "
            "--set max_reasked=100%; `beatra-enrich plan` says what it costs.",
        )
    return found


async def find_reasked(begun: Opened) -> Reasked | None:
    """Compare with how this output was asked before; None when nothing would be asked again, as far as is known."""
    config, source, session = begun.config, begun.source, begun.session
    past = await _past(_name(config), session.ledger)
    used = await session.ledger.last_run() is not None
    now = _way(session.job, source)
    older = _older(past["ways"], now, used=used)
    look = _Look(source, session, begun.options)
    if older and source.num_rows:
        return await _against(look, now, older)
    if (
        config.output.partitioned or config.input.since is not None
    ):  # what they held is told where they change
        return None
    if past.get("input") not in (None, _digest(source)) and past.get("answered"):
        states = await look.states()
        known = int((states.codes == ANSWERED).all(axis=1).sum())
        left = int((states.codes == LEFT).any(axis=1).sum())
        again = max(0, min(left, past["answered"] - known))
        return Reasked(again, past["answered"], ("data",)) if again else None
    return None


async def refuse_reasked_rows(
    rows: Rows, session: Session, name: str, options: RunOptions, *, among: str = ""
) -> Reasked | None:
    """Look for rows without a file that would be paid for again, and remember how they are asked.

    Args:
        rows: of a frame.
        session: with what is asked of them.
        name: under which it is remembered how they were asked.
        options: of which the interrupt counts.
        among: which rows these are, where they are not all.

    Raises:
        TooManyReasked: there are more of them than `max_reasked` allows.
    """
    found, most = await find_reasked_rows(rows, session, name, options), session.job.config.max_reasked
    found = found and replace(found, among=among)
    if found is not None and too_many(found, most):
        raise TooManyReasked(
            f"{found}; `max_reasked` is {most or '10%'}, and nothing was sent",
            hint='confirm it with max_reasked="100%" (`plan` says how much is to be asked), or undo the change '
            "(prompt_text=1 keeps the old text of values); another question wants another `name`.",
        )
    await _note(name, rows, session)
    return found


async def find_reasked_rows(rows: Rows, session: Session, name: str, options: RunOptions) -> Reasked | None:
    """Compare with how rows without a file were asked before under a name."""
    past = await _past(name, session.ledger)
    used = await session.ledger.last_run() is not None
    now = _way(session.job, rows)
    older = _older(past["ways"], now, used=used)
    return await _against(_Look(rows, session, options), now, older) if older and rows.num_rows else None


async def changed_way(rows: Rows, session: Session, name: str) -> tuple[str, ...]:
    """Say what has changed in how such rows are asked, in no way that is remembered; nothing, where nothing has."""
    ways, now = (await _past(name, session.ledger))["ways"], _way(session.job, rows)
    return () if not ways or any(_is_same(way, now) for way in ways) else tuple(_causes(ways[-1], now))


async def note_rows(rows: Rows, session: Session, name: str) -> None:
    """Remember how rows without a file are asked."""
    await _note(name, rows, session)


def _older(ways: list[dict[str, Any]], now: dict[str, Any], *, used: bool) -> list[dict[str, Any]]:
    """Give the ways of asking before this one that may have answers which it has not.

    Args:
        ways: that are remembered.
        now: this one.
        used: whether the ledger was: then, where none is remembered, values were spelled as they once were.
    """
    if not ways:
        return [{**now, "steps": [{**step, "prompt_text": 1} for step in now["steps"]]}] if used else []
    if _is_same(ways[-1], now) and now["rows"] <= ways[-1]["rows"]:
        return []
    return [way for way in ways if not _is_same(way, now)]


def _is_same(way: dict[str, Any], other: dict[str, Any]) -> bool:
    return (way["steps"], way["types"]) == (other["steps"], other["types"])


async def _against(look: _Look, now: dict[str, Any], older: list[dict[str, Any]]) -> Reasked | None:
    """Find the rows that an older way of asking has answers to, and this one has not."""
    states = await look.states()
    answered = (states.codes == ANSWERED).all(axis=1)
    again = np.zeros(len(answered), dtype=bool)
    why: dict[str, None] = {}
    for way in reversed(older if (states.codes == LEFT).any() else []):
        with contextlib.suppress(
            EnrichError, ValueError
        ):  # what was asked then cannot be asked of this input
            steps = [StepConfig.model_validate(step) for step in way["steps"]]
            config = look.session.job.config.model_copy(update={"steps": steps})
            then = compile_job(config, look.rows.schema, key_needed=False)
            before = await look.states(then, way["types"])
            lost = np.zeros_like(again)
            for name in set(before.names) & set(states.names):
                lost |= (before.of(name) == ANSWERED) & (states.of(name) == LEFT)
            if (lost & ~again).any():
                why.update(dict.fromkeys(_causes(way, now)))
            again |= lost
    answered |= again
    return Reasked(int(again.sum()), int(answered.sum()), tuple(why)) if again.any() else None


class _States:
    """How each row stands at each step, in the place of `Marks`."""

    def __init__(self, rows: int, names: Sequence[str]) -> None:
        self.rows = rows
        self.names = list(names)
        self.codes = np.zeros((rows, len(self.names)), dtype=np.uint8)

    def set(self, row: int, step: int, outcome: Outcome) -> None:
        """Note how a row stands at a step."""
        code = LEFT if outcome.status == "pending" else ANSWERED
        self.codes[row, step] = 0 if outcome.status in NEITHER else code

    def of(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Give how rows stand at the step of this name."""
        return self.codes[:, self.names.index(name)]


@dataclass(frozen=True, slots=True)
class _Look:
    """Takes rows through a job without sending anything."""

    rows: Rows
    session: Session
    options: RunOptions

    async def states(self, job: Job | None = None, types: dict[str, str] | None = None) -> _States:
        """Say how each row stands.

        Args:
            job: what is asked, when it is not what the session is about.
            types: of columns, where they are to be read as they were then.
        """
        session = await self.session.look(job)
        job = session.job
        states = _States(self.rows.num_rows, [step.name for step in job.steps])
        with occurrences_of(job.config) as occurrences:
            flow = session.flow(cast("Marks", states), occurrences)
            batches = self.rows.batches(columns=job.columns, written=True)
            reading = prefetched(_as_then(batch, types or {}) for batch in batches)
            async with contextlib.aclosing(reading):
                row = 0
                async for batch in reading:
                    self.options.interrupt.check()
                    await flow.run(_one(batch), first_row=row)
                    row += batch.num_rows
        return states


async def _one(batch: pa.RecordBatch) -> AsyncIterator[pa.RecordBatch]:
    yield batch


def _as_then(batch: pa.RecordBatch, types: dict[str, str]) -> pa.RecordBatch:
    """Give whole numbers that have become fractions since their old type, as far as they still are whole."""
    import pyarrow.compute as pc

    for place, field in enumerate(batch.schema):
        if pa.types.is_floating(field.type) and types.get(field.name, "").startswith(("int", "uint")):
            column = batch.column(place)
            whole = pc.equal(pc.floor(column), column)
            kept = pc.if_else(whole, column, pa.scalar(None, field.type))
            with contextlib.suppress(pa.ArrowInvalid):
                kind = pa.type_for_alias(types[field.name])  # type: ignore[call-overload]  # as Arrow wrote it
                batch = batch.set_column(place, field.with_type(kind), kept.cast(kind))
    return batch


# --- what is remembered ---------------------------------------------------------------------------------


async def note_way(begun: Opened, answered: int | None = None) -> None:
    """Remember how an output is asked, and at the end how many rows have an answer."""
    more = {} if answered is None else {"answered": answered, "input": _digest(begun.source)}
    await _note(_name(begun.config), begun.source, begun.session, **more)


async def _note(name: str, rows: Rows, session: Session, **more: Any) -> None:
    past = await _past(name, session.ledger)
    now = _way(session.job, rows)
    ways = [way for way in past["ways"] if not _is_same(way, now)]
    told = {**past, "ways": [*ways, now][-KEPT:], **more}
    if told != past:
        await session.ledger.remember(name, told)


async def _past(name: str, ledger: Ledger) -> dict[str, Any]:
    return await ledger.recall(name) or {"ways": []}


def _name(config: Config) -> str:
    return f"asked:{config.output.path}"


def _way(job: Job, rows: Rows) -> dict[str, Any]:
    """Say how rows are asked: the steps, and the types of the columns that they use."""
    steps = []
    for step in job.steps:
        told = without_files(step.builder.step).model_dump(
            mode="json",
            by_alias=True,
            exclude_defaults=True,
            exclude={"answer_schema", "columns", "rename", "explode"},
        )
        steps.append(told if step.builder.schema is None else {**told, "schema": step.builder.schema.json})
    typed = {} if rows.was_read else {name: str(rows.schema.field(name).type) for name in job.columns}
    return {"steps": json.loads(json.dumps(steps)), "types": typed, "rows": rows.num_rows}


def _digest(source: Source) -> str:
    files = [(file.told, file.size, file.mtime_ns, file.version) for file in source.files]
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _causes(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Name what differs between two ways of asking."""
    old = {step["name"]: step for step in then["steps"]}
    for step in now["steps"]:
        other = old.get(step["name"], {})
        changed = {key for key in {*step, *other} - NO_CAUSE if step.get(key) != other.get(key)}
        for cause, keys in CAUSES.items():
            if changed.intersection(keys):
                yield cause
            changed.difference_update(keys)
        yield from sorted(changed)
    for name, kind in now["types"].items():
        if _kind(then["types"].get(name, kind)) != _kind(kind):
            yield f"the type of column `{name}` ({then['types'][name]}, now {kind})"


def _kind(said: str) -> str:
    """Give a type without how its texts and lists are stored, which no prompt shows."""
    return re.sub(
        r"\blarge_(?=string|binary|list)|(?<=string)_view|(?<=binary)_view|(?<=list)_view", "", said
    )
