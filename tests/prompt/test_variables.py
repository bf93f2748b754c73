"""The columns that a template needs are found before any row; what it must not use is refused."""

import pytest

from enrich.errors import TemplateError
from enrich.prompt.template import (
    RowError,
    check_columns,
    compile_condition,
    compile_template,
)


def refusal(source: str) -> str:
    """Give what is said of a template that cannot be used."""
    with pytest.raises(TemplateError) as caught:
        compile_template(source, "steps.s.prompt")
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ row }}", True),
        ("a{% if x %}{{ row | tojson(2) }}{% endif %}", True),
        ("{{ row | trim }}", True),
        ("{{ row | length }}", False),
        ("{{ row.x }} {{ row['y'] | tojson }}", False),
        ("{% for k, v in row.items() %}{{ v }}{% endfor %}", False),
    ],
)
def test_a_row_that_is_written_as_it_is(source: str, written: bool) -> None:
    """It holds every column, whatever is in it."""
    assert compile_template(source, "here").writes_row == written


def test_a_column_may_be_named_like_a_function() -> None:
    """`range` as a value is a column; `range(3)` is Jinja's function."""
    assert compile_template("{{ range }}", "here").variables == {"range"}
    assert compile_template("{{ range(3) | list }}", "here").variables == frozenset()
    assert compile_template("{{ dict }}", "here").render({"dict": "x"}) == "x"


def test_a_column_named_row_is_reachable() -> None:
    """A column `row` is reached like any other through the mapping."""
    assert compile_template('{{ row["row"] }}', "here").render({"row": "x"}) == "x"


def test_syntax_errors_name_place_and_line() -> None:
    """A template that cannot be compiled is refused with its place, its line and what helps."""
    assert refusal("one\n{{ a b }}").startswith("steps.s.prompt: line 2: expected token")
    assert refusal("{{ a | uper }}") == (
        "steps.s.prompt: line 1: No filter named 'uper'.\nHint: did you mean `upper`?"
    )
    assert "line 1: No filter named 'uper'.\nHint: did you mean `upper`?" in refusal(
        "{{ a | map('uper') | list }}"
    )
    for source in ("a | select('odds')", "a | rejectattr('x', 'odds')"):
        assert "line 1: No test named 'odds'." in refusal("{{ " + source + " | list }}")
        with pytest.raises(TemplateError, match="No test named 'odds'"):
            compile_condition("{{ " + source + " }}", "here")
    fine = "{{ a | map('upper') | select('in', 'AB') | rejectattr('x', 'none') | list }}{{ a | map(attribute='x') | select | list }}"
    assert compile_template(fine, "here").variables == {"a"}
    with pytest.raises(RowError, match="No filter named 'x'"):
        compile_template("{{ a | map(b) | list }}", "here").render({"a": ["y"], "b": "x"})
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
