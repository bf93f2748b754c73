from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from enrich.config import StepConfig
from enrich.prompt.idempotency import NAMESPACE, idempotency_key
from enrich.prompt.request import RequestBuilder

URL = "https://api.beatra.ai/v1"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, TEXT, st.integers(0, 2**80))
def test_a_key_is_the_uuid5_of_url_body_and_ordinal(url: str, text: str, ordinal: int) -> None:
    """The key is what the standard library's uuid5 gives, so that anybody can compute it."""
    key = uuid.UUID(bytes=idempotency_key(url, text.encode(), ordinal))
    assert key == uuid.uuid5(NAMESPACE, f"{url}\0{text}\0{ordinal}")
    assert (key.version, key.variant) == (5, uuid.RFC_4122)


def test_keys_stay_what_they_are() -> None:
    """A key is the same in every version and on every machine: it decides what was paid for."""
    assert idempotency_key(URL, b"{}").hex() == uuid.uuid5(NAMESPACE, f"{URL}\0{{}}\x000").hex
    builder = RequestBuilder(StepConfig(name="s", prompt="{{ t }}"), URL)
    ask = builder.ask(builder.prepare({"t": "hello"}))
    assert ask.body == b'{"model":"auto","messages":[{"role":"user","content":"hello"}]}'
    assert str(uuid.UUID(bytes=ask.key)) == "35838d3e-fe46-5e4b-94fb-002a2459f99a"
