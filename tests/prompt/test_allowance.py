"""A rendering takes so many steps and no more, wherever a template's loops, calls and texts hide them."""

from __future__ import annotations

import pytest

from enrich.prompt.allowance import MAX_STEPS, grant, spend, spend_within
from enrich.prompt.template import RowError, Spelling, compile_expression, compile_template

OVER = "{% for i in range(99999) %}"
DOUBLED = "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}"


@pytest.mark.parametrize("spelling", [1, 2])
@pytest.mark.parametrize(
    "source",
    [
        OVER + "{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}",
        OVER + "{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
        OVER + "{% for j in range(99999) | reverse %}{% endfor %}{% endfor %}",
        OVER + "{{ range(99999) | sum }}{% endfor %}",
        OVER + "{% set part = long[i:] %}{% endfor %}",
        OVER + "{% if 'z' in long %}{% endif %}{% endfor %}",
        "{% set x %}" + OVER + "{{ long | upper }}{% endfor %}{% endset %}",
        "{% set x %}" + OVER + "{{ 'a' | center(1000000) }}{% endfor %}{% endset %}",
        "{% for a in range(9) %}" * 9 + "{% endfor %}" * 9,
        "{% for a in [1, 2, 3, 4, 5, 6, 7, 8, 9] %}" * 9 + "{% endfor %}" * 9,
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ range(99999) | select('in', range(99999) | list) | list | length }}",
        DOUBLED + "{{ ns.a }}",
        DOUBLED + "{{ ns.a | tojson }}",
        DOUBLED + "{{ ns.a ~ 'x' }}",
        DOUBLED + "{{ '%s' % (ns.a,) }}",
        DOUBLED + "{{ '{}'.format(ns.a) }}",
        DOUBLED + "{{ [ns.a] | join }}",
    ],
)
def test_work_upon_work_is_that_row_s_error(source: str, spelling: Spelling) -> None:
    """Loops within loops, calls of calls and lists of lists end at the same step everywhere, with the reason."""
    template = compile_template(source, "here", spelling=spelling)
    tree = list(range(40))
    with pytest.raises(
        RowError, match=r"more than 1,000,000 steps|maximum recursion depth|would be larger than any prompt"
    ):
        template.render({"long": "some words " * 10_000, "tree": tree})


@pytest.mark.parametrize("spelling", [1, 2])
@pytest.mark.parametrize(
    "source",
    [
        "{{ long.replace('s', long) }}",
        "{{ long | replace('s', long) }}",
        "{{ range(99999) | join(long) }}",
        "{{ ('\t' * 100000).expandtabs(100000) }}",
        "{{ ('\n' * 100000) | indent(100000) }}",
        "{{ ('%s' * 1000) | format(*([long] * 1000)) }}",
        "{{ ([range(99999) | list] * 1000) | sum(start=[]) }}",
        "{% set ns = namespace(a='xx') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% set ns = namespace(a='xx') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a=3) %}{% for i in range(60) %}{% set ns.a = ns.a * ns.a %}{% endfor %}",
    ],
)
def test_what_would_fill_the_memory_is_not_made(source: str, spelling: Spelling) -> None:
    """A text, list or number that grows out of all measure is refused before it is there."""
    template = compile_template(source, "here", spelling=spelling)
    with pytest.raises(
        RowError, match=r"template_error: here: .* would be larger than any prompt|more than 1,000,000 steps"
    ):
        template.render({"long": "some words " * 100_000})


def test_each_rendering_has_its_own_allowance() -> None:
    """What one row took is not missing in the next, and a long table in one prompt is no bomb."""
    template = compile_template(
        "{% for r in rows %}{{ loop.index }}. {{ r.name | upper }}: {{ r.n }}\n{% endfor %}", "h"
    )
    rows = [{"name": f"row {n}", "n": n} for n in range(20_000)]
    texts = {template.render({"rows": rows}) for _ in range(3)}
    assert len(texts) == 1
    assert texts.pop().endswith("\n20000. ROW 19999: 19999\n")


def test_a_value_is_bounded_as_a_text_is() -> None:
    """One whole expression that keeps its type has the same allowance."""
    value = compile_expression("{{ range(99999) | map('center', 99999) | list }}", "here")
    with pytest.raises(RowError, match="steps"):
        value.value({})


def test_a_pattern_may_hold_long_numbers() -> None:
    """An order's number within a text that is formatted is no width."""
    template = compile_template("{{ 'order 12345678: %5s' % v }}", "here")
    assert template.render({"v": "new"}) == "order 12345678:   new"


def test_steps_are_those_of_what_is_written() -> None:
    """A list costs its items as often as it holds them, a text its length."""
    grant()
    inner = list(range(10))
    assert spend_within([inner, inner]) == 22
    assert spend_within("x" * 1_000) == 10
    with pytest.raises(OverflowError, match="more than 1,000,000 steps"):
        spend(MAX_STEPS)
