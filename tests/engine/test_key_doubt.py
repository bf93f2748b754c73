from __future__ import annotations

import pytest

from enrich.engine.key_doubt import AFTER_ANSWERS, AT_START, LOOKS, KeyDoubt, may_be_about_the_row
from enrich.wire.envelope import http_failure


def keys(count: int) -> list[bytes]:
    """Give keys of requests."""
    return [bytes([number]) * 16 for number in range(count)]


def test_success_after_a_refused_request() -> None:
    """An answer to what was sent later clears the key: the refusal was about its row."""
    doubt = KeyDoubt()
    (poison,) = keys(1)
    assert doubt.refused(poison, 1.0) == "open"
    doubt.served(2.0)
    assert doubt.refused(poison, 3.0) == "row"


def test_success_before_a_refused_request() -> None:
    """An answer to what was sent before says nothing of the key since."""
    doubt = KeyDoubt()
    doubt.served(1.0)
    words = [doubt.refused(key, 2.0) for key in keys(AFTER_ANSWERS)]
    assert words == ["open"] * (AFTER_ANSWERS - 1) + ["key"]


def test_key_that_never_served() -> None:
    """A few refused requests at the start are about the key, and so is one alone that is refused again and again."""
    doubt = KeyDoubt()
    assert [doubt.refused(key, 1.0) for key in keys(AT_START)] == ["open"] * (AT_START - 1) + ["key"]
    alone = KeyDoubt()
    (only,) = keys(1)
    assert [alone.refused(only, float(n)) for n in range(LOOKS)] == ["open"] * (LOOKS - 1) + ["key"]


def test_row_that_is_left_alone() -> None:
    """A row at the end, with nothing after it to tell by, is given up where the key has served before."""
    doubt = KeyDoubt()
    doubt.served(0.0)
    (last,) = keys(1)
    assert [doubt.refused(last, 1.0 + n) for n in range(LOOKS)] == ["open"] * (LOOKS - 1) + ["row"]


@pytest.mark.parametrize(
    ("status", "body", "open_to_doubt"),
    [
        (403, b"<html>Request blocked</html>", True),
        (403, b"", True),
        (401, b"<html>401 Authorization Required</html>", True),
        (403, b'{"error": {"code": "blocked", "message": "Request blocked by policy 7"}}', True),
        (401, b'{"error": "Unauthorized"}', False),
        (403, b'{"error": {"code": "forbidden", "message": "no"}}', False),
        (403, b'{"error": {"code": "odd", "message": "no", "retryable": false}}', False),
        (403, b'{"error": {"code": "model_not_found", "message": "no access"}}', False),
        (402, b"", False),
        (500, b"", False),
    ],
)
def test_what_is_open_to_doubt(status: int, body: bytes, open_to_doubt: bool) -> None:
    """Only a refusal of access that does not say why is looked at twice."""
    assert may_be_about_the_row(http_failure(status, body)) is open_to_doubt
