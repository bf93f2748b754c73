"""Columns of Python objects: each value by itself, as a column of its own type has it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

import enrich.pandas
import enrich.polars
from enrich.errors import InputError


class Thing:
    """Something without a text of its own."""


def test_wide_integers_and_objects_of_polars_are_text() -> None:
    """128-bit integers and Python objects, which Arrow has no type for, stand in a prompt as what they are."""
    frame = pl.DataFrame(
        {"n": pl.Series([2**100], dtype=pl.Int128), "s": pl.Series([{"b", "a"}], dtype=pl.Object)}
    )
    page = enrich.polars.beatra(frame).preview("{{ n }} {{ s }}", base_url="sandbox")
    assert f'{2**100} [\\"a\\", \\"b\\"]' in page


def test_objects_without_a_text_are_refused_by_name() -> None:
    """What Python would write as a place in memory, another one at every run, is refused with its column."""
    with pytest.raises(InputError, match="column `x` holds objects of Thing"):
        enrich.pandas.beatra(pd.DataFrame({"x": [Thing()]})).preview("{{ x }}", base_url="sandbox")
    things = pl.Series([Thing()], dtype=pl.Object)
    with pytest.raises(InputError, match="column `x` holds objects of Thing"):
        enrich.polars.beatra(pl.DataFrame({"x": things})).preview("{{ x }}", base_url="sandbox")


def test_a_value_in_a_mixed_column_has_the_text_of_its_own_type() -> None:
    """Whatever stands beside it: one question has one key."""
    values = [
        *(
            pd.Timedelta(days=1, seconds=3),
            dt.timedelta(hours=-2),
            pd.Timestamp("2026-01-02 03:04"),
            Decimal("1E+2"),
        ),
        *(
            dt.date(2026, 1, 2),
            np.datetime64("2026-01-02T03:04"),
            np.float32(19.99),
            True,
            2**70,
            ["a", None],
        ),
        *({"a": Decimal("1.50")}, pd.Period("2026-01"), np.array([1, 2])),
    ]
    for value in values:
        alone = pd.Series([None, value, None], dtype=object).to_frame("x")
        mixed = pd.Series([Thing, value, "text"], dtype=object).to_frame("x")
        pages = [
            enrich.pandas.beatra(frame.iloc[1:2] if frame is alone else frame).preview(
                "{{ x }}", base_url="sandbox"
            )
            for frame in (alone, mixed)
        ]
        (content,) = [line for line in str(pages[0]).splitlines() if '"content"' in line]
        assert content in str(pages[1]), value


def test_bytes_in_a_mixed_column_are_refused() -> None:
    """As they are in a column of their own."""
    frame = pd.DataFrame({"x": pd.Series([b"raw", 1], dtype=object)})
    with pytest.raises(InputError, match="column `x` holds bytes, which no prompt can hold"):
        enrich.pandas.beatra(frame).preview("{{ x }}", base_url="sandbox")
