"""What OpenLineage is told: the files read and written, and the input columns behind each output column."""

from __future__ import annotations

import glob
import itertools
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from enrich.base.location import OPTIONS
from enrich.runs.lineage import Origin, column_origins

if TYPE_CHECKING:
    import pyarrow as pa
    from airflow.providers.openlineage.extractors import OperatorLineage

    from enrich.files.source import Source
    from enrich.records import Summary
    from enrich.runs.job import Job

CODES_WITH_OUTPUT = (0, 3)  # exit codes with which an output is in place


@dataclass(frozen=True, slots=True)
class Traced:
    """Where a job's output comes from, as plain data.

    Attributes:
        inputs: paths and URLs as configured, absolute.
        read: name and type of each input column.
        written: name and type of each output column.
        origins: by output column.
        models: the model asked, by step.
    """

    inputs: tuple[str, ...]
    read: tuple[tuple[str, str], ...]
    written: tuple[tuple[str, str], ...]
    origins: dict[str, Origin]
    models: dict[str, str]


def trace(paths: str | list[str], source: Source, job: Job) -> Traced:
    """Note where a job's output comes from.

    Args:
        paths: of the input, as configured.
        source: the opened input.
        job: compiled.
    """
    return Traced(
        inputs=(paths,) if isinstance(paths, str) else tuple(paths),
        read=_columns(source.schema),
        written=_columns(job.output_schema),
        origins=column_origins(job, source.schema),
        models={step.name: step.builder.step.model for step in job.steps},
    )


def _columns(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, str(field.type)) for field in schema)


def facets(traced: Traced | None, ended: Summary | None) -> OperatorLineage:
    """Give what is known of a run; an output only where one was written."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset

    if traced is None:
        return OperatorLineage()
    names = list(dict.fromkeys(map(dataset_name, traced.inputs)))
    inputs = [InputDataset(*name, facets={"schema": _schema(traced.read)}) for name in names]
    if ended is None or ended.output is None or ended.exit_code not in CODES_WITH_OUTPUT:
        return OperatorLineage(inputs=inputs)
    return OperatorLineage(inputs=inputs, outputs=[_output(traced, names, ended)])


def _output(traced: Traced, inputs: list[tuple[str, str]], ended: Summary) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import column_lineage_dataset, output_statistics_output_dataset

    columns = {name: _fields(origin, inputs, traced.models) for name, origin in traced.origins.items()}
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=ended.rows)
    return OutputDataset(
        *dataset_name(str(ended.output)),
        facets={
            "schema": _schema(traced.written),
            "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(fields=columns),
        },
        outputFacets={"outputStatistics": statistics},
    )


def _schema(columns: tuple[tuple[str, str], ...]) -> Any:
    from openlineage.client.facet_v2 import schema_dataset

    fields = [schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in columns]
    return schema_dataset.SchemaDatasetFacet(fields=fields)


def _fields(origin: Origin, inputs: list[tuple[str, str]], models: dict[str, str]) -> Any:
    """Give the input columns behind one output column: passed through, or asked a model about."""
    from openlineage.client.facet_v2 import column_lineage_dataset

    subtype, description = ("IDENTITY", "")
    if origin.step is not None:
        subtype, description = (
            "TRANSFORMATION",
            f"step {origin.step}: answered by model {models[origin.step]}",
        )
    how = column_lineage_dataset.Transformation(type="DIRECT", subtype=subtype, description=description)
    fields = [
        column_lineage_dataset.InputField(namespace=namespace, name=name, field=column, transformations=[how])
        for namespace, name in inputs
        for column in origin.columns
    ]
    return column_lineage_dataset.Fields(inputFields=fields)


def dataset_name(location: str) -> tuple[str, str]:
    """Give namespace and name as OpenLineage has them: ``file`` and a path, or a bucket's URL and a key.

    A glob stands for the folder that it searches.
    """
    if "://" not in location:
        return "file", _searched(str(Path(location).absolute()))
    scheme, _, rest = OPTIONS.sub("", location).partition("://")
    bucket, _, key = rest.partition("/")
    return ("file", _searched(f"/{key}")) if scheme == "file" else (f"{scheme}://{bucket}", _searched(key))


def _searched(path: str) -> str:
    return str(PurePath(*itertools.takewhile(lambda part: not glob.has_magic(part), PurePath(path).parts)))
