"""Content parts: refused by the contract, taken when the emulator is told to."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from enrich.sandbox import Sandbox, SandboxOptions
from tests.helpers.pictures import png
from tests.helpers.sandbox import Caller, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

URL = f"data:image/png;base64,{base64.b64encode(png(1)).decode()}"


def with_parts(*parts: dict[str, Any]) -> dict[str, Any]:
    """Ask with parts."""
    return {**ask(), "messages": [{"role": "user", "content": list(parts)}]}


@pytest.fixture
async def seeing(session: aiohttp.ClientSession) -> AsyncIterator[Caller]:
    """Call an emulator that takes parts."""
    async with Sandbox(SandboxOptions(parts=True)) as opened:
        yield Caller(session, opened.base_url)


TEXT = {"type": "text", "text": "What is it?"}
PICTURE = {"type": "image_url", "image_url": {"url": URL}}


async def test_the_contract_knows_no_parts(caller: Caller) -> None:
    """They are refused as any other content that is no string."""
    answer = await caller.chat(with_parts(TEXT, PICTURE))
    assert (answer.status, answer.error["param"]) == (422, "/messages/0/content")


async def test_parts_are_answered_and_charged(seeing: Caller) -> None:
    """The answer quotes text and picture; the picture costs tokens, whatever its size."""
    answer = await seeing.chat(with_parts(TEXT, PICTURE))
    assert answer.status == 200
    assert "What is it?" in answer.text
    assert 256 <= answer.json["usage"]["prompt_tokens"] < 300
    assert (await seeing.chat(ask())).status == 200


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ("x", "/messages/0/content/0"),
        ({"type": "sound"}, "/messages/0/content/0"),
        ({"type": "text"}, "/messages/0/content/0/text"),
        ({"type": "image_url", "image_url": URL}, "/messages/0/content/0/image_url/url"),
        (
            {"type": "image_url", "image_url": {"url": "http://a/b.png"}},
            "/messages/0/content/0/image_url/url",
        ),
        (
            {"type": "file", "file": {"file_data": "data:a/b;base64,%"}},
            "/messages/0/content/0/file/file_data",
        ),
    ],
)
async def test_parts_that_are_none_are_refused(seeing: Caller, part: Any, param: str) -> None:
    """The refusal points to the part."""
    answer = await seeing.chat(with_parts(part))
    assert (answer.status, answer.error["param"]) == (422, param)


async def test_the_bytes_decide_the_answer(seeing: Caller) -> None:
    """Another picture gets another answer where a schema asks for one; digests are those of the bytes."""
    from enrich.sandbox.content import flatten

    body = with_parts(TEXT, PICTURE)
    flatten(body)
    assert hashlib.sha256(png(1)).hexdigest() in body["messages"][0]["content"]
    first = (await seeing.chat(with_parts(TEXT, PICTURE))).json["id"]
    assert (await seeing.chat(with_parts(TEXT))).json["id"] != first
