from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import enrich.config
from enrich.config.section import Location, Section

SECTIONS = [
    kind for kind in vars(enrich.config).values() if isinstance(kind, type) and issubclass(kind, Section)
]


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_section_is_checked(kind: type[Section]) -> None:
    """No section takes a key that it does not know: a slip of the pen would count for nothing, in silence."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"no_such_key": 1})
    assert "extra_forbidden" in {problem["type"] for problem in caught.value.errors()}


def test_a_configuration_cannot_be_changed(load: Any) -> None:
    """What was validated stays what it is."""
    with pytest.raises(ValueError, match="frozen"):
        load().dedupe = False


def test_a_place_is_a_path_or_a_url_that_can_be_used() -> None:
    """A `file://` URL becomes its path; one with a credential, or of no store, is refused."""
    read = TypeAdapter(Location).validate_python
    assert read("file:///a%20b.csv") == "/a b.csv"
    assert read("s3://b/k") == "s3://b/k"
    for url in ("s3://AKIA:hush@b/k", "ftp://h/x"):
        with pytest.raises(ValidationError):
            read(url)
