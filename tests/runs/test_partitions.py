"""Which input files make which output file, and which of these are to be made anew."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.base.location import child, without_slash
from enrich.config import OutputConfig
from enrich.errors import InputError
from enrich.files.input_files import HIVE_NULL, SourceFile, choose_partitions, find_files
from enrich.files.sink import open_sink
from enrich.runs.partitions import (
    Made,
    Unit,
    describe,
    digest,
    find_units,
    keep_known,
    left_over,
    look,
    read_known,
)

MADE = Made("job", 0)
SCHEMA = pa.schema([("t", pa.string())])
values = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x7f"), min_size=1, max_size=12
).filter(lambda text: len(quote(text, safe="")) < 200)
stems = st.from_regex(r"[a-z0-9][a-z0-9 =%&+ü-]{0,8}", fullmatch=True).filter(lambda text: "=" not in text)
layouts = st.dictionaries(
    st.tuples(st.none() | values, st.integers(0, 2)),
    st.sets(stems, min_size=1, max_size=3),
    min_size=1,
    max_size=5,
)


def folder_of(value: str | None) -> str:
    """Spell a partition's value as Hive does."""
    return HIVE_NULL if value is None else quote(value, safe="")


def plant(root: Path, layout: dict[tuple[str | None, int], set[str]]) -> dict[str, set[Path]]:
    """Make a data set of two keys; gives the files by their partition's folder."""
    made: dict[str, set[Path]] = {}
    for (value, number), names in layout.items():
        folder = f"key={folder_of(value)}/n={number}"
        for name in names:
            path = root / folder / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"t\n{folder} {name}\n", encoding="utf-8")
            made.setdefault(folder, set()).add(path)
    return made


def put(unit: Unit) -> None:
    """Put a unit's output in place, empty."""
    with open_sink(unit.output, SCHEMA) as sink:
        sink.commit({"statuses": {"ok": 1}, "unit": describe(unit, MADE, whole=True)})


@settings(max_examples=40)
@given(layout=layouts, data=st.data())
def test_every_layout_is_mirrored_and_only_changes_are_seen(
    layout: dict[tuple[str | None, int], set[str]], data: st.DataObject
) -> None:
    """Each partition folder is one unit at the same path; after a change, just the changed ones are made anew."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "data"), Path(folder, "out")
        made = plant(root, layout)
        output = OutputConfig(path=str(out), partitioned=True)
        units = find_units(find_files(str(root)), output)
        assert [file for unit in units for file in unit.files] == find_files(str(root))
        assert {unit.name: {Path(file.path) for file in unit.files} for unit in units} == made
        assert {unit.output.path for unit in units} == {str(out / name / "part-0.parquet") for name in made}
        assert {standing.state for standing in look(units, MADE)} == {"new"}
        for unit in units:
            put(unit)
        assert {standing.state for standing in look(units, MADE)} == {"done"}
        changed = data.draw(st.sets(st.sampled_from(sorted(made))))
        for name in changed:
            path = data.draw(st.sampled_from(sorted(made[name])))
            how = data.draw(st.sampled_from(["more", "other", "added"]))
            if how == "more":
                path.write_bytes(path.read_bytes() + b"more\n")
            elif how == "other":
                path.write_bytes(path.read_bytes()[:-1] + b"!")
            else:
                path.with_name("zz.csv").write_text("t\nnew\n")
        again = look(find_units(find_files(str(root)), output), MADE)
        assert {standing.unit.name for standing in again if standing.state == "changed"} == changed
        assert left_over(units, output) == []


@settings(max_examples=40)
@given(layout=layouts)
def test_a_partition_is_chosen_by_its_value_or_by_its_folder(
    layout: dict[tuple[str | None, int], set[str]],
) -> None:
    """Whatever characters a value has, `key=value` names exactly its files, in both spellings."""
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), layout)
        files = find_files(folder)
        for value, number in layout:
            expected = [f for f in files if dict(f.partition) == {"key": value, "n": str(number)}]
            for spelling in {folder_of(value), folder_of(value) if value is None else value}:
                chosen = choose_partitions(files, [f"key={spelling}", f"n={number}"])
                assert set(expected) <= set(chosen)
                others = {dict(f.partition)["key"] for f in chosen} - {value}
                assert all(folder_of(other) == spelling or other == spelling for other in others)


def flat(*names: str) -> list[SourceFile]:
    """Make files without partitions."""
    return [SourceFile(f"/data/{name}", 1, 1, below=name) for name in names]


def test_a_flat_folder_has_a_unit_for_each_file() -> None:
    """At the same relative path, under the suffix of the output's format."""
    files = flat("a.csv", "b.csv.gz", "sub/c.v1.csv", "plain")
    units = find_units(files, OutputConfig(path="s3://bucket/out/", format="jsonl"))
    assert [unit.output.path for unit in units] == [
        f"s3://bucket/out/{name}.jsonl" for name in ("a", "b", "sub/c.v1", "plain")
    ]


@pytest.mark.parametrize("names", [("a.csv", "a.csv.gz"), ("a.csv", "a.tsv")])
def test_two_files_do_not_make_one(names: tuple[str, str]) -> None:
    """Neither would be told from the other."""
    with pytest.raises(InputError, match=r"/data/a\.\w+(\.gz)? and /data/a\.\w+ would make one file"):
        find_units(flat(*names), OutputConfig(path="out/"))


@pytest.mark.parametrize(
    ("manifest", "state"),
    [
        ({}, "done"),
        ({"job": "another"}, "changed"),
        ({"fresh": 1}, "done"),
        ({"whole": False}, "changed"),
        ({"files": []}, "changed"),
    ],
)
def test_what_the_manifest_says_decides(tmp_path: Path, manifest: dict[str, object], state: str) -> None:
    """Another job, a part, other files: made anew; more generations than the ledger knows: left alone."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("t\n1\n")
    (unit,) = find_units(find_files(str(tmp_path / "in")), OutputConfig(path=f"{tmp_path}/out/"))
    with open_sink(unit.output, SCHEMA) as sink:
        sink.commit({"unit": describe(unit, MADE, whole=True) | manifest})
    (standing,) = look([unit], MADE)
    assert standing.state == state
    (later,) = look([unit], Made("job", 2))
    assert later.state == "changed"


def test_a_file_that_changes_while_it_is_used_is_no_basis(tmp_path: Path) -> None:
    """The manifest never holds the digest of other bytes than those that were read."""
    path = tmp_path / "a.csv"
    path.write_text("t\n1\n")
    (unit,) = find_units(find_files(str(path)), OutputConfig(path=f"{tmp_path}/out/"))
    path.write_text("t\n1\n2\n")
    with pytest.raises(InputError, match="changed while it was being used"):
        describe(unit, MADE, whole=True)


def test_bytes_that_nobody_knows_were_read_are_no_basis_either(tmp_path: Path) -> None:
    """A file written anew while it was used, with its size and time kept, is noticed; the next run makes its output."""
    path = tmp_path / "a.csv"
    path.write_text("t\n1\n")
    past = time.time_ns() - 60_000_000_000
    os.utime(path, ns=(past, past))
    (unit,) = find_units(find_files(str(path)), OutputConfig(path=f"{tmp_path}/out/"))
    path.write_text("t\n2\n")
    os.utime(path, ns=(past, past))
    with pytest.raises(InputError, match="changed while it was being used"):
        put(unit)
    (again,) = find_units(find_files(str(path)), unit.output.model_copy(update={"path": f"{tmp_path}/out"}))
    put(again)
    assert look([again], MADE)[0].state == "done"


def test_a_digest_tells_bytes_apart(tmp_path: Path) -> None:
    """It is that of the bytes; of an object, its version."""
    for name, text in (("a", "t\n1\n"), ("b", "t\n1\n"), ("c", "t\n2\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    one, same, other = map(digest, find_files(str(tmp_path)))
    assert one == same != other
    assert digest(SourceFile("s3://bucket/a.csv", 1, 1, version='"etag"')) == '"etag"'


def test_column_types_are_kept_hidden_in_the_folder(tmp_path: Path) -> None:
    """What later runs need to know is no file of the data set."""
    output = OutputConfig(path=f"{tmp_path}/out/")
    assert read_known(output) is None
    keep_known(output, SCHEMA)
    assert read_known(output) == SCHEMA
    assert left_over([], output) == []
    (tmp_path / "out" / ".beatra-columns").write_bytes(b"torn")
    assert read_known(output) is None


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        ("out/", "out"),
        ("out", "out"),
        ("s3://b/out/", "s3://b/out"),
        ("s3://b/out/?region=x", "s3://b/out?region=x"),
        ("s3://b/out", "s3://b/out"),
    ],
)
def test_a_slash_at_the_end_makes_a_folder(path: str, bare: str) -> None:
    """The path is kept without it, also where a URL has options behind it."""
    config = OutputConfig(path=path)
    assert config.partitioned == (path != bare)
    assert config.path == bare == without_slash(path)
    assert OutputConfig(**config.model_dump()) == config
    assert child("s3://b/out?region=x", "a/b") == "s3://b/out/a/b?region=x"
