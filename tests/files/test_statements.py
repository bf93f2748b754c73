"""SQL texts are told apart from several, and from none."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.files.statements import refusal, statements


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select 1", None),
        ("SELECT 1; -- done", None),
        ("-- first\nWITH a AS (SELECT ';' AS x) SELECT * FROM a;;", None),
        ("values (1)", None),
        ('select 1 as "a;b", [c;d], `e;f` /* ; */ from t', None),
        ("select 1; select 2", "several statements"),
        ("select 1; delete from t", "several statements"),
        ("-- nothing", "only comments"),
        ("/* open", "only comments"),
        (" ; ", "only comments"),
        ("attach 'x.db' as y", "begins with ATTACH"),
        ("pragma table_info(t)", "begins with PRAGMA"),
    ],
)
def test_one_query_or_none(sql: str, said: str | None) -> None:
    """One query is let through, with what stands around it; anything else is told for what it is."""
    found = refusal(sql)
    assert (found is None) == (said is None)
    assert (said or "") in (found or "")


@given(
    st.lists(
        st.sampled_from(["select 1", "'a;''b'", '"c;d"', "[e;f]", "-- g;\n", "/* h; */", ";", " ", "x"]),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_one_statement_is_one_to_sqlite(pieces: list[str]) -> None:
    """SQLite finds no second statement in what is taken for one here."""
    lite = sqlite3.connect(":memory:")
    for one in statements("".join(pieces)):
        with contextlib.suppress(sqlite3.OperationalError):  # it is nonsense, but one
            lite.execute(one)
    lite.close()
