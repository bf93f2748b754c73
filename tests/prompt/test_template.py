from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.prompt.cells import is_null
from enrich.prompt.template import (
    MAX_PROMPT_BYTES,
    Expression,
    RowError,
    Template,
    compile_template,
    compile_value,
)


def rendered(source: str, **values: object) -> str:
    """Compile and render a template."""
    return compile_template(source, "here").render(values)


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
        "{{ 'a' | center(10 ** 9) }}",
        "{{ 'a' | indent(width=10 ** 9, first=true) }}",
        "{{ v | batch(10 ** 9, 'x') }}",
        "{{ v | slice(10 ** 9) }}",
        "{{ v | tojson(indent=10 ** 9) }}",
        "{{ '%1000000000d' | format(5) }}",
        "{{ '%*d' | format(10 ** 9, 5) }}",
        "{{ 'a'.ljust(width=10 ** 9) }}",
        "{{ (5).to_bytes(10 ** 9, 'big') }}",
        "{{ 5 | round(-10 ** 9) }}",
        "{{ (2 ** 9000) ** 2 * 2 ** 90000 }}",
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


def test_null_is_none_or_nan() -> None:
    """None and NaN are null; zero, false and an empty text are not."""
    assert [is_null(v) for v in (None, float("nan"), 0, False, "", 0.0, "nan")] == [True] * 2 + [False] * 5
