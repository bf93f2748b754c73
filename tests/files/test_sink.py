"""An output is put in place whole or not at all."""

from __future__ import annotations

import io
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import DiskFull, EnrichError, OutputError
from enrich.files.sink import open_sink, preflight, read_manifest
from tests.helpers.outputs import (
    FORMATS,
    MANIFEST,
    batch,
    files,
    output,
    python,
    texts,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERY = [*FORMATS, "xlsx"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def write_and_fail(path: Path) -> None:
    """Meet an error while a sink is open."""
    with open_sink(output(path), texts().schema) as sink:
        sink.write(texts("new"))
        raise ZeroDivisionError


@pytest.mark.parametrize("suffix", EVERY)
def test_without_a_commit_the_target_is_untouched(out: Path, suffix: str) -> None:
    """An error inside the block, or none but no commit, leaves the old output and nothing beside it."""
    path = out / f"x.{suffix}"
    write(output(path), texts("old"))
    before = files(out)
    with pytest.raises(ZeroDivisionError):
        write_and_fail(path)
    with open_sink(output(path), texts().schema) as sink:
        sink.write(texts("new"))
    assert files(out) == before


def test_a_batch_of_another_schema_is_refused(out: Path) -> None:
    """A batch that does not fit is a defect, and no part of it is written."""
    with (
        open_sink(output(out / "x.csv"), texts().schema) as sink,
        pytest.raises(EnrichError, match="another schema"),
    ):
        sink.write(batch(pa.array([1])))


WRITE_FOREVER = """
import sys, pyarrow as pa
from enrich.config import OutputConfig
from enrich.files.sink import open_sink
batch = pa.record_batch([pa.array(["x" * 1000] * 1000)], names=["text"])
with open_sink(OutputConfig(path=sys.argv[1], row_group_rows=1000), batch.schema) as sink:
    for _ in range(5):
        sink.write(batch)
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("suffix", EVERY)
def test_a_killed_run_leaves_the_old_output(out: Path, suffix: str) -> None:
    """A run killed while writing leaves the old output; the next one clears up after it, but not after the living."""
    path = out / f"x.{suffix}"
    write(output(path), texts("old"))
    before = files(out)
    dead, living = python(WRITE_FOREVER, str(path)), python(WRITE_FOREVER, str(path))
    for process in (dead, living):
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            if process is dead:
                process.kill()
                process.wait()
                assert {name: (out / name).read_bytes() for name in before} == before
                assert len(list(out.glob(".*.tmp"))) >= 1
                continue
            write(output(path), texts("new"))
            assert len(list(out.glob(".*.tmp"))) == 1
            process.kill()
    write(output(path), texts("newer"))
    assert files(out).keys() == before.keys()


def test_permissions_and_links_are_kept(out: Path) -> None:
    """A replaced output keeps its permissions, and a symbolic link keeps pointing at it."""
    out.mkdir()
    real, link = out / "real.csv", out / "link.csv"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(output(link), texts("new"))
    assert link.is_symlink()
    assert real.read_text() == '"text"\n"new"\n'
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("suffix", EVERY)
def test_a_full_disk_stops_the_run(small_disk: Path, suffix: str) -> None:
    """No room left while writing is DiskFull; the old output stays and the room is given back."""
    path = small_disk / f"x.{suffix}"
    write(output(path), texts("old"))
    before = files(small_disk)
    noise = batch(pa.array([os.urandom(1_000) for _ in range(100)]))
    with pytest.raises(DiskFull, match="no room left") as caught:
        write(output(path, row_group_rows=100), *[noise] * 100)
    assert caught.value.exit_code == 4
    assert files(small_disk) == before


@pytest.mark.parametrize("suffix", EVERY)
def test_a_disk_that_fills_at_the_commit(small_disk: Path, suffix: str) -> None:
    """What does not fit at the very end is DiskFull too, and the old output stays."""
    path = small_disk / f"x.{suffix}"
    write(output(path), texts("old"))
    before = path.read_bytes()
    (small_disk / "filler").write_bytes(bytes(700_000))
    noise = batch(pa.array([os.urandom(1_000) for _ in range(600)]))
    with pytest.raises(DiskFull):
        write(output(path), noise)
    assert path.read_bytes() == before
    assert not list(small_disk.glob(".*"))


@pytest.mark.parametrize("suffix", EVERY)
def test_preflight_leaves_nothing_behind(out: Path, suffix: str) -> None:
    """A writable place passes, also one whose folders are missing, and not even an empty folder is left."""
    before = list(out.parent.rglob("*"))
    preflight(output(out / "a" / "b" / f"x.{suffix}"), texts().schema)
    assert list(out.parent.rglob("*")) == before


def test_preflight_finds_a_read_only_file_system(small_disk: Path) -> None:
    """A file system mounted read-only is found before anything is spent."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="read-only") as caught:
        preflight(output(small_disk / "x.csv"), texts().schema)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_preflight_finds_a_full_disk(small_disk: Path) -> None:
    """A disk without room for even a small file is found before anything is spent."""
    with (small_disk / "filler").open("wb") as file, pytest.raises(OSError, match="space"):
        file.write(bytes(2 << 20))
    with pytest.raises(OutputError, match="no space") as caught:
        preflight(output(small_disk / "x.csv"), texts().schema)
    assert caught.value.hint == "free some disk space."


def test_preflight_finds_a_path_through_a_file(tmp_path: Path) -> None:
    """A file where a folder should be is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/x\.csv cannot be written"):
        preflight(output(tmp_path / "file" / "x.csv"), texts().schema)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("", {"format": "csv"}, "is a folder"),
        ("/dev/null", {"format": "csv"}, "device or pipe"),
        ("x.xls", {}, "no suffix that tells its format"),
        ("x", {}, "no suffix that tells its format"),
        ("x.parquet", {"compression": "zst"}, "compression is `zst`"),
        ("n" * 250 + ".csv", {}, "name too long"),
    ],
)
def test_preflight_refuses(tmp_path: Path, path: str, options: dict[str, Any], message: str) -> None:
    """A folder, a device, an unknown suffix or codec, or too long a name is refused, with a hint."""
    with pytest.raises(OutputError, match=message) as caught:
        preflight(output(tmp_path / path, **options), texts().schema)
    assert caught.value.hint


def test_preflight_names_the_column_that_a_format_cannot_hold(out: Path) -> None:
    """A type that Parquet does not know is found, by column, before anything is spent."""
    schema = batch(pa.array([1]), pa.array([None], pa.month_day_nano_interval()), names=["a", "when"]).schema
    with pytest.raises(
        OutputError, match=r"`when` of type month_day_nano_interval cannot be written as parquet"
    ):
        preflight(output(out / "x.parquet"), schema)
    preflight(output(out / "x.jsonl"), schema)


def test_the_format_can_be_named(out: Path) -> None:
    """A configured format counts more than the suffix."""
    write(output(out / "x.data", format="parquet"), texts("a"))
    assert pq.read_table(out / "x.data").to_pylist() == [{"text": "a"}]
    assert read_manifest(out / "x.data") == MANIFEST


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 broken PAR1", b"ARROW1", b"a,b\n"])
def test_a_file_without_a_manifest_has_none(tmp_path: Path, content: bytes) -> None:
    """A file that no run made, or a damaged one, has no manifest."""
    (tmp_path / "x").write_bytes(content)
    assert read_manifest(tmp_path / "x") is None
    assert read_manifest(tmp_path / "missing") is None


def test_foreign_files_have_no_manifest(tmp_path: Path) -> None:
    """Parquet and Arrow files of other programs have no manifest."""
    table = pa.table({"a": [1]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    buffer = io.BytesIO()
    pa.ipc.new_file(buffer, table.schema).close()
    (tmp_path / "empty.arrow").write_bytes(buffer.getvalue())
    (tmp_path / "x.csv.manifest.json").write_text("[1]")
    (tmp_path / "x.csv").write_text("a\n")
    assert [read_manifest(path) for path in sorted(tmp_path.iterdir())] == [None] * 5
