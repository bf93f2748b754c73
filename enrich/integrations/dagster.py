"""Dagster: a job as an asset with its checks, and a component for `defs.yaml`.

It is long because Dagster and its users find asset, resource, component and checks under this one name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import dagster as dg
    from dagster.components.component_scaffolding import scaffold_component
except ImportError as error:
    raise ImportError("Dagster is not installed\nHint: pip install 'beatra-enrich[dagster]'") from error
from pydantic import Field

from enrich.api import any_config
from enrich.base.loops import run_stoppable
from enrich.config import read_mapping
from enrich.errors import EnrichError
from enrich.records import AMOUNTS, FAILED, STATUSES
from enrich.runs.lineage import column_origins
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.show.progress import shown
from enrich.show.watch import Watch
from enrich.verbs.init import write_starter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.records import Summary
    from enrich.runs.job import Job
    from enrich.runs.lineage import Origin

DRAIN_WHEN_TERMINATED = 5.0  # seconds for what is in flight when a run is terminated; what comes later, the next run gets for nothing
PROGRESS_EVERY = 30.0  # seconds between two lines of progress in the run's log
NO_FAILED_ROWS = "no_failed_rows"
NO_ROWS_IN_DOUBT = "no_rows_in_doubt"
AGREES_WITH_GOLD = "agrees_with_gold"


class BeatraResource(dg.ConfigurableResource):
    """The key and the URL that assets ask with.

    Attributes:
        api_key: ``dg.EnvVar("BEATRA_API_KEY")``, so that Dagster knows the variable's name and never shows its value.
            Without it, each configuration's own: an environment variable or a file.
        base_url: of the endpoint, instead of the configuration's. The word ``sandbox`` is the built-in emulator.
    """

    api_key: str | None = Field(default=None, repr=False)
    base_url: str | None = None


def beatra_asset(
    config: str | Path | Mapping[str, Any],
    *,
    name: str,
    key_prefix: Sequence[str] | str = (),
    overrides: Sequence[str] = (),
    partitions: Sequence[str] = (),
    input_asset: dg.AssetKey | Sequence[str] | str | None = None,
    resource_key: str | None = None,
    blocking: bool = True,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    **attributes: Any,
) -> dg.AssetsDefinition:
    """Make an asset of a job. To materialize it is to run the job; doing so again asks only what is new.

    It has two checks: `no_failed_rows`, an error when more rows failed than `tolerate` and a warning below that, and
    `no_rows_in_doubt`; where the job has gold columns a third, `agrees_with_gold`, with their figures, a warning when an
    accuracy is below `gold.at_least`. A retry policy helps after an outage and costs nothing twice; what only a person can mend (a
    refused key, a spent budget, a wrong configuration) is not retried.

    Args:
        config: the job's YAML file, or its content; relative paths in a content are relative to the working directory.
        name: of the asset.
        key_prefix: goes before the name.
        overrides: ``key.path=value`` assignments. ``{partition}`` stands for the partition's key, and for partitions
            of several dimensions ``{<dimension>}`` for each one's.
        partitions: only these Hive partitions of the input, such as ``day={partition}``.
        input_asset: an upstream asset; the file named ``path`` in the metadata of its last materialization is read in
            the place of `input`; of an asset with partitions, one file for each that Dagster says is depended on.
        resource_key: of the `BeatraResource` to ask with; by default the configuration's own key and URL.
        blocking: whether more failed rows than `tolerate` fail the run and keep downstream assets from running.
        retry_policy: of the asset.
        pool: of the asset.
        attributes: of `dagster.AssetSpec`: `deps`, `group_name`, `partitions_def`, `description`, `owners`, `tags`, ….

    Raises:
        DagsterInvalidDefinitionError: every partition would write one output.
    """
    key = [*([key_prefix] if isinstance(key_prefix, str) else key_prefix), name]
    spec = dg.AssetSpec(key, **attributes)
    job = _AssetJob(config, tuple(overrides), tuple(partitions), _key(input_asset), resource_key)
    return _asset_of(job, spec, blocking=blocking, retry_policy=retry_policy, pool=pool)


class BeatraScaffolder(dg.Scaffolder):
    """Makes `defs.yaml` beside a small job that runs at once on the sandbox."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the files that `dg scaffold defs` promises."""
        write_starter(request.target_path)
        scaffold_component(request, {"config": "config.yaml", "asset": {"key": request.target_path.name}})


@dg.scaffold_with(BeatraScaffolder)
class BeatraEnrichComponent(dg.Component, dg.Resolvable, dg.Model):
    """An asset made of a job, with checks on its rows."""

    config: str = Field(description="The job's YAML file, relative to the component's folder.")
    asset: dg.ResolvedAssetSpec
    overrides: list[str] = Field(
        default=[], description="`key.path=value`; `{partition}` stands for the partition's key."
    )
    partitions: list[str] = Field(
        default=[], description="Only these Hive partitions of the input, such as `day={partition}`."
    )
    input_asset: str | None = Field(default=None, description="An upstream asset whose file is the input.")
    resource_key: str | None = Field(default=None, description="Of a BeatraResource, if there is one.")
    blocking: bool = Field(default=True, description="Whether too many failed rows fail the run.")
    max_retries: int = Field(default=0, description="After an outage; nothing is paid for twice.")
    retry_delay: float = Field(default=60, description="Seconds before each of them.")
    pool: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make the asset."""
        job = _AssetJob(
            context.path / self.config,
            tuple(self.overrides),
            tuple(self.partitions),
            _key(self.input_asset),
            self.resource_key,
        )
        retry_policy = (
            dg.RetryPolicy(max_retries=self.max_retries, delay=self.retry_delay) if self.max_retries else None
        )
        asset = _asset_of(job, self.asset, blocking=self.blocking, retry_policy=retry_policy, pool=self.pool)
        return dg.Definitions(assets=[asset])


@dataclass(frozen=True, slots=True)
class _Table:
    """What an output's columns are, and where they come from."""

    columns: dg.TableSchema
    origins: Mapping[str, Origin]

    def metadata(self, asset: dg.AssetsDefinition) -> dict[str, Any]:
        """Give the columns, and the upstream asset's behind each where there is one such asset and no more."""
        told = {"dagster/column_schema": self.columns}
        (spec,) = asset.specs
        if len(spec.deps) == 1:
            (upstream,) = (dep.asset_key for dep in spec.deps)
            deps = {
                column: [dg.TableColumnDep(upstream, name) for name in origin.columns]
                for column, origin in self.origins.items()
            }
            told["dagster/column_lineage"] = dg.TableColumnLineage(deps)
        return told


@dataclass(frozen=True, slots=True)
class _AssetJob:
    """What an asset runs, as `beatra_asset` takes it."""

    config: str | Path | Mapping[str, Any]
    overrides: tuple[str, ...]
    partitions: tuple[str, ...]
    input_asset: dg.AssetKey | None
    resource_key: str | None


def _key(given: dg.AssetKey | Sequence[str] | str | None) -> dg.AssetKey | None:
    if isinstance(given, str):
        return dg.AssetKey.from_user_string(given)
    return dg.AssetKey(given) if given is not None else None


def _asset_of(
    job: _AssetJob,
    spec: dg.AssetSpec,
    *,
    blocking: bool,
    retry_policy: dg.RetryPolicy | None,
    pool: str | None,
) -> dg.AssetsDefinition:
    if spec.partitions_def is not None and not any("{" in text for text in (*job.overrides, *job.partitions)):
        raise dg.DagsterInvalidDefinitionError(
            f"{spec.key.to_user_string()}: every partition would read one input and write one output; say where they "
            'lie: partitions=["day={partition}"], or overrides=["input=in/{partition}.csv", "output=out/{partition}.csv"]'
        )
    if not spec.kinds:
        spec = spec.replace_attributes(kinds={"beatra"})
    if job.input_asset is not None:
        spec = spec.merge_attributes(deps=[job.input_asset])

    define = dg.multi_asset(
        name=spec.key.to_python_identifier(),
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(
                NO_FAILED_ROWS,
                asset=spec.key,
                blocking=blocking,
                description="Every row has an answer; fewer failed rows than `tolerate` are a warning.",
            ),
            dg.AssetCheckSpec(
                NO_ROWS_IN_DOUBT,
                asset=spec.key,
                description="No request may have been paid for without an answer.",
            ),
            *_gold_specs(job, spec.key),
        ],
        required_resource_keys={job.resource_key} if job.resource_key else set(),
        retry_policy=retry_policy,
        pool=pool,
    )
    return define(lambda context: _materialized(context, job))  # no annotations, which Dagster would judge


# --- the run --------------------------------------------------------------------------------------------


def _materialized(context: dg.AssetExecutionContext, job: _AssetJob) -> dg.MaterializeResult:
    """Run the job, and tell Dagster how it went.

    Raises:
        Failure: the run ended early or could not begin.
    """
    resource = getattr(context.resources, job.resource_key) if job.resource_key else BeatraResource()
    try:
        config = any_config(
            job.config,
            _filled(job.overrides, context),
            input=_paths_of(job.input_asset, context),
            partitions=_filled(job.partitions, context),
            base_url=resource.base_url,
        )
        summary, table = _run(config, resource.api_key, context.log)
    except EnrichError as error:
        raise dg.Failure(str(error), allow_retries=error.passes) from None
    if summary.exit_code not in (0, 3):
        raise dg.Failure(summary.reason, metadata=_counts(summary), allow_retries=summary.resumable)
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(summary.output),
            **_rows(summary, context),
            **_counts(summary),
            **(table.metadata(context.assets_def) if table else {}),
        },
        check_results=[
            *_checks(summary),
            *(_gold_checks(config, summary) if AGREES_WITH_GOLD in _declared(context) else ()),
        ],
    )


def _gold_specs(job: _AssetJob, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Give the check that only a job with gold columns has; a file that cannot be read says so when it is run."""
    try:
        document = job.config if isinstance(job.config, Mapping) else read_mapping(Path(job.config))
    except EnrichError:
        return []
    if not document.get("gold") and not any(text.startswith("gold") for text in job.overrides):
        return []
    what = "The answers agree with the values given by hand."
    return [dg.AssetCheckSpec(AGREES_WITH_GOLD, asset=asset, description=what)]


def _run(config: Config, api_key: str | None, log: dg.DagsterLogManager) -> tuple[Summary, _Table | None]:
    """Run the job in a thread of its own: this one stays free for the interrupt that terminates a run."""
    tables: list[_Table] = []

    def prepared(source: Source, job: Job) -> None:
        tables.append(_Table(_columns(job.output_schema), column_origins(job, source.schema)))

    watch = Watch(config.limits)
    options = RunOptions(
        progress=watch, drain=DRAIN_WHEN_TERMINATED, api_key=api_key, prepared=prepared, command=None
    )

    async def main() -> Summary:
        async with shown(watch, sys.stderr, live=False, log=log, every=PROGRESS_EVERY):
            return await run_job(config, options)

    summary = run_stoppable(main, options.interrupt.fire)
    log.info(summary.reason)
    return summary, tables[0] if tables else None  # a data set in which nothing is new is not looked into


def _filled(overrides: Sequence[str], context: dg.AssetExecutionContext) -> list[str]:
    """Put the partition's key, and its parts, in the places kept for them."""
    if not context.has_partition_key:
        return list(overrides)
    key = context.partition_key
    parts = {**getattr(key, "keys_by_dimension", {}), "partition": key}
    return [
        functools.reduce(lambda text, part: text.replace(f"{{{part}}}", parts[part]), parts, override)
        for override in overrides
    ]


def _paths_of(asset: dg.AssetKey | None, context: dg.AssetExecutionContext) -> list[str] | None:
    """Give the paths that an upstream asset's last materializations tell of: of each partition that this run depends on.

    Raises:
        Failure: there is none.
    """
    if asset is None:
        return None
    (name,) = (name for name, key in context.assets_def.keys_by_input_name.items() if key == asset)
    if context.get_step_execution_context().has_asset_partitions_for_input(name):
        return [_path_of(asset, key, context) for key in context.asset_partition_keys_for_input(name)]
    last = _last_materialization(asset, None, context)
    elsewhere = last is not None and last.partition is not None  # defined in another code location
    key = context.partition_key if elsewhere and context.has_partition_key else None
    return [_path_of(asset, key, context)]


def _path_of(asset: dg.AssetKey, partition: str | None, context: dg.AssetExecutionContext) -> str:
    last = _last_materialization(asset, partition, context)
    path = last.metadata.get("path") if last is not None else None
    if path is None:
        which = "" if partition is None else f" of its partition {partition}"
        raise dg.Failure(
            f"no materialization of {asset.to_user_string()}{which} tells the `path` of what it wrote; materialize it, "
            "with that in its metadata",
            allow_retries=False,
        )
    return str(path.value)


def _last_materialization(
    asset: dg.AssetKey, partition: str | None, context: dg.AssetExecutionContext
) -> dg.AssetMaterialization | None:
    which = dg.AssetRecordsFilter(asset, asset_partitions=None if partition is None else [partition])
    found = context.instance.fetch_materializations(which, limit=1).records
    return found[0].asset_materialization if found else None


# --- what Dagster is told -------------------------------------------------------------------------------


def _rows(summary: Summary, context: dg.AssetExecutionContext) -> dict[str, int]:
    """Give the number of rows, unless this run has seen only a part of a data set."""
    if summary.partitions is not None and summary.partitions["unchanged"]:
        return {}
    return {f"dagster/{'partition_row_count' if context.has_partition_key else 'row_count'}": summary.rows}


def _counts(summary: Summary) -> dict[str, Any]:
    """Give the numbers of a run; what it spent is what this run spent, not what earlier ones did."""
    told = summary.to_dict()
    names = ("requests", "attempts", *AMOUNTS, "seconds")
    return {**{name: told[name] for name in (*STATUSES, *names)}, "ledger": summary.ledger}


def _columns(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name, str(field.type), constraints=dg.TableColumnConstraints(nullable=field.nullable)
            )
            for field in schema
        ]
    )


def _declared(context: dg.AssetExecutionContext) -> set[str]:
    return {key.name for key in context.assets_def.check_keys}


def _gold_checks(config: Config, summary: Summary) -> list[dg.AssetCheckResult]:
    """Tell the figures of each gold column; an accuracy below `gold.at_least` fails."""
    told = summary.gold or {}
    least = config.gold.at_least if config.gold is not None else None
    low = [column for column, said in told.items() if least is not None and (said["accuracy"] or 0.0) < least]
    figures = {
        f"{column}: {name}": value
        for column, said in told.items()
        for name, value in said.items()
        if isinstance(value, int | float)
    }
    return [
        dg.AssetCheckResult(
            check_name=AGREES_WITH_GOLD,
            passed=not low,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"accuracy below {least}: {', '.join(low)}" if low else None,
            metadata=figures,
        )
    ]


def _checks(summary: Summary) -> list[dg.AssetCheckResult]:
    failed: dict[str, int] = {
        status: summary.statuses[status] for status in FAILED if summary.statuses[status]
    }
    files = (
        summary.partitions["failed"] if summary.partitions is not None else 0
    )  # those left alone count as well
    in_doubt = summary.statuses["in_doubt"]
    return [
        dg.AssetCheckResult(
            check_name=NO_FAILED_ROWS,
            passed=not failed and not files,
            severity=dg.AssetCheckSeverity.ERROR if summary.exit_code else dg.AssetCheckSeverity.WARN,
            description=summary.reason,
            metadata={**failed, "partitions": files} if files else failed,
        ),
        dg.AssetCheckResult(
            check_name=NO_ROWS_IN_DOUBT,
            passed=not in_doubt,
            severity=dg.AssetCheckSeverity.WARN,
            description="`beatra-enrich retry CONFIG --in-doubt resend|skip` settles them."
            if in_doubt
            else None,
            metadata={"in_doubt": in_doubt},
        ),
    ]
