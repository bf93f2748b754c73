"""Frames of a real Spark cluster: two executors, a shared ledger, and an endpoint that keeps books.

It is long because one cluster, which takes a while to start, serves all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyspark
import pytest
from pydantic import create_model, field_validator
from pyspark import cloudpickle
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Observation, SparkSession

from enrich.errors import ConfigError, LedgerError, TemplateError
from enrich.integrations.spark import enrich, metrics, preview
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, answer_to, echo, envelope
from tests.helpers.loopback import free_port
from tests.integrations.cluster import (
    ask_cli,
    busiest_second,
    clocked,
    java,
    job,
    kill,
    paid_once,
    plain,
    processes,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["tests.integrations.cluster"]  # its fixtures

ROWS = 200
DRIVER_KEY = "sk-of-the-driver-0123456789"  # the endpoint takes another one: that of the executors


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run a master and two workers, each on an address of its own; they alone hold the key. Gives the master's URL."""
    home = Path(pyspark.__file__).parent
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    kind = "org.apache.spark.deploy"
    commands = [[f"{kind}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]]
    for host in ("127.0.0.1", "127.0.0.2"):  # a speculative copy runs on another host
        work = ["-c", "1", "-m", "1g", "-d", str(folder), "--webui-port", "0"]
        commands.append([f"{kind}.worker.Worker", "--host", host, *work, url])
    env = {**os.environ, "BEATRA_API_KEY": KEY, "SPARK_DAEMON_MEMORY": "256m", "SPARK_LOCAL_IP": ""}
    log = (folder / "log").open("wb")
    running = [
        subprocess.Popen([home / "bin" / "spark-class", *command], env=env, stdout=log, stderr=log)
        for command in commands
    ]
    try:
        yield url
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
        log.close()


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Run a cluster of two executors with one core each; speculation runs slow tasks a second time."""
    java()
    os.environ |= {"BEATRA_API_KEY": DRIVER_KEY, "PYSPARK_PYTHON": sys.executable}
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.executor.memory": "512m",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "20",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        "spark.speculation": "true",
        "spark.speculation.minTaskRuntime": "2s",
        "spark.speculation.multiplier": "1.1",
        "spark.speculation.quantile": "0.5",
    }
    with cluster(tmp_path_factory.mktemp("cluster")) as master:
        builder = SparkSession.builder.master(master)
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        yield session
        session.stop()


def texts(spark: SparkSession, rows: int = ROWS, distinct: int = 10_000, parts: int = 2) -> DataFrame:
    """Make a frame of texts; a text comes again after so many distinct ones, in other partitions too."""
    data = [(n, f"text {n % distinct}") for n in range(rows)]
    return spark.createDataFrame(data, "n long, t string").repartition(parts, "n")


def answered(frame: DataFrame) -> bool:
    """Say whether every row has the answer to its text."""
    rows = frame.collect()
    return all(row.s == answer_to(row.t) and row.s_status == "ok" for row in rows)


# --- what comes out ------------------------------------------------------------------------------------

ANSWER = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg"]},
        "count": {"type": "integer"},
        "score": {"type": "number"},
        "sure": {"type": "boolean"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "of": {"type": "object", "properties": {"x": {"type": "integer"}, "kind": {"enum": ["a", "b"]}}},
    },
}
KINDS = """n long, t string, small int, real double, yes boolean, price decimal(12,2), day date, at timestamp,
    wall timestamp_ntz, tags array<string>, pair struct<x: int, y: string>, more map<string, int>, raw binary"""
PROMPT = "{{ t }} {{ small }} {{ real }} {{ yes }} {{ price }} {{ day }} {{ at }} {{ wall }} {{ tags }} {{ pair }} {{ more }}"


def typed_answer(body: dict[str, Any]) -> str:
    """Answer with every type; what does not fit the schema now and then."""
    digest = echo(body)
    number = int(digest[:4], 16)
    answer = {
        "label": "pos",
        "count": number,
        "score": number / 3,
        "sure": number % 2 == 0,
        "day": "2024-02-29",
    }
    answer |= {
        "at": "2024-02-29T23:59:59.123456+02:00",
        "tags": [digest, ""],
        "of": {"x": number, "kind": "b"},
    }
    return json.dumps(answer if number % 7 else {"label": "neither"})


def test_rows_are_those_of_the_command_line(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str, tmp_path: Path
) -> None:
    """Every type goes in and comes out as it does there, under the same keys, for one charge in all."""
    endpoint.answer = typed_answer
    rows = [
        (
            n,
            None if n == 3 else f"text {n}",
            n,
            n / 7,
            n % 2 == 0,
            Decimal(n) / 4,
            dt.date(2024, 2, 29),
            dt.datetime(2024, 6, 1, 12, 0, n, 250, tzinfo=dt.UTC),
            dt.datetime(2024, 6, 1, 12, 0, n),  # noqa: DTZ001  # a wall clock's time
            ["a", None],
            (n, "é"),
            {"k": n},
            bytes([n]),
        )
        for n in range(40)
    ]
    frame = spark.createDataFrame(rows, KINDS).repartition(3)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(PROMPT, encoding="utf-8")
    (tmp_path / "answer.json").write_text(json.dumps(ANSWER), encoding="utf-8")
    step = {"name": "s", "prompt_file": str(prompt), "schema": str(tmp_path / "answer.json"), "reask": 0}
    config = job(endpoint, ledger, steps=[step])
    theirs = ask_cli(tmp_path, frame.toArrow().sort_by("n"), config)
    out = enrich(frame, config)
    prompt.unlink()  # executors elsewhere would not have it
    ours = out.toArrow()
    assert plain(ours) == plain(theirs)
    assert {row["s_status"] for row in plain(ours)} == {"ok", "error", "invalid_output"}
    assert ours.schema.field("s_of").type == pa.struct([("x", pa.int64()), ("kind", pa.string())])
    assert out.schema["s_at"].dataType.simpleString() == "timestamp"
    assert out.schema["s_label"].dataType.simpleString() == "string"
    assert out.schema.fields[: len(frame.columns)] == frame.schema.fields
    paid_once(endpoint, 39)


def _pos(label: str) -> str:
    """Refuse any other word."""
    if label != "pos":
        raise ValueError("pos it must be")
    return label


# What only a program knows: a rule, a default, a decimal. As in a notebook, it travels by what it says.
_pos.__module__ = "__main__"
Tone = create_model(
    "Tone",
    __module__="__main__",
    __validators__={"known": field_validator("label")(_pos)},
    label=(str, ...),
    price=(Decimal, Decimal(1)),
)


def test_a_pydantic_model_validates_in_the_executors(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str
) -> None:
    """Its rules and defaults hold there as in a run of one process, and its types are those of the columns."""
    endpoint.answer = lambda body: json.dumps(
        {"label": "pos" if "text 1" in body["messages"][-1]["content"] else "neg"}
    )
    step = {"name": "s", "prompt": "{{ t }}", "schema": Tone, "reask": 0}
    out = enrich(texts(spark, 4), job(endpoint, ledger, steps=[step]))
    found = sorted((row.n, row.s_status, row.s_price) for row in out.collect())
    assert found == [(n, "ok", 1) if n == 1 else (n, "invalid_output", None) for n in range(4)]
    assert out.schema["s_price"].dataType.typeName() == "decimal"


def test_large_strings_and_empty_partitions(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str
) -> None:
    """Spark's other layout of strings does as well, and a partition without rows opens no run."""
    spark.conf.set("spark.sql.execution.arrow.useLargeVarTypes", "true")
    try:
        assert answered(enrich(texts(spark, 5, parts=4).where("n < 1"), job(endpoint, ledger)))
    finally:
        spark.conf.unset("spark.sql.execution.arrow.useLargeVarTypes")
    assert runs(ledger) == 1


# --- paid once -----------------------------------------------------------------------------------------


def test_actions_sorts_and_jobs_are_paid_once(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str
) -> None:
    """A second action, the sampling of a sort, a part of the rows and the same job anew ask nothing."""
    config = job(endpoint, ledger)
    frame = texts(spark, distinct=120, parts=4)  # equal texts in several partitions at once
    out = enrich(frame, config)
    assert out.count() == ROWS
    assert len(endpoint.posts) == 120
    assert answered(out)
    assert [row.n for row in out.orderBy("s", "n").select("n").collect()] != list(range(ROWS))
    assert len(out.take(3)) == 3
    assert answered(enrich(texts(spark, distinct=120, parts=3), config))
    assert len(endpoint.posts) == 120
    paid_once(endpoint, 120)


def test_killed_workers_are_paid_once(spark: SparkSession, endpoint: BookedEndpoint, ledger: str) -> None:
    """SIGKILL to every Python worker in the middle: the tasks are tried again, under the same keys and bytes."""
    killed: list[int] = []

    def murder(seen: Seen) -> Raw | None:
        if len(endpoint.charges) >= 60 and not killed:
            workers = processes("pyspark.daemon")
            killed.extend(number for number, parent in workers.items() if parent in workers)
            for number in killed:
                kill(number)
        return None

    endpoint.script = murder
    config = job(endpoint, ledger, limits={"concurrency": 8, "adaptive": False})
    assert answered(enrich(texts(spark), config))
    assert killed
    assert runs(ledger) > 2
    paid_once(endpoint, ROWS)
    replays = [seen.raw for seen in endpoint.posts]
    assert ROWS <= len(replays) <= ROWS + 16  # what was in flight came once more, byte for byte


class Slow(BookedEndpoint):
    """Takes its time over some texts."""

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        seen = await super()._read(reader)
        if b"slow" in seen.raw:
            await asyncio.sleep(8)
        return seen


def test_speculation_is_paid_once(spark: SparkSession, ledger: str) -> None:
    """A task that runs on both executors at once asks once."""
    data = [(n, f"{'slow' if n < 20 else 'quick'} {n}") for n in range(40)]
    frame = spark.createDataFrame(spark.sparkContext.parallelize(data, 2), "n long, t string")
    with Slow() as endpoint:
        assert answered(enrich(frame, job(endpoint, ledger)))
        paid_once(endpoint, 40)
        assert len(endpoint.posts) == 40
    assert runs(ledger) == 3


def test_a_limit_is_held_by_both_executors(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str
) -> None:
    """Two tasks share one limit through the ledger: no second sees more than it allows."""
    moments: list[float] = []
    endpoint.script = clocked(moments)
    rate = 30  # per second
    config = job(endpoint, ledger, limits={"requests_per_minute": rate * 60})
    assert answered(enrich(texts(spark), config))
    assert busiest_second(moments) <= 1.1 * rate
    paid_once(endpoint, ROWS)


def test_a_limit_is_split_where_the_ledger_is_a_file(
    spark: SparkSession, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """On one machine a file will do for the ledger; each of two tasks then goes at half the rate."""
    moments: list[float] = []
    endpoint.script = clocked(moments)
    rate = 40  # per second
    config = job(endpoint, str(tmp_path / "ledger.db"), limits={"requests_per_minute": rate * 60})
    assert answered(enrich(texts(spark), config, one_machine=True, split_limits=2))
    assert busiest_second(moments) <= 1.1 * rate
    paid_once(endpoint, ROWS)


# --- what each action asks -----------------------------------------------------------------------------

MANY = 4_000  # rows


class Usual(BookedEndpoint):
    """Takes as long over an answer as a quick model does."""

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        seen = await super()._read(reader)
        await asyncio.sleep(0.3)
        return seen


ACTIONS: dict[str, tuple[Callable[[DataFrame], Any], int]] = {
    "limit(5).collect()": (lambda frame: frame.limit(5).collect(), 64),
    "take(5)": (lambda frame: frame.take(5), 64),
    "show(3)": (lambda frame: frame.show(3), 64),
    "first()": (lambda frame: frame.first(), 64),
    "isEmpty()": (lambda frame: frame.isEmpty(), 64),
    "schema": (lambda frame: frame.schema, 0),
    "explain()": (lambda frame: frame.explain(), 0),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_that_takes_few_rows_pays_for_few(spark: SparkSession, ledger: str, name: str) -> None:
    """Of a partition's first rows some dozens at most, and nothing once the answer is there."""
    act, most = ACTIONS[name]
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "10000")  # as Spark has it
    try:
        with Usual() as endpoint:
            act(enrich(texts(spark, MANY), job(endpoint, ledger)))
            asked = len(endpoint.posts)
            time.sleep(2)
            assert asked <= most
            assert len(endpoint.posts) <= most
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "20")


def test_nothing_is_run_on_executors_before_an_action(spark: SparkSession, ledger: str) -> None:
    """To call `enrich` is to plan: no job of it has a task, whatever the frame would have to compute."""
    with BookedEndpoint() as endpoint:
        frame = texts(spark, MANY).orderBy("t")
        context, group = spark.sparkContext, f"planning {ledger}"
        context.setJobGroup(group, group)
        enrich(frame, job(endpoint, ledger))
        tracker = context.statusTracker()
        jobs = [tracker.getJobInfo(number) for number in tracker.getJobIdsForGroup(group)]
        stages = [tracker.getStageInfo(number) for found in jobs if found for number in found.stageIds]
        context.setJobGroup("", "")
        assert [stage.numTasks for stage in stages if stage] == []


def test_a_limit_before_it_asks_for_no_more(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str
) -> None:
    """Five rows are five requests; a look at them is none."""
    config = job(endpoint, ledger)
    assert str(preview(texts(spark, MANY), config, 3)).count("text ") == 3
    assert endpoint.posts == []
    assert len(enrich(texts(spark, MANY).limit(5), config).collect()) == 5
    assert len(endpoint.posts) == 5


# --- what it says --------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_books(spark: SparkSession, endpoint: BookedEndpoint, ledger: str) -> None:
    """Rows per status and what was spent, without a second pass."""
    endpoint.script = lambda seen: envelope("content_policy", 400) if b'text 7"' in seen.raw else None
    config = job(endpoint, ledger)
    spent, again = Observation("spent"), Observation("again")
    frame = texts(
        spark, distinct=120, parts=1
    )  # of two, one might run twice: what the other copy spent is missing
    enrich(frame, config).observe(spent, *metrics(config)).count()
    enrich(frame, config).observe(again, *metrics(config)).count()
    seen = spent.get
    failed = frame.where("t = 'text 7'").count()
    assert (seen["rows"], seen["s_ok"], seen["s_error"]) == (ROWS, ROWS - failed, failed)
    assert (seen["s_prompt_tokens"], seen["s_completion_tokens"]) == endpoint.tokens
    assert seen["s_credits"] == pytest.approx(endpoint.credits)
    assert seen["s_pending"] == 0
    assert (again.get["rows"], again.get["s_credits"]) == (ROWS, 0)


def test_what_is_wrong_is_found_before_any_task(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the driver, in our own words, with what to type."""
    frame = texts(spark, 2)
    good = job(endpoint, ledger)

    def step(prompt: str) -> dict[str, Any]:
        return {**good, "steps": [{"name": "s", "prompt": prompt}]}

    with pytest.raises(TemplateError, match="no column `text`"):
        enrich(frame, step("{{ text }}"))
    with pytest.raises(TemplateError):
        enrich(frame, step("{{ t "))
    with pytest.raises(ConfigError, match="did you mean `prompt`"):
        enrich(frame, {**good, "steps": [{"name": "s", "promt": "x"}]})
    with pytest.raises(ConfigError, match="which the input has too"):
        enrich(frame, {**good, "steps": [{"name": "t", "prompt": "{{ t }}"}]})
    with pytest.raises(ConfigError, match="ledger: postgresql://"):
        enrich(frame, {**good, "ledger": "ledger.db"})
    limited = {**good, "ledger": "ledger.db", "limits": {"requests_per_minute": 60}}
    with pytest.raises(ConfigError, match="split_limits=2"):
        enrich(frame, limited, one_machine=True)
    with pytest.raises(LedgerError, match="cannot be used"):
        enrich(frame, {**good, "ledger": "postgresql://nobody@127.0.0.1:9/none"})
    with pytest.raises(ConfigError, match="PGPASSWORD"):
        enrich(frame, {**good, "ledger": "postgresql://me:secret@127.0.0.1/x"})
    with pytest.raises(ConfigError, match=r"beatra-enrich plan"):
        enrich(frame, {**good, "budget": {"credits": 1}})
    monkeypatch.delenv("BEATRA_API_KEY")
    with pytest.raises(ConfigError, match="there is no API key"):
        enrich(frame, {**good, "endpoint": {"base_url": "https://beatra.invalid/v1"}})
    assert endpoint.seen == []


def test_a_stop_says_why(spark: SparkSession, endpoint: BookedEndpoint, ledger: str) -> None:
    """An empty balance fails the action with its reason; topped up, the same job goes on."""
    endpoint.script = lambda _: envelope("insufficient_balance", 402) if len(endpoint.charges) >= 50 else None
    with pytest.raises(PythonException, match="BalanceSpent"):
        enrich(texts(spark), job(endpoint, ledger)).collect()
    endpoint.script = None
    assert answered(enrich(texts(spark), job(endpoint, ledger)))
    paid_once(endpoint, ROWS)


def test_no_key_travels(
    spark: SparkSession, endpoint: BookedEndpoint, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the plan nor what the tasks are made of holds it."""
    sent: list[Any] = []
    frame = texts(spark, 1)
    there = type(frame).mapInArrow

    def noted(frame: DataFrame, function: Any, *args: Any) -> DataFrame:
        sent.append(function)
        return there(frame, function, *args)

    monkeypatch.setattr(type(frame), "mapInArrow", noted)
    out = enrich(frame, job(endpoint, ledger))
    (function,) = sent
    assert DRIVER_KEY.encode() not in cloudpickle.dumps(function)
    assert DRIVER_KEY not in out._jdf.queryExecution().toString()
