"""Tables that other programs wrote go in, and come out as these programs read them."""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import enrich
from enrich.errors import UsageError
from tests.helpers.arrow import arrays
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.warm import Warm

DATA = Path(__file__).parent.parent / "data"
FORMATS = ("parquet", "arrow", "csv", "jsonl")
RUNS = itertools.count()
HELLO = {"prompt": "hello {{ review }}"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    """Every run in this module goes to the endpoint that keeps books."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["damaged", "duckdb_array", "encrypted"])
def test_nothing_is_sent_for_what_cannot_be_written(
    endpoint: BookedEndpoint, job: Callable[..., Path], name: str, suffix: str
) -> None:
    """A column that opens and does not decode ends a run before its first request; without it the run goes through."""
    path = str(DATA / f"{name}.parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        enrich.run(job(input=path, output=f"out.{suffix}", step=HELLO))
    assert not endpoint.posts
    narrowed = {"path": path, "columns": ["id", "review"]}
    assert enrich.run(job(input=narrowed, output=f"out.{suffix}", step=HELLO)).exit_code == 0


def test_int96_timestamps(job: Callable[..., Path], tmp_path: Path) -> None:
    """Spark's timestamps come out as microseconds, the year 9999 included."""
    enrich.run(job(input=str(DATA / "spark_int96.parquet"), step=HELLO))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("at").type == pa.timestamp("us")
    assert table["at"].to_pylist()[1] == dt.datetime(9999, 12, 31, 1, 2, 3, 456789)  # noqa: DTZ001
    assert pq.ParquetFile(tmp_path / "out.parquet").schema.column(2).physical_type == "INT64"


@pytest.mark.parametrize("suffix", FORMATS)
def test_categories_of_polars(job: Callable[..., Path], tmp_path: Path, suffix: str) -> None:
    """Categories that are views of text come out in every format, and as Polars' own types where it has them."""
    enrich.run(job(input=str(DATA / "polars_categories.arrow"), output=f"out.{suffix}", step=HELLO))
    out = str(tmp_path / f"out.{suffix}")
    read: dict[str, Any] = {
        "parquet": pl.read_parquet,
        "arrow": pl.read_ipc,
        "csv": pl.read_csv,
        "jsonl": pl.read_ndjson,
    }
    frame = read[suffix](out)
    assert frame["cat"].to_list() == frame["enum"].to_list() == ["good", "bad", "good"]
    if suffix in ("parquet", "arrow"):
        assert frame.schema["enum"] == pl.Enum(["good", "bad"])


@pytest.mark.parametrize("files", ["*.feather", "*.parquet"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_categories_of_many_files(job: Callable[..., Path], tmp_path: Path, suffix: str, files: str) -> None:
    """Categoricals that grow from file to file come out; in an Arrow file in one piece, as Polars wants them."""
    enrich.run(job(input=str(DATA / "pandas_days" / files), output=f"out.{suffix}", step=HELLO))
    wanted = [f"product {day} {number}" for day in range(3) for number in range(100)]
    if suffix == "arrow":
        assert pl.read_ipc(tmp_path / "out.arrow")["product"].to_list() == wanted
        with pa.ipc.open_file(str(tmp_path / "out.arrow")) as reader:
            product: Any = reader.get_batch(0).column("product")
            assert len(product.dictionary) == 300
            assert reader.read_all()["product"].to_pylist() == wanted
    elif suffix == "parquet":
        assert pq.read_table(tmp_path / "out.parquet")["product"].to_pylist() == wanted


@pytest.mark.parametrize("name", ["polars_int128.arrow", "polars_int128.parquet"])
def test_integers_of_128_bits(job: Callable[..., Path], name: str) -> None:
    """What Arrow cannot read at all is refused with the cast that helps."""
    with pytest.raises(UsageError, match="more than 64 bits") as caught:
        enrich.run(job(input=str(DATA / name), step=HELLO))
    assert "pl.String" in caught.value.hint


@pytest.mark.parametrize("suffix", FORMATS)
def test_infinities(job: Callable[..., Path], tmp_path: Path, suffix: str) -> None:
    """Dates that DuckDB and PostgreSQL know and Python does not come out in every format."""
    enrich.run(job(input=str(DATA / "duckdb_infinity.parquet"), output=f"out.{suffix}", step=HELLO))
    found: list[Any] = []
    if suffix == "jsonl":
        found = [json.loads(line)["day"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    elif suffix == "csv":
        with (tmp_path / "out.csv").open(newline="") as file:
            found = [row["day"] for row in csv.DictReader(file)]
    if found:
        assert found == ["infinity", "-infinity", "2026-11-22", "10000-01-01", found[4]]
        assert found[4].endswith("-03-15")


def test_types_that_lose_their_meaning_are_told(
    job: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a TIME WITH TIME ZONE, an INTERVAL and a VARIANT only what is stored comes through: said before anything is sent."""
    with caplog.at_level("WARNING", "enrich"):
        enrich.run(job(input=str(DATA / "duckdb_types.parquet"), step=HELLO))
        enrich.run(job(input=str(DATA / "duckdb_variant.parquet"), step=HELLO))
    for said in ("`t` is a TIME WITH TIME ZONE", "`i` is an INTERVAL", "`v` is a VARIANT"):
        assert said in caplog.text


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "name",
    ["duckdb_infinity.parquet", "duckdb_types.parquet", "polars_categories.arrow", "pandas_days/*.feather"],
)
def test_what_is_paid_for_can_be_collected(
    endpoint: BookedEndpoint, job: Callable[..., Path], warm: Warm, name: str, suffix: str
) -> None:
    """A run that stops halfway leaves an output to be had, whatever the columns are that no template uses."""
    config = job(
        input=str(DATA / name),
        output=f"out.{suffix}",
        step={"prompt": "{{ review }}"},
        budget={"requests": 1},
    )
    stopped = enrich.run(config)
    assert stopped.exit_code in (0, 4)
    assert len(endpoint.posts) == 1
    ended = warm.run(config.parent, "collect", config.name, "-o", f"so-far.{suffix}")
    assert ended.code == 0, ended.err
    assert (config.parent / f"so-far.{suffix}").stat().st_size
    assert len(endpoint.posts) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=arrays(), suffix=st.sampled_from(FORMATS))
def test_a_run_over_any_column(
    endpoint: BookedEndpoint, job: Callable[..., Path], tmp_path: Path, column: pa.Array[Any], suffix: str
) -> None:
    """Beside a column of any type and any values a run ends well, or is refused before it sends anything."""
    config = job(input="any.arrow", output=f"out.{suffix}", step={"prompt": "row {{ id }} of {{ run }}"})
    number = next(RUNS)
    table = pa.table({"id": range(len(column)), "run": [number] * len(column)}).append_column("c", column)
    try:
        with pa.ipc.new_file(str(tmp_path / "any.arrow"), table.schema) as writer:
            writer.write_table(table)
    except pa.ArrowException:
        return  # Arrow itself cannot store it
    before = len(endpoint.posts)
    try:
        summary = enrich.run(config)
    except UsageError:
        assert len(endpoint.posts) == before
    else:
        assert summary.exit_code == 0
        assert len(endpoint.posts) == before + len(column)
