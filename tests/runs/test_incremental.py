"""Partitioned data sets: only what is new is asked, and each output is made once.

It is long because each way that a data set changes overnight has a case.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import enrich
from enrich.config import load_config
from enrich.errors import ConfigError, InputError, OutputError, RunInterrupted
from enrich.files.sink import read_manifest
from enrich.files.source import open_source
from enrich.runs.partition_todo import remember_types
from enrich.runs.partitions import keep_known, read_known
from tests.helpers.days import (
    ROWS,
    counted,
    day,
    outputs,
    write_config,
    write_day,
)
from tests.helpers.endpoint import BookedEndpoint, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.helpers.warm import Ended

pytestmark = pytest.mark.usefixtures("our_key")


VOLATILE = ("latency_ms", "request_id", "source")  # what differs from run to run


@pytest.fixture
def command(cli: Callable[..., Ended], endpoint: BookedEndpoint) -> Callable[..., Ended]:
    """Run the command line against the endpoint."""
    return partial(cli, endpoint=endpoint)


def rows_of(path: Path, *, but: Iterable[str] = VOLATILE) -> list[dict[str, Any]]:
    """Give an output's rows in the order of its partitions, without what differs from run to run."""
    table = ds.dataset(path, partitioning="hive").to_table()
    names = sorted(name for name in table.column_names if not name.endswith(tuple(but)))
    rows = table.select(names).to_pylist()
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True, default=str))


def test_a_second_run_sends_and_writes_nothing(month: Path, endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """Every partition is made once; the next run reads the manifests and leaves all of them alone."""
    first = enrich.run(month)
    assert (first.exit_code, first.statuses["ok"]) == (0, 5 * ROWS)
    assert first.partitions == counted(selected=5, processed=5)
    before = outputs(tmp_path)
    assert list(before) == [f"{day(number)}/part-0.parquet" for number in range(1, 6)]
    again = enrich.run(month)
    assert (again.rows, again.requests, again.exit_code) == (0, 0, 0)
    assert again.partitions == counted(selected=5, unchanged=5)
    assert outputs(tmp_path) == before
    assert len(endpoint.posts) == 5 * ROWS


def test_an_added_day_sends_its_rows_only(month: Path, endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """The other days' files keep inode, time and bytes."""
    enrich.run(month)
    before = outputs(tmp_path)
    write_day(tmp_path, 6)
    summary = enrich.run(month)
    assert (summary.rows, summary.requests) == (ROWS, ROWS)
    assert summary.partitions == counted(selected=6, processed=1, unchanged=5)
    after = outputs(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"{day(6)}/part-0.parquet"}


def test_finished_partitions_are_not_even_read(month: Path, tmp_path: Path) -> None:
    """As long as size, times and inode stand, a finished partition's input is not opened: few bytes are read."""
    texts = [random.Random(row).randbytes(1_000_000).hex() for row in range(ROWS)]
    path = write_day(tmp_path, 6)
    pq.write_table(pq.read_table(path).append_column("x", pa.array(texts)), path)
    past = time.time_ns() - 60_000_000_000
    os.utime(path, ns=(past, past))
    config = write_config(tmp_path, input="data/*06/")
    enrich.run(config)
    before = bytes_read()
    assert enrich.run(config).partitions == counted(selected=1, unchanged=1)
    assert bytes_read() - before < 1_000_000 < path.stat().st_size


def bytes_read() -> int:
    """Give what this process has read so far, from files and otherwise."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_late_rows_cost_only_themselves(month: Path, endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """A file added to an old partition, or rows added to a file, make that partition anew; only new rows are sent."""
    enrich.run(month)
    before = outputs(tmp_path)
    write_day(tmp_path, 2, range(100, 103), name="late")
    write_day(tmp_path, 3, range(ROWS + 2))
    summary = enrich.run(month)
    assert (summary.rows, summary.requests) == (2 * ROWS + 5, 5)
    assert summary.partitions == counted(selected=5, processed=2, unchanged=3)
    after = outputs(tmp_path)
    assert [name for name in after if after[name] != before[name]] == [
        f"{day(number)}/part-0.parquet" for number in (2, 3)
    ]
    assert set(endpoint.charges_per_body.values()) == {1}


def test_the_same_bytes_at_another_time_change_nothing(
    month: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A file that was only touched, or written anew with the same bytes, is compared by its digest."""
    enrich.run(month)
    before = outputs(tmp_path)
    for path in (tmp_path / "data").rglob("*.parquet"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    assert enrich.run(month).partitions == counted(selected=5, unchanged=5)
    assert outputs(tmp_path) == before


def test_other_bytes_of_the_same_size_and_time_are_noticed(month: Path, tmp_path: Path) -> None:
    """A change that keeps size and modification time shows in the change time."""
    path = write_day(tmp_path, 1)
    enrich.run(month)
    told = path.stat()
    pq.write_table(pa.table({"id": list(range(ROWS)), "t": [f"text 9-{row}" for row in range(ROWS)]}), path)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert path.stat().st_size == told.st_size
    assert enrich.run(month).partitions == counted(selected=5, processed=1, unchanged=4)


@pytest.mark.parametrize("kept", [True, False])
def test_an_input_that_changes_during_a_run(
    month: Path, endpoint: BookedEndpoint, tmp_path: Path, *, kept: bool
) -> None:
    """The run stops, resumable, also where size and time do not show it; the next one makes the partition anew."""
    path = tmp_path / "data" / day(1) / "a.parquet"
    told = path.stat()

    def rewritten(body: dict[str, Any]) -> str:
        endpoint.answer = lambda _: "later"
        table = pa.table({"id": list(range(ROWS)), "t": [f"text 9-{row}" for row in range(ROWS)]})
        pq.write_table(table, path)
        if kept:
            os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        return "first"

    endpoint.answer = rewritten
    first = enrich.run(month)
    assert path.stat().st_size == told.st_size
    assert (first.exit_code, first.resumable) == (4, True)
    assert first.requests == len(endpoint.posts)
    assert "a.parquet changed while it was being used after " in first.reason
    again = enrich.run(month)
    assert again.partitions is not None
    assert again.partitions["processed"] >= 1
    assert {row["t"] for row in rows_of(tmp_path / "out")} >= {f"text 9-{row}" for row in range(ROWS)}
    assert enrich.run(month).partitions == counted(selected=5, unchanged=5)


@pytest.mark.parametrize(
    ("change", "requests"),
    [
        ({"step": {"prompt": "Anew, {{ day }}: {{ t }}"}}, 5 * ROWS),
        ({"step": {"model": "fast-1"}}, 5 * ROWS),
        ({"output": {"path": "out/", "compression": "gzip"}}, 0),
        ({"step": {"when": "{{ id > 0 }}"}}, 0),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_changed_job_makes_every_partition_anew(
    month: Path, tmp_path: Path, change: dict[str, Any], requests: int
) -> None:
    """What the job asks or writes is part of what a partition was made of."""
    enrich.run(month)
    summary = enrich.run(write_config(tmp_path, **change))
    assert summary.partitions == counted(selected=5, processed=5)
    assert summary.requests == requests


def test_what_does_not_shape_the_output_changes_nothing(month: Path, tmp_path: Path) -> None:
    """Limits, budget, tolerance: finished partitions stay."""
    enrich.run(month)
    config = write_config(tmp_path, limits={"concurrency": 3}, budget={"credits": 9}, tolerate="5%")
    assert enrich.run(config).partitions == counted(selected=5, unchanged=5)


def test_fresh_asks_every_partition_anew_and_goes_on_after_a_stop(
    month: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """--fresh pays again; stopped half-way, a plain run goes on with the rest of it and pays for that alone."""
    enrich.run(month)
    stopped = enrich.run(month, fresh=True, overrides=["budget.requests=9", "limits.concurrency=1"])
    assert stopped.exit_code == 4
    assert stopped.partitions is not None
    assert stopped.partitions["processed"] + stopped.partitions["pending"] == 5
    rest = enrich.run(month)
    assert (rest.exit_code, stopped.requests + rest.requests) == (0, 5 * ROWS)
    assert enrich.run(month).partitions == counted(selected=5, unchanged=5)
    assert set(endpoint.charges_per_body.values()) == {2}


def test_a_partition_asked_anew_leaves_the_others_as_they_are(month: Path, endpoint: BookedEndpoint) -> None:
    """--fresh for one partition pays for that one alone; the next run finds nothing to do, or only what is new."""
    enrich.run(month)
    chosen = [f"input.partitions=[{day(1)}]"]
    assert enrich.run(month, fresh=True, overrides=chosen).requests == ROWS
    assert enrich.run(month).partitions == counted(selected=5, unchanged=5)
    assert len(endpoint.charges) == 6 * ROWS


def test_a_fresh_run_killed_at_its_very_end_is_over(
    month: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every partition was made anew before the end was noted, later rows cost only themselves."""
    enrich.run(month)

    async def killed(*_: object) -> None:
        raise RunInterrupted

    with monkeypatch.context() as patched:
        patched.setattr("enrich.runs.run.settle_fresh", killed)
        enrich.run(month, fresh=True)
    assert enrich.run(month).partitions == counted(selected=5, unchanged=5)
    write_day(tmp_path, 1, range(ROWS + 1))
    assert enrich.run(month, overrides=[f"input.partitions=[{day(1)}]"]).requests == 1
    assert enrich.run(month).requests == 0


def test_a_lost_ledger_pays_for_no_finished_partition(
    month: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The output's own manifests know what is done, also after --fresh."""
    enrich.run(month, fresh=True)
    for path in (tmp_path / ".beatra").iterdir():
        path.unlink()
    assert enrich.run(month).requests == 0


def test_vanished_input_leaves_its_output_and_is_told(
    month: Path, command: Callable[..., Ended], tmp_path: Path
) -> None:
    """Nothing is deleted silently: the partition's output stays, the log names it, the summary counts it."""
    enrich.run(month)
    before = outputs(tmp_path)
    (tmp_path / "data" / day(3) / "a.parquet").unlink()
    ended = command("run", month, "--json")
    assert json.loads(ended.out)["partitions"] == counted(selected=4, unchanged=4, left_over=1)
    assert f"out: 1 file has no input: left alone: {day(3)}/part-0.parquet" in ended.err
    assert outputs(tmp_path) == before
    (tmp_path / "out" / "foreign.csv").write_text("a,b\n")
    (tmp_path / "out" / "README.md").write_text("of somebody else")
    ended = command("run", month, "--json")
    assert json.loads(ended.out)["partitions"] == counted(selected=4, unchanged=4, left_over=2)
    assert (tmp_path / "out" / "foreign.csv").exists()


def test_a_vanished_file_of_a_partition_takes_its_rows_along(month: Path, tmp_path: Path) -> None:
    """The output is a view of the input: a partition of fewer files has fewer rows, for nothing."""
    write_day(tmp_path, 2, range(100, 103), name="late")
    enrich.run(month)
    (tmp_path / "data" / day(2) / "late.parquet").unlink()
    summary = enrich.run(month)
    assert (summary.rows, summary.requests) == (ROWS, 0)
    assert pq.read_table(tmp_path / "out" / day(2) / "part-0.parquet").num_rows == ROWS


def test_the_rows_are_those_of_a_plain_run(month: Path, tmp_path: Path) -> None:
    """Read as a data set, the folder holds what one file would; its sums are what was charged, copies included."""
    write_day(tmp_path, 4, [0, 0, 1, 2, 2, 2])
    config = write_config(tmp_path, step={"prompt": "{{ t.split('-')[1] }}"})
    summary = enrich.run(config)
    enrich.run(config, output=str(tmp_path / "plain.parquet"), overrides=["ledger=other.db"])
    plain = pq.read_table(tmp_path / "plain.parquet")
    folder = ds.dataset(tmp_path / "out", partitioning="hive").to_table()
    assert set(folder.column_names) == set(plain.column_names)
    names = [name for name in plain.column_names if not name.endswith(VOLATILE)]
    assert folder.select(names).to_pylist() == plain.select(names).to_pylist()
    assert pc.sum(folder["s_credits"]).as_py() == pytest.approx(summary.credits)
    assert "day" not in pq.read_schema(tmp_path / "out" / day(1) / "part-0.parquet").names


def test_each_file_of_a_flat_folder_is_its_own(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """Without partition folders, every input file has its output at the same relative path."""
    for name in ("a.csv", "sub/b.v2.csv", "sub/c.csv"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"t\n{name} 1\n{name} 2\n")
    config = write_config(tmp_path, step={"prompt": "{{ t }}"})
    assert enrich.run(config).partitions == counted(selected=3, processed=3)
    assert list(outputs(tmp_path)) == ["a.parquet", "sub/b.v2.parquet", "sub/c.parquet"]
    (tmp_path / "data" / "sub" / "c.csv").write_text("t\nsub/c.csv 1\nnew\n")
    assert enrich.run(config).requests == 1


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "arrow"])
def test_other_formats_keep_their_manifest_too(month: Path, tmp_path: Path, form: str) -> None:
    """What a text file cannot hold lies hidden beside it, so that the folder stays a data set, for us too."""
    config = write_config(tmp_path, output={"path": "out/", "format": form})
    enrich.run(config)
    before = outputs(tmp_path)
    assert list(before) == [f"{day(number)}/part-0.{form}" for number in range(1, 6)]
    assert enrich.run(config).partitions == counted(selected=5, unchanged=5)
    assert outputs(tmp_path) == before
    chained = {"input": str(tmp_path / "out"), "output": str(tmp_path / "next/")}
    chained["output"] += "/"
    step = {"name": "n", "prompt": "{{ s }} {{ day }}"}
    assert enrich.run({**chained, "steps": [step]}).statuses["ok"] == 5 * ROWS


def test_text_columns_keep_their_types_from_run_to_run(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """A late row does not change how earlier ones are read, so that these are not asked, and paid for, anew."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("n,t\n1,a\n2,b\n")
    (tmp_path / "data" / "b.csv").write_text("n,t\n1.5,c\n")
    config = write_config(tmp_path, step={"prompt": "{{ n }} {{ t }}"})
    assert enrich.run(config).requests == 3
    (tmp_path / "data" / "a.csv").write_text("n,t\n1,a\n2,b\n3,late\n")
    assert enrich.run(config).requests == 1
    assert pq.read_schema(tmp_path / "out" / "a.parquet").field("n").type == pa.float64()


def test_a_column_of_another_type_than_in_earlier_runs_is_told(
    command: Callable[..., Ended], tmp_path: Path
) -> None:
    """Files of one folder with different types may be refused by readers; removed ones are made anew with the wide type."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("n,t\n1,a\n")
    config = write_config(tmp_path, step={"prompt": "{{ t }}"})
    assert "the column" not in command("run", config).err
    (tmp_path / "data" / "b.csv").write_text("n,t\nx,b\n")
    assert "the column `n` is string in this run, int64 in earlier ones" in command("run", config).err
    (tmp_path / "out" / "a.parquet").unlink()
    ended = command("run", config, "--json")
    assert (json.loads(ended.out)["requests"], "the column" in ended.err) == (0, False)
    assert [row["n"] for row in rows_of(tmp_path / "out")] == ["1", "x"]


@pytest.mark.parametrize(
    ("other", "wide"), [(pa.string(), pa.string()), (pa.float64(), pa.float64()), (pa.date32(), pa.string())]
)
def test_types_are_wide_enough_for_runs_at_the_same_time(
    tmp_path: Path, other: pa.DataType, wide: pa.DataType
) -> None:
    """What another run found out about a column since this one opened its input is not taken back."""
    (tmp_path / "a.csv").write_text("n,t\n1,a\n")
    config = load_config(write_config(tmp_path, input="a.csv"))
    source = open_source(config.input)
    keep_known(config.output, pa.schema([("n", other), ("gone", pa.bool_())]))
    remember_types(config, source)
    assert read_known(config.output) == pa.schema([("n", wide), ("gone", pa.bool_()), ("t", pa.string())])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".beatra-columns"]


def test_a_key_that_json_lines_leave_out_today_is_null(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """A column that only earlier files had can still be named in a prompt."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text('{"t": "one", "note": "x"}\n')
    config = write_config(tmp_path, step={"prompt": "{{ t }} {{ note }}", "on_null": "render"})
    enrich.run(config)
    (tmp_path / "data" / "b.jsonl").write_text('{"t": "two"}\n')
    assert enrich.run(config).statuses["ok"] == 1


def test_partition_restricts_the_run(month: Path, command: Callable[..., Ended], tmp_path: Path) -> None:
    """Only these are looked at and made; of one key, any."""
    ended = command("run", month, "--json", "--partition", day(2), "--partition", day(4))
    assert json.loads(ended.out)["partitions"] == counted(selected=2, processed=2)
    assert list(outputs(tmp_path)) == [f"{day(number)}/part-0.parquet" for number in (2, 4)]
    assert enrich.run(month, partitions=[day(2)]).partitions == counted(selected=1, unchanged=1)
    assert enrich.run(month).requests == 3 * ROWS


def test_several_keys_must_all_hold(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """Values may be given as they are, or as the folder spells them."""
    for city in ("New York", "a/b"):
        for year in (2025, 2026):
            folder = (
                tmp_path / "data" / f"city={city.replace(' ', '%20').replace('/', '%2F')}" / f"year={year}"
            )
            folder.mkdir(parents=True)
            (folder / "x.csv").write_text(f"t\n{city} {year}\n")
    config = write_config(tmp_path, step={"prompt": "{{ city }} {{ year }} {{ t }}"})
    for wanted in (["city=New York", "year=2026"], ["city=a%2Fb", "year=2026"]):
        assert enrich.run(config, partitions=wanted).partitions == counted(selected=1, processed=1)
    assert list(outputs(tmp_path)) == [
        "city=New%20York/year=2026/part-0.parquet",
        "city=a%2Fb/year=2026/part-0.parquet",
    ]
    assert enrich.run(config).partitions == counted(selected=4, processed=2, unchanged=2)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("day=2026-11-31", "no partition day=2026-11-31"),
        ("dya=2026-11-01", "no partitions `dya`\nHint: did you mean `day`?"),
        ("day", "`day` is not of the form key=value"),
    ],
)
def test_a_partition_that_is_not_there_is_told(
    month: Path, command: Callable[..., Ended], endpoint: BookedEndpoint, wanted: str, message: str
) -> None:
    """A typo is an error that names what there is; nothing is sent."""
    ended = command("run", month, "--partition", wanted)
    assert ended.code == 2
    assert message in ended.err
    assert endpoint.seen == []


def test_a_run_date_can_be_set(month: Path, command: Callable[..., Ended], tmp_path: Path) -> None:
    """One day to one file, as schedulers do it."""
    ended = command("run", month, "--set", f"input=data/{day(3)}", "--set", "output=day3.parquet",
                "--set", "steps.s.prompt={{ t }}")  # fmt: skip
    assert ended.code == 0, ended.err
    assert pq.read_table(tmp_path / "day3.parquet").num_rows == ROWS


def test_partitions_with_errors_are_taken_up_again(month: Path, endpoint: BookedEndpoint) -> None:
    """As in a plain job a further run sends what failed once more, where that may help; the other partitions stay."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"text 2-1" in seen.raw else None
    first = enrich.run(month)
    assert (first.exit_code, first.statuses["error"]) == (3, 1)
    assert first.partitions == counted(selected=5, processed=5, failed=1)
    second = enrich.run(month)
    assert (second.rows, second.exit_code) == (ROWS, 3)
    assert second.partitions == counted(selected=5, processed=1, unchanged=4, failed=1)
    endpoint.script = None
    assert enrich.run(month).partitions is not None


def test_retry_asks_only_the_failed_rows_of_finished_partitions(
    month: Path, command: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Partitions without such rows are left alone, and so are those that were never run."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"text 2-1" in seen.raw else None
    enrich.run(month)
    endpoint.script = None
    before, sent = outputs(tmp_path), len(endpoint.posts)
    write_day(tmp_path, 6)
    ended = command("retry", month, "--json")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert (summary["rows"], summary["requests"], len(endpoint.posts) - sent) == (ROWS, 1, 1)
    assert summary["partitions"] == counted(selected=6, processed=1, unchanged=4, pending=1)
    after = outputs(tmp_path)
    assert [name for name in after if after[name] != before[name]] == [f"{day(2)}/part-0.parquet"]
    nothing = json.loads(command("retry", month, "--json").out)
    assert nothing["reason"] == "nothing to do: 5 partitions unchanged, 1 never run"


def test_collect_writes_what_there_is_and_run_finishes_it(
    month: Path, command: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Unfinished partitions get rows that are `pending`; the next run makes them whole."""
    enrich.run(month, overrides=[f"budget.requests={ROWS + 1}", "limits.concurrency=1"])
    sent = len(endpoint.posts)
    ended = command("collect", month, "--json")
    summary = json.loads(ended.out)
    assert (summary["ok"], summary["pending"], len(endpoint.posts)) == (1, 4 * ROWS - 1, sent)
    assert Counter(row["s_status"] for row in rows_of(tmp_path / "out")) == {
        "ok": ROWS + 1,
        "pending": 4 * ROWS - 1,
    }
    assert json.loads(command("retry", month, "--json").out)["partitions"]["pending"] == 4
    assert enrich.run(month).requests == 4 * ROWS - 1
    one = command("collect", month, "-o", tmp_path / "all.parquet")
    assert one.code == 0, one.err
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 5 * ROWS


def test_limit_makes_a_part_that_the_next_run_completes(month: Path, tmp_path: Path) -> None:
    """--limit counts rows that are to be made; the partition it cuts is not finished, those after it are untouched."""
    first = enrich.run(month, limit=ROWS + 1)
    assert first.partitions == counted(selected=5, processed=1, pending=4)
    assert len(rows_of(tmp_path / "out")) == ROWS + 1
    second = enrich.run(month)
    assert (second.requests, second.partitions) == (
        4 * ROWS - 1,
        counted(selected=5, processed=4, unchanged=1),
    )


def test_the_commands_that_send_nothing_know_the_folder(month: Path, command: Callable[..., Ended]) -> None:
    """Plan counts what is to be made, check and status tell how many partitions there are."""
    enrich.run(month, partitions=[day(1), day(2)])
    assert json.loads(command("plan", month, "--json").out)["rows"] == 3 * ROWS
    check = command("check", month)
    assert check.code == 0, check.out
    assert "5 partitions of " in check.out
    assert "partitions  2 done, 3 new" in command("status", month).out
    assert json.loads(command("status", month, "--json").out)["partitions"] == {
        "done": 2,
        "changed": 0,
        "new": 3,
    }
    assert day(4).split("=")[1] in command("preview", month, "--partition", day(4), "-n", "1").out
    report = command("report", month)
    assert report.code == 0, report.err
    enrich.run(month)
    assert json.loads(command("plan", month, "--json").out)["rows"] == 0


def test_the_manifest_tells_what_a_partition_was_made_of(month: Path, tmp_path: Path) -> None:
    """Its rows, what they cost, and the input with its digest."""
    enrich.run(month)
    manifest = read_manifest(tmp_path / "out" / day(1) / "part-0.parquet")
    assert manifest is not None
    assert (manifest["rows"], manifest["statuses"]) == (ROWS, {"ok": ROWS})
    assert manifest["credits"] > 0
    (entry,) = manifest["unit"]["files"]
    assert entry["name"] == f"{day(1)}/a.parquet"
    assert len(entry["digest"]) == 32


def test_what_cannot_be_is_refused_before_anything_is_sent(
    month: Path, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Overlapping folders, two files that would make one, answers of their own for equal rows."""
    with pytest.raises(OutputError, match="lies in the input's folder"):
        enrich.run(month, output=str(tmp_path / "data" / "out") + "/")
    with pytest.raises(OutputError, match="lies in the output's folder"):
        enrich.run(month, output=str(tmp_path) + "/")
    with pytest.raises(ConfigError, match="dedupe"):
        enrich.run(month, overrides=["dedupe=false"])
    (tmp_path / "plain").mkdir()
    with pytest.raises(OutputError, match="end it with /"):
        enrich.run(month, output=str(tmp_path / "plain"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("x.csv", "x.tsv"):
        (flat / name).write_text("t\n1\n")
    with pytest.raises(InputError, match="would make one file"):
        enrich.run(month, input=str(flat), overrides=["input.format=csv", "steps.s.prompt={{ t }}"])
    assert endpoint.seen == []
