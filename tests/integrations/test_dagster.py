"""Dagster: an asset made of a job costs once what the job costs, and tells what came of it.

It is long because one instance of Dagster serves all of it.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

dg = pytest.importorskip("dagster", reason="pip install 'beatra-enrich[dagster]'")

from enrich.files.output_lock import hold_output  # noqa: E402
from enrich.integrations.dagster import BeatraEnrichComponent, BeatraResource, beatra_asset  # noqa: E402
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope, out_of_service  # noqa: E402
from tests.helpers.pages import files_of, snippets  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's settings, and nothing kept beyond the test."""
    for name in [name for name in os.environ if name.startswith(("BEATRA_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that keeps books, on loopback."""
    with BookedEndpoint() as server:
        yield server


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Any]:
    """A Dagster instance that keeps its events in a folder."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


def job(folder: Path, rows: int = 3, **config: Any) -> Path:
    """Write a job of so many rows into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"t": [f"text {n}" for n in range(rows)]})
    pq.write_table(table, folder / "in.parquet")
    step = {"name": "s", "prompt": "{{ t }}", "model": "fast-1"}
    document = {"input": "in.parquet", "output": "out.parquet", "steps": [step], **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / "config.yaml"


def resources(endpoint: BookedEndpoint) -> dict[str, Any]:
    """Give the resource that asks this endpoint."""
    os.environ["BEATRA_API_KEY"] = KEY
    return {"beatra": BeatraResource(api_key=dg.EnvVar("BEATRA_API_KEY"), base_url=endpoint.base_url)}


def asset_of(config: Any, **options: Any) -> Any:
    """Make an asset `tones` that asks with the resource."""
    return beatra_asset(config, **{"name": "tones", "resource_key": "beatra", **options})


def materialize(asset: Any, endpoint: BookedEndpoint, instance: Any = None, **options: Any) -> Any:
    """Materialize an asset in this process; what fails is told by the result."""
    given = {"resources": resources(endpoint), "instance": instance, "raise_on_error": False, **options}
    return dg.materialize([asset] if not isinstance(asset, list) else asset, **given)


def metadata(result: Any, key: str = "tones") -> dict[str, Any]:
    """Give what an asset's materialization says of itself."""
    (event,) = result.asset_materializations_for_node(key)
    return {name: value.value for name, value in event.metadata.items()}


def checks(result: Any) -> dict[str, tuple[bool, str]]:
    """Give the outcome and the severity of each check."""
    return {c.check_name: (c.passed, c.severity.value) for c in result.get_asset_check_evaluations()}


def failure(result: Any) -> Any:
    """Give what a failed step says."""
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data


# --- one run -----------------------------------------------------------------------------------------------


def test_an_asset_is_the_jobs_output_and_tells_of_it(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Rows, columns, tokens, credits and path stand in the metadata; both checks pass; again costs nothing."""
    asset = asset_of(job(tmp_path / "job"), group_name="reviews")
    result = materialize(asset, endpoint)
    assert result.success
    told = metadata(result)
    assert told["path"] == str(tmp_path / "job" / "out.parquet")
    assert (told["dagster/row_count"], told["ok"], told["error"], told["requests"]) == (3, 3, 0, 3)
    assert (told["prompt_tokens"], told["completion_tokens"]) == endpoint.tokens
    assert told["credits"] == pytest.approx(endpoint.credits)
    columns = {column.name: column.type for column in told["dagster/column_schema"].columns}
    assert list(columns) == pq.read_schema(told["path"]).names
    assert (columns["t"], columns["s_credits"]) == ("string", "double")
    assert checks(result) == {"no_failed_rows": (True, "WARN"), "no_rows_in_doubt": (True, "WARN")}
    again = metadata(materialize(asset, endpoint))
    assert (again["requests"], again["ok"], again["credits"], len(endpoint.posts)) == (0, 3, 0.0, 3)


def test_the_output_is_the_command_lines(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """In all but times and the ids of responses, the output is that of `beatra-enrich run`."""
    asset = asset_of(job(tmp_path / "asset", rows=20))
    assert materialize(asset, endpoint).success
    command = [
        str(Path(sys.executable).with_name("beatra-enrich")),
        "run",
        str(job(tmp_path / "cli", rows=20)),
    ]
    env = {**os.environ, "BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    subprocess.run(command, env=env, check=True, capture_output=True)
    ours, theirs = (
        pq.read_table(tmp_path / name / "out.parquet").drop_columns(["s_latency_ms", "s_request_id"])
        for name in ("asset", "cli")
    )
    assert ours.schema.remove_metadata().equals(theirs.schema.remove_metadata())
    assert ours.equals(
        theirs
    )  # the endpoint gave the second run the first one's answers: the keys are the same
    assert len(endpoint.charges) == 20


def test_a_job_may_be_given_as_a_mapping(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A job may be written in Python, without a file."""
    document = yaml.safe_load(job(tmp_path).read_text())
    asset = asset_of(document, key_prefix="reviews")
    assert asset.key == dg.AssetKey(["reviews", "tones"])
    assert materialize(asset, endpoint).success
    assert pq.read_table(tmp_path / "out.parquet")["s_status"].to_pylist() == ["ok"] * 3


def test_without_a_resource_the_environment_says_where(
    tmp_path: Path, endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and URL come from where the command line takes them."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    assert dg.materialize([beatra_asset(job(tmp_path), name="tones")]).success
    assert len(endpoint.charges) == 3


# --- upstream and partitions ---------------------------------------------------------------------------------


def test_an_upstream_asset_tells_where_the_input_lies(
    tmp_path: Path, endpoint: BookedEndpoint, instance: Any
) -> None:
    """The file that the upstream's materialization names is read; two of ours chain without a path written twice."""

    @dg.asset
    def rows() -> Any:
        pq.write_table(pa.table({"t": ["elsewhere"]}), tmp_path / "elsewhere.parquet")
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.path(str(tmp_path / "elsewhere.parquet"))}
        )

    first = asset_of(job(tmp_path / "one"), name="one", input_asset="rows")
    step = {"name": "z", "prompt": "Again: {{ s }}"}
    second = asset_of(job(tmp_path / "two", steps=[step]), name="two", input_asset="one")
    result = materialize([rows, first, second], endpoint, instance)
    assert result.success
    table = pq.read_table(tmp_path / "two" / "out.parquet")
    assert (table["t"].to_pylist(), table["z_status"].to_pylist()) == (["elsewhere"], ["ok"])
    assert [dep.asset_key for spec in second.specs for dep in spec.deps] == [dg.AssetKey("one")]
    lineage = metadata(result, "two")["dagster/column_lineage"].deps_by_column
    assert lineage["t"] == [dg.TableColumnDep("one", "t")]
    assert lineage["z"] == lineage["z_status"] == [dg.TableColumnDep("one", "s")]


def test_an_upstream_without_a_path_is_told_of(
    tmp_path: Path, endpoint: BookedEndpoint, instance: Any
) -> None:
    """Nothing is asked, nothing is retried, and the message says what is missing."""
    asset = asset_of(job(tmp_path), input_asset="rows")
    result = materialize(asset, endpoint, instance)
    assert "no materialization of rows tells the `path`" in failure(result).description
    assert endpoint.posts == []


def daily(folder: Path, days: Any) -> Any:
    """Make an upstream asset `daily` that writes a row a day."""

    @dg.asset(partitions_def=days)
    def daily() -> Any:
        day = dg.AssetExecutionContext.get().partition_key
        path = folder / f"{day}.parquet"
        pq.write_table(pa.table({"t": [day]}), path)
        return dg.MaterializeResult(metadata={"path": str(path)})

    return daily


@pytest.mark.parametrize(
    ("partitions", "key", "read"),
    [
        (dg.DailyPartitionsDefinition("2026-01-04", end_date="2026-01-07"), "2026-01-05", ["2026-01-05"]),
        (
            dg.TimeWindowPartitionsDefinition("2026-01-04", "%Y-%m-%d", cron_schedule="0 0 4,7 * *"),
            "2026-01-04",
            ["2026-01-04", "2026-01-05", "2026-01-06"],
        ),
        (None, None, ["2026-01-04", "2026-01-05", "2026-01-06"]),
    ],
    ids=["the same", "three days", "all"],
)
def test_an_upstream_s_partitions_are_those_that_dagster_says(
    tmp_path: Path,
    endpoint: BookedEndpoint,
    instance: Any,
    *,
    partitions: Any,
    key: str | None,
    read: list[str],
) -> None:
    """One file for each partition of the upstream asset that this run depends on."""
    days = dg.DailyPartitionsDefinition("2026-01-04", end_date="2026-01-07")
    upstream = daily(tmp_path, days)
    output = [] if key is None else ["output={partition}.out.parquet"]
    asset = asset_of(job(tmp_path), partitions_def=partitions, overrides=output, input_asset="daily")
    first = materialize([upstream, asset], endpoint, instance, selection=[asset], partition_key=key)
    assert "no materialization of daily of its partition 2026-01-0" in failure(first).description
    for day in ("2026-01-06", "2026-01-05", "2026-01-04"):
        assert materialize(
            [upstream, asset], endpoint, instance, selection=[upstream], partition_key=day
        ).success
    result = materialize([upstream, asset], endpoint, instance, selection=[asset], partition_key=key)
    assert result.success
    assert pq.read_table(metadata(result)["path"])["t"].to_pylist() == read


def test_an_upstream_without_partitions_is_every_partition_s(
    tmp_path: Path, endpoint: BookedEndpoint, instance: Any
) -> None:
    """Its one file is read whatever the day."""

    @dg.asset
    def rows() -> Any:
        return dg.MaterializeResult(metadata={"path": str(tmp_path / "in.parquet")})

    days = dg.DailyPartitionsDefinition("2026-01-04", end_date="2026-01-07")
    overrides = ["output={partition}.out.parquet", "steps.s.prompt={partition}: {{ t }}"]
    asset = asset_of(job(tmp_path), partitions_def=days, overrides=overrides, input_asset="rows")
    assert materialize([rows], endpoint, instance).success
    options = {"selection": [asset], "partition_key": "2026-01-05"}
    assert materialize([rows, asset], endpoint, instance, **options).success
    assert endpoint.posts[0].body["messages"][-1]["content"].startswith("2026-01-05: text")


def test_a_daily_partition_reads_and_writes_its_own_files(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """`{partition}` in the overrides is the day; days share a ledger, so an equal row is paid for once."""
    path = job(tmp_path)
    for day in ("2026-01-01", "2026-01-02"):
        pq.write_table(pa.table({"t": ["same", day]}), tmp_path / f"{day}.parquet")
    days = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-01-04")
    asset = asset_of(
        path,
        partitions_def=days,
        overrides=[f"input={tmp_path}/{{partition}}.parquet", "output=out/{partition}.parquet"],
    )
    for day in ("2026-01-01", "2026-01-02"):
        result = materialize(asset, endpoint, partition_key=day)
        assert metadata(result)["dagster/partition_row_count"] == 2
        assert pq.read_table(tmp_path / "out" / f"{day}.parquet")["t"].to_pylist() == ["same", day]
    assert len(endpoint.charges) == 3


def test_partitions_of_several_dimensions_have_a_place_each(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Each dimension's key goes where its name stands; braces of templates are left alone."""
    both = dg.MultiPartitionsDefinition(
        {
            "day": dg.DailyPartitionsDefinition(start_date="2026-01-01"),
            "region": dg.StaticPartitionsDefinition(["eu", "us"]),
        }
    )
    asset = asset_of(
        job(tmp_path),
        partitions_def=both,
        overrides=["output=out/{region}/{day}.parquet", "steps.s.prompt={{ t }} in {region}"],
    )
    key = dg.MultiPartitionKey({"day": "2026-01-02", "region": "eu"})
    assert materialize(asset, endpoint, partition_key=key).success
    assert (tmp_path / "out" / "eu" / "2026-01-02.parquet").exists()
    assert {post.body["messages"][-1]["content"] for post in endpoint.posts} == {
        f"text {n} in eu" for n in range(3)
    }


def test_a_partition_may_be_a_folder_of_a_data_set(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """`day={partition}` restricts the run to that day's folder; one that is unchanged asks nothing and stays."""
    path = job(tmp_path, input="rows/", output="out/")
    for day in ("2026-01-01", "2026-01-02"):
        (tmp_path / "rows" / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"t": ["same", day]}), tmp_path / "rows" / f"day={day}" / "a.parquet")
    days = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-01-04")
    asset = asset_of(path, partitions_def=days, partitions=["day={partition}"])
    told = [
        metadata(materialize(asset, endpoint, partition_key=day))
        for day in ("2026-01-02", "2026-01-01", "2026-01-01")
    ]
    assert [one["requests"] for one in told] == [2, 1, 0]
    assert [one.get("dagster/partition_row_count") for one in told] == [2, 2, None]
    assert {one["path"].rstrip("/") for one in told} == {str(tmp_path / "out")}
    parts = sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "out").rglob("*.parquet"))
    assert parts == [f"out/day=2026-01-0{n}/part-0.parquet" for n in (1, 2)]


def test_partitions_that_would_share_one_output_are_refused(tmp_path: Path) -> None:
    """The mistake is found when the asset is defined."""
    regions = dg.StaticPartitionsDefinition(["eu", "us"])
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="every partition would"):
        asset_of(job(tmp_path), partitions_def=regions, overrides=["limits.concurrency=2"])


# --- failures ------------------------------------------------------------------------------------------------


def failing(seen: Seen) -> Raw | None:
    """Refuse the row `text 1`."""
    refused = seen.method == "POST" and b"text 1" in seen.raw
    return envelope("invalid_request", 422, message="too dull") if refused else None


@pytest.mark.parametrize(
    ("tolerate", "blocking", "severity", "success"),
    [(1, True, "WARN", True), (0, True, "ERROR", False), (0, False, "ERROR", True)],
)
def test_failed_rows_fail_a_check(
    tmp_path: Path, endpoint: BookedEndpoint, *, tolerate: int, blocking: bool, severity: str, success: bool
) -> None:
    """Tolerated rows are a warning, more are an error, which fails the run unless the check is not to block."""
    endpoint.script = failing
    asset = asset_of(job(tmp_path, tolerate=tolerate), blocking=blocking)
    result = materialize(asset, endpoint)
    assert result.success is success
    assert checks(result)["no_failed_rows"] == (False, severity)
    assert metadata(result)["error"] == 1
    assert pq.read_table(tmp_path / "out.parquet")["s_status"].to_pylist() == ["ok", "error", "ok"]


def test_failed_rows_of_a_data_set_fail_the_check_also_later(
    tmp_path: Path, endpoint: BookedEndpoint
) -> None:
    """A run that leaves finished partitions alone still warns of failed rows in them: they are the asset's."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    endpoint.answer = lambda body: "no" if "text 1" in str(body["messages"]) else '{"n": 1}'
    step = {"name": "s", "prompt": "{{ t }}", "schema": schema, "reask": 0}
    path = job(tmp_path, input="rows/", output="out/", tolerate=1, steps=[step])
    (tmp_path / "rows").mkdir()
    (tmp_path / "in.parquet").rename(tmp_path / "rows" / "a.parquet")
    for requests in (3, 0):
        result = materialize(asset_of(path), endpoint)
        assert (result.success, metadata(result)["requests"]) == (True, requests)
        assert checks(result)["no_failed_rows"] == (False, "WARN")


def test_a_row_in_doubt_fails_a_check_of_its_own(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A proxy's error may hide a charge: the check warns, and says what settles it."""
    lost = Raw(b"<html>bad gateway</html>", 502, {"Content-Type": "text/html"})
    endpoint.script = lambda seen: lost if seen.method == "POST" and b"text 1" in seen.raw else None
    result = materialize(asset_of(job(tmp_path, tolerate=1, retry={"max_wait": 0.01})), endpoint)
    assert checks(result) == {"no_failed_rows": (False, "WARN"), "no_rows_in_doubt": (False, "WARN")}
    (told,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "no_rows_in_doubt"]
    assert "--in-doubt resend|skip" in told.description
    assert told.metadata["in_doubt"].value == 1


def test_a_locked_output_is_an_ordinary_failure(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """While another run holds the output a retry policy may try again; once it has ended, the output is free."""
    path = job(tmp_path)
    with hold_output(str(tmp_path / "out.parquet")):
        result = materialize(asset_of(path, retry_policy=dg.RetryPolicy(max_retries=1)), endpoint)
    assert [event.event_type_value for event in result.all_events].count("STEP_RESTARTED") == 1
    assert "another run" in failure(result).description
    assert endpoint.posts == []
    assert materialize(asset_of(path), endpoint).success


def test_what_only_a_person_can_mend_is_not_retried(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A refused key, a spent budget and a wrong configuration fail at once, whatever the retry policy says."""
    policy = dg.RetryPolicy(max_retries=3)
    wrong = asset_of(job(tmp_path / "wrong", steps=[]), retry_policy=policy)
    said = failure(materialize(wrong, endpoint))
    assert "steps" in said.description
    budget = asset_of(job(tmp_path / "budget", budget={"requests": 2}), retry_policy=policy)
    said = failure(materialize(budget, endpoint))
    assert "budget" in said.description
    assert (said.metadata["ok"].value, said.metadata["pending"].value) == (2, 1)
    endpoint.script = lambda seen: envelope("invalid_api_key", 401) if seen.method == "POST" else None
    before = len(endpoint.posts)
    refused = asset_of(job(tmp_path / "key", rows=1), retry_policy=policy)
    assert "key" in failure(materialize(refused, endpoint)).description
    assert len(endpoint.posts) == before + 1


def test_a_retry_after_an_outage_goes_on_for_nothing(
    tmp_path: Path, endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint goes out of service in the middle; the policy's retries ask the rest, and nothing is charged twice."""
    monkeypatch.setattr("enrich.engine.outage.PATIENCE", 0.2)  # instead of five minutes
    out_of_service(endpoint, after=60, seconds=2)
    asset = asset_of(
        job(tmp_path, rows=120, limits={"concurrency": 4}),
        retry_policy=dg.RetryPolicy(max_retries=9, delay=1),
    )
    result = materialize(asset, endpoint)
    assert result.success
    assert "STEP_RESTARTED" in [event.event_type_value for event in result.all_events]
    told = metadata(result)
    assert (told["ok"], told["requests"]) == (120, 60)
    assert set(endpoint.charges_per_body.values()) == {1}


# --- the component -------------------------------------------------------------------------------------------

DEFS = """
type: enrich.integrations.dagster.BeatraEnrichComponent
attributes:
  config: config.yaml
  resource_key: beatra
  max_retries: 2
  overrides: ["output=out/{partition}.parquet"]
  asset:
    key: reviews/tones
    group_name: reviews
    deps: [raw/reviews]
    partitions_def: {type: static, partition_keys: [eu, us]}
"""


def test_a_component_is_loaded_from_yaml(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A `defs.yaml` beside the job makes the asset; paths are relative to it."""
    folder = tmp_path / "project" / "defs" / "tones"
    job(folder)
    (folder / "defs.yaml").write_text(DEFS)
    (tmp_path / "project" / "pyproject.toml").write_text(
        '[project]\nname = "project"\n[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "project"\n'
    )
    for name in ("", "defs"):
        (tmp_path / "project" / name / "__init__.py").touch()
    sys.path.insert(0, str(tmp_path))
    try:
        found = dg.load_from_defs_folder(path_within_project=folder)
    finally:
        sys.path.remove(str(tmp_path))
    defs = dg.Definitions.merge(found, dg.Definitions(resources=resources(endpoint)))
    asset = defs.resolve_assets_def(dg.AssetKey(["reviews", "tones"]))
    (spec,) = asset.specs
    assert (spec.group_name, spec.kinds) == ("reviews", {"beatra"})
    assert [dep.asset_key for dep in spec.deps] == [dg.AssetKey(["raw", "reviews"])]
    assert asset.op.retry_policy == dg.RetryPolicy(max_retries=2, delay=60)
    assert dg.materialize([asset], partition_key="eu").success
    assert (folder / "out" / "eu.parquet").exists()


def test_dg_finds_the_component() -> None:
    """The distribution announces it, under the name that `defs.yaml` uses."""
    from dagster.components.core.package_entry import discover_entry_point_package_objects

    ours = {f"{key.namespace}.{key.name}" for key in discover_entry_point_package_objects()}
    assert "enrich.integrations.dagster.BeatraEnrichComponent" in ours


def test_a_scaffolded_component_runs_at_once(tmp_path: Path) -> None:
    """`dg scaffold defs` leaves a job that can be materialized on the sandbox as it stands."""
    from dagster.components.testing import create_defs_folder_sandbox

    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(BeatraEnrichComponent, defs_path="tones")
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, BeatraEnrichComponent)
            asset = defs.resolve_assets_def("tones")
            assert dg.materialize([asset]).success


# --- the example ---------------------------------------------------------------------------------------------


def test_the_example_runs_as_it_is(tmp_path: Path) -> None:
    """Without key or network its three assets materialize; an equal review is asked once, a second time none is."""
    copied = ("definitions.py", "reviews.yaml")
    for name in copied:
        shutil.copy(ROOT / "examples" / "dagster" / name, tmp_path)
    defs = runpy.run_path(str(tmp_path / "definitions.py"))["defs"]
    for requests in (3, 0):
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process()
        assert (metadata(result)["ok"], metadata(result)["requests"]) == (4, requests)
        assert sum(metadata(result, "tone_counts")["counts"].values()) == 4


def test_the_page_s_first_try_works_as_it_stands(tmp_path: Path) -> None:
    """Its files in a folder, and the command that needs no browser."""
    page = ROOT / "docs" / "how-to" / "dagster.md"
    for name in ("definitions.py", "tones.yaml", "tones.csv"):
        (tmp_path / name).write_text(files_of(page)[name])
    (commands,) = [s.text for s in snippets(page) if "asset materialize" in s.text]
    command = re.findall(r"^\$ dagster (.*)$", commands, re.MULTILINE)[0]
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "tones.parquet")["tone_status"].to_pylist() == ["ok", "ok"]


# --- real processes ------------------------------------------------------------------------------------------

DEFINITIONS = """
import dagster as dg
from enrich.integrations.dagster import BeatraResource, beatra_asset

asset = beatra_asset("config.yaml", name="tones", resource_key="beatra")
key = dg.EnvVar("BEATRA_API_KEY")
defs = dg.Definitions(
    assets=[asset],
    jobs=[dg.define_asset_job("enrich", selection=[asset])],
    resources={"beatra": BeatraResource(api_key=key)},
)
"""


class Project:
    """A folder with definitions, run by Dagster's own command line with an executor of many processes."""

    def __init__(self, folder: Path, endpoint: BookedEndpoint, rows: int) -> None:
        self.folder = folder
        job(folder, rows=rows, limits={"concurrency": 4})
        (folder / "definitions.py").write_text(DEFINITIONS)
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.env = {
            **os.environ,
            "DAGSTER_HOME": str(folder / "home"),
            "BEATRA_API_KEY": KEY,
            "BEATRA_BASE_URL": endpoint.base_url,
        }

    def start(self) -> subprocess.Popen[str]:
        """Start a run; it is a process group of its own."""
        command = [sys.executable, "-m", "dagster", "job", "execute", "-f", "definitions.py", "-j", "enrich"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self) -> str:
        """Run to the end, which is to be a good one; gives what was printed."""
        process = self.start()
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said


def charged(endpoint: BookedEndpoint, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so much is in the books."""
    while len(endpoint.charges) < count:
        threading.Event().wait(0.005)
        assert process.poll() is None, process.communicate()[0]


def test_a_killed_run_is_retried_for_nothing(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """SIGKILL hits every process of a run in the middle; the next run pays for the rest, and for nothing twice."""
    project = Project(tmp_path, endpoint, rows=800)
    process = project.start()
    charged(endpoint, 100, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = len(endpoint.charges)
    assert before < 800
    project.run()
    assert pq.read_table(tmp_path / "out.parquet")["s_status"].to_pylist() == ["ok"] * 800
    assert set(endpoint.charges_per_body.values()) == {1}
    posts = len(endpoint.posts)
    project.run()
    assert len(endpoint.posts) == posts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_run_drains(tmp_path: Path, endpoint: BookedEndpoint, number: int) -> None:
    """The signal reaches the step: what was in flight is kept, nothing more is sent, the next run goes on."""
    project = Project(tmp_path, endpoint, rows=800)
    process = project.start()
    charged(endpoint, 100, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "DagsterExecutionInterruptedError" in said
    before = len(endpoint.posts)
    assert before == len(endpoint.charges) < 800
    project.run()
    assert len(endpoint.posts) == 800
    assert set(endpoint.charges_per_body.values()) == {1}


def test_the_key_is_nowhere(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Neither Dagster's storage and logs, nor the output and the ledger, nor a repr holds it."""
    project = Project(tmp_path, endpoint, rows=3)
    said = project.run()
    assert KEY not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("home" in path.parts and path.suffix == ".db" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in repr(BeatraResource(api_key=KEY))
    assert KEY not in str(BeatraResource(api_key=KEY))


@pytest.mark.parametrize(("least", "passed"), [(None, True), (0.5, True), (0.9, False)])
def test_gold_columns_are_a_check_of_their_own(
    tmp_path: Path, endpoint: BookedEndpoint, least: float | None, passed: bool
) -> None:
    """Its figures are metadata; an accuracy below what was asked for is a warning, and fails no run."""
    gold = {"columns": {"s": "t"}, **({} if least is None else {"at_least": least})}
    folder = tmp_path / "job"
    config = job(folder, gold=gold)
    pq.write_table(pa.table({"t": ["a", "b"]}), folder / "in.parquet")
    endpoint.answer = lambda body: "a"
    result = materialize(asset_of(config), endpoint)
    assert result.success
    assert checks(result)["agrees_with_gold"] == (passed, "WARN")
    (told,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "agrees_with_gold"]
    assert told.metadata["s: accuracy"].value == 0.5
