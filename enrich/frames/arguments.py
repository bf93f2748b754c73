"""What the data frame accessors take: a question and how to ask it, and the configuration that they stand for."""

# No postponed annotations here: `help()` shows the fields' types as they are.
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from pydantic import BaseModel

from enrich.config import JobConfig, load_job, validate_job
from enrich.errors import ConfigError, did_you_mean
from enrich.schema.schema import load_schema
from enrich.schema.words import show

P = ParamSpec("P")
S = TypeVar("S")
A = TypeVar("A")
R = TypeVar("R")


UNNAMED = "answer"  # what a question is called that is given no name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to ask, whatever is asked.

    Args:
        columns: which columns are written: `standard`, `minimal` (answer, status, error), `all`, `answer` for the
            answer's own (its text and, with a schema, its fields), or a list of names such as `["answer", "model"]`.
        ledger: a path; answers that it holds are not paid for again. `auto` is the configuration file's own
            where there is one, else `ledger.db` in the user's cache directory; None forgets everything.
        concurrency: the most requests in flight; by default as many as bring more answers.
        requests_per_minute: the most requests in any minute.
        tokens_per_minute: the most tokens in any minute.
        budget: what this call may spend, such as `{"credits": 5, "requests": 1000}`.
        max_reasked: rows that were answered before and may be asked again, as after a changed model or column type (a
            count, or a share such as `10%` of those); above it nothing is sent. 10 % by default, where more than 1,000
            rows were answered; `100%` confirms. A question without a `name` is another one when its prompt is.
        errors: `null` leaves failed rows without an answer and warns in one line; `raise` raises at the end.
        progress: True or False; by default a bar in terminals and notebooks, nothing elsewhere.
        base_url: of the endpoint; by default BEATRA_BASE_URL. The word `sandbox` is the built-in emulator.
        api_key: by default BEATRA_API_KEY.
    """

    columns: str | Sequence[str] = "standard"
    ledger: str | Path | None = "auto"
    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget: Mapping[str, float] | None = None
    max_reasked: int | str | None = None
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
        model: the model to ask, or a template that names one for each row.
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
        images: columns, or templates, that give each row's pictures: paths, URLs or bytes; for endpoints that take parts.
        evidence: values that must stand in a column: `{"field": …, "from": …}`, or a list of them.
        on_unsupported: `reask` asks again where one does not; else the row is `unsupported`.
        votes: answers at most of each row, of which the majority counts; or `{"most": 5, "when": …, "models": […]}`.
        escalate: models, the cheapest first, each asked only where there is doubt: `[{"model": …}, {"model": …, "when": …}]`.
        vote_on: the fields whose majority counts; all by default.
        on_tie: what a field without a majority is: `first`, `null` or `invalid_output`.
        pin: `True` stops when another model answers than the one that answered first; `"mark"` marks its rows.
        explode: a list of the schema: each of its elements becomes a row, as in `DataFrame.explode`.
        rename: names for columns in place of the usual ones, such as `{"status": "state"}`.
        steps: in place of all of these, several steps: a configuration file, or a list of steps as it has them.
    """

    prompt: str | None = None
    _: dataclasses.KW_ONLY
    name: str = UNNAMED
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
    images: Sequence[str] = ()
    evidence: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    on_unsupported: Literal["keep", "reask"] = "keep"
    votes: int | Mapping[str, Any] | None = None
    escalate: Sequence[str | Mapping[str, Any]] | Mapping[str, Any] | None = None
    vote_on: str | Sequence[str] | None = None
    on_tie: Literal["first", "null", "invalid_output"] = "first"
    pin: bool | str | Mapping[str, Any] = False
    explode: str | None = None
    rename: Mapping[str, str] | None = None
    steps: str | Path | Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Question):
    """What to ask of every row, and how closely to look at what it would cost.

    Args:
        sample: rows drawn at random that are really asked and measured; their answers are kept. None by default.
        seed: chooses the sample; the same seed chooses the same rows.
    """

    sample: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported(Question):
    """What was asked of every row, and the page to write on it.

    Args:
        path: of the page, one HTML file that needs nothing else.
        content: False leaves out everything that prompts and answers say.
    """

    path: str | Path = "report.html"
    content: bool = True


@dataclass(frozen=True, slots=True)
class Pipeline(Settings):
    """Several steps to ask, and how.

    Args:
        steps: a configuration file (its input and output play no part), or a list of steps as it has them.
    """

    steps: str | Path | Sequence[Mapping[str, Any]]


class UnknownArgument(ConfigError, TypeError):
    """A call has an argument that there is not, or lacks one; as Python has it, a TypeError."""


def taking(make: Callable[P, A]) -> Callable[[Callable[[S, A], R]], Callable[Concatenate[S, P], R]]:
    """Have a method take the arguments of a dataclass, one by one, in code, in `help()` and for type checkers."""

    def decorate(method: Callable[[S, A], R]) -> Callable[Concatenate[S, P], R]:
        own = inspect.signature(method)
        taken = inspect.signature(make, eval_str=True).parameters
        by_weight = sorted(taken.values(), key=lambda p: (p.kind, p.name in Settings.__slots__))

        @functools.wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            _refuse_arguments(method.__name__, taken, args, kwargs)
            return method(self, make(*args, **kwargs))

        parameters = [next(iter(own.parameters.values())), *by_weight]
        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # what `inspect` reads
        call.__doc__ = _documented(method.__doc__ or "", make)
        return call

    return decorate


def _refuse_arguments(
    method: str, taken: Mapping[str, inspect.Parameter], args: Sequence[object], kwargs: Mapping[str, object]
) -> None:
    """See to it that a call's arguments are those there are: a notebook shows a mistake in two lines."""
    for name in kwargs:
        if name not in taken:
            raise UnknownArgument(f"{method}() has no argument `{name}`", hint=did_you_mean(name, taken))
    try:
        inspect.Signature(list(taken.values())).bind(*args, **kwargs)
    except TypeError as error:
        raise UnknownArgument(
            f"{method}(): {error}", hint=f"help(df.beatra.{method}) tells its arguments."
        ) from None


def _documented(doc: str, make: Callable[..., object]) -> str:
    """Put what a dataclass and its bases say of their arguments in the place of ``{arguments}``."""
    kinds = [kind for kind in inspect.getmro(make) if dataclasses.is_dataclass(kind)]  # type: ignore[arg-type]  # a class
    texts = [inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")[2].rstrip() for kind in kinds]
    return inspect.cleandoc(doc).replace("{arguments}", "\n".join(["Args:", *texts]))


def as_config(asked: Settings) -> JobConfig:
    """Make the configuration that stands for what is asked.

    Raises:
        ConfigError: something is wrong with the arguments.
    """
    document = _document(asked)
    columns = asked.columns if isinstance(asked.columns, str) else list(asked.columns)
    document["steps"] = [{"columns": columns, **step} for step in document["steps"]]
    limits = {
        name: value
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute")
        if (value := getattr(asked, name)) is not None
    }
    document["limits"] = {**document.get("limits", {}), **limits}
    if asked.base_url is not None:
        document["endpoint"] = {**document.get("endpoint", {}), "base_url": asked.base_url}
    if asked.max_reasked is not None:
        document["max_reasked"] = asked.max_reasked
    if asked.budget is not None:
        document["budget"] = dict(asked.budget)
    config = validate_job(document, "what is asked")
    if asked.errors not in ERRORS:
        raise ConfigError(f"errors={asked.errors!r} is not one of {', '.join(ERRORS)}")
    own = asked.ledger is None or asked.ledger == "auto"
    ledger = config.ledger_location() if own else str(asked.ledger)
    return config.model_copy(update={"ledger": ledger, "input": None, "output": None})


ERRORS = ("null", "raise")
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
    if isinstance(steps, Mapping) or not (
        isinstance(steps, Sequence) and all(isinstance(step, Mapping) for step in steps)
    ):
        raise ConfigError(
            f"`steps` is {show(steps)}, neither a configuration's path nor a list of steps",
            hint='a list of mappings: [{"name": "tone", "prompt": "The tone of: {{ review }}"}]; what else a configuration'
            " says is given as arguments, such as base_url=.",
        )
    return {"steps": [_step(step) for step in steps]}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    schema = step.get("schema")
    if isinstance(schema, type):
        load_schema(schema)  # says what is wrong with it in words of its own
    return dict(step)
