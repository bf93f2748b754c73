"""The Polars namespaces, against an endpoint that keeps books."""
# mypy: disable-error-code="attr-defined"
# type checkers know nothing of registered namespaces; tests/test_typing.py shows what they see instead

from __future__ import annotations

import asyncio
import datetime as dt
import doctest
import inspect
import subprocess
import sys
from collections import Counter
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import enrich.polars
from enrich.errors import ConfigError, TemplateError, TooManyReasked
from enrich.polars import beatra
from tests.helpers.aside import RATE, say
from tests.helpers.endpoint import BookedEndpoint, answer_to

pytestmark = pytest.mark.usefixtures("our_endpoint")


def texts(count: int = 3) -> pl.DataFrame:
    """Give a frame of so many texts."""
    return pl.DataFrame({"t": [f"text {n}" for n in range(count)]}, schema={"t": pl.String})


EVERY_TYPE = texts(2).with_columns(
    pl.Series("i", [1, None], dtype=pl.UInt8),
    pl.Series("f", [1.5, float("nan")], dtype=pl.Float32),
    pl.Series("cat", ["a", None], dtype=pl.Categorical),
    pl.Series("enum", ["x", "y"], dtype=pl.Enum(["y", "x"])),
    pl.Series("day", [dt.date(2026, 1, 1), None]),
    pl.Series(
        "at", [dt.datetime(2026, 1, 1, 11, tzinfo=dt.UTC), None], dtype=pl.Datetime("ms", "Europe/Berlin")
    ),
    pl.Series("took", [dt.timedelta(seconds=1), None]),
    pl.Series("list", [[1, 2], None]),
    pl.Series("struct", [{"a": 1}, {"a": None}]),
    pl.Series("dec", ["1.50", None]).cast(pl.Decimal(9, 2)),
    pl.Series("bytes", [b"x", None]),
    pl.Series("null", [None, None]),
)


def test_rows_of_a_query_that_would_be_paid_for_again(endpoint: BookedEndpoint) -> None:
    """A query is collected first and looked through as its frame would be, from running and from waiting code."""
    texts(4).lazy().beatra.complete("{{ t }}", name="s")
    asked: dict[str, Any] = {"name": "s", "model": "fast-1", "max_reasked": "50%"}
    said = "4 of 4 rows that were answered before would be asked again; changed since: model"
    with pytest.raises(TooManyReasked, match=said):
        texts(5).lazy().beatra.complete("{{ t }}", **asked)
    with pytest.raises(TooManyReasked, match=said):
        asyncio.run(texts(5).lazy().beatra.acomplete("{{ t }}", **asked))
    assert len(endpoint.posts) == 4


def test_the_frame_s_own_columns_survive_unchanged() -> None:
    """Every type comes back as it was, answers behind it."""
    out = EVERY_TYPE.beatra.complete("{{ t }}", name="a")
    assert_frame_equal(out.select(EVERY_TYPE.columns), EVERY_TYPE, categorical_as_str=False)
    assert out["a"].to_list() == [answer_to("text 0"), answer_to("text 1")]
    assert out.columns[-14:-12] == ["a", "a_status"]


def test_every_type_can_stand_in_a_prompt(endpoint: BookedEndpoint) -> None:
    """All but bytes, which no prompt can hold."""
    whole = "{{ row | length }} " + " ".join(
        f"{{{{ {name} }}}}" for name in EVERY_TYPE.columns if name != "bytes"
    )
    out = EVERY_TYPE.drop("bytes").beatra.complete(whole, on_null="render")
    assert out["answer_status"].to_list() == ["ok", "ok"]
    content = min(post.body["messages"][0]["content"] for post in endpoint.posts)
    assert content.startswith(
        '12 text 0 1 1.5 a x 2026-01-01 2026-01-01 12:00:00+01:00 0:00:01 [1, 2] {"a": 1} 1.50'
    )
    with pytest.raises(TemplateError, match="column `bytes` is binary"):
        EVERY_TYPE.beatra.complete("{{ bytes }}")


def test_the_columns_are_the_caller_s_choice(endpoint: BookedEndpoint) -> None:
    """A word, names, other names; another choice is written from the ledger at no cost."""
    endpoint.script = say
    frame = pl.DataFrame({"t": ["text", "call"]})
    asked = {"name": "a", "params": {"tools": [RATE]}}
    slim = frame.beatra.complete("{{ t }}", columns=["model", "answer"], rename={"model": "by"}, **asked)
    assert slim.columns == ["t", "by", "a"]
    more = frame.beatra.complete("{{ t }}", columns=["tool_calls", "reasoning"], **asked)
    assert more["a_reasoning"].to_list() == ["hm", None]
    call = {"id": "c1", "name": "rate", "arguments": '{"label": "pos"}'}
    assert more["a_tool_calls"].to_list() == [None, [call]]
    assert more.schema["a_tool_calls"] == pl.List(pl.Struct(dict.fromkeys(call, pl.String)))
    assert frame.beatra.complete("{{ t }}", columns="minimal", **asked).columns == [
        "t",
        "a",
        "a_status",
        "a_error",
    ]
    assert len(endpoint.posts) == 2


def test_new_columns_are_typed(endpoint: BookedEndpoint) -> None:
    """Categories, integers and structs, as Arrow has them."""
    endpoint.answer = lambda _: '{"label": "neg", "who": {"age": 3}}'
    properties = {
        "label": {"enum": ["pos", "neg"]},
        "who": {"type": "object", "properties": {"age": {"type": "integer"}}},
    }
    out = texts(1).beatra.complete("{{ t }}", name="a", schema={"type": "object", "properties": properties})
    assert out.schema["a_who"] == pl.Struct({"age": pl.Int64})
    assert isinstance(out.schema["a_label"], pl.Categorical | pl.Enum)
    assert out.schema["a_attempts"] == pl.Int32
    assert out["a_who"].to_list() == [{"age": 3}]


def test_a_query_is_collected_in_batches_while_answers_come(
    endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A LazyFrame gives the same as its frame, usage on one row per completion over all batches."""
    monkeypatch.setattr(enrich.polars.frames, "ASKED_AT_ONCE", 16)
    frame = pl.DataFrame({"t": [f"text {n % 50}" for n in range(100)], "n": range(100)})
    query = frame.lazy().filter(pl.col("n") >= 10)
    out = query.beatra.complete("{{ t }}")
    assert_frame_equal(out.select("t", "n"), frame.filter(pl.col("n") >= 10))
    assert out["answer"].to_list() == [answer_to(text) for text in out["t"]]
    assert Counter(out["answer_source"]) == {"api": 50, "copy": 40}
    assert out["answer_credits"].sum() == endpoint.credits
    again = query.beatra.run([{"name": "a", "prompt": "{{ t }}"}], columns="answer")
    assert again.columns == ["t", "n", "a"]
    assert len(endpoint.posts) == 50


def test_frames_and_queries_without_rows_or_columns_needed_work() -> None:
    """No row gives all columns; a prompt without columns is asked once."""
    assert texts(0).beatra.complete("{{ t }}").shape == (0, 15)
    assert texts(0).lazy().beatra.complete("{{ t }}").shape == (0, 15)
    assert texts(2).beatra.complete("Tell a joke.")["answer_source"].to_list() == ["api", "copy"]
    assert texts(2).lazy().beatra.complete("Tell a joke.")["answer_source"].to_list() == ["ledger", "copy"]


async def test_it_works_inside_a_running_loop(endpoint: BookedEndpoint) -> None:
    """Blocking and awaited, frames and queries."""
    blocking = texts().beatra.complete("{{ t }}")
    awaited = await texts().beatra.acomplete("{{ t }}")
    lazily = await texts().lazy().beatra.acomplete("{{ t }}")
    steps = await texts().beatra.arun([{"name": "answer", "prompt": "{{ t }}"}])
    for frame in (awaited, lazily, steps):
        assert frame["answer"].equals(blocking["answer"])
    assert len(endpoint.posts) == 3


def test_preview_and_plan_send_nothing(endpoint: BookedEndpoint) -> None:
    """As with pandas."""
    frame = pl.DataFrame({"t": ["a", "b", "a"]})
    assert '"content": "Say a"' in frame.head(1).beatra.preview("Say {{ t }}")
    assert frame.beatra.plan("Say {{ t }}") == enrich.polars.Plan(rows=3, requests=2, known=0, to_ask=2)
    assert not endpoint.posts


def test_what_cannot_work_is_refused_before_anything_is_sent(endpoint: BookedEndpoint) -> None:
    """A missing column, a collision."""
    with pytest.raises(TemplateError, match=r"(?s)no column `tt`.*did you mean `t`"):
        texts().lazy().beatra.complete("{{ tt }}")
    with pytest.raises(ConfigError, match="makes a column `t`"):
        texts().beatra.complete("{{ t }}", name="t")
    assert not endpoint.posts


def test_a_refused_query_is_not_collected() -> None:
    """Nothing of a query is executed before the templates fit its schema."""

    def never(_: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError

    query = texts().lazy().map_batches(never, schema={"t": pl.String})
    with pytest.raises(TemplateError):
        query.beatra.complete("{{ tt }}")


def test_the_examples_in_help_run() -> None:
    """Every example that `help()` shows is true, and the arguments are all listed."""
    result = doctest.testmod(enrich.polars)
    assert result.attempted > 5
    assert result.failed == 0
    complete = beatra(texts()).complete
    assert all(
        f"\n    {name}: " in (inspect.getdoc(complete) or "")
        for name in inspect.signature(complete).parameters
    )


def test_without_polars_the_message_says_what_to_install() -> None:
    """Not a bare ModuleNotFoundError."""
    script = "import sys; sys.modules['polars'] = None; import enrich.polars"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ImportError: enrich.polars needs Polars: pip install 'beatra-enrich[polars]'" in done.stderr
