"""Whole runs over objects: what a run over files gives, paid once, and never half an object.

It is long because one object store, which takes a while to start, serves all of it.
"""

from __future__ import annotations

import gzip
import io
import json
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from enrich.config import load_config, validate_config
from enrich.errors import ConfigError
from enrich.files.output_lock import hold_output
from enrich.files.sink import read_manifest
from tests.helpers.chaos import place
from tests.helpers.s3 import CREDENTIALS, S3, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended, Warm

ROWS = [{"n": number, "t": f"text {number}"} for number in range(40)]
PASSING = ("s_latency_ms", "s_request_id", "s_source")  # columns that differ from run to run


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    """An S3 server."""
    with S3() as server:
        yield server


@pytest.fixture
def s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, letting everything through; this process and its children know the key."""
    server.calm()
    for name, value in {**CREDENTIALS, "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def run(tmp_path: Path, warm: Warm, endpoint: BookedEndpoint, s3: S3) -> Callable[..., Ended]:
    """Write a job and run a command on it."""

    def run_(command: str = "run", *flags: str, env: dict[str, str] | None = None, **config: Any) -> Ended:
        if config:
            write_job(tmp_path, **config)
        there = place(endpoint) | CREDENTIALS | {"XDG_STATE_HOME": str(tmp_path / "state")} | (env or {})
        ended = warm.run(tmp_path, *command.split(), tmp_path / "job" / "config.yaml", *flags, env=there)
        assert SECRET not in ended.out + ended.err
        assert "Traceback" not in ended.err
        return ended

    return run_


def write_job(folder: Path, **config: Any) -> Path:
    """Write a job of one step."""
    document = {
        "steps": [{"name": "s", "prompt": "{{ t }}"}],
        "retry": {"max_wait": 0.02},
        **config,
    }
    path = folder / "job" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    """Write rows as Parquet."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """Write rows as CSV."""
    file = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Write rows as JSON Lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(content: bytes, suffix: str) -> pa.Table:
    """Read an output's bytes."""
    if suffix == "parquet":
        return pq.read_table(io.BytesIO(content))
    if suffix == "jsonl":
        return pa.Table.from_pylist([json.loads(line) for line in content.splitlines()])
    plain = gzip.decompress(content) if suffix.endswith("gz") else content
    return pyarrow.csv.read_csv(io.BytesIO(plain))


INPUTS = {
    "in.parquet": as_parquet(ROWS),
    "in.csv.gz": gzip.compress(as_csv(ROWS)),
    "in.jsonl": as_jsonl(ROWS),
}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("in.parquet", "csv.gz"),
        ("in.csv.gz", "parquet"),
        pytest.param("in.jsonl", "jsonl", marks=pytest.mark.slow),
        pytest.param("in.parquet", "csv", marks=pytest.mark.slow),
    ],
)
def test_objects_give_what_files_give(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint, tmp_path: Path, *, given: str, wanted: str
) -> None:
    """Input and output in a store: the same table as from files, every row charged once, a second run sends nothing."""
    key = f"same/{given}.{wanted}"
    url = s3.put(f"same/{given}", INPUTS[given])
    ended = run(input=url, output=s3.url(f"{key}/out.{wanted}"), report=s3.url(f"{key}/report.html"))
    assert ended.code == 0, ended.err
    sent = len(endpoint.posts)
    assert sent == len(ROWS)
    assert (tmp_path / "job" / ".beatra" / "ledger.db").exists()
    again = run("run", "--json")
    assert json.loads(again.out)["requests"] == 0
    (tmp_path / given).write_bytes(INPUTS[given])
    ended = run("run", "--input", str(tmp_path / given), "--output", str(tmp_path / f"out.{wanted}"))
    assert ended.code == 0, ended.err
    assert len(endpoint.posts) == sent
    there = read(s3.get(f"{key}/out.{wanted}"), wanted).drop_columns(list(PASSING))
    here = read((tmp_path / f"out.{wanted}").read_bytes(), wanted).drop_columns(list(PASSING))
    assert there.equals(here)
    assert b"text 39" in s3.get(f"{key}/report.html")
    told = read_manifest(s3.url(f"{key}/out.{wanted}"))
    assert told is not None
    assert told["rows"] == len(ROWS)
    assert SECRET not in json.dumps(told)
    kept = {f"{key}/out.{wanted}", f"{key}/report.html"}
    assert set(s3.keys(f"{key}/")) - kept <= {f"{key}/out.{wanted}.manifest.json"}


@pytest.mark.parametrize("pattern", ["tree/", "tree/*/*.csv"])
def test_folders_globs_and_partitions(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint, pattern: str
) -> None:
    """Objects in partition folders are read in order, their partitions become columns."""
    for day in (2, 1):
        s3.put(f"tree/day={day}/part.csv", as_csv(ROWS[day * 10 : day * 10 + 3]))
    s3.put("tree/_SUCCESS", b"")
    ended = run(input=s3.url(pattern), output=s3.url("trees/out.jsonl"))
    assert ended.code == 0, ended.err
    rows = read(s3.get("trees/out.jsonl"), "jsonl").to_pylist()
    assert [(row["n"], row["day"]) for row in rows] == [(10, 1), (11, 1), (12, 1), (20, 2), (21, 2), (22, 2)]
    assert len(endpoint.posts) == 6


@pytest.mark.parametrize("instant", ["PUT .*partNumber", "POST .*uploadId"])
def test_a_run_killed_while_it_uploads(
    run: Callable[..., Ended], warm: Warm, s3: S3, endpoint: BookedEndpoint, tmp_path: Path, *, instant: str
) -> None:
    """SIGKILL while the output is put in place: no object; the next run finishes, and pays nothing."""
    config = write_job(
        tmp_path, input=s3.put("kill/in.parquet", as_parquet(ROWS)), output=s3.url("killed/out.parquet")
    )
    s3.hang = f"{instant.partition(' ')[0]} .*killed/out.parquet.*{instant.rpartition('*')[2]}"
    there = place(endpoint) | CREDENTIALS | {"XDG_STATE_HOME": str(tmp_path / "state")}
    running = warm.start(tmp_path, "run", config, "-q", env=there)
    assert s3.hung.wait(60)
    running.signal(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert s3.keys("killed/") == []
    s3.calm()
    assert run().code == 0
    assert len(endpoint.posts) == len(ROWS)
    assert read(s3.get("killed/out.parquet"), "parquet").num_rows == len(ROWS)
    s3.ask("DELETE", "/lake/killed/out.parquet")
    assert [path.name for path in (tmp_path / "job" / ".beatra").iterdir() if path.suffix == ".tmp"] == []


def test_a_stopped_run_leaves_the_object_as_it_was(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint
) -> None:
    """A run that its budget stops leaves the old object; collect shows what there is."""
    s3.put("stop/out.csv", b"old")
    s3.put("stop/in.parquet", as_parquet(ROWS))
    ended = run(input=s3.url("stop/in.parquet"), output=s3.url("stop/out.csv"), budget={"requests": 5})
    assert ended.code == 4, ended.err
    assert s3.get("stop/out.csv") == b"old"
    assert run("collect", "-o", s3.url("stop/so-far.csv")).code == 0
    assert len(endpoint.posts) == 5
    assert s3.get("stop/so-far.csv").count(b"pending") == len(ROWS) - 5


def test_an_upload_that_fails_can_be_done_again(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint
) -> None:
    """When the store refuses the finished output, the run is resumable, and the next one only uploads."""
    url = s3.put("late/in.parquet", as_parquet(ROWS))
    s3.refuse = lambda how, path, _: (403, "AccessDenied") if how == "PUT" and "late/out" in path else None
    ended = run(input=url, output=s3.url("late/out.parquet"))
    assert (ended.code, s3.keys("late/")) == (4, ["late/in.parquet"])
    assert "access denied" in ended.err
    s3.calm()
    assert run().code == 0
    assert len(endpoint.posts) == len(ROWS)


def test_an_object_that_changes_during_a_run(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint
) -> None:
    """An input that is replaced between the two passes is noticed, though its length is the same."""
    url = s3.put("moving/in.csv", as_csv(ROWS))

    def replaced(body: dict[str, Any]) -> str:
        s3.put("moving/in.csv", as_csv(ROWS[::-1]))
        return "an answer"

    endpoint.answer = replaced
    ended = run(input=url, output=s3.url("moving/out.csv"))
    assert ended.code == 4
    assert "changed while it was being used" in ended.err
    assert s3.keys("moving/") == ["moving/in.csv"]
    assert json.loads(run("run", "--json").out)["ok"] == len(ROWS)


def test_a_folder_of_objects(run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint) -> None:
    """An output folder in a store gets one object a partition; the next run makes only that of the new day."""
    for day in (1, 2):
        s3.put(f"days/day={day}/x.csv", as_csv(ROWS[day * 10 : day * 10 + 3]))
    ended = run(input=s3.url("days"), output=s3.url("made/"))
    assert ended.code == 0, ended.err
    made = [key for key in s3.keys("made/") if key.endswith(".parquet")]
    assert [key.split("/")[1] for key in made] == ["day=1", "day=2"]
    s3.put("days/day=3/x.csv", as_csv(ROWS[30:33]))
    s3.seen.clear()
    assert run().code == 0
    assert len(endpoint.posts) == 9
    assert s3.counted("POST", "day=[12].*uploadId") == 0
    assert len([key for key in s3.keys("made/") if key.endswith(".parquet")]) == 3


# --- what stops a run before it sends anything -------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ({"bucket": "nowhere"}, "there is no bucket nowhere"),
        ({"status": (403, "AccessDenied")}, "access denied"),
        ({"status": (403, "InvalidAccessKeyId")}, "access denied"),
    ],
    ids=["no bucket", "no permission", "a wrong key"],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_what_cannot_work_is_found_before_anything_is_sent(
    run: Callable[..., Ended],
    s3: S3,
    endpoint: BookedEndpoint,
    *,
    side: str,
    where: dict[str, Any],
    problem: str,
) -> None:
    """A missing bucket, a missing permission and a wrong key end with code 2 and a hint."""
    good = s3.put("pre/in.parquet", as_parquet(ROWS))
    bad = s3.url("bad/x.parquet", bucket=where.get("bucket", "lake"))
    s3.refuse = lambda _, path, __: where.get("status") if "bad" in path else None
    paths = {"input": good, "output": s3.url("pre/out.parquet")} | {side: bad}
    ended = run(**paths)
    assert ended.code == 2
    assert problem in ended.err
    assert "Hint:" in ended.err
    assert endpoint.posts == []


def test_without_credentials_it_says_what_to_type(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Without any credential a private bucket's refusal names the variables to export."""
    s3.refuse = lambda _, __, headers: None if "authorization" in headers else (403, "AccessDenied")
    bare = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    url = s3.put("bare/in.parquet", as_parquet(ROWS))
    ended = run(input=url, output="out.parquet", env=bare)
    assert ended.code == 2
    assert "AWS_ACCESS_KEY_ID" in ended.err
    assert endpoint.posts == []


def test_check_tells_what_a_run_would_meet(run: Callable[..., Ended], s3: S3) -> None:
    """`check` finds an output that cannot be written."""
    s3.refuse = lambda how, path, _: (403, "AccessDenied") if how != "GET" and "shut" in path else None
    ended = run("check", input=s3.put("chk/in.parquet", as_parquet(ROWS)), output=s3.url("shut/out.parquet"))
    assert ended.code == 2
    assert "access denied" in ended.out


@pytest.mark.parametrize("output", ["over/in.parquet", "over/sub/out.parquet"])
def test_the_output_stays_apart_from_the_input(run: Callable[..., Ended], s3: S3, output: str) -> None:
    """An object of the input, or one below its folder, is refused as the output, however its URL is written."""
    s3.put("over/in.parquet", as_parquet(ROWS))
    given = "over/in.parquet" if output == "over/in.parquet" else "over"
    ended = run(input=s3.url(given), output=s3.url(output) + "&allow_bucket_creation=false")
    assert ended.code == 2
    assert "of the input" in ended.err or "the input's folder" in ended.err


def test_a_secret_in_the_configuration_is_refused(
    run: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """A URL with a key in it is refused, and not repeated."""
    for section in ("input", "output", "report"):
        paths = {"input": "in.parquet", "output": "out.parquet"} | {section: f"s3://AKIA:{SECRET}@lake/x"}
        ended = run(**paths)
        assert ended.code == 2
        assert "carries a credential" in ended.err


# --- locks and the ledger's place --------------------------------------------------------------------------


def test_two_runs_on_one_machine_do_not_share_an_object(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint
) -> None:
    """While a run of this user holds an object, another one ends with code 5; afterwards it goes ahead."""
    url = s3.url("held/out.parquet")
    with hold_output(url):
        ended = run(input=s3.put("held/in.parquet", as_parquet(ROWS)), output=url)
        assert ended.code == 5
        assert endpoint.posts == []
    assert run().code == 0


def test_where_the_ledger_of_an_object_lies(tmp_path: Path) -> None:
    """Beside the configuration file; beside the file's own output when a flag sends this run's to a store."""
    path = write_job(tmp_path, input="in.csv", output="s3://lake/out.csv")
    beside = str(tmp_path / "job" / ".beatra" / "ledger.db")
    assert load_config(path).ledger_location() == beside
    assert load_config(path, output="s3://other/x.csv").ledger_location() == beside
    assert load_config(path, output=str(tmp_path / "local.csv")).ledger_location() == beside
    path = write_job(tmp_path, input="in.csv", output="here/out.csv")
    beside = str(tmp_path / "job" / "here" / ".beatra" / "ledger.db")
    assert load_config(path, output="s3://lake/out.csv").ledger_location() == beside


def test_a_ledger_in_a_store_is_refused(run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint) -> None:
    """A ledger cannot be an object: exit code 2, with the way to a shared one."""
    url = s3.put("led/in.parquet", as_parquet(ROWS))
    ended = run(input=url, output=s3.url("led/out.parquet"), ledger="s3://lake/ledger.db")
    assert ended.code == 2
    assert "postgresql://" in ended.err
    assert endpoint.posts == []


# --- file URLs ---------------------------------------------------------------------------------------------


def test_other_commands_refuse_such_urls_too(run: Callable[..., Ended], tmp_path: Path) -> None:
    """`report -o` and `ledger export -o` name what cannot be written to, and do not repeat a secret."""
    assert (
        run(input="in.csv", output="out.csv", ledger=f"file://{tmp_path}/l.db").code == 2
    )  # there is no in.csv
    (tmp_path / "job" / "in.csv").write_bytes(as_csv(ROWS[:2]))
    assert run().code == 0
    for command in ("report", "ledger export"):
        ended = run(command, "-o", f"s3://AKIA:{SECRET}@lake/x.parquet")
        assert ended.code == 2, ended
        assert "carries a credential" in ended.err


def test_file_urls_are_paths(run: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """`file://` works for input, output, report and ledger, in the file and as a flag."""
    (tmp_path / "a b.csv").write_bytes(as_csv(ROWS[:3]))
    base = f"file://{tmp_path}"
    ended = run(
        input=f"{base}/a%20b.csv", output=f"{base}/o/out.csv", report=f"{base}/r.html", ledger=f"{base}/l.db"
    )
    assert ended.code == 0, ended.err
    assert {"l.db", "r.html"} <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "o" / "out.csv").exists()
    assert run("run", "--output", f"{base}/o/two.csv").code == 0
    assert (tmp_path / "o" / "two.csv").exists()
    assert len(endpoint.posts) == 3


def test_other_urls_are_no_places() -> None:
    """A web address is no place to read rows from."""
    job = {"steps": [{"name": "s", "prompt": "x"}], "output": "o.csv"}
    with pytest.raises(ConfigError, match="http:// is no place"):
        validate_config({**job, "input": "http://host/x.csv"})
    with pytest.raises(ConfigError, match="ftp:// is no place"):
        validate_config({**job, "input": ["a.csv", "ftp://host/x.csv"]})


@pytest.mark.parametrize("form", ["parquet", pytest.param("csv", marks=pytest.mark.slow)])
def test_a_partitioned_data_set_grows_day_by_day(
    run: Callable[..., Ended], s3: S3, endpoint: BookedEndpoint, form: str
) -> None:
    """Each partition is an object of its own: a new day sends and writes only itself, and nothing is read again."""
    root = f"grow-{form}"
    for day in (1, 2):
        s3.put(f"{root}/in/day={day}/a.parquet", as_parquet(ROWS[day * 10 : day * 10 + 3]))
    job = {"input": s3.url(f"{root}/in/"), "output": {"path": s3.url(f"{root}/out/"), "format": form}}
    assert run(**job).code == 0
    s3.put(f"{root}/in/day=3/a.parquet", as_parquet(ROWS[30:33]))
    before = {key: s3.get(key) for key in s3.keys(f"{root}/out/")}
    s3.seen.clear()
    ended = run("run", "--json")
    assert json.loads(ended.out)["partitions"]["processed"] == 1
    assert json.loads(ended.out)["requests"] == 3
    written = {path.partition("?")[0] for how, path in s3.seen if how in ("PUT", "POST", "DELETE")}
    assert all("/day=3/" in path or "/day%3D3/" in path for path in written), written
    assert {key: s3.get(key) for key in before} == before
    assert len([key for key in s3.keys(f"{root}/out/") if key.endswith(f"/part-0.{form}")]) == 3
    again = json.loads(run("run", "--json").out)
    assert (again["requests"], again["partitions"]["unchanged"]) == (0, 3)
    assert set(endpoint.charges_per_body.values()) == {1}


def test_a_kill_while_a_partition_uploads_leaves_the_old_one(
    run: Callable[..., Ended], warm: Warm, s3: S3, endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Every partition is the old object or the new one; what was paid for is not paid again."""
    for day in (1, 2):
        s3.put(f"swap/in/day={day}/a.parquet", as_parquet(ROWS[day * 10 : day * 10 + 3]))
    assert run(input=s3.url("swap/in/"), output=s3.url("swap/out/")).code == 0
    old = {key: s3.get(key) for key in s3.keys("swap/out/")}
    for day in (1, 2):
        s3.put(f"swap/in/day={day}/late.parquet", as_parquet(ROWS[day * 10 + 3 : day * 10 + 5]))
    s3.hang = r"POST .*day.*2/part-0\.parquet.*uploadId"
    there = place(endpoint) | CREDENTIALS | {"XDG_STATE_HOME": str(tmp_path / "state")}
    running = warm.start(tmp_path, "run", tmp_path / "job" / "config.yaml", "-q", env=there)
    assert s3.hung.wait(60)
    running.signal(signal.SIGKILL)
    running.wait()
    s3.calm()
    assert s3.get("swap/out/day=2/part-0.parquet") == old["swap/out/day=2/part-0.parquet"]
    assert run().code == 0
    assert [read(s3.get(key), "parquet").num_rows for key in old] == [5, 5]
    assert set(endpoint.charges_per_body.values()) == {1}
