"""Periods and intervals of pandas have one text, from a frame and from a file."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.base.moments import Unreadable
from enrich.frames.objects import object_text
from enrich.prompt.pandas_values import pandas_texts

# Pandas 2 takes no interval with a zone to Arrow, and writes one of any year.
IS_2 = pd.__version__.startswith("2.")
MOMENT = dt.datetime(2026, 11, 22, 10, 30)  # noqa: DTZ001  # a wall clock's time
COLUMNS: dict[str, Any] = {
    **{f"periods {freq}": pd.period_range("2026-01-31", periods=3, freq=freq) for freq in "YQMWDhs"},
    "integers": pd.interval_range(0, 3),
    "fractions": pd.arrays.IntervalArray.from_breaks([0.1, 0.5, 2.0], closed="neither"),
    "days": pd.interval_range(pd.Timestamp("2026-01-01"), periods=2, closed="left"),
    "moments": pd.arrays.IntervalArray.from_breaks(
        pd.DatetimeIndex([MOMENT, MOMENT + dt.timedelta(milliseconds=1)]), closed="both"
    ),
    "lengths": pd.interval_range(pd.Timedelta(0), periods=2, freq="36h"),
}
if not IS_2:
    COLUMNS["zone"] = pd.interval_range(pd.Timestamp("2026-03-28", tz="Europe/Berlin"), periods=2)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_file_says_what_the_frame_says(name: str) -> None:
    """Whether pandas' types are registered, as where pandas was imported, or not, as on the command line."""
    gone = [] if name == "integers" else [None]  # those of integers cannot be missing
    frame = pd.DataFrame({"d": [*COLUMNS[name], *gone]}).astype({"d": COLUMNS[name].dtype})
    wanted = [object_text(value, "d") for value in frame["d"].dropna()]
    table = pa.Table.from_pandas(frame)
    field, column = table.schema.field("d"), table["d"].combine_chunks()
    stored: Any = column
    kind: Any = field.type
    said = {
        "ARROW:extension:name": kind.extension_name,
        "ARROW:extension:metadata": kind.__arrow_ext_serialize__().decode(),
    }
    bare = pa.field("d", kind.storage_type, metadata=said)
    for one, array in ((field, stored), (bare, stored.storage)):
        read = pandas_texts(one)
        assert read is not None
        assert read(array.drop_null()) == wanted


@given(ordinal=st.integers(-(2**63) + 1, 2**63 - 1), freq=st.sampled_from(["Y", "M", "W", "D", "s", "ns"]))
def test_no_period_stops_a_run(ordinal: int, freq: str) -> None:
    """Whatever number stands for it, it has a text or is unreadable by itself."""
    said = {"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": json.dumps({"freq": freq})}
    read = pandas_texts(pa.field("d", pa.int64(), metadata=said))
    assert read is not None
    (found,) = read(pa.array([ordinal]))
    assert isinstance(found, str | Unreadable)


def test_an_interval_that_pandas_would_not_make_is_unreadable() -> None:
    """Its left end lies right of the other, or a zone's clocks do not reach so far."""
    said = {
        "ARROW:extension:name": "pandas.interval",
        "ARROW:extension:metadata": '{"subtype": "x", "closed": "left"}',
    }
    for kind, ends in ((pa.int64(), (2, 1)), (pa.timestamp("s", "Europe/Berlin"), (2**62, 2**62))):
        sides = [pa.array([end], pa.int64()).view(kind) for end in ends]
        pairs = pa.StructArray.from_arrays(sides, ["left", "right"])
        read = pandas_texts(pa.field("d", pairs.type, metadata=said))
        assert read is not None
        (found,) = read(pairs)
        assert isinstance(found, Unreadable) or (IS_2 and pa.types.is_timestamp(kind))
