"""The pandas accessor, against an endpoint that keeps books.

It is long because an accessor is one door: each argument and each ending has a test here.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import doctest
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal
from pydantic import BaseModel

import enrich.frames.arguments
import enrich.frames.looking
import enrich.pandas
from enrich.errors import (
    BalanceSpent,
    BudgetSpent,
    ConfigError,
    InputError,
    RowsFailed,
    TemplateError,
    TooManyReasked,
    UsageError,
)
from enrich.pandas import beatra
from tests.helpers.aside import RATE, say
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, answer_to, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("our_endpoint")


def texts(count: int = 3) -> pd.DataFrame:
    """Give a frame of so many texts."""
    return pd.DataFrame({"t": [f"text {n}" for n in range(count)]})


# --- shapes and dtypes ----------------------------------------------------------------------------------

DAYS = pd.date_range("2026-01-01", periods=3, freq="D", tz="Europe/Berlin", name="day")
Row = tuple[str, str]
SHAPES: dict[str, Callable[[], pd.DataFrame]] = {
    "range index": texts,
    "duplicate index": lambda: texts().set_axis(["a", "a", "b"]),
    "named index": lambda: texts().rename_axis("row"),
    "multi-index": lambda: texts().set_axis(
        pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["k", None])
    ),
    "datetime index with zone and frequency": lambda: texts().set_axis(DAYS),
    "descending float index with NaN": lambda: texts().set_axis([2.5, np.nan, -1.0]),
    "categorical index": lambda: texts().set_axis(pd.CategoricalIndex(["b", "a", "b"])),
    "interval index": lambda: texts().set_axis(pd.interval_range(0, 3)),
    "period index": lambda: texts().set_axis(pd.period_range("2026-01", periods=3, freq="M")),
    "no rows": lambda: texts(0),
    "arrow-backed": lambda: (
        texts()
        .astype({"t": pd.ArrowDtype(pa.string())})
        .assign(
            n=pd.Series([1, None, 3], dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
            nested=pd.Series([[1], None, []], dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
        )
    ),
    "python strings": lambda: texts().astype({"t": pd.StringDtype("python")}),
    "object strings": lambda: texts().astype({"t": object}),
    "categories": lambda: texts().astype(
        {"t": pd.CategoricalDtype(["text 2", "text 1", "text 0", "x"], ordered=True)}
    ),
    "nullable": lambda: texts().assign(
        i=pd.array([1, None, 3], dtype="Int8"), b=pd.array([True, None, False], dtype="boolean")
    ),
    "numpy": lambda: texts().assign(
        i=np.array([1, 2, 3], dtype="uint8"), f=np.array([1, np.nan, np.inf], dtype="float32"), c=[1j, 2j, 3j]
    ),
    "times": lambda: texts().assign(
        at=pd.array(["2026-01-01", None, "2026-01-03"], dtype="datetime64[ns]"),
        took=pd.to_timedelta([1, None, 3], unit="s"),
        zoned=DAYS.tz_convert("Asia/Tokyo"),
    ),
    "objects of every kind": lambda: texts().assign(
        o=pd.Series([{"a": 1}, {1, 2}, None], dtype=object),
        m=pd.Series(["x", 3, decimal.Decimal("1.5")], dtype=object),
        d=pd.Series([dt.date(2026, 1, 1), None, 2**80], dtype=object),
    ),
    "columns of numbers and tuples": lambda: texts().assign(x=1).set_axis(["t", 7], axis=1),
    "column levels": lambda: pd.DataFrame(
        [["text 0", 1], ["text 1", 2], ["text 2", 3]],
        columns=pd.MultiIndex.from_tuples([("t", ""), ("v", "sum")], names=["what", "how"]),
    ),
    "duplicate columns": lambda: pd.DataFrame(
        [["text 0", 1, 2], ["text 1", 2, 3], ["text 2", 3, 4]], columns=pd.Index(["t", "n", "n"], name="c")
    ),
    "sparse": lambda: texts().assign(s=pd.arrays.SparseArray([0, 0, 1])),
    "attrs": lambda: _with_attrs(texts()),
    "a view of another frame": lambda: texts(6).iloc[::2].rename(columns=str),
}


def _with_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    frame.attrs = {"source": {"file": "a.csv"}}
    return frame


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_frame_survives_unchanged(shape: str) -> None:
    """Index, order, dtypes, labels and attrs are what they were, and so is the frame that was given."""
    frame, same = SHAPES[shape](), SHAPES[shape]()
    out = frame.beatra.complete("{{ t }}", progress=False)
    old = out.iloc[:, : frame.shape[1]]
    assert_frame_equal(frame, same)
    assert_frame_equal(old, same, check_freq=True)
    assert out.index.equals(frame.index)
    assert out.index.names == frame.index.names
    assert out.columns.names == frame.columns.names
    assert {**out.attrs, "beatra": None} == {**same.attrs, "beatra": None}
    texts_in = frame.iloc[:, 0].tolist()
    assert out.iloc[:, frame.shape[1]].tolist() == [answer_to(text) for text in texts_in]


def test_new_columns_have_explicit_dtypes(endpoint: BookedEndpoint) -> None:
    """Nullable numbers, texts, categories, and Arrow for what is nested, whether or not a value is missing."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "x": {"type": "number"},
            "ok": {"type": "boolean"},
            "label": {"enum": ["pos", "neg"]},
            "at": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "who": {"type": "object", "properties": {"age": {"type": "integer"}}},
        },
    }
    full = '{"n":1,"x":1.5,"ok":true,"label":"neg","at":"2026-01-01T00:00:00Z","day":"2026-01-01","tags":["a"],"who":{"age":3}}'
    endpoint.answer = lambda body: full if "0" in body["messages"][0]["content"] else "{}"
    out = texts(2).beatra.complete("{{ t }}", name="a", schema=schema)
    text = "str" if pd.__version__ >= "3" else "string"
    assert out.dtypes.drop("t").astype(str).to_dict() == {
        "a": text,
        "a_n": "Int64",
        "a_x": "Float64",
        "a_ok": "boolean",
        "a_label": "category",
        "a_at": "datetime64[us, UTC]",
        "a_day": "date32[day][pyarrow]",
        "a_tags": "list<item: string>[pyarrow]",
        "a_who": "struct<age: int64>[pyarrow]",
        "a_status": "category",
        **dict.fromkeys(("a_error", "a_model", "a_request_id", "a_finish_reason"), text),
        **dict.fromkeys(("a_prompt_tokens", "a_completion_tokens", "a_total_tokens"), "Int64"),
        "a_credits": "Float64",
        "a_attempts": "Int32",
        "a_latency_ms": "Float64",
        "a_source": "category",
        "a_idempotency_key": text,
    }
    assert out["a_n"].tolist() == [1, pd.NA]
    assert out["a_who"].tolist() == [{"age": 3}, None] or out["a_who"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (pd.Timestamp("2026-01-02 03:04"), "2026-01-02 03:04:00"),
        (pd.Period("2026-01", "M"), "2026-01"),
        (pd.Interval(0, 1), "(0, 1]"),
        (2**80, str(2**80)),
        (1.5 + 2j, "(1.5+2j)"),
        (decimal.Decimal("1.50"), "1.50"),
        (True, "True"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_any_value_can_stand_in_a_prompt(value: object, shown: str, endpoint: BookedEndpoint) -> None:
    """What Arrow has no type for is written as Python writes it."""
    pd.Series([value]).beatra.complete("{{ value }}")
    assert endpoint.posts[0].body["messages"][0]["content"] == shown


def test_values_of_mixed_types_stand_in_a_prompt_and_missing_ones_are_null(endpoint: BookedEndpoint) -> None:
    """A column of everything is rendered value by value; None, NaN, NaT and NA are all null."""
    column = ["a", 1, None, float("nan"), pd.NaT, pd.NA, 2.5]
    out = pd.DataFrame({"v": pd.Series(column, dtype=object)}).beatra.complete("{{ v }}", on_null="skip")
    assert Counter(out["answer_status"]) == {"ok": 3, "skipped": 4}
    assert {post.body["messages"][0]["content"] for post in endpoint.posts} == {"a", "1", "2.5"}


def test_labels_that_are_no_words_can_be_named(endpoint: BookedEndpoint) -> None:
    """Numbers, texts with spaces and tuples have a name in templates."""
    frame = pd.DataFrame([[1, 2]], columns=[0, "a b"])
    frame.beatra.complete("{{ row['0'] }} {{ row['a b'] }}")
    levels = pd.DataFrame([[3]], columns=pd.MultiIndex.from_tuples([("sales", 2026)]))
    out = levels.beatra.complete("{{ sales_2026 }}", columns="answer")
    assert out.columns.tolist() == [("sales", 2026), ("answer", "")]
    assert [post.body["messages"][0]["content"] for post in endpoint.posts] == ["1 2", "3"]


def test_whole_rows_and_prompts_without_columns_work() -> None:
    """A template may use every column, or none."""
    frame = texts(2).assign(n=[1, 2])
    assert frame.beatra.complete("{{ row | tojson }}")["answer_status"].tolist() == ["ok", "ok"]
    assert frame.beatra.complete("Tell a joke.")["answer_source"].tolist() == ["api", "copy"]


# --- refusals -------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused_before_anything_is_sent(endpoint: BookedEndpoint) -> None:
    """A missing column, a collision, an ambiguous name, a wrong argument: each with the way out."""
    frame = texts().assign(answer_status=1)
    with pytest.raises(ConfigError, match="makes a column `answer_status`, which the input has too"):
        frame.beatra.complete("{{ t }}")
    with pytest.raises(TemplateError, match=r"(?s)no column `tt`.*did you mean `t`"):
        texts().beatra.complete("{{ tt }}")
    with pytest.raises(InputError, match="two columns are called `t`"):
        pd.DataFrame([[1, 2]], columns=["t", "t"]).beatra.complete("{{ t }}")
    with pytest.raises(ConfigError, match="needs `prompt`"):
        texts().beatra.complete()
    with pytest.raises(ConfigError, match="temperature: "):
        texts().beatra.complete("{{ t }}", temperature=3)
    with pytest.raises(ConfigError, match="columns: the step has no column `some`"):
        texts().beatra.complete("{{ t }}", columns="some")
    with pytest.raises(TypeError, match=r"complete\(\) has no argument `sytem`\nHint: did you mean `system`"):
        texts().beatra.complete("{{ t }}", sytem="x")
    with pytest.raises(ConfigError, match="`prompt` and `steps` exclude each other"):
        texts().beatra.complete("{{ t }}", steps=[{"name": "s", "prompt": "x"}])
    step = {"name": "s", "prompt": "{{ t }}"}
    for steps in (step, {"steps": [step]}, ["s"], [[step]], 3):
        with pytest.raises(ConfigError, match="neither a configuration's path nor a list of steps"):
            texts().beatra.run(steps)
    with pytest.raises(ConfigError, match="a Series of answers holds their texts alone"):
        texts()["t"].beatra.complete("{{ value }}", schema={"type": "object", "properties": {"a": {}}})
    assert not endpoint.posts


# --- what is asked --------------------------------------------------------------------------------------


class Review(BaseModel):
    """An answer's shape."""

    label: Literal["pos", "neg"]
    score: float


def test_a_pydantic_model_gives_typed_columns(endpoint: BookedEndpoint) -> None:
    """The fields become columns; `columns="answer"` leaves the books out."""
    endpoint.answer = lambda _: '{"label": "pos", "score": 0.5}'
    out = texts(2).beatra.complete("{{ t }}", name="r", schema=Review, columns="answer")
    assert out.columns.tolist() == ["t", "r", "r_label", "r_score"]
    assert out["r_score"].tolist() == [0.5, 0.5]


def test_columns_are_chosen_as_in_a_configuration(endpoint: BookedEndpoint) -> None:
    """Words, names and `rename` mean the same; the choice costs nothing, and failures are told whatever it is."""
    frame = texts(2)
    slim = frame.beatra.complete("{{ t }}", name="r", columns=["model", "answer"], rename={"model": "by"})
    assert slim.columns.tolist() == ["t", "by", "r"]
    whole = frame.beatra.complete("{{ t }}", name="r", columns="all")
    assert whole["r_credits_usd"].sum() == pytest.approx(endpoint.credits / 100)
    assert len(endpoint.posts) == 2
    steps = [{"name": "a", "prompt": "{{ t }}", "columns": []}, {"name": "b", "prompt": "{{ a }}"}]
    assert frame.beatra.run(steps, columns="minimal").columns.tolist() == ["t", "b", "b_status", "b_error"]
    endpoint.script = lambda _: envelope("invalid_request", 400)
    with pytest.warns(UserWarning, match="2 invalid_request at step q"):
        frame.beatra.complete("{{ t }}?", name="q", columns="answer")
    with pytest.raises(RowsFailed, match="row 0, p: error: invalid_request"):
        frame.beatra.complete("{{ t }}??", name="p", columns="answer", errors="raise")


def test_what_a_model_says_beside_its_text(endpoint: BookedEndpoint) -> None:
    """Calls, reasoning and probabilities are columns of a frame, where they are asked for."""
    endpoint.script = say
    frame = pd.DataFrame({"t": ["text", "call"]})
    out = frame.beatra.complete("{{ t }}", name="r", params={"tools": [RATE], "logprobs": True})
    assert out.columns[-3:].tolist() == ["r_tool_calls", "r_logprob", "r_confidence"]
    assert out["r_tool_calls"][1][0]["arguments"] == '{"label": "pos"}'
    assert out["r_confidence"][0] == pytest.approx(0.25)


def test_every_argument_reaches_the_request(endpoint: BookedEndpoint) -> None:
    """System, model, temperature, tokens and further fields are what the endpoint sees."""
    texts(1).beatra.complete(
        "{{ t }}", system="Be brief.", model="fast-1", temperature=0.5, max_tokens=9, params={"seed": 7}
    )
    texts(1).beatra.complete(messages=[{"role": "user", "content": "Hello {{ t }}"}])
    first, second = (post.body for post in endpoint.posts)
    assert first == {
        "model": "fast-1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "text 0"}],
        "max_tokens": 9,
        "seed": 7,
        "temperature": 0.5,
    }
    assert second["messages"] == [{"role": "user", "content": "Hello text 0"}]


def test_a_series_gives_a_series_of_texts(endpoint: BookedEndpoint) -> None:
    """Same index, named as the answer; a skipped or failed value is missing."""
    series = pd.Series(["a", None, "a"], index=["x", "y", "y"], name="word")
    out = series.beatra.complete("{{ value }}", name="fr", on_null="skip")
    assert isinstance(out, pd.Series)
    assert out.name == "fr"
    assert out.index.tolist() == ["x", "y", "y"]
    assert out.isna().tolist() == [False, True, False]
    assert out.attrs["beatra"]["skipped"] == 1
    assert len(endpoint.posts) == 1


def test_several_steps_from_a_list_or_a_file(endpoint: BookedEndpoint, job: Any) -> None:
    """A later step sees earlier answers; a file's ledger is the one the command line uses."""
    steps = [{"name": "a", "prompt": "{{ t }}"}, {"name": "b", "prompt": "{{ a }} {{ t }}"}]
    out = texts(2).beatra.run(steps, columns="answer")
    assert out.columns.tolist() == ["t", "a", "b"]
    assert out["b"].tolist() == [answer_to(f"{a} {t}") for a, t in zip(out["a"], out["t"], strict=True)]
    assert len(endpoint.posts) == 4
    path = job([{"t": "one"}], steps=steps)
    assert enrich.run(path).exit_code == 0
    again = pd.DataFrame({"t": ["one"]}).beatra.run(path)
    assert again[["a_source", "b_source"]].to_numpy().tolist() == [["ledger", "ledger"]]


def test_preview_and_plan_send_nothing(endpoint: BookedEndpoint) -> None:
    """The requests are written out; they are counted, distinct and already paid for."""
    frame = pd.DataFrame({"t": ["a", "b", "a", None]})
    page = frame.head(1).beatra.preview("Say {{ t }}")
    assert repr(page).startswith("# row 1, step answer\nPOST http://127.0.0.1")
    assert '"content": "Say a"' in page
    asked = enrich.frames.looking.Plan(rows=4, requests=2, known=0, to_ask=2)
    assert frame.beatra.plan("Say {{ t }}") == asked
    assert not endpoint.posts
    frame.head(1).beatra.complete("Say {{ t }}")
    assert frame.beatra.plan("Say {{ t }}") == enrich.frames.looking.Plan(4, 2, 1, 1)


def test_a_plan_measures_on_a_sample(endpoint: BookedEndpoint) -> None:
    """So many rows are asked; credits, tokens and time of the rest follow; `complete` asks none of them again."""
    frame = texts(40)
    guessed = frame.beatra.plan("Say {{ t }}")
    assert guessed.credits is None
    assert "Hint: sample=50 asks 50 rows and measures; their answers are kept." in str(guessed)
    plan = frame.beatra.plan("Say {{ t }}", sample=10, seed=3)
    assert len(endpoint.posts) == 10
    assert (plan.rows, plan.requests, plan.known, plan.to_ask) == (40, 40, 10, 30)
    assert "sampled     10 requests asked just now" in str(plan)
    assert plan.credits is not None
    assert plan.tokens is not None
    assert plan.seconds is not None
    told = plan.credits
    sampled = endpoint.credits
    assert frame.beatra.plan("Say {{ t }}", sample=10, seed=3) == plan
    frame.beatra.complete("Say {{ t }}")
    assert len(endpoint.posts) == 40
    assert told.low <= endpoint.credits - sampled <= told.high
    with pytest.raises(UsageError, match="sample=-1 is no number of rows"):
        frame.beatra.plan("Say {{ t }}", sample=-1)


@pytest.mark.parametrize("ledger", ["auto", None])
def test_a_plan_of_a_budget_and_no_rows(endpoint: BookedEndpoint, ledger: str | None) -> None:
    """What is over the budget is said; a frame without rows, and a prompt without columns, have a plan, too."""
    plan = texts(3).beatra.plan("{{ t }}", budget={"requests": 2}, ledger=ledger)
    assert "the budget is 2 requests" in str(plan)
    assert texts(0).beatra.plan("{{ t }}", ledger=ledger).to_ask == 0
    assert texts(3).beatra.plan("the same", ledger=ledger, sample=2).rows == 3
    assert len(endpoint.posts) == 1


def test_a_report_tells_of_what_was_asked(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """Rows, labels, cost and runs of this question and no other; rows that were not asked are pending; nothing is sent."""
    frame = pd.DataFrame({"t": ["good", "good", "bad", "dull", None], "when": [DAYS[0]] * 5})
    with pytest.raises(UsageError, match="nothing was asked yet"):
        frame.beatra.report("Say {{ t }}", name="said", path=tmp_path / "page.html")
    with pytest.warns(UserWarning, match="1 of 5 rows have no answer"):
        frame.beatra.complete("Say {{ t }}", name="said")
    texts(9).beatra.complete("Else {{ t }}", name="other")
    posts = len(endpoint.posts)
    page = frame.beatra.report("Say {{ t }}", name="said", path=tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert len(endpoint.posts) == posts
    html = page.read_text(encoding="utf-8")
    assert "<h1>data frame</h1>" in html
    assert "1 run so far" in html
    assert "Say good" in html
    assert "Else" not in html
    bare = frame.beatra.report("Say {{ t }}", name="said", path=tmp_path / "bare.html", content=False)
    assert "Say good" not in bare.read_text(encoding="utf-8")
    steps = [
        {"name": "said", "prompt": "Say {{ t }}", "schema": {"properties": {"label": {"type": "string"}}}}
    ]
    with pytest.raises(UsageError, match="ledger=None keeps nothing"):
        frame.beatra.report(steps=steps, ledger=None)


# --- rows that would be paid for again -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [({"model": "fast-1"}, "model"), ({"params": {"seed": 1}}, "params"), ({"prompt": "Tell {{ t }}"}, "prompt")],
)  # fmt: skip
def test_rows_that_would_be_paid_for_again_are_told_and_above_a_share_refused(
    endpoint: BookedEndpoint, change: dict[str, Any], why: str
) -> None:
    """A plan says how many and why, a call stops before it sends anything, `100%` confirms and is warned."""
    question = {"prompt": "Say {{ t }}", "name": "s"}
    texts(4).beatra.complete(**question)
    changed = {**question, **change}
    said = f"4 of 4 rows that were answered before would be asked again; changed since: {why}"
    assert str(texts(5).beatra.plan(**changed).reasked) == said
    with pytest.raises(TooManyReasked, match=rf"{said}.*nothing was sent") as refused:
        texts(5).beatra.complete(**changed, max_reasked="50%")
    assert 'max_reasked="100%"' in str(refused.value.hint)
    assert len(endpoint.posts) == 4
    with pytest.warns(UserWarning, match=said):
        texts(5).beatra.complete(**changed, max_reasked="100%")
    assert len(endpoint.posts) == 9
    texts(5).beatra.complete(**changed, max_reasked=0)  # it is known now: nothing to confirm
    assert texts(5).beatra.plan(**changed).reasked is None
    assert len(endpoint.posts) == 9


def test_a_column_of_another_type_is_told_to_asynchronous_callers_too(endpoint: BookedEndpoint) -> None:
    """A null makes whole numbers fractions in a frame; the prompts of all other rows change, and that is said."""
    pd.DataFrame({"n": [1, 2, 3]}).beatra.complete("{{ n }}", name="s")
    frame = pd.DataFrame({"n": [1.0, 2.0, None]})

    async def ask() -> None:
        await frame.beatra.acomplete("{{ n }}", name="s", on_null="skip", max_reasked=1)

    with pytest.raises(TooManyReasked, match="the type of column `n`"):
        asyncio.run(ask())
    assert len(endpoint.posts) == 3


def test_another_prompt_without_a_name_is_another_question(endpoint: BookedEndpoint) -> None:
    """Who types another prompt knows that it is paid for; what stands nowhere in the call is what surprises."""
    texts(4).beatra.complete("Say {{ t }}")
    texts(4).beatra.complete("Tell {{ t }}", max_reasked=0)
    with pytest.raises(TooManyReasked, match="changed since: model"):
        texts(4).beatra.complete("Say {{ t }}", model="fast-1", max_reasked=0)
    assert len(endpoint.posts) == 8


# --- the books ------------------------------------------------------------------------------------------


def test_running_a_cell_again_costs_nothing(endpoint: BookedEndpoint) -> None:
    """The ledger in the cache directory remembers; `ledger=None` does not; a path is one's own."""
    for _ in range(2):
        out = texts().beatra.complete("{{ t }}")
    assert set(out["answer_source"]) == {"ledger"}
    assert out.attrs["beatra"]["requests"] == 0
    assert out.attrs["beatra"]["ok"] == 3
    assert len(endpoint.posts) == 3
    out = texts().beatra.complete("{{ t }}", ledger=None)
    assert set(out["answer_source"]) == {"api"}
    assert len(endpoint.charges) == 3  # the endpoint itself recognises the keys


def test_failed_rows_have_a_status_and_one_warning_counts_them(endpoint: BookedEndpoint) -> None:
    """Nothing is raised, unless asked: then the message shows the first failures."""

    def refuse(seen: Seen) -> Raw | None:
        text = seen.body["messages"][0]["content"]
        return envelope("invalid_request", 422, message=f"bad {text}") if text < "text 10" else None

    endpoint.script = refuse
    with pytest.warns(
        UserWarning, match="^2 of 12 rows have no answer: 2 error; answer_error says why$"
    ) as told:
        out = texts(12).beatra.complete("{{ t }}")
    assert len(told) == 1
    assert told[0].filename == __file__
    assert Counter(out["answer_status"]) == {"ok": 10, "error": 2}
    assert out["answer"].isna().sum() == 2
    with pytest.raises(
        RowsFailed, match=r"(?s)2 of 12 rows.*row 0, answer: error: invalid_request: bad text 0.*row 1"
    ):
        texts(12).beatra.complete("{{ t }}", errors="raise")


def test_a_stop_keeps_what_is_paid_for_and_the_call_goes_on(endpoint: BookedEndpoint) -> None:
    """A spent budget raises; the same call with more of it asks only the rest."""
    with pytest.raises(BudgetSpent):
        texts(40).beatra.complete("{{ t }}", budget={"requests": 15})
    assert len(endpoint.charges) == 15
    endpoint.script = lambda _: envelope("insufficient_balance", 402)
    with pytest.raises(BalanceSpent, match="top the account up, then run again"):
        texts(40).beatra.complete("{{ t }}")
    endpoint.script = None
    out = texts(40).beatra.complete("{{ t }}")
    assert Counter(out["answer_source"]) == {"ledger": 15, "api": 25}
    assert set(endpoint.charges_per_body.values()) == {1}


# --- loops, threads, signals ----------------------------------------------------------------------------


async def test_it_works_inside_a_running_loop(endpoint: BookedEndpoint) -> None:
    """As in a notebook or a web handler, blocking or awaited, several at once."""
    assert texts().beatra.complete("{{ t }}")["answer_status"].tolist() == ["ok"] * 3
    frames = await asyncio.gather(*(texts(20).beatra.acomplete("Again {{ t }}") for _ in range(4)))
    assert all(frame["answer_status"].eq("ok").all() for frame in frames)
    series = await texts()["t"].beatra.acomplete("{{ value }}")
    assert series.notna().all()
    steps = await texts(2).beatra.arun([{"name": "a", "prompt": "{{ t }}"}])
    assert steps["a_source"].tolist() == ["ledger", "ledger"]
    assert set(endpoint.charges_per_body.values()) == {1}


def test_several_threads_at_once_pay_once(endpoint: BookedEndpoint) -> None:
    """The same call from many threads: every body is charged once, every thread has every answer."""
    with ThreadPoolExecutor(6) as pool:
        frames = list(pool.map(lambda _: texts(60).beatra.complete("{{ t }}"), range(6)))
    want = [answer_to(f"text {n}") for n in range(60)]
    assert all(frame["answer"].tolist() == want for frame in frames)
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.posts) == 60
    assert "beatra-enrich" not in {thread.name for thread in threading.enumerate()}


INTERRUPTED = """
import sys, pandas as pd, enrich.pandas
df = pd.DataFrame({"t": [f"text {n}" for n in range(600)]})
try:
    out = df.beatra.complete("{{ t }}", concurrency=8)
except KeyboardInterrupt:
    print("interrupted")
out = df.beatra.complete("{{ t }}")
print(out.attrs["beatra"]["ok"], out["answer_source"].eq("ledger").sum())
"""


def test_an_interrupt_drains_and_the_same_call_goes_on(endpoint: BookedEndpoint) -> None:
    """A real SIGINT in a real process: what was in flight is kept, and no body is charged twice."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(endpoint.charges) < 100:
        threading.Event().wait(0.005)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    first, second = out.splitlines()
    assert first == "interrupted", err
    ok, known = map(int, second.split())
    assert ok == 600
    assert 100 <= known < 600
    assert "stopping: nothing more is sent" in err
    assert "Traceback" not in err
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.posts) == 600


def test_a_second_interrupt_leaves_at_once(endpoint: BookedEndpoint) -> None:
    """Nobody has to wait for an endpoint that does not answer; the next call finds what came meanwhile."""
    endpoint.pause()
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.partition("except")[0] + "finally: pass"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while not endpoint.posts:
        threading.Event().wait(0.005)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    process.stderr.close()
    endpoint.resume()
    assert texts(600).beatra.complete("{{ t }}")["answer_status"].eq("ok").all()
    assert set(endpoint.charges_per_body.values()) == {1}


def test_progress_is_quiet_unless_somebody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a terminal nothing is written, told or not."""
    for progress in (None, False):
        texts().beatra.complete("{{ t }}", progress=progress)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_a_bar(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """On a real pseudo-terminal, the rows are counted while they are asked."""
    import pty

    script = "import pandas as pd, enrich.pandas; pd.DataFrame({'t': range(400)}).beatra.complete('{{ t }}', concurrency=4)"
    endpoint.pause()
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=there, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(there)
    seen = b""
    try:
        while chunk := os.read(here, 4096):
            seen += chunk
            if b"of 400 rows" in seen:  # the answers wait until the bar was drawn
                endpoint.resume()
    except OSError:  # how Linux says that the other side of a terminal is closed
        pass
    os.close(here)
    assert process.wait(60) == 0
    assert b"of 400 rows" in seen


# --- what people read -----------------------------------------------------------------------------------


def test_the_examples_in_help_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example that `help()` shows is true."""
    result = doctest.testmod(enrich.pandas)
    assert result.attempted > 20
    assert result.failed == 0


def test_the_accessor_shows_its_arguments() -> None:
    """Completion and `help()` list every argument with its default, and say what each is for."""
    complete = pd.DataFrame().beatra.complete
    parameters = inspect.signature(complete).parameters
    assert list(parameters)[:3] == ["prompt", "name", "system"]
    assert parameters["name"].default == "answer"
    doc = inspect.getdoc(complete) or ""
    for name in parameters:
        assert f"\n    {name}: " in doc
    assert {"complete", "acomplete", "run", "preview", "plan"} <= set(dir(pd.DataFrame().beatra))
    assert "beatra" in dir(pd.DataFrame())


def test_the_key_is_nowhere_to_be_read() -> None:
    """Neither an error nor a representation shows it."""
    question = enrich.frames.arguments.Question("{{ t }}", api_key="sk-very-secret")
    assert "secret" not in repr(question)
    with pytest.raises(enrich.EnrichError) as refused:
        texts(1).beatra.complete("{{ t }}", api_key="sk-very-secret")
    assert "secret" not in str(refused.value)
    assert beatra(texts(1)).complete("{{ t }}", api_key=KEY)["answer_status"].tolist() == ["ok"]
