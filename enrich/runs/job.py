"""A configuration and an input schema become a compiled job; whatever is wrong with them is found here."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.answer.ballot import useless
from enrich.answer.columns import output_schema, step_fields
from enrich.answer.reader import AnswerReader
from enrich.base.location import ObjectUrl, is_url
from enrich.base.version import __version__
from enrich.config import URL_VARIABLE, Place, read_by, refuse, refuse_overlaps
from enrich.config.endpoint import Endpoint, resolve_endpoint
from enrich.config.key_source import GivenKey
from enrich.engine.fallback import ModelBreaker
from enrich.engine.formats import Formats
from enrich.errors import ConfigError, OutputError, did_you_mean
from enrich.files.metadata import retell_metadata
from enrich.files.storage import has_magic
from enrich.prompt.column_types import check_prompt_column
from enrich.prompt.messages import without_files
from enrich.prompt.request import RequestBuilder
from enrich.prompt.template import check_columns
from enrich.rows.conversation import Conversation
from enrich.rows.step import Step
from enrich.runs.partitions import find_units
from enrich.schema.choice import choose
from enrich.schema.schema import step_schema
from enrich.wire.redact import MIN_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from enrich.config import Config, EndpointConfig, JobConfig, OutputConfig, StepConfig
    from enrich.files.source import Source
    from enrich.records import RowStatus
    from enrich.schema.choice import Column
    from enrich.schema.schema import AnswerSchema

log = logging.getLogger("enrich")

SANDBOX = "sandbox"  # the base URL that stands for the built-in emulator
GIVEN_SUFFIXES = ("status", "error", "model")  # what a later step sees of an earlier one beside its answer


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, checked against the input's schema.

    Attributes:
        steps: compiled, in order.
        columns: the input columns that the templates need, in input order.
        passed: the input columns that the output holds, in its order.
        output_schema: of the output.
        base_url: what requests are keyed by: the endpoint's URL, or ``sandbox``.
        endpoint: where requests go; None for the sandbox, whose address is known once it runs.
        formats: which ways of telling a schema its models do not take.
    """

    config: JobConfig
    steps: tuple[Step, ...]
    columns: tuple[str, ...]
    passed: tuple[str, ...]
    output_schema: pa.Schema
    base_url: str
    endpoint: Endpoint | None
    formats: Formats


def compile_job(
    config: JobConfig,
    input_schema: pa.Schema,
    *,
    api_key: str | None = None,
    key_needed: bool = True,
    retry: frozenset[RowStatus] = frozenset(),
    leave_out: Collection[str] = (),
) -> Job:
    """Compile every step and compare it with the input's columns.

    Args:
        config: the job.
        input_schema: of the rows.
        api_key: instead of the one that the configuration names.
        key_needed: False for what sends nothing: an absent key is no error then.
        retry: the statuses whose rows are asked again.
        leave_out: input columns that the output does not hold.

    Raises:
        ConfigError, TemplateError: whatever cannot work.
    """
    base_url, endpoint = _endpoint(config.endpoint, api_key, key_needed=key_needed)
    for step in config.steps:
        if (why := useless(step)) is not None:
            log.warning(why)
    _refuse_key_in_prompts(config, endpoint)
    _refuse_guarantee_without_file(config)
    schemas = [step_schema(step) for step in config.steps]
    columns = [choose(step, schema) for step, schema in zip(config.steps, schemas, strict=True)]
    kept = _kept(config.output, input_schema)
    output = _joined(kept, config.steps, columns, leave_out)
    given = [_given(step.name, schema) for step, schema in zip(config.steps, schemas, strict=True)]
    builders = [RequestBuilder(s, base_url, schema) for s, schema in zip(config.steps, schemas, strict=True)]
    linked = list(_linked(builders, given, input_schema))
    readers = [
        AnswerReader(step, schema, written)
        for step, schema, written in zip(config.steps, schemas, columns, strict=True)
    ]
    breaker, formats = ModelBreaker(), Formats()
    steps = tuple(
        Step(
            name=builder.step.name,
            builder=builder,
            reader=reader,
            conversation=Conversation(builder, reader, breaker, retry=retry, formats=formats),
            generation=0,
            given=own,
            needs=needs,
            follows=follows,
            columns=written,
        )
        for builder, reader, own, (needs, follows), written in zip(
            builders, readers, given, linked, columns, strict=True
        )
    )
    needed = frozenset[str]().union(*(builder.columns for builder in builders))
    whole = any(builder.whole_row for builder in builders)
    used = tuple(name for name in input_schema.names if whole or name in needed)
    passed = tuple(name for name in kept.names if name not in leave_out)
    return Job(config, steps, used, passed, output, base_url, endpoint, formats)


def _joined(
    kept: pa.Schema,
    steps: Sequence[StepConfig],
    columns: Sequence[Sequence[Column]],
    leave_out: Collection[str],
) -> pa.Schema:
    """Join what the output holds of the input with the columns of the steps that are written.

    Raises:
        ConfigError: two columns would have the same name, or there would be none.
    """
    written = [
        (step.name, [column.field for column in chosen]) for step, chosen in zip(steps, columns, strict=True)
    ]
    joined = output_schema(kept, written)
    if not len(joined):
        raise ConfigError(
            "the output would have no columns", hint="name some in output.columns, or in a step's `columns`."
        )
    return retell_metadata(
        joined.metadata, pa.schema([field for field in joined if field.name not in leave_out])
    )


def _kept(output: OutputConfig | None, input_schema: pa.Schema) -> pa.Schema:
    """Give the input's columns that are written.

    Raises:
        ConfigError: `output.columns` names one that is not there.
    """
    if output is None or output.columns is None:
        return input_schema
    names = list(dict.fromkeys(output.columns))
    for name in names:
        if name not in input_schema.names:
            raise ConfigError(
                f"output.columns: the input has no column `{name}`",
                hint=did_you_mean(name, input_schema.names),
            )
    return retell_metadata(input_schema.metadata, pa.schema([input_schema.field(name) for name in names]))


def fingerprint(
    config: JobConfig, *, api_key: str | None = None, key_needed: bool = False
) -> tuple[str, list[bytes]]:
    """Give a digest of whatever decides what a job asks and writes, and the fingerprint of each step.

    Args:
        config: the job.
        api_key: as for `compile_job`.
        key_needed: as for `compile_job`.

    Raises:
        ConfigError, TemplateError: a step cannot be compiled.
    """
    base_url, _ = _endpoint(config.endpoint, api_key, key_needed=key_needed)
    schemas = [step_schema(step) for step in config.steps]
    builders = [RequestBuilder(s, base_url, schema) for s, schema in zip(config.steps, schemas, strict=True)]
    facts = [
        base_url,
        [step.model_dump(mode="json", exclude={"limits", "stream"}) for step in config.steps],
        [schema and schema.json for schema in schemas],
        [builder.fingerprint.hex() for builder in builders],
        config.input and config.input.model_dump(mode="json", include={"format", "columns", "csv"}),
        config.output and config.output.model_dump(mode="json", exclude={"path"}),
    ]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16)
    return digest.hexdigest(), [builder.fingerprint for builder in builders]


def origin(job: Job, source: Source) -> dict[str, Any]:
    """Give what an output says of the job and the input that made it; plain JSON."""
    steps = [
        {"name": step.name, "fingerprint": step.builder.fingerprint.hex(), "model": step.builder.step.model}
        for step in job.steps
    ]
    public = job.config.model_dump(mode="json", include={"steps", "dedupe"}, by_alias=True)
    return {
        "version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": hashlib.sha256(repr(public).encode()).hexdigest(),
        "base_url": job.base_url,
        "sandbox": job.endpoint is None,
        "steps": steps,
        "input": [{"path": f.told, "bytes": f.size} for f in source.files],
    }


def refuse_overlap(config: Config, source: Source) -> None:
    """Keep the output apart from the input: it would replace a file of it, or be read as one by the next run.

    Raises:
        OutputError: the output is one of the input's files, or lies in a folder of it.
    """
    target = _spot(config.output.path)
    if config.output.partitioned and any(target in _spot(file.path).parents for file in source.files):
        raise OutputError(
            f"the input {source.files[0].path} lies in the output's folder {config.output.path}",
            hint="put the output into another folder.",
        )
    refuse_overlaps(config, *(Place("a file of the input", file.path) for file in source.files))
    paths = [config.input.path] if isinstance(config.input.path, str) else config.input.path
    for path in paths:
        if _is_folder(path, source) and _spot(path) in target.parents:
            raise OutputError(
                f"the output {config.output.path} lies in the input's folder {path}: the next run would read it",
                hint="put the output into another folder.",
            )
    if config.output.partitioned:
        written = [
            Place("a file of the output", u.output.path) for u in find_units(source.files, config.output)
        ]
        refuse(written, read_by(config))


def _spot(location: str) -> PurePath:
    """Give a file's real path, or an object's place in its store, whatever the URL says of the way there."""
    if not is_url(location):
        return Path(os.path.realpath(location))
    url = ObjectUrl.parse(location)
    return PurePosixPath(url.scheme, url.bucket, url.key)


def _is_folder(location: str, source: Source) -> bool:
    if not is_url(location):
        return Path(location).is_dir()
    return not has_magic(location) and all(file.path != location for file in source.files)


def _endpoint(
    config: EndpointConfig, api_key: str | None, *, key_needed: bool
) -> tuple[str, Endpoint | None]:
    env: Mapping[str, str] = os.environ
    if (config.base_url or config.url or env.get(URL_VARIABLE)) == SANDBOX:
        return SANDBOX, None
    without = config.model_copy(
        update={"api_key_file": None, "api_key_command": None, "api_key_expires_in": None}
    )
    if api_key is not None:
        endpoint = resolve_endpoint(without, {**env, config.api_key_env: api_key})
        return endpoint.base_url, replace(endpoint, key_source=GivenKey("the api_key that was given"))
    if key_needed or config.command is None:
        endpoint = resolve_endpoint(config, env, key_needed=key_needed)
    else:  # the program is run for what is sent alone
        endpoint = replace(resolve_endpoint(without, env, key_needed=False), key_source=config.command)
    return endpoint.base_url, endpoint


def _refuse_key_in_prompts(config: JobConfig, endpoint: Endpoint | None) -> None:
    """Keep the API key out of requests, and so out of the ledger; a row that holds it is data like any other."""
    key = endpoint.api_key.get_secret_value() if endpoint is not None and endpoint.api_key is not None else ""
    for step in config.steps if len(key) >= MIN_SECRET_KEY else ():
        if key in json.dumps(without_files(step).model_dump(mode="json"), ensure_ascii=False, default=str):
            raise ConfigError(
                f"steps.{step.name} holds the API key: it would be sent to the model, and kept in the ledger",
                hint="take it out; no request needs it in its text.",
            )


def _refuse_guarantee_without_file(config: JobConfig) -> None:
    """A guarantee is found for a table of which some values are known; rows on their way have none."""
    for step in config.steps:
        if config.output is None and step.escalation is not None and step.escalation.guarantee is not None:
            raise ConfigError(
                f"steps.{step.name}.escalate.guarantee needs a job over files, with values that are known",
                hint="find the threshold with `beatra-enrich run`, then give it as `when`.",
            )


def _linked(
    builders: Sequence[RequestBuilder], given: Sequence[tuple[str, ...]], input_schema: pa.Schema
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Compare each step's templates with the columns there are: the input's, and what earlier steps give.

    Args:
        builders: of the steps, in order.
        given: the columns that later steps may use, per step.
        input_schema: of the rows.

    Yields:
        The earlier steps whose answers it needs, and those of which it uses anything at all.
    """
    owners: dict[str, str] = {}
    free: set[str] = set()
    for builder, own in zip(builders, given, strict=True):
        name = builder.step.name
        where = f"steps.{name}"
        check_columns(builder.templates, [*input_schema.names, *owners])
        _check_sources(builder, [*input_schema.names, *owners])
        used = sorted(builder.columns)
        texts = frozenset[str]().union(*(t.variables for t in builder.texts))
        for column in used:
            if column not in owners:
                if column in texts:
                    check_prompt_column(input_schema.field(column), where)
            elif column in input_schema.names:
                raise ConfigError(
                    f"{where}: `{column}` is a column of the input and of step `{owners[column]}`",
                    hint="rename that step; `rename` and `columns` change only what is written.",
                )
        if builder.writes_row and builder.step.prompt_text > 1:  # the older spelling gives what was paid for
            for field in input_schema:
                check_prompt_column(field, where, whole_row=True)
        earlier = [column for column in used if column in owners]
        needs = dict.fromkeys(owners[column] for column in earlier if column not in free)
        yield tuple(needs), tuple(dict.fromkeys(owners[column] for column in earlier))
        owners.update(dict.fromkeys(own, name))
        free |= {f"{name}_{suffix}" for suffix in ("status", "error")}


def _check_sources(builder: RequestBuilder, columns: Sequence[str]) -> None:
    """Hold what answers are to be proved by to the columns there are.

    Raises:
        ConfigError: there is no such column.
    """
    for name in builder.sources:
        if name not in columns:
            raise ConfigError(
                f"steps.{builder.step.name}.evidence: there is no column `{name}`",
                hint=did_you_mean(name, columns),
            )


def _given(name: str, schema: AnswerSchema | None) -> tuple[str, ...]:
    answer = [field.name for field in step_fields(name, schema)][: 1 + (len(schema.fields) if schema else 0)]
    return (*answer, *(f"{name}_{suffix}" for suffix in GIVEN_SUFFIXES))
