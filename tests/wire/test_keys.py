from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from enrich.config.endpoint import Endpoint
from enrich.config.key_source import FileKey, GivenKey
from enrich.records import Failure, Fate, Reply
from enrich.wire import keys as keys_module
from enrich.wire.keys import Keys, refuses_key

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND, THIRD = (f"sk-{name}-0123456789-SECRET" for name in ("first", "second", "third"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no more than a moment."""
    monkeypatch.setattr(keys_module, "MOMENTS", (0.0, 0.05, 0.05, 0.05))
    monkeypatch.setattr(keys_module, "LOOK", 0.02)


def put(path: Path, key: str) -> None:
    """Replace the key in a file."""
    fresh = path.with_name("fresh")
    fresh.write_text(key)
    fresh.chmod(0o600)
    fresh.replace(path)


def in_file(path: Path) -> Keys:
    """Begin with the first key."""
    put(path, FIRST)
    return Keys(Endpoint("http://x", SecretStr(FIRST), key_source=FileKey(path)))


async def test_a_file_that_changes_is_read_before_anything_is_refused(tmp_path: Path) -> None:
    """Looked at now and then; while it is not there, or holds no key, the last one stays."""
    keys = in_file(tmp_path / "key")
    put(tmp_path / "key", SECOND)
    await asyncio.sleep(0.05)
    assert keys.due
    await keys.look()
    assert keys.key == SECOND
    assert [keys.due] == [False]
    (tmp_path / "key").unlink()
    await asyncio.sleep(0.05)
    await keys.look()
    assert keys.key == SECOND
    put(tmp_path / "key", THIRD)
    await asyncio.sleep(0.05)
    await keys.look()
    assert keys.key == THIRD


async def test_a_refused_key_is_read_again(tmp_path: Path) -> None:
    """The requests that were refused together go again with the new one; without one they do not."""
    keys = in_file(tmp_path / "key")
    sent = time.monotonic()
    assert not await keys.renewed(FIRST, sent)
    assert not await keys.renewed(FIRST, sent)
    keys = in_file(tmp_path / "key")
    put(tmp_path / "key", SECOND)
    assert await asyncio.gather(*(keys.renewed(FIRST, sent) for _ in range(5))) == [True] * 5
    assert keys.key == SECOND


async def test_a_key_that_served_is_waited_for(tmp_path: Path) -> None:
    """Who changes it may tell the endpoint first, and write the file a moment later."""
    keys = in_file(tmp_path / "key")
    keys.took(FIRST)
    writer = asyncio.get_running_loop().call_later(0.06, put, tmp_path / "key", SECOND)
    assert await keys.renewed(FIRST, time.monotonic())
    assert keys.key == SECOND
    writer.cancel()
    keys.took(SECOND)
    assert not await keys.renewed(SECOND, time.monotonic())


async def test_a_new_key_may_not_be_known_yet(tmp_path: Path) -> None:
    """It goes again some times; those that were sent before that count for nothing."""
    keys = in_file(tmp_path / "key")
    keys.took(FIRST)
    put(tmp_path / "key", SECOND)
    before = time.monotonic()
    assert await keys.renewed(FIRST, before)
    assert await keys.renewed(SECOND, before)
    tries = 0
    while await keys.renewed(SECOND, time.monotonic()):
        assert await keys.renewed(SECOND, before)
        tries += 1
    assert tries == len(keys_module.MOMENTS)


async def test_a_given_key_is_what_it_is() -> None:
    """There is nowhere to look for another one."""
    keys = Keys(Endpoint("http://x", SecretStr(FIRST), key_source=GivenKey("BEATRA_API_KEY")))
    assert [keys.due] == [False]
    assert not await keys.renewed(FIRST, time.monotonic())
    nothing = Keys(Endpoint("http://x"))
    assert (nothing.key, nothing.due) == ("", False)


async def test_every_key_is_hidden(tmp_path: Path) -> None:
    """Those that the run has had, too."""
    keys = in_file(tmp_path / "key")
    put(tmp_path / "key", SECOND)
    await keys.renewed(FIRST, time.monotonic())
    said = f"{FIRST} then {SECOND}".encode()
    reply = keys.outcome(Reply(said, FIRST, 1.0))
    assert isinstance(reply, Reply)
    assert (reply.body, reply.request_id) == (b"[key] then [key]", "[key]")
    failure = keys.outcome(Failure("x", said.decode(), Fate.REFUSED, evidence=said))
    assert isinstance(failure, Failure)
    assert (failure.message, failure.evidence) == ("[key] then [key]", b"[key] then [key]")


@pytest.mark.parametrize(
    ("status", "code", "about"),
    [(401, "x", True), (401, "invalid_api_key", True), (403, "invalid_api_key", True), (400, "api_key_expired", True), (403, "x", False), (402, "insufficient_balance", False)],
)  # fmt: skip
def test_what_refuses_a_key(status: int, code: str, about: bool) -> None:  # a parameter
    """A 401, and whatever else says so."""
    assert refuses_key(Failure(code, "", Fate.REFUSED, status=status)) is about
