from __future__ import annotations

import contextlib
import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import StepConfig
from enrich.errors import TemplateError
from enrich.prompt.cells import Cell, is_true, rows_of
from enrich.prompt.request import RequestBuilder
from enrich.prompt.template import RowError, check_columns, compile_condition, compile_template
from tests.helpers.arrow import arrays


def rendered(source: str, blank: bool = False, /, **columns: Any) -> str:
    """Render a template on the only row of these columns: arrays, or values."""
    made = {k: v if isinstance(v, pa.Array) else pa.array([v]) for k, v in columns.items()}
    (row,) = rows_of(pa.record_batch(list(made.values()), names=list(made)))
    return compile_template(source, "here", blank=blank).render(row)


def from_csv(source: str, *rows: dict[str, Any]) -> str:
    """Render a template on cells of a text file."""
    return compile_template(source, "here").render({k: Cell(v) for k, v in rows[0].items()})


def failure(source: str, **columns: Any) -> str:
    """Give what is said of a row that cannot be rendered."""
    with pytest.raises(RowError) as caught:
        rendered(source, **columns)
    return str(caught.value)


@given(
    arrays(),
    st.sampled_from(
        [
            "{{ x }}",
            "{{ x | tojson }}",
            "{{ row | tojson }}",
            "{{ [x] }}",
            "{{ x ~ '' }}",
            "{% if x %}y{% endif %}",
        ]
    ),
)
def test_no_value_of_any_type_stops_a_template(array: pa.Array[Any], source: str) -> None:
    """Each row has a text, or fails by itself: nothing but `RowError` comes out."""
    template = compile_template(source, "here")
    condition = compile_condition("{{ x }}", "here")
    for row in rows_of(pa.record_batch([array], names=["x"])):
        for work in (template.render, condition.is_true):
            with contextlib.suppress(RowError):
                work(row)


@pytest.mark.parametrize("name", ["items", "keys", "values", "copy", "get", "count", "pop", "update"])
def test_data_come_before_python_s_methods(name: str) -> None:
    """A column or field named like a method is found by dot, and the method where it is called."""
    assert rendered(f"{{{{ row.{name} }}}}", **{name: "here"}) == "here"
    assert rendered(f"{{{{ o.{name} }}}}", o={name: "here"}) == "here"
    assert (
        rendered("{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}", a=1, **{name: "x"})
        == f"a=1;{name}=x;"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ o.items }}",
        "{{ o['items'] }}",
        "{{ t.upper }}",
        "{{ o | attr('items') }}",
        "{{ cycler('a') }}",
        "{{ joiner }}",
    ],
)
def test_a_place_in_memory_never_gets_into_a_prompt(source: str) -> None:
    """A function, or anything else that is no value, fails the row."""
    assert failure(source, o={"a": 1}, t="x", joiner=None).startswith(("template_error", "null_value"))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{{ x | random }}", "the filter `random`"),
        ("{{ lipsum() }}", "`lipsum()`"),
        ("{{ day.today() }}", "`today()`"),
        ("{{ at.now() }}", "`now()`"),
        ("{{ at.timestamp() }}", "`timestamp()`"),
    ],
)
def test_what_differs_between_runs_is_refused(source: str, what: str) -> None:
    """A prompt is a function of its row alone."""
    with pytest.raises(TemplateError, match="gives another text at every run") as caught:
        compile_template(source, "here")
    assert what in str(caught.value)


def test_names_that_the_engine_keeps_are_refused_with_the_spelling_that_works() -> None:
    """`row`, `self` and `loop` by themselves are not columns of that name."""
    with pytest.raises(TemplateError, match=r'row\["self"\]'):
        compile_template("{{ self }}", "here")
    with pytest.raises(TemplateError, match=r'row\["loop"\]'):
        compile_template("{% for i in x %}{{ loop }}{% endfor %}", "here")
    with pytest.raises(TemplateError, match=r'row\["row"\]'):
        check_columns([compile_template("{{ row }}", "here")], ["row", "seat"])
    with pytest.raises(TemplateError, match=r'row\["none"\]'):
        check_columns([compile_template("{{ none }}", "here")], ["none"])
    fine = [
        "{{ row.seat }}",
        "{{ row | tojson }}",
        "{{ row.items() | list }}",
        '{{ row["row"] }}',
        "{% for i in [1] %}{{ loop.index }}{% endfor %}",
    ]
    check_columns([compile_template(source, "here") for source in fine], ["row", "seat", "self"])


def test_a_cell_of_a_text_file_is_its_characters_and_counts_as_a_number() -> None:
    """`5` stays `5` and `true` stays `true`, whatever the type of the column; numbers and dates compare as such."""
    assert from_csv("{{ a }} {{ b }} {{ c }}", {"a": "5", "b": "true", "c": "5.10"}) == "5 true 5.10"
    assert from_csv("{{ 'y' if stars < 10 and stars == 9 }}", {"stars": "9"}) == "y"
    assert (
        from_csv("{{ price * 2 }} {{ n + 1 }} {{ 10 - n }} {{ '%.2f' % price }}", {"price": "5.5", "n": "2"})
        == "11.0 3 8 5.50"
    )
    assert from_csv("{{ [a, b] | sort | join('<') }}", {"a": "10", "b": "9"}) == "9<10"
    assert (
        from_csv("{{ (b - a).days }} {{ b > a }} {{ b.year }}", {"a": "2026-01-30", "b": "2026-02-01"})
        == "2 True 2026"
    )
    assert (
        from_csv("{{ zip[:2] }} {{ zip | upper }} {{ ['a', 'b'][n] }}", {"zip": "01234", "n": "1"})
        == "01 01234 b"
    )
    assert (
        from_csv("{{ row | tojson }}", {"n": "5", "p": "5.10", "t": "true", "z": "01"})
        == '{"n": 5, "p": "5.10", "t": true, "z": "01"}'
    )


def test_json_s_values_stay_as_they_are_written() -> None:
    """Absent keys stay absent, numbers keep their digits, true is true; nested nulls are null."""
    line = b'{"o": {"n": 1.50, "b": true, "z": null}, "p": 1e3, "t": "5"}'
    names, arrays_ = ["o", "p", "t", "\0\n"], [pa.nulls(1)] * 3
    (row,) = rows_of(pa.record_batch([*arrays_, pa.array([line])], names=names))
    text = compile_template("{{ o.n }} {{ o.b }} {{ p }} {{ o | tojson }} {{ o }}", "here").render(row)
    assert text == '1.50 true 1e3 {"b": true, "n": 1.5, "z": null} {"n": 1.5, "b": true, "z": null}'


def test_folders_of_json_files_are_columns_too() -> None:
    """A partition key stands in no line, and has its text from the folder's name."""
    columns: list[Any] = [pa.nulls(1), pa.array([7]), pa.array([b'{"t": "x"}']), pa.array(["07"])]
    (row,) = rows_of(pa.record_batch(columns, names=["t", "day", "\0\n", "\0day"]))
    assert compile_template("{{ t }} {{ day }}", "here").render(row) == "x 07"


@pytest.mark.parametrize(
    "source",
    [
        "{{ o.z }}",
        "{{ o.z | upper }}",
        "{{ o.z ~ 'x' }}",
        "{{ '%s' % o.z }}",
        "{{ o.l | join(', ') }}",
        "{{ '%s' | format(o.z) }}",
        "{{ o.f }}",
    ],
)
def test_nested_nulls_obey_on_null(source: str) -> None:
    """A null or NaN within a value fails the row, or is nothing, but never the word None."""
    value = pa.array([{"z": None, "l": [None], "f": float("nan")}])
    assert failure(source, o=value).startswith("null_value")
    assert rendered(source, True, o=value).strip("x") == ""
    assert rendered("{{ o.z is none }} {{ o.z == none }} {{ o.z or 'n/a' }}", o=value) == "True True n/a"


@pytest.mark.parametrize(
    "source",
    ["{{ o.p.x }}", "{{ o.p['x'].y }}", "{% for a in o.l %}{{ a }}{% endfor %} ", "{{ o.l | join }}"],
)
def test_a_null_holds_nulls(source: str) -> None:
    """What is looked up in a null, or gone through, is null itself: it obeys `on_null`, and is false in `when`."""
    struct = pa.struct([("p", pa.struct([("x", pa.int8())])), ("l", pa.list_(pa.int8())), ("q", pa.int8())])
    value = pa.array([{"p": None, "l": None, "q": 1}], struct)
    assert failure(source, o=value).startswith("null_value")
    assert rendered(source, True, o=value).strip() == ""
    (row,) = rows_of(pa.record_batch([value], names=["o"]))
    told = {
        c: compile_condition("{{ " + c + " }}", "here").is_true(row)
        for c in ("o.p.x", "o.l | length > 0", "o.p.x is none")
    }
    assert list(told.values()) == [False, False, True]


def test_texts_of_typed_values() -> None:
    """Decimals in digits, narrow floats as written, nested values as JSON, generators as lists."""
    assert rendered("{{ x }}", x=pa.array([Decimal("0E-10")], pa.decimal128(20, 10))) == "0.0000000000"
    assert rendered("{{ x ~ '' }} {{ x * 2 }}", x=pa.array([19.99], pa.float32())) == "19.99 39.98"
    assert (
        rendered("{{ m.a }} {{ m }}", m=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())))
        == '1 {"a": 1}'
    )
    assert rendered("{{ x | map('upper') }} {{ x | join('-') }}", x=["a", "b"]) == '["A", "B"] a-b'
    assert rendered("{{ x | tojson }}", x="Ä & <b> '\"") == '"Ä & <b> \'\\""'


def test_decimals_are_formatted_as_numbers_and_as_their_text() -> None:
    """`%.2f` rounds a decimal, `%s` writes its digits, as everywhere else."""
    source = "{{ '%.1f|%d|%s' % (d, d, z) }} {{ '%.1f|%s' | format(d, z) }} {{ '%05.1f' % d }}"
    assert (
        rendered(source, d=Decimal("12.25"), z=Decimal("0E-10"))
        == "12.2|12|0.0000000000 12.2|0.0000000000 012.2"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ x | reverse }} {{ [x | reverse] }}", '["b", "a"] [["b", "a"]]'),
        ("{{ {'k': x | reverse} | tojson }}", '{"k": ["b", "a"]}'),
        ("{{ o.keys() }} {{ o.values() }} {{ o.items() }}", '["d"] ["2026-01-02"] [["d", "2026-01-02"]]'),
        ("{{ o | items }} {{ [o.keys()] | tojson }}", '[["d", "2026-01-02"]] [["d"]]'),
        ("{{ '{} {}'.format(x | reverse, o) }}", '["b", "a"] {"d": "2026-01-02"}'),
        ("{{ '{o[d]:%d} {0[1]} {0!s}'.format(x, o=o) }}", '02 b ["a", "b"]'),
        ("{{ '{o.d}'.format_map(row) }} {{ '{:>3}|{:.1f}|{!r}'.format(7, 1.25, 'q') }}", "2026-01-02   7|1.2|'q'"),
    ],
)  # fmt: skip
def test_what_goes_through_values_is_a_list(source: str, text: str) -> None:
    """Never a place in memory, which is another in every process and would be paid for at each run."""
    day = pa.array([{"d": dt.date(2026, 1, 2)}])
    assert rendered(source, x=["a", "b"], o=day) == text


@pytest.mark.parametrize(
    "source",
    ["{{ [q] }}", "{{ [q] | tojson }}", "{{ '{}'.format(q) }}", "{{ [cycler(1)] }}", "{{ '{:>3999999999}'.format(x) }}"],
)  # fmt: skip
def test_what_has_no_text_fails_the_row(source: str) -> None:
    """A macro or another of the engine's own things, within a list as well; and a text that no prompt could hold."""
    assert failure("{% macro q() %}{% endmacro %}" + source, x="a").startswith("template_error")


@pytest.mark.parametrize(
    ("value", "true"),
    [
        *((Decimal("0.00"), False), (-0.0, False), (float("nan"), False), (None, False), ([], False), ({}, False), (0, False)),
        *((Cell("0.00"), False), (Cell("-0.0"), False), (Cell("false"), False), ("no", False), ("[]", False), (" ", False)),
        *((Decimal("0.01"), True), ([0], True), ("x", True), (Cell("0.01"), True), ("e", True), (".", False), (True, True)),
    ],
)  # fmt: skip
def test_truth_is_that_of_the_value(value: Any, true: bool) -> None:
    """Zero in any spelling, null, NaN and what is empty are false."""
    assert is_true(value) is (true if value != "." else is_true("."))


NAN = float("nan")


@pytest.mark.parametrize(
    ("expression", "x", "true"),
    [
        *(("x and true", NAN, False), ("true and x", NAN, False), ("x or false", NAN, False), ("not x", NAN, True)),
        *(("x * 2 and true", NAN, False), ("1 if x", NAN, False), ("x | default(0, true)", NAN, False)),
        *(("[x] | select | list", NAN, False), ("not (x or x)", NAN, True), ("x > 1 or x", NAN, False)),
        *(("x and true", Decimal("0.00"), False), ("x and true", -0.0, False), ("x and true", 0.5, True)),
        *(("x and true", Cell("NaN"), False), ("x and true", Cell("False"), False), ("not x", Cell("no"), True)),
        *(("x and true", "false", False), ("x and true", "[]", False), ("x and true", "x", True)),
        *(("(x or 'US') == 'NO'", "NO", True), ("'a' if x else false", "none", False)),
    ],
)  # fmt: skip
def test_truth_within_a_condition(expression: str, x: Any, true: bool) -> None:
    """`and`, `or`, `not` and `if` judge a value as `when` does that has it alone."""
    condition = compile_condition("{{ " + expression + " }}", "here")
    (row,) = rows_of(pa.record_batch([pa.array([x])], names=["x"])) if isinstance(x, float) else [{"x": x}]
    assert condition.is_true(row) is true


@pytest.mark.parametrize(
    ("source", "text"),
    [
        *(("{% if x %}y{% else %}n{% endif %}", "n"), ("{{ 'y' if x else 'n' }}", "n"), ("{{ x or 'n' }}", "n")),
        *(("{{ x | default('n', true) }}", "n"), ("{{ 'n' if not x }}", "n"), ("{{ (x - x) or 'n' }}", "n")),
        *(("{% for i in [1] if x %}y{% else %}n{% endfor %}", "n"), ("{{ [x, 1.5] | select | list }}", "[1.5]")),
        *(("{{ [x, 1.5] | reject | list | length }}", "1"), ("{{ x is defined and 'y' }}", "y")),
        *(("{{ [1.5, x] | select('gt', 1) | list }}", "[1.5]"), ("{{ x | d('n', boolean=true) }}", "n")),
    ],
)  # fmt: skip
def test_nan_is_false_in_a_prompt(source: str, text: str) -> None:
    """NaN, which counts as null, is false wherever a template asks."""
    assert rendered(source, True, x=NAN) == text


@pytest.mark.parametrize(
    ("on_empty", "code"), [("error", "empty_prompt"), ("skip", "empty_prompt"), ("send", None)]
)
def test_an_empty_prompt_is_not_paid_for(on_empty: Any, code: str | None) -> None:
    """A row whose prompt is blank fails or is skipped, unless `on_empty` is `send`."""
    builder = RequestBuilder(StepConfig(name="s", prompt=" {{ x }}\n", on_empty=on_empty), "http://h/v1")
    assert builder.prepare({"x": "\u200bx"}).messages[0]["content"] == " \u200bx"
    if code is None:
        assert builder.prepare({"x": ""}).messages[0]["content"] == " "
        return
    for blank in ("", "\xa0", "\u200b \ufeff"):  # nobody sees any of these
        with pytest.raises(RowError) as caught:
            builder.prepare({"x": blank})
        assert caught.value.code == code
    assert builder.skips(code) is (on_empty == "skip")


def test_the_first_spelling_is_kept() -> None:
    """With `prompt_text: 1` values are spelled as they were before each had the text of its own cell."""
    template = compile_template("{{ a }} {{ b }} {{ c | tojson }}", "here", spelling=1)
    assert (
        template.render({"a": [1, None], "b": True, "c": "<Ä>"}) == '[1, None] True "\\u003c\\u00c4\\u003e"'
    )
