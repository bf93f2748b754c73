"""The configuration: its models, and how a YAML file, the environment and flags become one `Config`."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from platformdirs import user_cache_path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from enrich.base.location import is_url, plain, without_slash
from enrich.config.overrides import as_path_mapping, complete, ledger_beside
from enrich.config.strict_yaml import parse_yaml, read_text
from enrich.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEFAULT_BASE_URL = "https://api.beatra.ai/v1"
KEY_VARIABLE = "BEATRA_API_KEY"
URL_VARIABLE = "BEATRA_BASE_URL"
RATES = ("requests_per_minute", "tokens_per_minute")  # the limits over a span of time, beside `windows`

Format = Literal["csv", "tsv", "jsonl", "parquet", "arrow"]
Role = Literal["system", "user", "assistant"]
Location = Annotated[str, AfterValidator(plain)]  # a path, or an object's URL without any credential


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class CsvOptions(Section):
    """How a CSV file is written, where it differs from RFC 4180.

    Attributes:
        delimiter: one character; a comma, or a tab for TSV, unless given.
        quote: one character; an empty text means that nothing is quoted.
        encoding: a Python codec.
        header: whether the first line names the columns; else they are `column_1`, `column_2`, ….
        null_values: texts that mean null when they are not quoted.
        types: Arrow types by column, such as `{zip: string}`; the others are told from the data.
        bad_rows: `reject` leaves out lines that do not fit; `error` stops before anything is sent.
        reject_file: where rejected lines go.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Field(max_length=1)] = '"'
    encoding: str = "utf-8"
    header: bool = True
    null_values: list[str] = [""]
    types: dict[str, str] = {}
    bad_rows: Literal["error", "reject"] = "error"
    reject_file: Path | None = None


class InputConfig(Section):
    """Where the rows come from.

    Attributes:
        path: a file, a glob, a directory (Hive partitions become columns), the `s3://`, `gs://`, `az://`, `abfs://`
            or `file://` URL of such, or a list of these.
        format: told from the suffix unless given.
        columns: read only these columns.
        partitions: read only these Hive partitions, such as `day=2026-11-22`: of one key any, of several keys all.
        csv: how a CSV or TSV file is written.
    """

    path: Location | list[Location]
    format: Format | None = None
    columns: list[str] | None = None
    partitions: list[str] = []
    csv: CsvOptions = CsvOptions()

    @field_validator("partitions")
    @classmethod
    def _name_values(cls, partitions: list[str]) -> list[str]:
        for text in partitions:
            if not re.match(r"[^=/]+=", text):
                raise ValueError(f"`{text}` is not of the form key=value, such as day=2026-11-22")
        return partitions


class OutputConfig(Section):
    """Where the rows go.

    Attributes:
        path: the file, or the URL of an object; only ever replaced whole. One that ends with `/` is a folder.
        partitioned: `path` is a folder, with one file for each partition (or file) of the input; a path that ends
            with `/` says the same.
        format: told from the suffix unless given; `parquet` in a folder.
        compression: a Parquet codec, or none.
        row_group_rows: rows in one Parquet row group.
    """

    path: Location
    partitioned: bool = False
    format: Format | None = None
    compression: str = "zstd"
    row_group_rows: Annotated[int, Field(ge=1)] = 131_072

    @model_validator(mode="before")
    @classmethod
    def _is_folder(cls, value: Any) -> Any:
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or without_slash(path) == path:
            return value
        return {**value, "path": without_slash(path), "partitioned": True}


class EndpointConfig(Section):
    """Where requests go, and how.

    Attributes:
        base_url: of an OpenAI-compatible API; the word `sandbox` means the built-in emulator.
        timeout: seconds for one attempt.
        api_key_env: the environment variable that holds the key.
        api_key_file: a file that holds the key and nothing else, readable by its owner only.
        headers: further request headers, for gateways.
        ca_file: a PEM file of certificates to trust instead of the system's.
        proxy: the URL of an HTTP proxy; the environment's proxies are not used.
        stream_end: what ends a stream; `finish_reason` for endpoints that never send `[DONE]`.
    """

    base_url: str | None = None
    timeout: Annotated[float, Field(gt=0)] = 120.0
    api_key_env: str = KEY_VARIABLE
    api_key_file: Path | None = None
    headers: dict[str, str] = {}
    ca_file: Path | None = None
    proxy: str | None = None
    stream_end: Literal["done", "finish_reason"] = "done"

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None or value == "sandbox":
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"`{value}` is no http(s) URL; write for example {DEFAULT_BASE_URL}, or sandbox")
        return value.rstrip("/")


class Message(Section):
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: a template.
    """

    role: Role
    content: str


class Example(Section):
    """One turn to learn from, sent as it stands: no templates.

    Attributes:
        user: what was asked.
        assistant: what the good answer was; a mapping is sent as JSON.
    """

    user: str
    assistant: str | dict[str, Any]


class StepLimits(Section):
    """How fast the requests of one step may go, within the limits of the run.

    Attributes:
        concurrency: the most requests of this step in flight.
        requests_per_minute: the most requests of this step; attempts made again are not counted here.
    """

    concurrency: Annotated[int, Field(ge=1, le=20_000)] | None = None
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None


class StepConfig(Section):
    """One question asked of every row.

    Attributes:
        name: prefix of the output columns.
        system: template of the system message.
        prompt: template of the user's message; the row's columns are its variables.
        prompt_file: a file that holds the prompt.
        messages: templates of a whole conversation, instead of `system` and `prompt`.
        messages_file: a .yaml, .json or .jsonl file of such messages.
        examples: turns to learn from (few-shot), between `system` and the prompt.
        examples_file: a .yaml, .json or .jsonl file of such turns.
        model: the model to ask; `auto` lets the endpoint choose.
        fallback_models: models to turn to, in order, when that one is not available.
        temperature: of sampling; excludes `top_p`.
        top_p: share of the probability mass to sample from; excludes `temperature`.
        max_tokens: the most tokens of an answer, or a template that gives them.
        max_completion_tokens: the same under its newer name, which reasoning models want.
        params: further request fields; strings in it, at any depth, are templates.
        stream: ask for an event stream; the answer is the same.
        when: rows for which this renders to an empty text, `false`, `0`, `no` or `none` are skipped.
        on_null: what becomes of rows that lack a value the prompt needs: they fail, are skipped, or render it empty.
        answer_schema: JSON Schema of the answer (`schema` in the file): inline, a file's path, or `module:Model`.
        schema_mode: how the endpoint is told of the schema.
        repair: take JSON out of fences and mend small breaks before an answer counts as invalid.
        reask: how often an answer that breaks the schema or `check` is asked again.
        on_truncated: `retry` asks once more with twice the tokens when the answer ran out of them.
        check: an expression on the parsed answer that must be true.
        limits: of this step alone, within those of the run.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    system: str | None = None
    prompt: str | None = None
    prompt_file: Path | None = None
    messages: list[Message] | None = None
    messages_file: Path | None = None
    examples: list[Example] = []
    examples_file: Path | None = None
    model: str = "auto"
    fallback_models: list[str] = []
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | str | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | str | None = None
    params: dict[str, Any] = {}
    stream: bool = False
    when: str | None = None
    on_null: Literal["error", "skip", "render"] = "error"
    answer_schema: dict[str, Any] | str | None = Field(default=None, alias="schema")
    schema_mode: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    repair: bool = True
    reask: Annotated[int, Field(ge=0, le=10)] = 1
    on_truncated: Literal["keep", "retry"] = "keep"
    check: str | None = None
    limits: StepLimits | None = None

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> Self:
        given = [
            n for n in ("prompt", "prompt_file", "messages", "messages_file") if getattr(self, n) is not None
        ]
        if not given:
            raise ValueError("a step needs `prompt`, `prompt_file`, `messages` or `messages_file`")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` exclude each other; keep one")
        if self.messages is not None and not self.messages:
            raise ValueError("`messages` is empty; it needs at least one message")
        if given[0].startswith("messages"):
            if self.system is not None:
                raise ValueError(
                    "`system` stands beside `prompt`; among `messages` write `{role: system, content: …}`"
                )
            if self.examples or self.examples_file is not None:
                raise ValueError("examples stand beside `prompt`; among `messages` write them as messages")
        if self.examples and self.examples_file is not None:
            raise ValueError("`examples` and `examples_file` exclude each other; keep one")
        return self

    @model_validator(mode="after")
    def _can_grow(self) -> Self:
        limits = ("max_tokens", "max_completion_tokens")
        given = any(getattr(self, name) is not None or name in self.params for name in limits)
        if self.on_truncated == "retry" and not given:
            raise ValueError("`on_truncated: retry` doubles `max_tokens`, which is not given; set it")
        return self

    @model_validator(mode="after")
    def _sampling(self) -> Self:
        top_p = self.top_p if self.top_p is not None else self.params.get("top_p")
        temperature = self.temperature if self.temperature is not None else self.params.get("temperature")
        if temperature is not None and top_p is not None:
            raise ValueError("`temperature` and `top_p` exclude each other (the API takes one); remove one")
        if isinstance(temperature, int | float) and not 0 <= temperature <= 2:
            raise ValueError(f"`temperature` is {temperature}; the API takes 0.0 to 2.0")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("`max_tokens` and `max_completion_tokens` exclude each other; remove one")
        for owned in ("model", "messages", "stream", "response_format"):
            if owned in self.params and not (owned == "response_format" and self.answer_schema is None):
                raise ValueError(
                    f"`params.{owned}` is set by the step's own `{owned}` key; remove it from params"
                )
        if self.params.get("n", 1) != 1:
            raise ValueError("`params.n` must be 1: a row has one answer; add a step for a second one")
        return self


class WindowConfig(Section):
    """At most so many requests or tokens in any span of so many seconds.

    Attributes:
        requests: how many may begin.
        tokens: how many may be used.
        seconds: the span.
    """

    requests: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.requests is None and self.tokens is None:
            raise ValueError("a window needs `requests` or `tokens`")
        return self


class LimitsConfig(Section):
    """How fast requests may go. All limits hold at once; with a ledger on PostgreSQL, for all runs of one API key together.

    Attributes:
        concurrency: the most requests in flight, of each run for itself.
        adaptive: find the endpoint's own ceiling below `concurrency` from its 429s; false goes to it at once.
        requests_per_minute: spread evenly, without a burst at the start.
        tokens_per_minute: estimated before sending, settled on usage.
        windows: further limits over other spans.
    """

    concurrency: Annotated[int, Field(ge=1, le=20_000)] = 64
    adaptive: bool = True
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    windows: list[WindowConfig] = []


class RetryConfig(Section):
    """How hard a row is tried.

    Attributes:
        attempts: requests that may be sent for one body; waits for a rate limit or an outage use none up.
        max_wait: the longest backoff, in seconds. A Retry-After is honoured beyond it.
        deadline: seconds that all attempts of one row may take together; default attempts × (timeout + max_wait).
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 6
    max_wait: Annotated[float, Field(gt=0)] = 60.0
    deadline: Annotated[float, Field(gt=0)] | None = None


class BudgetConfig(Section):
    """What one run may spend; reserved before sending, settled on usage.

    Attributes:
        credits: Beatra's charge.
        tokens: of prompts and answers together.
        requests: distinct ones that are sent; a retry is not counted again.
    """

    credits: Annotated[float, Field(gt=0)] | None = None
    tokens: Annotated[int, Field(gt=0)] | None = None
    requests: Annotated[int, Field(gt=0)] | None = None


class JobConfig(Section):
    """What is asked and how, wherever the rows come from and go to.

    Attributes:
        input: the rows; a path, or a mapping.
        output: the enriched rows; a path, or a mapping.
        ledger: a file, or a database's URL that machines share; default `.beatra/ledger.db` beside the output, or
            beside this file when the output is a URL.
        endpoint: where requests go, and how.
        steps: the questions, in order; a later one sees the answers of earlier ones.
        limits: how fast requests may go.
        retry: how hard a row is tried.
        budget: what one run may spend.
        dedupe: ask identical requests once; `false` asks each row on its own.
        tolerate: failed rows (a count, or a share such as `1%`) that still count as success.
        report: write a page on each run to this file or URL.
    """

    input: Annotated[InputConfig | None, BeforeValidator(as_path_mapping)] = None
    output: Annotated[OutputConfig | None, BeforeValidator(as_path_mapping)] = None
    ledger: str | None = None
    endpoint: EndpointConfig = EndpointConfig()
    steps: Annotated[list[StepConfig], Field(min_length=1)]
    limits: LimitsConfig = LimitsConfig()
    retry: RetryConfig = RetryConfig()
    budget: BudgetConfig = BudgetConfig()
    dedupe: bool = True
    tolerate: int | str = 0
    report: Location | None = None

    @field_validator("tolerate", mode="before")
    @classmethod
    def _count_or_share(cls, value: Any) -> Any:
        match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%|\d+", str(value), re.ASCII)
        if isinstance(value, bool | float) or not match or float(match[1] or 0) > 100:
            raise ValueError(f"give a count of rows, or a share such as 1% (it is {value!r})")
        return value if match[1] else int(value)

    @field_validator("steps")
    @classmethod
    def _names_differ(cls, steps: list[StepConfig]) -> list[StepConfig]:
        names = [step.name for step in steps]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"two steps are named `{name}`; names prefix the output columns and must differ"
                )
        return steps

    def tolerated(self, rows: int) -> int:
        """Say how many failed rows of so many still count as success."""
        if isinstance(self.tolerate, int):
            return self.tolerate
        return int(rows * float(self.tolerate.rstrip("% ")) / 100)

    def rates(self) -> Iterator[str]:
        """Name the limits over a span of time that are set, of the run and of its steps."""
        places: list[tuple[str, LimitsConfig | StepLimits | None]] = [("limits", self.limits)]
        places += [(f"steps.{step.name}.limits", step.limits) for step in self.steps]
        for place, limits in places:
            for name in (*RATES, "windows"):
                if getattr(limits, name, None):
                    yield f"`{place}.{name}`"

    def ledger_location(self) -> str:
        """Give the ledger's path or URL: as configured, else beside an output file, else in the user's cache."""
        if self.ledger is not None:
            return self.ledger
        if self.output is not None and not is_url(self.output.path):
            return ledger_beside(self.output.path)
        return str(user_cache_path("beatra-enrich") / "ledger.db")

    def ledger_shown(self) -> str:
        """Give `ledger_location` as it may be printed and kept: a URL without its password."""
        return without_password(self.ledger_location())


class Config(JobConfig):
    """One job over files, as `beatra-enrich run` takes it."""

    input: Annotated[InputConfig, BeforeValidator(as_path_mapping)]
    output: Annotated[OutputConfig, BeforeValidator(as_path_mapping)]


def without_password(location: str) -> str:
    """Write a ledger's URL without its password, wherever that stands in it; a path stays as it is.

    Of a URL that libpq would take apart in another way than was meant, such as one with a ``/`` in its password,
    nothing is left but its scheme.
    """
    if "://" not in location:
        return location
    parts = _LEDGER_URL.fullmatch(location)
    if parts is None:
        return f"{location.partition('://')[0]}://…"
    return f"{parts['scheme']}://{parts['user'] or ''}{'@' if parts['user'] else ''}{parts['place']}"


def holds_password(location: str) -> bool:
    """Tell whether a ledger's URL holds a password, or what may be one."""
    if "://" not in location:
        return False
    parts = _LEDGER_URL.fullmatch(location)
    return parts is None or bool(parts["password"]) or "password=" in (parts["query"] or "")


_HOST = r"(?:\[[^\]@/]*\]|[^][:@/?#,]*)(?::\d*)?"
_LEDGER_URL = re.compile(
    r"(?P<scheme>[^:/]*)://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    rf"(?P<place>{_HOST}(?:,{_HOST})*(?:/[^@?]*)?)(?:\?(?P<query>(?:[^=&@]+=[^&]*&?)*))?",
    re.DOTALL,
)


_Job = TypeVar("_Job", bound=JobConfig)


# --- loading -------------------------------------------------------------------------------------------


def load_config(
    path: str | Path,
    *,
    overrides: list[str] | None = None,
    env: Mapping[str, str] | None = None,
    **flags: Any,
) -> Config:
    """Read a configuration file.

    Args:
        path: the YAML file. Relative paths in it are relative to its folder.
        overrides: ``key.path=value`` assignments, applied in order.
        env: the environment for ``${NAME}``; the process's own by default.
        flags: ``input`` (one path or several) and ``output`` (relative to the working directory), ``partitions`` of the input and
            ``base_url``, which override the file's.

    Raises:
        ConfigError: with the place, the value and the nearest real key.
    """
    document = _read_document(Path(path), overrides or [], os.environ if env is None else env, flags)
    return validate_config(document, str(path))


def load_job(path: str | Path, *, base_url: str | None = None) -> JobConfig:
    """Read a configuration file for rows that come from elsewhere: its input and output may be left out.

    Raises:
        ConfigError: with the place, the value and the nearest real key.
    """
    document = _read_document(Path(path), [], os.environ, {"base_url": base_url})
    return validate_job(document, str(path))


def complete_config(
    document: Mapping[str, Any],
    *,
    folder: Path,
    where: str = "config",
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    **flags: Any,
) -> Config:
    """Make a configuration of a mapping as `load_config` makes one of a file that holds it.

    Args:
        document: the content of such a file; it stays as it is.
        folder: what relative paths in it are relative to.
        where: what it is called in messages.
        overrides: as for `load_config`.
        env: as for `load_config`.
        flags: as for `load_config`.

    Raises:
        ConfigError: with the place, the value and the nearest real key.
    """
    env = os.environ if env is None else env
    completed = complete(copy.deepcopy(dict(document)), folder, overrides, env, flags)
    return validate_config(completed, where)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a configuration file as it stands.

    Raises:
        ConfigError: it is not there, or holds no mapping.
    """
    if not path.exists():
        beside = sorted(other.name for suffix in ("yaml", "yml") for other in path.parent.glob(f"*.{suffix}"))
        hint = did_you_mean(path.name, beside) if beside else "beatra-enrich init makes one."
        raise ConfigError(f"no configuration file {path}", hint=hint)
    document = parse_yaml(read_text(path, "the configuration file"), str(path))
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} holds no mapping of keys", hint="beatra-enrich init makes a file to start from."
        )
    return document


def _read_document(
    path: Path, overrides: Sequence[str], env: Mapping[str, str], flags: Mapping[str, Any]
) -> dict[str, Any]:
    return complete(read_mapping(path), path.parent.resolve(), overrides, env, flags)


def validate_config(document: Mapping[str, Any], where: str = "config") -> Config:
    """Turn a mapping into a `Config`.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    return _validated(Config, document, where)


def validate_job(document: Mapping[str, Any], where: str = "config") -> JobConfig:
    """Turn a mapping, in which input and output may be left out, into a `JobConfig`.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    return _validated(JobConfig, document, where)


def _validated(model: type[_Job], document: Mapping[str, Any], where: str) -> _Job:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            f"{where} is not valid:\n{problems(error, document)}",
            hint="beatra-enrich schema prints every key there is.",
        ) from None


def problems(error: ValidationError, document: Any, model: type[BaseModel] = Config) -> str:
    """Write what is wrong with a document, a line each.

    A place has one line: a value that may be of two kinds is wrong in two ways.

    Args:
        error: what the models say.
        document: what they were given.
        model: what the document is, or each item of it; for the keys that are known.
    """
    said: dict[str, str] = {}
    for item in error.errors(include_url=False):
        said.setdefault(_place(item, document), _problem(item, model))
    return "\n".join(f"  {place}: {text}" for place, text in said.items())


def _place(item: Any, document: Any) -> str:
    """Give the path to a problem as one types it after `--set`; steps go by their names."""
    parts: list[str] = []
    value = document
    for part in item["loc"]:
        if isinstance(value, dict) and part in value:
            value = value[part]
            parts.append(str(part))
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
            name = value.get("name") if isinstance(value, dict) else None
            parts.append(name if isinstance(name, str) and name else str(part))
    if item["type"] == "missing":
        parts.append(str(item["loc"][-1]))
    return ".".join(parts) or "the file"


def _problem(item: Any, model: type[BaseModel]) -> str:
    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return _unknown_key(item["loc"], model)
    if kind == "value_error":
        return str(item["ctx"]["error"])
    text = _PROBLEMS.get(kind) or re.sub(r"^\w+ should ", "must ", item["msg"])
    if kind.endswith(("_parsing", "_from_float")):
        text = text.partition(",")[0]
    shown = kind != "missing" and isinstance(value, str | int | float | bool | None)
    return f"{text} (it is {value!r})" if shown else text


_PROBLEMS = {
    "missing": "this key is required",
    "string_pattern_mismatch": "must be one word of letters, digits and _, not beginning with a digit",
    "model_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "too_short": "must have at least one item",
}
_SECRETS = frozenset({"api_key", "apikey", "key", "password", "secret", "token"})


def _unknown_key(loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    name = str(loc[-1])
    if name.lower() in _SECRETS:
        return f"a key does not belong in this file; export {KEY_VARIABLE}=…, or name a file with `endpoint.api_key_file`"
    return f"unknown key; {did_you_mean(name, _keys_at(loc[:-1], model))}"


def _keys_at(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Walk the models along a location and give the keys that are known there."""
    for part in loc:
        if isinstance(part, int):
            continue
        info = model.model_fields.get(part)
        inner = _model_in(info.annotation) if info is not None else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
