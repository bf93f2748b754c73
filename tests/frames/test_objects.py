from __future__ import annotations

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
