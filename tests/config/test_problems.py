from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from enrich.config import Config, LimitsConfig, StepConfig, problems, validate_config
from enrich.config.problems import model_in
from enrich.errors import ConfigError
from tests.config.conftest import CONFIG

DOCUMENT: dict[str, Any] = yaml.safe_load(CONFIG)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "name", "model", "headers", "role", "seconds", "api_key", "Token", "x"])
            | st.integers(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def told(**changed: Any) -> list[str]:
    """Give the lines about a document with these keys."""
    document = {**DOCUMENT, **changed}
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(document)
    return problems(caught.value, document, Config).splitlines()


@given(st.dictionaries(st.sampled_from([*Config.model_fields, "x"]), anything, max_size=3))
def test_whatever_a_document_holds_it_is_taken_or_refused_in_words(changed: dict[str, Any]) -> None:
    """No value in any place is a defect, and no place is told of twice."""
    try:
        validate_config({**DOCUMENT, **changed})
    except ConfigError as error:
        places = [line.partition(":")[0] for line in error.message.splitlines()[1:] if line.startswith("  ")]
        assert places  # not every document is refused
        assert len(places) == len(set(places))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"limits": {"concurrency": "many"}}, "  limits.concurrency: must be a valid number (it is 'many')"),
        ({"limits": {"concurrency": 1.5}}, "  limits.concurrency: must be a valid integer (it is 1.5)"),
        ({"limits": {"windows": [{"seconds": 1}]}}, "  limits.windows.0: a window needs `requests` or `tokens`"),
        ({"limits": {"concurency": 1}}, "  limits.concurency: unknown key; did you mean `concurrency`?"),
        ({"input": {"format": "csv"}}, "  input.path: this key is required"),
        ({"steps": [{"name": "s", "prompt": "x", "temperature": 3}]}, "  steps.s.temperature: must be less than or equal to 2 (it is 3)"),
        ({"steps": [{"name": "s", "prompt": "x", "shema": {}}]}, "  steps.s.shema: unknown key; did you mean `schema`?"),
        ({"steps": [{"prompt": "x"}]}, "  steps.0.name: this key is required"),
        ({"steps": []}, "  steps: must have at least one item"),
        ({"steps": "x"}, "  steps: must be a list (it is 'x')"),
    ],
)  # fmt: skip
def test_a_problem_has_its_place_as_one_types_it(changed: dict[str, Any], line: str) -> None:
    """Steps go by their names, items by their numbers; the value is shown, and the key that was meant."""
    assert told(**changed) == [line]


def test_the_key_cannot_stand_in_the_file(load: Any) -> None:
    """A key in the file is refused, and not repeated in the message."""
    with pytest.raises(ConfigError) as caught:
        load(CONFIG + "endpoint: {api_key: sk-0123456789-secret}\n")
    assert "export BEATRA_API_KEY" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["api_key", "APIKEY", "key", "Token", "password", "secret"])
def test_a_secret_in_the_wrong_place_is_not_repeated(name: str) -> None:
    """Wherever it stands, the line says where a key belongs, and does not show it."""
    for place in ("endpoint", "limits"):
        (line,) = told(**{place: {name: "hush"}})
        assert "export BEATRA_API_KEY=…" in line
        assert "hush" not in line


class Inner(BaseModel):
    """A model within another."""


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (Inner, Inner),
        (list[Inner], Inner),
        (dict[str, list[Inner] | None], Inner),
        (Inner | None, Inner),
        (int | str, None),
        (list, None),
    ],
)
def test_the_model_within_an_annotation(annotation: Any, found: type[BaseModel] | None) -> None:
    """It is found however deep it stands, so that its keys can be named."""
    assert model_in(annotation) is found


def test_the_models_of_the_sections() -> None:
    """The keys of a step's and of the limits' are those that stand in the file."""
    assert model_in(Config.model_fields["steps"].annotation) is StepConfig
    assert model_in(Config.model_fields["limits"].annotation) is LimitsConfig
