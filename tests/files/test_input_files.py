"""Which files are the input, in which order, and what cannot be read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from enrich.errors import InputError
from tests.helpers.inputs import (
    refusal,
    rows,
    source,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_paths_expand_in_order(tmp_path: Path) -> None:
    """A list keeps its order; a folder and a glob are sorted; hidden and underscored names are left out."""
    for name in (
        "b/2.csv",
        "b/1.csv",
        "b/.hidden.csv",
        "b/_SUCCESS",
        "b/_temporary/3.csv",
        "b/.git/4.csv",
        "b/sub/5.csv",
        "a/6.csv",
    ):
        write(tmp_path / name, "a\n1\n")

    def names(path: str | list[str]) -> list[str]:
        return [os.path.relpath(file.path, tmp_path) for file in source(path).files]

    assert names(str(tmp_path)) == ["a/6.csv", "b/1.csv", "b/2.csv", "b/sub/5.csv"]
    assert names(f"{tmp_path}/*/[12].csv") == ["b/1.csv", "b/2.csv"]
    assert names(f"{tmp_path}/**/*.csv") == names(str(tmp_path)) == names(f"{tmp_path}/**")
    assert names([f"{tmp_path}/b/2.csv", f"{tmp_path}/a"]) == ["b/2.csv", "a/6.csv"]


def test_files_are_frozen(tmp_path: Path) -> None:
    """Each file is listed with its size, time and rows."""
    path = write(tmp_path / "a.csv", "a\n1\n")
    (file,) = source(path).files
    assert (file.path, file.size, file.mtime_ns, file.rows) == (str(path), 4, path.stat().st_mtime_ns, 1)


def test_literal_brackets(tmp_path: Path) -> None:
    """A file whose name looks like a glob is that file."""
    assert rows(source(write(tmp_path / "a[1].csv", "a\n1\n"))) == [{"a": 1}]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("revews.csv", r"no file .*revews\.csv\nHint: did you mean `reviews\.csv`\?"),
        ("none/a.csv", r"no file .*none/a\.csv"),
        ("*.parquet", r"no data file at .*\*\.parquet"),
        ("hollow", "no data file at .*hollow"),
        ("notes.txt", r"format of .*notes\.txt .*`\.txt` is not known\n.*input\.format"),
        ("plain", "it has no suffix"),
        ("mixed", r"mixes formats: .*1\.csv is csv, .*2\.jsonl is jsonl"),
        ("odd", r"format of .*README\.md"),
        ("pipe.csv", "not a regular file"),
    ],
)
def test_paths_that_cannot_be_read(tmp_path: Path, path: str, problem: str) -> None:
    """Whatever keeps a path from being read is an error that names it and says what to do."""
    for name in (
        "reviews.csv",
        "notes.txt",
        "plain",
        "mixed/1.csv",
        "mixed/2.jsonl",
        "odd/1.csv",
        "odd/README.md",
    ):
        write(tmp_path / name, "a\n1\n")
    write(tmp_path / "hollow" / "_SUCCESS", "")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=problem):
        source(tmp_path / path)


def test_no_paths() -> None:
    """An empty list is refused plainly."""
    assert "names no file" in refusal([]).message


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user whom permissions bind, also when the tests run as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_permissions(tmp_path: Path) -> None:
    """A file or a folder that may not be read is named, not skipped."""
    path = write(tmp_path / "in" / "sub" / "a.csv", "a\n1\n")
    write(tmp_path / "in" / "b.csv", "a\n1\n")
    for folder in (tmp_path, *(above for above in tmp_path.parents if "pytest-" in str(above))):
        folder.chmod(0o755)
    path.chmod(0)
    with as_nobody():
        assert f"{path} cannot be read: Permission denied" in refusal(path).message
    path.parent.chmod(0)
    with as_nobody():
        assert f"{path.parent} cannot be read: Permission denied" in refusal(tmp_path / "in").message
    path.parent.chmod(0o755)


def test_format_is_given(tmp_path: Path) -> None:
    """A given format overrules the suffix."""
    assert rows(source(write(tmp_path / "a.txt", "a\tb\n1\t2\n"), format="tsv")) == [{"a": 1, "b": 2}]
