"""The Airflow provider in a real Airflow: it is found, its tasks end as Airflow expects, and every answer is paid once.

It is long because one Airflow, whose database takes a while to make, serves all of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from enrich.records import AMOUNTS
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, envelope
from tests.helpers.pages import files_of, snippets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.helpers.endpoint import Seen

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "airflow"
PAGE = ROOT / "docs" / "how-to" / "airflow.md"
CONNECTION = "AIRFLOW_CONN_BEATRA_DEFAULT"
OWN = ("mood_latency_ms", "mood_request_id")  # columns in which two runs over the same rows differ
STEPS = [{"name": "mood", "prompt": "Mood of {{ review }}?"}]
DAG_FILE = """
import datetime
from airflow.sdk import DAG, Asset
from enrich.integrations.airflow import BeatraEnrichOperator

with DAG({name!r}, schedule=None, start_date=datetime.datetime(2026, 1, 1), **{dag!r}) as dag:
    BeatraEnrichOperator(task_id="enrich", outlets=[Asset({name!r})], **{task!r})
"""
LIMIT = 5.0  # seconds from Airflow's SIGTERM to its SIGKILL


# --- an Airflow of our own --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home for Airflow, with a database; must come before anything of Airflow is imported."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(home / "dags"),
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(
            {"type": "file", "log_file_path": str(home / "lineage"), "append": True}
        ),
        AIRFLOW__OPENLINEAGE__NAMESPACE="tests",
    )
    airflow("db", "migrate")
    return home


def airflow(*args: str) -> str:
    """Run Airflow's command line; gives all that it says."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[BookedEndpoint]:
    """An endpoint with books, and the connection that leads to it."""
    with BookedEndpoint() as endpoint:
        connection = {"conn_type": "beatra", "password": KEY, "host": endpoint.base_url}
        monkeypatch.setenv(CONNECTION, json.dumps(connection))
        yield endpoint


@dataclass(frozen=True)
class Job:
    """A DAG with one task in a folder of its own.

    Attributes:
        name: of the DAG.
        folder: with the configuration, the input and the output.
    """

    name: str
    file: Path
    folder: Path

    @property
    def output(self) -> Path:
        """The task's output."""
        return self.folder / "out.parquet"

    @property
    def dag(self) -> Any:
        """The DAG, as Airflow finds it in its file."""
        spec = importlib.util.spec_from_file_location(self.name, self.file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.dag

    @property
    def task(self) -> Any:
        """The DAG's task."""
        return self.dag.get_task("enrich")

    def run(self) -> Ran:
        """Run the DAG in this process, as `airflow dags test` does."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        run = self.dag.test()
        instance = run.get_task_instance("enrich")
        with create_session() as session:
            found = session.query(XComModel).filter_by(run_id=run.run_id).first()
            pushed = None if found is None else XComModel.deserialize_value(found)
        return Ran(str(instance.state), instance.try_number, pushed, run.run_id)


@dataclass(frozen=True)
class Ran:
    """How a task ended."""

    state: str
    tries: int
    xcom: Any
    run_id: str


@pytest.fixture
def job(home: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Job]:
    """Make a DAG over some rows, one of which stands twice.

    `document` is added to its configuration; whatever else goes to the operator.
    """
    name = re.sub(r"\W+", "_", request.node.name)[:80]

    def make(
        rows: int = 12,
        *,
        document: Mapping[str, Any] | None = None,
        dag: Mapping[str, Any] | None = None,
        **task: Any,
    ) -> Job:
        lines = [f"{number},review number {number % (rows - 1)}" for number in range(rows)]
        (tmp_path / "in.csv").write_text("id,review\n" + "\n".join(lines) + "\n", encoding="utf-8")
        whole = {"input": "in.csv", "output": "out.parquet", "steps": STEPS, **(document or {})}
        (tmp_path / "job.yaml").write_text(json.dumps(whole), encoding="utf-8")
        file = home / "dags" / f"{name}.py"
        task = {"config": str(tmp_path / "job.yaml"), **task}
        file.write_text(DAG_FILE.format(name=name, dag=dict(dag or {}), task=task), encoding="utf-8")
        return Job(name, file, tmp_path)

    return make


@pytest.fixture(autouse=True)
def _the_key_is_in_no_log(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test makes Airflow say, the key is not in it."""
    yield
    out, err = capfd.readouterr()
    assert KEY not in out
    assert KEY not in err


def until(happened: Callable[[], bool]) -> None:
    """Wait for something another process or thread does."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def asked_once(endpoint: BookedEndpoint, bodies: int) -> None:
    """Hold the books to it: so many bodies were charged, each once."""
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.charges) == bodies
    assert endpoint.conflicts == 0


# --- what Airflow knows of the provider -------------------------------------------------------------------


def test_describing_the_provider_imports_nothing() -> None:
    """Every Airflow process asks for it; neither Airflow nor a heavy library comes along."""
    code = (
        "import sys; from enrich.integrations.airflow import provider_info; provider_info();"
        "print([m for m in ('airflow', 'pandas', 'pyarrow', 'aiohttp', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_parsing_a_dag_imports_no_heavy_library(job: Callable[..., Job]) -> None:
    """The scheduler reads DAG files all the time: tables and HTTP come with the run."""
    code = (
        f"import sys; sys.path.insert(0, {str(job().file.parent)!r}); "
        "import airflow.sdk; from airflow.sdk import DAG, Asset, BaseHook, BaseOperator; airflow = set(sys.modules);"
        f"import {job().name}, json; print(json.dumps([*set(sys.modules) - airflow]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "pyarrow", "aiohttp", "numpy"} & set(json.loads(done.stdout.splitlines()[-1]))


def test_airflow_finds_the_provider(home: Path) -> None:
    """Its name, its connection type with the hook, and how the connection's form looks."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.providers["beatra-enrich"].data["name"] == "Beatra"
    hook = manager.hooks["beatra"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Beatra", "beatra_conn_id")
    assert hook.hook_class_name == "enrich.integrations.airflow.hook.BeatraHook"
    assert manager.field_behaviours["beatra"]["relabeling"]["password"] == "API key"
    widgets = manager.connection_form_widgets
    assert {"extra__beatra__timeout", "extra__beatra__proxy", "extra__beatra__ca_file"} <= set(widgets)
    assert widgets["extra__beatra__proxy"].is_sensitive


# --- the connection ---------------------------------------------------------------------------------------


def connect(monkeypatch: pytest.MonkeyPatch, **connection: Any) -> Any:
    """Make the hook of a connection."""
    from enrich.integrations.airflow import BeatraHook

    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "beatra", **connection}))
    return BeatraHook()


def test_a_connection_is_tested_without_a_completion(home: Path, endpoint: BookedEndpoint) -> None:
    """Health, key and models are asked for; nothing is charged."""
    from airflow.sdk import Connection

    good, said = Connection.get("beatra_default").test_connection()
    assert good, said
    assert "key: accepted" in said
    assert [seen.method for seen in endpoint.seen] == ["GET", "GET"]
    assert endpoint.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_test_says_what_is_wrong(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key is named as such, and not shown."""
    refuse = lambda seen: envelope("invalid_api_key", 401) if seen.path.endswith("models") else None  # noqa: E731  # a script
    with BookedEndpoint(script=refuse) as endpoint:
        good, said = connect(monkeypatch, password=KEY, host=endpoint.base_url).test_connection()
    assert not good
    assert "invalid_api_key" in said
    assert KEY not in said


def test_a_connection_leads_to_an_endpoint(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and extra say where and how; the key is in no text of it."""
    extra = {"timeout": 7, "headers": {"X-Team": "a"}, "proxy": ""}
    endpoint = connect(monkeypatch, password=KEY, host="https://gate.example/v1", extra=extra).get_conn()
    assert (endpoint.base_url, endpoint.timeout) == ("https://gate.example/v1", 7)
    assert endpoint.headers == {"X-Team": "a"}
    assert endpoint.api_key.get_secret_value() == KEY
    assert KEY not in repr(endpoint)


@pytest.mark.parametrize(
    ("connection", "base_url"),
    [
        (f"beatra://:{KEY}@/", "https://api.beatra.ai/v1"),
        (f"beatra://:{KEY}@gate.example/v1", "https://gate.example/v1"),
        (f"beatra://http://:{KEY}@127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
)
def test_a_connection_may_be_written_as_a_uri(
    home: Path, monkeypatch: pytest.MonkeyPatch, connection: str, base_url: str
) -> None:
    """The base URL is put together from its parts; without any it is Beatra's own."""
    from enrich.integrations.airflow import BeatraHook

    monkeypatch.setenv(CONNECTION, connection)
    assert BeatraHook().get_conn().base_url == base_url


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ({"host": "https://gate.example/v1"}, "has no password, which is the API key"),
        (
            {"password": KEY, "extra": {"api_key": KEY}},
            "the extra of the connection `beatra_default` holds `api_key`",
        ),
        ({"password": KEY, "extra": {"timeout": -1}}, "timeout"),
        ({"password": KEY, "host": "http://gate.example/v1"}, "travel in the clear"),
    ],
)
def test_a_connection_that_cannot_work_says_why(
    home: Path, monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], said: str
) -> None:
    """What is wrong is named, the key is not shown."""
    from enrich.errors import ConfigError

    with pytest.raises(ConfigError, match=said) as raised:
        connect(monkeypatch, **connection).get_conn()
    assert KEY not in str(raised.value)


# --- templates --------------------------------------------------------------------------------------------


def rendered(job: Job) -> Any:
    """Give the task with its fields rendered for a day, as Airflow does before a run."""
    task = job.task
    task.render_template_fields({"ds": "2026-01-05", "params": {"credits": 3}})
    return task


def test_airflow_renders_all_of_a_configuration_but_its_steps(job: Callable[..., Job]) -> None:
    """Our own templates stay for the rows."""
    document = {"output": "{{ ds }}.parquet", "budget": {"credits": "{{ params.credits }}"}, "tolerate": 1}
    task = rendered(job(document=document))
    assert task.config["output"] == "2026-01-05.parquet"
    assert task.config["budget"] == {"credits": "3"}
    assert task.config["tolerate"] == 1
    assert task.config["steps"] == STEPS


def test_a_mapping_is_rendered_like_a_file(job: Callable[..., Job]) -> None:
    """`config` may hold the configuration itself."""
    task = rendered(job(config={"input": "in/{{ ds }}.csv", "output": "out.csv", "steps": STEPS}))
    assert task.config == {"input": "in/2026-01-05.csv", "output": "out.csv", "steps": STEPS}


def test_the_other_fields_are_rendered_as_texts(job: Callable[..., Job]) -> None:
    """Also where one ends as the name of a template would."""
    task = rendered(
        job(
            input="in/{{ ds }}.csv",
            output="{{ ds }}.parquet",
            overrides=["budget.credits={{ params.credits }}", "steps.mood.messages_file=turns.yaml"],
        )
    )
    assert (task.input_path, task.output_path) == ("in/2026-01-05.csv", "2026-01-05.parquet")
    assert task.overrides == ["budget.credits=3", "steps.mood.messages_file=turns.yaml"]


def test_a_file_is_found_as_airflow_finds_templates(job: Callable[..., Job], tmp_path: Path) -> None:
    """In the DAG's folder or its search path, by a name that is rendered first; when the DAG is parsed nothing is read."""
    found = job(config="{{ params.lang }}/job.yaml", dag={"template_searchpath": [str(tmp_path / "jobs")]})
    (tmp_path / "jobs" / "en").mkdir(parents=True)
    (tmp_path / "job.yaml").rename(tmp_path / "jobs" / "en" / "job.yaml")
    dag = found.dag
    dag.resolve_template_files()
    task = dag.get_task("enrich")
    assert task.config == "{{ params.lang }}/job.yaml"
    task.render_template_fields({"params": {"lang": "en"}})
    assert task.config["steps"] == STEPS


def test_a_file_that_is_not_there_fails_for_good(job: Callable[..., Job], tmp_path: Path) -> None:
    """Every folder that was searched is named."""
    from airflow.sdk.exceptions import AirflowFailException

    lost = job(config="lost.yaml", dag={"template_searchpath": [str(tmp_path)]})
    with pytest.raises(AirflowFailException, match=r"no configuration file lost\.yaml") as raised:
        rendered(lost)
    assert f"1. {lost.file.parent}" in str(raised.value)
    assert f"2. {tmp_path}" in str(raised.value)


# --- a run ------------------------------------------------------------------------------------------------


def test_a_task_does_what_the_command_line_does(
    job: Callable[..., Job], endpoint: BookedEndpoint, tmp_path: Path, home: Path
) -> None:
    """The books agree, the output is the same, XCom and the asset's event tell the counts in a few hundred bytes."""
    made = job(document={"output": "{{ ds_nodash[:0] }}out.parquet"})
    ran = made.run()
    assert (ran.state, ran.tries) == ("success", 1)
    asked_once(endpoint, 11)
    assert (ran.xcom["rows"], ran.xcom["ok"], ran.xcom["requests"]) == (12, 12, 11)
    assert ran.xcom["credits"] == pytest.approx(endpoint.credits)
    assert len(json.dumps(ran.xcom)) < 900
    assert event_of(made.name) == {
        "rows": 12,
        "ok": 12,
        "requests": 11,
        **{name: ran.xcom[name] for name in AMOUNTS},
    }
    shown = rendered_fields(ran.run_id)
    assert shown["config"]["output"] == "out.parquet"
    assert shown["config"]["steps"] == STEPS

    with_cli = tmp_path / "cli"
    with_cli.mkdir()
    shutil.copy(tmp_path / "in.csv", with_cli)
    (with_cli / "job.yaml").write_text(
        json.dumps({"input": "in.csv", "output": "out.parquet", "steps": STEPS})
    )
    env = {**os.environ, "BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    command = [sys.executable, "-m", "enrich.cli", "run", str(with_cli / "job.yaml"), "-q"]
    subprocess.run(command, env=env, check=True)
    ours, theirs = (
        pq.read_table(path).drop_columns(list(OWN)) for path in (made.output, with_cli / "out.parquet")
    )
    assert ours.equals(theirs)


def event_of(asset: str) -> Any:
    """Give what the last event of an asset tells."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        events = session.query(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return events.filter(AssetModel.name == asset).order_by(AssetEvent.id.desc()).limit(1).scalar()


def rendered_fields(run_id: str) -> Any:
    """Give the rendered fields that Airflow's pages show of a run's task."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    with create_session() as session:
        return session.query(RenderedTaskInstanceFields.rendered_fields).filter_by(run_id=run_id).scalar()


def test_paths_that_the_dag_gives_are_relative_to_its_folder(
    job: Callable[..., Job], endpoint: BookedEndpoint, home: Path, tmp_path: Path
) -> None:
    """Those in a mapping, and `input` and `output`; wherever the worker happens to stand."""
    config = {"input": "nowhere.csv", "output": "out/given.parquet", "steps": STEPS}
    made = job(config=config, input="given.csv", overrides=["output.compression=none"])
    shutil.copy(tmp_path / "in.csv", home / "dags" / "given.csv")
    assert made.run().state == "success"
    assert pq.read_table(home / "dags" / "out" / "given.parquet").num_rows == 12


def test_each_mapped_task_has_its_own_rows(job: Callable[..., Job], endpoint: BookedEndpoint) -> None:
    """`partial` and `expand_kwargs` make a task per file."""
    made = job()
    text = made.file.read_text(encoding="utf-8")
    head, _, _ = text.partition("    BeatraEnrichOperator(")
    config = str(made.folder / "job.yaml")
    files = [
        {"input": str(made.folder / "in.csv"), "output": str(made.folder / f"{number}.parquet")}
        for number in (1, 2)
    ]
    made.file.write_text(
        f"{head}    BeatraEnrichOperator.partial(task_id='enrich', config={config!r}).expand_kwargs({files!r})\n"
    )
    run = made.dag.test()
    assert [instance.state for instance in run.get_task_instances()] == ["success", "success"]
    assert [pq.read_table(file["output"]).num_rows for file in files] == [12, 12]
    asked_once(endpoint, 11)


def test_the_configuration_may_come_from_an_upstream_task(
    job: Callable[..., Job], endpoint: BookedEndpoint
) -> None:
    """As a file's name or as a mapping; what another task says is data, and is not rendered."""
    made = job(3)
    text = made.file.read_text(encoding="utf-8")
    document = json.loads((made.folder / "job.yaml").read_text(encoding="utf-8"))
    mapping = {**document, "input": str(made.folder / "in.csv"), "output": str(made.folder / "{{ ds }}.csv")}
    for config in (str(made.folder / "job.yaml"), mapping):
        head, _, _ = text.partition("    BeatraEnrichOperator(")
        made.file.write_text(
            f"{head}    where = dag.task(task_id='where')(lambda: {config!r})()\n"
            "    BeatraEnrichOperator(task_id='enrich', config=where)\n",
            encoding="utf-8",
        )
        assert made.dag.test().get_task_instance("enrich").state == "success"
    assert all((made.folder / name).exists() for name in ("out.parquet", "{{ ds }}.csv"))
    asked_once(endpoint, 2)


def test_the_sandbox_needs_no_connection(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """A first try costs nothing and asks for nothing."""
    monkeypatch.delenv(CONNECTION, raising=False)
    assert job(3, document={"endpoint": {"base_url": "sandbox"}}).run().state == "success"


def test_without_a_connection_the_environment_counts(
    job: Callable[..., Job], endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`beatra_conn_id=None` is the command line's way."""
    monkeypatch.delenv(CONNECTION)
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    assert job(3, beatra_conn_id=None).run().state == "success"


def test_the_example_runs_as_it_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied among the DAGs, for the day whose data comes with it."""
    from airflow.sdk import timezone

    monkeypatch.delenv(CONNECTION, raising=False)
    shutil.copytree(EXAMPLE, home / "dags" / "example")
    config = home / "dags" / "example" / "reviews.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("/tmp/reviews", str(tmp_path)), encoding="utf-8")  # noqa: S108  # the example's own
    dag = Job("reviews", home / "dags" / "example" / "reviews_dag.py", tmp_path).dag
    run = dag.test(logical_date=timezone.datetime(2026, 1, 5))
    assert run.get_task_instance("enrich").state == "success"
    assert pq.read_table(tmp_path / "2026-01-05.parquet").num_rows == 3


def test_the_page_s_first_try_works_as_it_stands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files among the DAGs and its commands in a shell: no connection, no scheduler, and the answers are there."""
    monkeypatch.delenv(CONNECTION, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "dags"))
    (tmp_path / "dags").mkdir()
    for name in ("mood_dag.py", "mood.yaml", "mood.csv"):
        (tmp_path / "dags" / name).write_text(files_of(PAGE)[name], encoding="utf-8")
    (commands,) = [s.text for s in snippets(PAGE) if "airflow dags test" in s.text]
    for command in re.findall(r"^\$ airflow (.*)$", commands, re.MULTILINE):
        airflow(*command.split())
    assert pq.read_table(tmp_path / "dags" / "out" / "mood.parquet")["mood_status"].to_pylist() == [
        "ok",
        "ok",
    ]


# --- how a task fails -------------------------------------------------------------------------------------


def refused(_: Seen) -> Raw:
    """Refuse the key."""
    return envelope("invalid_api_key", 401)


def one_bad_row(seen: Seen) -> Raw | None:
    """Refuse one row's request."""
    return envelope("invalid_request", 400) if b"number 3?" in seen.raw else None


@pytest.mark.parametrize(
    ("document", "script", "exit_code", "charged"),
    [
        ({"budget": {"requests": 5}}, None, 4, 5),
        ({}, refused, 4, 0),
        ({}, one_bad_row, 3, 10),
        ({"limts": {}}, None, None, 0),
        ({"input": "lost.csv"}, None, None, 0),
        ({"steps": [{"name": "mood", "prompt": "{{ reviw }}"}]}, None, None, 0),
    ],
    ids=[
        "budget spent",
        "key refused",
        "more rows failed than tolerated",
        "misspelt key",
        "no input",
        "no column",
    ],
)
def test_what_no_retry_helps_is_not_retried(  # noqa: PLR0917  # the cases stand in one table
    job: Callable[..., Job],
    endpoint: BookedEndpoint,
    document: dict[str, Any],
    script: Callable[[Seen], Raw | None] | None,
    exit_code: int | None,
    charged: int,
) -> None:
    """The task fails at its first try; as far as it came to a run, XCom says how that ended."""
    endpoint.script = script
    made = job(document=document, retries=2, retry_delay=0.1)
    ran = made.run()
    assert (ran.state, ran.tries) == ("failed", 1)
    assert len(endpoint.charges) == charged
    assert (ran.xcom and ran.xcom["exit_code"]) == exit_code
    assert made.output.exists() == (exit_code == 3)
    assert event_of(made.name) is None


@pytest.mark.parametrize("conn_id", ["beatra_default", "other"])
def test_a_connection_that_is_nowhere_fails_for_good(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, conn_id: str
) -> None:
    """The task fails at its first try, and says which connection it looked for and where one may be given."""
    monkeypatch.delenv(CONNECTION, raising=False)
    from airflow.sdk.exceptions import AirflowFailException

    task = job(beatra_conn_id=conn_id, retries=2, retry_delay=0.1)
    ran = task.run()
    assert (ran.state, ran.tries) == ("failed", 1)
    with pytest.raises(AirflowFailException) as raised:
        rendered(task).execute({})
    assert f"there is no connection `{conn_id}`" in str(raised.value)
    assert f"AIRFLOW_CONN_{conn_id.upper()}" in str(raised.value)


def test_after_an_outage_airflow_s_own_retry_goes_on(
    job: Callable[..., Job], endpoint: BookedEndpoint
) -> None:
    """The first try fails, the second asks only what has no answer yet; in the end each is paid once."""

    def out_of_service(_: Seen) -> Raw | None:
        if len(endpoint.charges) < 5:
            return None
        endpoint.script = None
        return Raw(b"", 503, {"Retry-After": "3600"})

    endpoint.script = out_of_service
    ran = job(document={"limits": {"concurrency": 1}}, retries=1, retry_delay=0.5).run()
    assert (ran.state, ran.tries) == ("success", 2)
    assert (ran.xcom["ok"], ran.xcom["requests"]) == (12, 6)
    asked_once(endpoint, 11)


def test_an_input_that_changes_under_a_try_is_read_by_the_next(
    job: Callable[..., Job], endpoint: BookedEndpoint
) -> None:
    """A late row comes while the first try runs: the second asks for what is new, and writes them all."""

    def late(seen: Seen) -> None:
        endpoint.script = None
        with (made.folder / "in.csv").open("a", encoding="utf-8") as file:
            file.write("12,a late review\n")

    made = job(retries=1, retry_delay=0.5)
    endpoint.script = late
    ran = made.run()
    assert (ran.state, ran.tries) == ("success", 2)
    assert ran.xcom["ok"] == pq.read_metadata(made.output).num_rows == 13
    asked_once(endpoint, 12)


def test_while_another_run_holds_the_output_a_try_fails(
    job: Callable[..., Job], endpoint: BookedEndpoint
) -> None:
    """As after a task that Airflow took for dead: a later try may find the output free."""
    from enrich.files.output_lock import hold_output

    made = job()
    with hold_output(str(made.output)):
        assert made.run().state == "failed"
    assert endpoint.posts == []
    assert made.run().state == "success"


# --- how a task is killed ---------------------------------------------------------------------------------


def test_a_killed_task_is_drained_and_its_retry_goes_on(
    job: Callable[..., Job], endpoint: BookedEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM: what is in flight is awaited and kept, and the retry that follows asks for the rest alone."""

    def kill() -> None:
        endpoint.arrived.wait()
        until(lambda: len(endpoint.posts) == 4)
        time.sleep(0.5)  # for a line of progress
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        endpoint.resume()

    endpoint.pause()
    threading.Thread(target=kill).start()
    limits = {"concurrency": 4, "adaptive": False}
    ran = job(document={"limits": limits}, retries=1, retry_delay=0.5).run()
    assert (ran.state, ran.tries) == ("success", 2)
    assert ran.xcom["requests"] == 7
    asked_once(endpoint, 11)
    assert re.search(r"interrupted after [45] of 12 rows.*the next run goes on", capfd.readouterr().out)


def test_a_task_that_takes_too_long_ends_in_good_order(
    job: Callable[..., Job], endpoint: BookedEndpoint
) -> None:
    """`execution_timeout` stops the run as a kill does; nothing is paid for again."""
    endpoint.pause()
    made = job(document={"limits": {"concurrency": 4}}, execution_timeout=timedelta(seconds=1))
    assert made.run().state == "failed"
    sent = {seen.key for seen in endpoint.posts}
    endpoint.resume()
    made = job(document={"limits": {"concurrency": 4}})
    assert made.run().state == "success"
    asked_once(endpoint, 11)
    assert sent <= {charge.key for charge in endpoint.charges}


@contextlib.contextmanager
def started(job: Job, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a DAG in a process of its own, whose output goes to a file."""
    command = [sys.executable, "-m", "airflow", "dags", "test", job.name, "2026-01-01"]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sigterm_leaves_time_before_sigkill(
    job: Callable[..., Job], endpoint: BookedEndpoint, home: Path
) -> None:
    """Progress is in the log; where no answer comes, the run has ended before Airflow loses patience, and is paid once."""
    endpoint.pause()
    made = job(document={"limits": {"concurrency": 4}}, progress_every=0.1)
    log = home / "sigterm.log"
    with started(made, log) as process:
        until(lambda: b"asking: 0 of 12 rows" in log.read_bytes())
        process.terminate()
        began = time.monotonic()
        until(lambda: b"interrupted after" in log.read_bytes())
        assert time.monotonic() - began < LIMIT
        process.wait()
    sent = {seen.key for seen in endpoint.posts}
    endpoint.resume()
    assert made.run().state == "success"
    asked_once(endpoint, 11)
    assert sent <= {charge.key for charge in endpoint.charges}


def test_after_sigkill_nothing_is_paid_for_twice(
    job: Callable[..., Job], endpoint: BookedEndpoint, home: Path
) -> None:
    """What was in flight is charged while nobody listens; the next try gets those very answers."""

    def hold(_: Seen) -> None:
        if len(endpoint.charges) >= 5:
            endpoint.pause()

    endpoint.script = hold
    made = job(40, document={"limits": {"concurrency": 4, "adaptive": False}})
    with started(made, home / "sigkill.log") as process:
        until(lambda: len(endpoint.posts) >= 9)
        process.kill()
        process.wait()
    endpoint.script = None
    endpoint.resume()
    until(lambda: len(endpoint.charges) == len(endpoint.posts))
    assert made.run().state == "success"
    asked_once(endpoint, 39)
    assert pq.read_table(made.output)["mood_status"].to_pylist() == ["ok"] * 40


# --- lineage, and secrets ---------------------------------------------------------------------------------


def test_openlineage_is_told_of_columns(
    job: Callable[..., Job], endpoint: BookedEndpoint, home: Path
) -> None:
    """From file to file, input columns as they are, and a step's columns from what its prompt uses."""
    made = job()
    assert made.run().state == "success"
    lines = (home / "lineage").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    complete = [
        event
        for event in told
        if event["eventType"] == "COMPLETE" and event["job"]["name"] == f"{made.name}.enrich"
    ][-1]
    [given], [made_of] = complete["inputs"], complete["outputs"]
    assert (given["namespace"], given["name"]) == ("file", str(made.folder / "in.csv"))
    assert (made_of["namespace"], made_of["name"]) == ("file", str(made.output))
    assert [field["name"] for field in given["facets"]["schema"]["fields"]] == ["id", "review"]
    assert made_of["outputFacets"]["outputStatistics"]["rowCount"] == 12
    columns = made_of["facets"]["columnLineage"]["fields"]
    assert behind(columns["id"]) == [("id", "IDENTITY")]
    assert behind(columns["mood"]) == behind(columns["mood_status"]) == [("review", "TRANSFORMATION")]


def behind(column: Any) -> list[tuple[str, str]]:
    """Give the fields that stand behind a column, and how."""
    return [(field["field"], field["transformations"][0]["subtype"]) for field in column["inputFields"]]


def test_the_key_is_kept_nowhere(home: Path) -> None:
    """After all of these runs it is in no log, no XCom, no rendered field, no lineage: nowhere in Airflow's home."""
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
