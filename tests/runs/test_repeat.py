"""A run that finds everything as the last finished run left it does nothing; whatever has changed goes the whole way."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import enrich
from enrich.runs import repeat
from tests.helpers.endpoint import KEY, BookedEndpoint, echo, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.records import Summary
    from tests.helpers.warm import Ended

ROWS = 12
LATER = "nothing has changed since"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every job goes to the endpoint that keeps books; a file counts as old enough at once."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    monkeypatch.setattr(repeat, "GRAIN", -60.0)
    monkeypatch.setattr(repeat, "COARSE_GRAIN", -60.0)


def rows_of(*changed: int) -> list[dict[str, Any]]:
    """Give rows, of which these have another text of the same length."""
    return [{"t": f"{'TEXT' if n in changed else 'text'} {n:02}", "n": n} for n in range(ROWS)]


@pytest.fixture
def done(job: Callable[..., Path]) -> Path:
    """Give a job that was run to its end: skipped rows, a second step, a report."""
    config = job(rows_of(), step={"when": "{{ n > 1 }}"}, report="report.html")
    told = yaml.safe_load(config.read_text())
    told["steps"].append({"name": "again", "prompt": "{{ t }} {{ s }}", "on_null": "skip"})
    config.write_text(yaml.safe_dump(told))
    assert enrich.run(config).exit_code == 0
    return config


def did_nothing(summary: Summary) -> bool:
    """Say whether a run found nothing to do."""
    return LATER in summary.reason


def change(config: Path, **keys: Any) -> None:
    """Change keys of the job, or of its first step."""
    told = yaml.safe_load(config.read_text())
    step = keys.pop("step", {})
    told.update(keys)
    told["steps"][0].update(step)
    config.write_text(yaml.safe_dump(told))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Tell the files of a folder from what they may become, those of the ledger aside."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir() if p.name != ".beatra"}


def test_a_repeat_does_nothing(done: Path, endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens no input and writes no file; its summary has every field, with the counts of the rows."""
    before, posts = state(done.parent), len(endpoint.posts)
    with monkeypatch.context() as patch:
        patch.setattr("enrich.runs.prepare.open_source", None)
        again = enrich.run(done)
    assert did_nothing(again)
    assert state(done.parent) == before
    assert len(endpoint.posts) == posts
    forced = enrich.run(done, force=True)
    assert not did_nothing(forced)
    assert state(done.parent) != before
    assert len(endpoint.posts) == posts
    told, expected = again.to_dict(), forced.to_dict()
    differing = {"reason", "seconds", "rows_per_second", "bound_by", "waste"}
    assert {key: told[key] for key in told.keys() - differing} == {
        key: expected[key] for key in expected.keys() - differing
    }
    assert (again.rows, again.statuses["ok"], again.statuses["skipped"]) == (ROWS, ROWS - 2, 2)
    assert did_nothing(enrich.run(done))


def test_the_command_line_says_so(done: Path, cli: Callable[..., Ended]) -> None:
    """In its closing line, with exit code 0; `--force` does it all the same."""
    env = {name: os.environ[name] for name in ("BEATRA_BASE_URL", "BEATRA_API_KEY")}
    enrich.run(done, force=True)
    quiet = cli("run", done, **env)
    assert quiet.code == 0
    assert f"{ROWS} rows done before, and {LATER}: 0 requests sent" in quiet.err
    forced = cli("run", done, "--force", **env)
    assert LATER not in forced.err


# --- whatever has changed goes the whole way -------------------------------------------------------------------


def rewritten(config: Path) -> dict[str, Any]:
    """The input, with another text of the same length; its times are kept."""
    path = config.parent / "in.parquet"
    before = path.stat()
    pq.write_table(pa.Table.from_pylist(rows_of(7)), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def in_place(config: Path) -> dict[str, Any]:
    """The input's bytes, changed within the same file."""
    path = config.parent / "in.parquet"
    before = path.stat()
    data = path.read_bytes().replace(b"text 07", b"text 77")
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def grown(config: Path) -> dict[str, Any]:
    """One row more."""
    pq.write_table(pa.Table.from_pylist([*rows_of(), {"t": "more", "n": 99}]), config.parent / "in.parquet")
    return {}


def output_replaced(config: Path) -> dict[str, Any]:
    """A copy in the output's place."""
    path = config.parent / "out.parquet"
    shutil.copy2(path, config.parent / "copy.parquet")
    (config.parent / "copy.parquet").rename(path)
    return {}


def output_spoilt(config: Path) -> dict[str, Any]:
    """A byte of the output changed in place, its times kept."""
    path = config.parent / "out.parquet"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(before.st_size // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def output_gone(config: Path) -> dict[str, Any]:
    """No output."""
    (config.parent / "out.parquet").unlink()
    return {}


def report_gone(config: Path) -> dict[str, Any]:
    """No report."""
    (config.parent / "report.html").unlink()
    return {}


def ledger_damaged(config: Path) -> dict[str, Any]:
    """A flipped bit in an answer: only its checksum tells."""
    path = config.parent / ".beatra" / "ledger.db"
    data = bytearray(path.read_bytes())
    data[data.rindex(b'"finish_reason"') + 1] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    return {}


def answer_gone(config: Path) -> dict[str, Any]:
    """An answer that a stranger took out of the ledger."""
    with contextlib.closing(sqlite3.connect(config.parent / ".beatra" / "ledger.db")) as con, con:
        con.execute("DELETE FROM answer WHERE id = 3")
    return {}


def note_damaged(config: Path) -> dict[str, Any]:
    """A changed note of the last run."""
    with contextlib.closing(sqlite3.connect(config.parent / ".beatra" / "ledger.db")) as con, con:
        con.execute("UPDATE memory SET value = replace(value, '10', '11') WHERE name LIKE 'finished:%'")
    return {}


def another_run(config: Path) -> dict[str, Any]:
    """A run of another job on the same ledger."""
    other = config.with_name("other.yaml")
    told = yaml.safe_load(config.read_text())
    told.update(output="other.parquet", report="other.html")
    other.write_text(yaml.safe_dump(told))
    enrich.run(other)
    return {}


def ledger_gone(config: Path) -> dict[str, Any]:
    """Another ledger, empty."""
    shutil.rmtree(config.parent / ".beatra")
    return {}


WAYS: dict[str, Callable[[Path], dict[str, Any]]] = {
    **{
        way.__name__: way
        for way in (rewritten, in_place, grown, output_replaced, output_spoilt, output_gone, report_gone)
    },
    **{way.__name__: way for way in (ledger_damaged, answer_gone, note_damaged, another_run, ledger_gone)},
    "a limit": lambda _: {"limit": 5},
    "fresh": lambda _: {"fresh": True},
    "force": lambda _: {"force": True},
    "another endpoint": lambda _: {"base_url": "sandbox"},
    "an override": lambda _: {"overrides": ["steps.s.temperature=0.5"]},
    "another output's form": lambda _: {"overrides": ["output.compression=gzip"]},
}


@pytest.mark.parametrize("way", [*WAYS, "a prompt", "a file's columns", "dedupe"])
def test_whatever_has_changed_goes_the_whole_way(done: Path, way: str, endpoint: BookedEndpoint) -> None:
    """Exit 0 and a whole output of the rows as they are now; afterwards that is the last finished run."""
    options: dict[str, Any] = {}
    if way in WAYS:
        options = WAYS[way](done)
    elif way == "a prompt":
        change(done, step={"prompt": "Of {{ t }}"})
    elif way == "dedupe":
        change(done, dedupe=False)
    else:
        change(done, input={"path": "in.parquet", "columns": ["n", "t"]})
    found = enrich.run(done, **{**options, "overrides": [*options.get("overrides", []), "max_reasked=100%"]})
    assert not did_nothing(found)
    assert (found.exit_code, found.statuses["ok"] + 2) == (0, found.rows)
    wrote = pq.read_table(done.parent / "out.parquet")
    assert wrote["t"].to_pylist() == pq.read_table(done.parent / "in.parquet")["t"].to_pylist()[: found.rows]
    if not found.sandbox:
        prompt = "Of {}" if way == "a prompt" else "{}"
        asked = [echo({"messages": [{"content": prompt.format(row["t"])}]}) for row in wrote.to_pylist()]
        assert wrote["s"].to_pylist() == [None, None, *asked[2:]]
    assert (done.parent / "report.html").exists()
    assert endpoint.conflicts == 0


def test_a_file_of_a_step_that_changes(job: Callable[..., Path], tmp_path: Path) -> None:
    """What a prompt's file and a schema's file say is a part of the job."""
    (tmp_path / "prompt.txt").write_text("First: {{ t }}")
    schema = '{"type": "object", "properties": {"label": {"type": "%s"}}, "required": ["label"]}'
    (tmp_path / "schema.json").write_text(schema % "string")
    config = job(
        step={"prompt": None, "prompt_file": "prompt.txt", "schema": "schema.json", "reask": 0}, tolerate=3
    )
    told = yaml.safe_load(config.read_text())
    del told["steps"][0]["prompt"]
    config.write_text(yaml.safe_dump(told))

    def endpoint_says() -> list[bool]:
        return [did_nothing(enrich.run(config)) for _ in range(2)]

    with pytest.MonkeyPatch.context() as patch, BookedEndpoint() as labels:
        labels.answer = lambda _: '{"label": "5"}'
        patch.setenv("BEATRA_BASE_URL", labels.base_url)
        assert endpoint_says() == [False, True]
        (tmp_path / "prompt.txt").write_text("Other: {{ t }}")
        assert endpoint_says() == [False, True]
        (tmp_path / "schema.json").write_text(schema % "integer")
        assert endpoint_says()[0] is False


def test_what_the_input_is_made_of(done: Path) -> None:
    """A glob that matches one file more is another input."""
    change(done, input="in*.parquet")
    assert [did_nothing(enrich.run(done)) for _ in range(2)] == [False, True]
    pq.write_table(pa.Table.from_pylist(rows_of(1)), done.parent / "in2.parquet")
    assert not did_nothing(enrich.run(done))


def test_an_environment_that_changes_the_request(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a configuration takes from it is a part of the job."""
    monkeypatch.setenv("MODEL_OF_TODAY", "fast-1")
    config = job(step={"model": "${MODEL_OF_TODAY}"})
    assert [did_nothing(enrich.run(config)) for _ in range(2)] == [False, True]
    monkeypatch.setenv("MODEL_OF_TODAY", "smart-1")
    assert [did_nothing(enrich.run(config)) for _ in range(2)] == [False, True]


def test_a_key_is_needed_as_ever(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the endpoint's settings is found, though nothing is to be sent."""
    monkeypatch.setenv("BEATRA_BASE_URL", "https://api.example/v1")
    monkeypatch.delenv("BEATRA_API_KEY")
    with pytest.raises(enrich.ConfigError, match="key"):
        enrich.run(done)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_text_files_are_not_read(done: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a run reads from end to end before its first request."""
    path = done.parent / f"in.{form}"
    lines = {
        "csv": ["t,n", *(f"{row['t']},{row['n']}" for row in rows_of())],
        "jsonl": [f'{{"t": "{row["t"]}", "n": {row["n"]}}}' for row in rows_of()],
    }
    path.write_text("\n".join(lines[form]) + "\n")
    change(done, input=path.name)
    assert not did_nothing(enrich.run(done))
    monkeypatch.setattr("enrich.runs.prepare.open_source", None)
    assert did_nothing(enrich.run(done))


# --- what is not kept ------------------------------------------------------------------------------------------


def test_rows_that_failed_are_asked_again(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """A failure may pass."""
    endpoint.script = lambda seen: envelope("internal_error", 500) if b"two" in seen.raw else None
    config = job(retry={"attempts": 1}, tolerate=3)
    assert [did_nothing(enrich.run(config)) for _ in range(2)] == [False, False]


def test_a_file_just_written_is_not_trusted(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second write within one tick of the file system's clock would not show."""
    monkeypatch.setattr(repeat, "GRAIN", 3600.0)
    monkeypatch.setattr(repeat, "COARSE_GRAIN", 3600.0)
    config = job()
    assert [did_nothing(enrich.run(config)) for _ in range(2)] == [False, False]


def test_a_stopped_run_leaves_no_word(done: Path, endpoint: BookedEndpoint) -> None:
    """A run of other rows that has to stop: the output stands, and the next run goes on."""
    pq.write_table(pa.Table.from_pylist(rows_of(3)), done.parent / "in.parquet")
    endpoint.script = lambda _: envelope("invalid_api_key", 401)
    assert enrich.run(done).exit_code == 4
    endpoint.script = None
    assert [did_nothing(enrich.run(done)) for _ in range(2)] == [False, True]


def test_large_files_are_sampled(tmp_path: Path) -> None:
    """The first and the last block count, and those between them as far apart as they are many."""
    path = tmp_path / "large"
    path.write_bytes(bytes(100 * repeat.BLOCK))
    digest = repeat._sampled(str(path), path.stat().st_size, 5)
    for place, shows in (
        (0, True),
        (100 * repeat.BLOCK - 1, True),
        (50 * repeat.BLOCK, True),
        (3 * repeat.BLOCK, False),
    ):
        data = bytearray(100 * repeat.BLOCK)
        data[place] = 1
        path.write_bytes(data)
        assert (repeat._sampled(str(path), len(data), 5) != digest) is shows, place
