"""A key that does not tell rows apart is found before anything is paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import OutputError
from enrich.files.keys import check_key
from tests.helpers.inputs import source, write_as

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for all examples."""
    return tmp_path_factory.mktemp("keys")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6) | st.none(), st.sampled_from("abc")), min_size=1, max_size=12))
def test_what_stands_twice_is_found(folder: Path, rows: list[tuple[int | None, str]]) -> None:
    """A key is refused if, and only if, it is null somewhere or two rows have it in common."""
    table = pa.table({"n": pa.array([n for n, _ in rows], pa.int64()), "t": [t for _, t in rows]})
    opened = source(write_as(table, folder / "in.parquet"))
    wrong = any(n is None for n, _ in rows) or len(set(rows)) < len(rows)
    if wrong:
        with pytest.raises(OutputError, match=r"null in some rows|stands in several rows"):
            check_key(opened, ["n", "t"])
    else:
        check_key(opened, ["n", "t"])


def test_any_type_may_be_a_key(tmp_path: Path) -> None:
    """Texts in categories, decimals, lists, moments: each is told by its value, over more than one batch."""
    count = 20_000
    numbers = pa.array(range(count))
    columns: dict[str, Any] = {
        "texts": numbers.cast(pa.string()).dictionary_encode(),
        "decimals": numbers.cast(pa.decimal128(20, 0)),
        "moments": numbers.cast(pa.timestamp("us", "UTC")),
        "lists": pa.array([[number] for number in range(count)]),
        "bytes": numbers.cast(pa.string()).cast(pa.binary()),
    }
    opened = source(write_as(pa.table(columns), tmp_path / "in.parquet"))
    for name in columns:
        check_key(opened, [name])
    twice = pa.table({name: pa.concat_arrays([_plain(c), _plain(c)[:1]]) for name, c in columns.items()})
    opened = source(write_as(twice, tmp_path / "twice.parquet"))
    for name in columns:
        with pytest.raises(OutputError, match="stands in several rows"):
            check_key(opened, [name])


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


@pytest.mark.parametrize("place", ["duckdb", "sqlite"])
def test_nothing_is_paid_for(
    place: str, tmp_path: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """Check and run end with 2 and name the value, and no request was sent."""
    output = {"table": "r", "url": f"{place}:///w.db", "mode": "merge", "key": "id"}
    config = job([{"id": 1, "t": "a"}, {"id": 2, "t": "b"}, {"id": 2, "t": "c"}], output=output)
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (2, 0)
    assert "the key `id` does not tell rows apart: 2 stands in several rows" in ended.err
    assert "2 stands in several rows" in cli("check", config, endpoint=endpoint).out
    config = job(output=output)
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (2, 0)
    assert "the output has no column `id`" in ended.err
