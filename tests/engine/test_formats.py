from __future__ import annotations

import json

from enrich.engine.formats import Formats
from enrich.records import Failure, Fate

UNKNOWN = Failure("http_422", "body.response_format.type: Input should be 'text'", Fate.REFUSED, 422)
NOT_STRICT = Failure(
    "http_400", "Invalid schema for response_format: additionalProperties", Fate.REFUSED, 400
)


def test_format_that_is_not_known() -> None:
    """A format that a model does not know is left for every schema, its looser form with it, and for that model alone."""
    formats = Formats()
    formats.refused("m", "json_schema", "a", UNKNOWN)
    assert not formats.takes("m", "json_schema", "b")
    assert not formats.takes("m", "json_schema, not strict", "b")
    assert formats.takes("m", "json_object", "b")
    assert formats.takes("n", "json_schema", "b")


def test_schema_that_is_not_liked() -> None:
    """A schema that a model does not like says nothing of other schemas, nor of the looser form."""
    formats = Formats()
    formats.refused("m", "json_schema", "a", NOT_STRICT)
    assert not formats.takes("m", "json_schema", "a")
    assert formats.takes("m", "json_schema", "b")
    assert formats.takes("m", "json_schema, not strict", "a")


def test_what_is_learned_is_kept() -> None:
    """What one run learned another takes over, through JSON."""
    formats, later = Formats(), Formats()
    formats.refused("m", "json_schema", "a", UNKNOWN)
    later.know(json.loads(json.dumps(formats.learned())))
    later.know(None)
    assert not later.takes("m", "json_schema", "z")
    assert later.learned() == formats.learned()
