"""Any column of any type through whole jobs, from files and from data frames: refused before anything is sent, or carried out."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import enrich
import enrich.pandas
import enrich.polars
from enrich.errors import UsageError
from tests.files.test_any_table import FORMATS, store
from tests.helpers.arrow import arrays
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPTS = (
    "{{ id }}",
    "{{ c }}",
    "{{ c | tojson }}",
    "{{ row }}",
    "{{ row['c' | lower] }}",
    "{% for k, v in row.items() %}{{ k }}={{ v }}{% endfor %}",
    "{{ id }} {% if c > 1 %}{{ c ~ '' }}{% endif %}",
    "{{ id }} {{ c | length }} {{ c[0] }}",
    "{{ id }} {{ c == '2026-11-22' }} {{ [c] | unique | list }}",
)
FURTHER: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"when": "{{ c }}"},
    {"on_null": "render"},
    {"on_null": "skip"},
    {"params": {"metadata": {"of": "{{ c }}"}}},
    {"prompt_text": 1},
)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever asks has the key, and keeps what is paid for out of the user's cache."""
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def books() -> Iterator[BookedEndpoint]:
    """One endpoint for all jobs."""
    with BookedEndpoint() as running:
        yield running


def rows_in(path: Path) -> int:
    """Count the rows of an output, as readers of its format see them."""
    if path.suffix == ".parquet":
        return pq.read_table(path).num_rows
    if path.suffix == ".arrow":
        with pa.ipc.open_file(path.read_bytes()) as reader:
            return reader.read_all().num_rows
    if path.suffix == ".jsonl":
        return path.read_bytes().decode().count("\n")
    text = pa_csv.ParseOptions(newlines_in_values=True)
    return pa_csv.read_csv(path, parse_options=text).num_rows


def try_job(
    column: pa.Array[Any], stored: str, suffix: str, step: dict[str, Any], books: BookedEndpoint
) -> None:
    """Run a job over a file with this column, collect it in another format, and run it again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        if store(folder / "in", [column], stored) is None:
            return
        job = {
            "input": str(folder / "in"),
            "output": str(folder / f"out.{suffix}"),
            "endpoint": {"base_url": books.base_url},
            "retry": {"attempts": 1},
            "steps": [{"name": "s", **step}],
        }
        sent = len(books.posts)
        try:
            summary = enrich.run(job)
        except UsageError:
            assert len(books.posts) == sent
            return
        assert summary.exit_code in (0, 3), summary.reason
        assert sum(summary.statuses.values()) == summary.rows == len(column)
        assert rows_in(folder / f"out.{suffix}") == len(column)
        paid = len(books.posts)
        again = enrich.collect(job, output=str(folder / f"again.{suffix}"))
        assert rows_in(folder / f"again.{suffix}") == len(column)
        assert again.statuses == summary.statuses
        for other in FORMATS:
            with contextlib.suppress(UsageError):  # what one format has no word for, another may have
                enrich.collect(job, output=str(folder / f"other.{other}"))
                assert rows_in(folder / f"other.{other}") == len(column)
        enrich.run(job, force=True)
        assert len(books.posts) == paid


def frames_of(column: pa.Array[Any]) -> Iterator[Any]:
    """Give a column as data frames, in every way that their libraries take it."""
    table = pa.table({"id": range(len(column)), "c": column})
    ways: list[Callable[[], Any]] = [
        table.to_pandas,
        lambda: table.to_pandas(types_mapper=pd.ArrowDtype),
        lambda: pd.DataFrame({"id": range(len(column)), "c": pd.Series(column.to_pylist(), dtype=object)}),
        lambda: pl.from_arrow(table),
        lambda: pl.DataFrame({"id": range(len(column)), "c": pl.Series(column.to_pylist(), dtype=pl.Object)}),
    ]
    for way in ways:
        try:
            frame = way()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            continue  # theirs, and no frame of anybody's
        yield frame


def try_frames(column: pa.Array[Any], step: dict[str, Any], books: BookedEndpoint) -> None:
    """Ask about the rows of every frame that there is of a column."""
    for frame in frames_of(column):
        asked = len(books.posts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                out = frame.beatra.complete(**step, base_url=books.base_url)
            except UsageError:
                assert len(books.posts) == asked
                continue
        assert len(out) == len(column)
        assert set(out["answer_status"]) <= {"ok", "error", "skipped"}
        kept = out[["id", "c"]] if isinstance(out, pd.DataFrame) else out.select("id", "c")
        assert list(kept.columns) == ["id", "c"]
        assert len(set(map(str, kept.dtypes)) ^ set(map(str, frame.dtypes))) == 0


STEPS = st.builds(
    lambda prompt, more: {"prompt": prompt, **more}, st.sampled_from(PROMPTS), st.sampled_from(FURTHER)
)
STORED = st.sampled_from(["parquet", "arrow"])


@settings(max_examples=15, deadline=None)
@given(column=arrays(), stored=STORED, suffix=st.sampled_from(FORMATS), step=STEPS)
def test_a_job_is_refused_or_carried_out(
    books: BookedEndpoint, column: pa.Array[Any], stored: str, suffix: str, step: dict[str, Any]
) -> None:
    """Nothing is sent where it is refused; where it is not, the output is there, and so is a collected one."""
    try_job(column, stored, suffix, step, books)


@settings(max_examples=15, deadline=None)
@given(column=arrays(), step=STEPS)
def test_a_frame_is_refused_or_carried_out(
    books: BookedEndpoint, column: pa.Array[Any], step: dict[str, Any]
) -> None:
    """The same of the frames of pandas and Polars, whose own columns stay as they are."""
    try_frames(column, step, books)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1500, deadline=None)
@given(column=arrays(depth=3), stored=STORED, suffix=st.sampled_from(FORMATS), step=STEPS)
def test_a_job_is_refused_or_carried_out_at_length(
    books: BookedEndpoint, column: pa.Array[Any], stored: str, suffix: str, step: dict[str, Any]
) -> None:
    """The same, over many more columns."""
    try_job(column, stored, suffix, step, books)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1500, deadline=None)
@given(column=arrays(depth=3), step=STEPS)
def test_a_frame_is_refused_or_carried_out_at_length(
    books: BookedEndpoint, column: pa.Array[Any], step: dict[str, Any]
) -> None:
    """The same, over many more columns."""
    try_frames(column, step, books)
