from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import TemplateError
from enrich.prompt.cells import is_null
from enrich.prompt.template import (
    MAX_PROMPT_BYTES,
    Expression,
    RowError,
    Template,
    check_columns,
    compile_template,
    compile_value,
)


def rendered(source: str, **values: object) -> str:
    """Compile and render a template."""
    return compile_template(source, "here").render(values)


def refusal(source: str) -> str:
    """Give what is said of a template that cannot be used."""
    with pytest.raises(TemplateError) as caught:
        compile_template(source, "steps.s.prompt")
    return str(caught.value)


@given(st.text().filter(lambda text: "{" not in text and "}" not in text and "\r" not in text))
def test_a_text_without_braces_is_itself(text: str) -> None:
    """What is no template comes out as it stands, but for one line end at its end."""
    assert rendered(text) == text.removesuffix("\n")


@given(st.text())
def test_data_is_never_compiled(text: str) -> None:
    """Whatever a cell holds goes into the prompt as it is, braces and all."""
    assert rendered("<{{ cell }}>", cell=text) == f"<{text}>"


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(min_size=1)))
def test_values_are_written_as_python_writes_them(value: object) -> None:
    """Numbers and booleans appear as str() gives them."""
    assert rendered("{{ v }}", v=value) == str(value)


def test_variables_are_found() -> None:
    """The columns a template needs: plain names, row items, none of its own loop variables or Jinja's functions."""
    source = (
        '{% for i in range(n) %}{{ i }}{{ row["Unit Price"] }}{{ row.tax }}{% endfor %}{% set x = 1 %}{{ x }}'
    )
    template = compile_template(source, "here")
    assert template.variables == {"n", "Unit Price", "tax"}
    assert not template.whole_row


def test_the_whole_row_may_be_used() -> None:
    """A `row` that is used in any other way may need every column."""
    template = compile_template("{{ row | tojson }}", "here")
    assert template.whole_row
    assert template.render({"a": 1}) == '{"a": 1}'


def test_a_column_may_be_named_like_a_function() -> None:
    """`range` as a value is a column; `range(3)` is Jinja's function."""
    assert compile_template("{{ range }}", "here").variables == {"range"}
    assert compile_template("{{ range(3) | list }}", "here").variables == frozenset()
    assert rendered("{{ dict }}", dict="x") == "x"


def test_a_column_named_row_is_reachable() -> None:
    """A column `row` is reached like any other through the mapping."""
    assert rendered('{{ row["row"] }}', row="x") == "x"


def test_none_renders_as_nothing() -> None:
    """Where a null is let through it is an empty text, never the word None."""
    assert rendered("<{{ v }}>", v=None) == "<>"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ v.__class__ }}",
        "{{ v.append(1) }}",
        "{{ v['x'].y }}",
        "{{ v + 1 }}",
        "{{ 1 / 0 }}",
        "{{ v[9] }}",
        "{{ 'a' * 10 ** 12 }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_what_fails_on_a_row_is_that_row_s_error(source: str) -> None:
    """A forbidden attribute, a change to data, a wrong type or a bomb fails the row with its place and reason."""
    with pytest.raises(RowError) as caught:
        rendered(source, v=[1])
    assert caught.value.code == "template_error"
    assert str(caught.value).startswith("template_error: here: ")
    assert "\n" not in str(caught.value)


def test_a_prompt_has_a_largest_size() -> None:
    """A text of more than 8 MiB is refused with its size."""
    assert rendered("{{ v }}", v="x" * MAX_PROMPT_BYTES)
    with pytest.raises(RowError, match="prompt_too_large: here: more than 8 MiB"):
        rendered("{{ v }}", v="ä" * (MAX_PROMPT_BYTES // 2) + "x")


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("", False),
        (" False\n", False),
        ("0", False),
        ("0.0", False),
        ("no", False),
        ("NONE", False),
        ("true", True),
        ("1", True),
        ("yes", True),
        ("x", True),
    ],
)
def test_conditions(text: str, true: bool) -> None:
    """An empty text, false, 0, no, none and null are false; all else is true."""
    assert compile_template("{{ v }}", "here").is_true({"v": text}) is true


def test_one_whole_expression_keeps_its_type() -> None:
    """`{{ n * 2 }}` alone is a number; with text around it, it is text."""
    whole, part = compile_value(" {{ n * 2 }} ", "here"), compile_value("n: {{ n }}", "here")
    assert isinstance(whole, Expression)
    assert whole.value({"n": 4}) == 8
    assert isinstance(part, Template)
    assert part.render({"n": 4}) == "n: 4"


def test_an_expression_that_json_cannot_write_fails_the_row() -> None:
    """Infinity and NaN have no word in JSON."""
    expression = compile_value("{{ n * 1e308 }}", "here")
    assert isinstance(expression, Expression)
    with pytest.raises(RowError, match="the value is inf"):
        expression.value({"n": 10.0})


def test_syntax_errors_name_place_and_line() -> None:
    """A template that cannot be compiled is refused with its place, its line and what helps."""
    assert refusal("one\n{{ a b }}").startswith("steps.s.prompt: line 2: expected token")
    assert refusal("{{ a | uper }}") == (
        "steps.s.prompt: line 1: No filter named 'uper'.\nHint: did you mean `upper`?"
    )
    assert "cannot load another one (include)" in refusal("{% include 'x' %}")
    assert "cannot load another one (extends)" in refusal("{% extends 'x' %}")
    assert "cannot load another one (import)" in refusal("{% import 'x' as y %}")


def test_missing_columns_are_named_with_the_nearest() -> None:
    """A column that is not there is told with the nearest one, or with those there are."""
    with pytest.raises(TemplateError, match=r"here: no column `reveiw`\nHint: did you mean `review`\?"):
        check_columns([compile_template("{{ reveiw }}", "here")], ["id", "review"])
    with pytest.raises(TemplateError, match="Hint: there is `id`, `review`"):
        check_columns([compile_template("{{ zzz }}", "here")], ["id", "review"])
    check_columns([compile_template("{{ id }}", "here")], ["id", "review"])


def test_null_is_none_or_nan() -> None:
    """None and NaN are null; zero, false and an empty text are not."""
    assert [is_null(v) for v in (None, float("nan"), 0, False, "", 0.0, "nan")] == [True] * 2 + [False] * 5


@pytest.mark.parametrize(
    ("written", "column"),
    [
        ("{{ review text }}", "review text"),
        ("A {{ Customer name }} and {{ b }}", "Customer name"),
        ("{{ Größe in cm }}", "Größe in cm"),
        ("{{ price (EUR) }}", "price (EUR)"),
    ],
)
def test_a_column_with_blanks_is_explained(written: str, column: str) -> None:
    """Who writes a name with blanks as if it were a plain one is told how it is written."""
    with pytest.raises(TemplateError) as caught:
        check_columns([compile_template(written, "steps.s.prompt")], [column, "b"])
    assert f'{{{{ row["{column}"] }}}}' in caught.value.hint
