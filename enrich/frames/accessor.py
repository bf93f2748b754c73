"""What the data frame accessors share: arguments become a job, rows go through the door, failures are told."""

# No postponed annotations here: `help()` shows the fields' types as they are.
import contextlib
import dataclasses
import functools
import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import pyarrow as pa
from pydantic import BaseModel

import enrich
from enrich.config import JobConfig, load_job, validate_job
from enrich.errors import ConfigError, InputError, RowsFailed, did_you_mean
from enrich.frames.batches import as_async
from enrich.frames.blocking import Background, blocking
from enrich.frames.door import Door, open_door
from enrich.prompt.cells import spellings
from enrich.prompt.template import RowError
from enrich.records import FAILED, Summary
from enrich.rows.occurrences import Occurrences
from enrich.runs.job import Job, compile_job
from enrich.runs.session import open_session
from enrich.schema.schema import load_schema
from enrich.show.display import displayed
from enrich.show.watch import Watch
from enrich.verbs.preview import request_texts

BATCH_ROWS = 8192  # rows asked and assembled as one
SHOWN_FAILURES = 5  # rows named in the message of `errors="raise"`

P = ParamSpec("P")
S = TypeVar("S")
A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to ask, whatever is asked.

    Args:
        columns: `all`, or `answer` for the answer's own columns: its text and, with a schema, its fields.
        ledger: a path; answers that it holds are not paid for again. `auto` is the configuration file's own
            where there is one, else `ledger.db` in the user's cache directory; None forgets everything.
        concurrency: the most requests in flight; by default as many as bring more answers.
        requests_per_minute: the most requests in any minute.
        tokens_per_minute: the most tokens in any minute.
        budget: what this call may spend, such as `{"credits": 5, "requests": 1000}`.
        errors: `null` leaves failed rows without an answer and warns in one line; `raise` raises at the end.
        progress: True or False; by default a bar in terminals and notebooks, nothing elsewhere.
        base_url: of the endpoint; by default BEATRA_BASE_URL. The word `sandbox` is the built-in emulator.
        api_key: by default BEATRA_API_KEY.
    """

    columns: Literal["all", "answer"] = "all"
    ledger: str | Path | None = "auto"
    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget: Mapping[str, float] | None = None
    errors: Literal["null", "raise"] = "null"
    progress: bool | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Question(Settings):
    """What to ask of every row, and how.

    Args:
        prompt: a Jinja template over the row's columns, such as `Classify: {{ review }}`. A column whose label is
            no word is written `{{ row["a b"] }}`.
        name: of the answer's column, and prefix of the others.
        system: a template of the system message.
        messages: templates of a whole conversation, in place of `system` and `prompt`.
        model: the model to ask.
        fallback_models: models to turn to when that one is not available.
        schema: a JSON Schema or a pydantic model of the answer: its fields become typed columns.
        temperature: of sampling, 0 to 2.
        max_tokens: the most tokens of an answer.
        params: further fields of the request.
        when: a template; rows for which it is empty or false are `skipped`.
        on_null: what becomes of rows that lack a value the prompt needs: `error`, `skip` or `render`.
        on_empty: what becomes of rows whose prompt is blank: `error`, `skip` or `send`.
        prompt_text: how values become text; 1 as versions before 0.9 spelled them.
        reask: how often an answer that breaks the schema is asked again.
        steps: in place of all of these, several steps: a configuration file, or a list of steps as it has them.
    """

    prompt: str | None = None
    _: dataclasses.KW_ONLY
    name: str = "answer"
    system: str | None = None
    messages: Sequence[Mapping[str, str]] | None = None
    model: str = "auto"
    fallback_models: Sequence[str] = ()
    schema: Mapping[str, Any] | type[BaseModel] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    params: Mapping[str, Any] | None = None
    when: str | None = None
    on_null: Literal["error", "skip", "render"] = "error"
    on_empty: Literal["error", "skip", "send"] = "error"
    prompt_text: Literal[1, 2] = 2
    reask: int = 1
    steps: str | Path | Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Pipeline(Settings):
    """Several steps to ask, and how.

    Args:
        steps: a configuration file (its input and output play no part), or a list of steps as it has them.
    """

    steps: str | Path | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of it.

    Attributes:
        table: the chosen columns, one row per row.
        summary: how it went.
    """

    table: pa.Table
    summary: Summary


@dataclass(frozen=True, slots=True)
class Plan:
    """What asking would come to, as far as it can be told without the answers of earlier steps.

    Attributes:
        rows: of the frame.
        requests: distinct ones.
        known: those of them that the ledger has an answer to.
        to_ask: those that would be sent.
    """

    rows: int
    requests: int
    known: int
    to_ask: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job, and the rows for it."""

    job: Job
    rows: int | None
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


class Page(str):
    """A text that a notebook shows line by line."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Source:
    """A frame as the door takes it.

    Attributes:
        names: of its columns, as templates write them; a name may stand twice as long as no template needs it.
        rows: how many; None when that shows only at the end.
        take: gives the columns of these names in batches, and the batches' schema. Without names, of any column.
    """

    names: Sequence[str]
    rows: int | None
    take: Callable[[Sequence[str]], tuple[pa.Schema, Iterable[pa.RecordBatch]]]


def batches_of(table: pa.Table) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Cut a table into batches for the door."""
    return table.schema, table.to_batches(max_chunksize=BATCH_ROWS)


def taking(make: Callable[P, A]) -> Callable[[Callable[[S, A], R]], Callable[Concatenate[S, P], R]]:
    """Have a method take the arguments of a dataclass, one by one, in code, in `help()` and for type checkers."""

    def decorate(method: Callable[[S, A], R]) -> Callable[Concatenate[S, P], R]:
        own = inspect.signature(method)
        taken = inspect.signature(make, eval_str=True).parameters
        by_weight = sorted(taken.values(), key=lambda p: (p.kind, p.name in Settings.__slots__))

        @functools.wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs.keys() - taken.keys():
                raise TypeError(f"{method.__name__}() has no argument `{name}`; {did_you_mean(name, taken)}")
            return method(self, make(*args, **kwargs))

        parameters = [next(iter(own.parameters.values())), *by_weight]
        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # what `inspect` reads
        call.__doc__ = _documented(method.__doc__ or "", make)
        return call

    return decorate


def _documented(doc: str, make: Callable[..., object]) -> str:
    """Put what a dataclass and its bases say of their arguments in the place of ``{arguments}``."""
    kinds = [kind for kind in inspect.getmro(make) if dataclasses.is_dataclass(kind)]  # type: ignore[arg-type]  # a class
    texts = [inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")[2].rstrip() for kind in kinds]
    return inspect.cleandoc(doc).replace("{arguments}", "\n".join(["Args:", *texts]))


# --- arguments → job ------------------------------------------------------------------------------------


@contextlib.contextmanager
def prepared(asked: Settings, source: Source, *, key_needed: bool = True) -> Iterator[Prepared]:
    """Compile what is asked against a frame, and take the columns that it needs.

    Raises:
        UsageError: something is wrong with the arguments, or they do not fit the frame.
    """
    with contextlib.ExitStack() as stack:
        config = _config(asked)
        if asked.ledger is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="beatra-"))
            config = config.model_copy(update={"ledger": str(Path(folder) / "ledger.db")})
        bare = pa.schema([pa.field(name, pa.null()) for name in dict.fromkeys(source.names)])
        needed = compile_job(config, bare, key_needed=False).columns
        names = list(source.names)
        for name in needed:
            if names.count(name) > 1:
                raise InputError(
                    f"two columns are called `{name}`, and a template needs it", hint="rename one."
                )
        schema, batches = source.take(needed)
        full = pa.schema([schema.field(f.name) if f.name in needed else f for f in bare])
        job = compile_job(config, full, api_key=asked.api_key, key_needed=key_needed)
        yield Prepared(job, source.rows, schema, batches)


def _config(asked: Settings) -> JobConfig:
    document = _document(asked)
    limits = {
        name: value
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute")
        if (value := getattr(asked, name)) is not None
    }
    document["limits"] = {**document.get("limits", {}), **limits}
    if asked.base_url is not None:
        document["endpoint"] = {**document.get("endpoint", {}), "base_url": asked.base_url}
    if asked.budget is not None:
        document["budget"] = dict(asked.budget)
    config = validate_job(document, "what is asked")
    for name in ("columns", "errors"):
        value, known = getattr(asked, name), _CHOICES[name]
        if value not in known:
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(known)}")
    own = asked.ledger is None or asked.ledger == "auto"
    ledger = config.ledger_location() if own else str(asked.ledger)
    return config.model_copy(update={"ledger": ledger, "input": None, "output": None})


_CHOICES = {"columns": ("all", "answer"), "errors": ("null", "raise")}
_STEP_FIELDS = tuple(
    f.name for f in dataclasses.fields(Question) if f.name not in Settings.__slots__ and f.name != "steps"
)


def _document(asked: Settings) -> dict[str, Any]:
    """Write what is asked as a configuration file would have it."""
    steps = getattr(asked, "steps", None)
    if steps is None:
        given = {name: getattr(asked, name) for name in _STEP_FIELDS}
        return {"steps": [_step({name: value for name, value in given.items() if value is not None})]}
    for f in dataclasses.fields(asked):
        if f.name in _STEP_FIELDS and getattr(asked, f.name) != f.default:
            raise ConfigError(f"`{f.name}` and `steps` exclude each other", hint="give each step its own.")
    if isinstance(steps, str | Path):
        return load_job(steps).model_dump(by_alias=True, exclude_unset=True)
    return {"steps": [_step(step) for step in steps]}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    schema = step.get("schema")
    if isinstance(schema, type):
        load_schema(schema)  # says what is wrong with it in words of its own
    return dict(step)


# --- asking ---------------------------------------------------------------------------------------------


def ask(asked: Settings, source: Source) -> Answers:
    """Ask every row, on an event loop in a thread of its own; one that is running here is left alone.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped: it had to stop early. Everything paid for is kept.
        RowsFailed: rows failed, and `errors` is `raise`.
    """
    with prepared(asked, source) as given:
        with blocking(_door(given, asked)) as door:
            pieces = [answers for _, answers in door.answers(given.batches)]
        return _told(asked, given.job, pa.Table.from_batches(pieces, door.schema), door.summary)


async def aask(asked: Settings, source: Source) -> Answers:
    """Do what `ask` does, on the event loop that is running."""
    with prepared(asked, source) as given:
        async with _door(given, asked) as door:
            answered = door.answers(as_async(given.batches))
            pieces = [answers async for _, answers in answered]
        return _told(asked, given.job, pa.Table.from_batches(pieces, door.schema), door.summary)


@contextlib.asynccontextmanager
async def _door(given: Prepared, asked: Settings) -> AsyncIterator[Door]:
    watch = Watch()
    async with (
        displayed(watch, wanted=asked.progress),
        open_door(given.job, given.schema, progress=watch, total=given.rows) as door,
    ):
        yield door


def _told(asked: Settings, job: Job, table: pa.Table, summary: Summary | None) -> Answers:
    """Say what failed, and choose the columns."""
    assert summary is not None  # noqa: S101  # a door that was closed in good order has one
    counts = [(status, summary.statuses[status]) for status in FAILED if summary.statuses[status]]
    if counts:
        failed = sum(count for _, count in counts)
        causes = ", ".join(f"{count:,} {status}" for status, count in counts)
        text = f"{failed:,} of {summary.rows:,} rows have no answer: {causes}"
        if asked.errors == "raise":
            raise RowsFailed(f"{text}\n" + "\n".join(_failures(job, table)))
        names = ", ".join(f"{step.name}_error" for step in job.steps)
        warnings.warn(f"{text}; {names} says why", stacklevel=_outside())
    return Answers(table.select(_chosen(asked, job, table)), summary)


def _failures(job: Job, table: pa.Table) -> Iterator[str]:
    """Tell of the first rows that failed."""
    left = SHOWN_FAILURES
    for step in job.steps:
        statuses, errors = (table[f"{step.name}_{suffix}"] for suffix in ("status", "error"))
        for row, status in enumerate(statuses):
            if left and status.as_py() in FAILED:
                left -= 1
                yield f"  row {row}, {step.name}: {status}: {errors[row]}"


def _chosen(asked: Settings, job: Job, table: pa.Table) -> list[str]:
    if asked.columns == "all":
        return table.column_names
    own = [(step.name, step.builder.schema) for step in job.steps]
    return [
        column
        for name, schema in own
        for column in (name, *(f"{name}_{f.name}" for f in (schema.fields if schema else ())))
    ]


def _outside() -> int:
    """Give the stack level of whoever called into this package."""
    here = os.path.dirname(enrich.__file__)  # noqa: PTH120  # compared with the paths that frames carry
    level, frame = 1, sys._getframe(1)  # noqa: SLF001  # as `warnings` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    return level


# --- looking --------------------------------------------------------------------------------------------


def preview(asked: Settings, source: Source) -> Page:
    """Write out the requests of these rows; sends nothing."""
    with prepared(asked, source, key_needed=False) as given:
        return Page("\n".join(request_texts(given.job, given.batches)))


def plan(asked: Settings, source: Source) -> Plan:
    """Count what asking would come to; sends nothing."""
    with prepared(asked, source, key_needed=False) as given:
        background = Background()
        try:
            return background.call(_plan(given))
        finally:
            background.close()


async def _plan(given: Prepared) -> Plan:
    rows = requests = known = 0
    with Occurrences() as seen:
        async with open_session(given.job, send=False) as session:
            for batch in given.batches:
                keys = {key for key in _keys(given.job, batch) if not seen.count(key)}
                records = await session.ledger.lookup(list(keys))
                rows += batch.num_rows
                requests += len(keys)
                known += sum(record.state == "answered" for record in records.values())
    return Plan(rows, requests, known, requests - known)


def _keys(job: Job, batch: pa.RecordBatch) -> Iterator[bytes]:
    """Give the keys of a batch's first requests, of steps that need no earlier answer."""
    for spelled in spellings(batch, {step.builder.step.prompt_text for step in job.steps}):
        for step in job.steps:
            builder, row = step.builder, spelled[step.builder.step.prompt_text]
            with contextlib.suppress(RowError):
                if not step.needs and builder.wanted(row):
                    yield builder.ask(builder.prepare(row)).key
