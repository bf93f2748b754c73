"""A step's request fields: the same for every row, or rendered for each, at any depth."""

from __future__ import annotations

from typing import Any

import pytest

from enrich.config import StepConfig
from enrich.errors import ConfigError
from enrich.prompt.parameters import leaves, render, source, split
from enrich.prompt.template import RowError


def parted(**fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the fields of a step."""
    return split(StepConfig.model_validate({"name": "s", "prompt": "{{ t }}", **fields}), "steps.s")


def test_fields_without_templates_are_the_same_for_every_row() -> None:
    """They come as they were written, those that have a key of their own beside those of `params`."""
    fixed, per_row = parted(temperature=0.5, max_tokens=9, params={"seed": 1, "stop": ["a", "b"]})
    assert fixed == {"seed": 1, "stop": ["a", "b"], "temperature": 0.5, "max_tokens": 9}
    assert per_row == {}


def test_templates_are_found_at_any_depth() -> None:
    """One template makes its whole field the row's; types of the cells stay, text around them makes text."""
    fixed, per_row = parted(
        params={"metadata": {"id": "{{ n }}", "tags": ["x", "row {{ n }}"], "deep": {"v": 1}}, "seed": 1}
    )
    assert fixed == {"seed": 1}
    (tree,) = per_row.values()
    assert len(list(leaves(tree))) == 2
    assert render("metadata", tree, {"n": 7}) == {"id": 7, "tags": ["x", "row 7"], "deep": {"v": 1}}
    assert source(tree) == {"id": "{{ n }}", "tags": ["x", "row {{ n }}"], "deep": {"v": 1}}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_may_be_a_rows_own(name: str) -> None:
    """It is a whole number from 1 for each row, whatever type the cell has; another one fails that row."""
    fixed, per_row = parted(**{name: "{{ n }}"})
    assert fixed == {}
    for value in (5, 5.0, "5", " 5 "):
        found = render(name, per_row[name], {"n": value})
        assert (found, type(found)) == (5, int)
    for value in (0, -1, 2.5, "many", float("inf"), float("nan")):
        with pytest.raises(RowError, match=r"whole number from 1|is no number|JSON has no word for"):
            render(name, per_row[name], {"n": value})


def test_streams_ask_for_their_usage() -> None:
    """Options of the user's own stand beside the one for usage, and may overrule it."""
    fixed, _ = parted(stream=True, params={"stream_options": {"include_obfuscation": False}})
    assert fixed["stream"] is True
    assert fixed["stream_options"] == {"include_usage": True, "include_obfuscation": False}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_told_before_anything_is_sent(value: float) -> None:
    """An endpoint could not read it; the place is named."""
    with pytest.raises(ConfigError, match=r"steps\.s\.params: not JSON"):
        parted(params={"x": [value]})
