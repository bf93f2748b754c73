"""Takes the API key out of what comes from outside, in whatever way it is written there."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from enrich.records import Failure, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_SCRUBBED_KEY: Final = 4  # characters; a shorter key is a placeholder
MIN_SECRET_KEY: Final = (
    20  # characters; only such a key is looked for in answers too, for a shorter one may be a word
)
PUBLIC_KEY: Final = 12  # characters of a key that are no secret
HIDDEN_KEY: Final = b"[key]"
ESCAPES: Final = (
    b"\\u",
    b"%",
    b"&#",
    b"\\/",
)  # what a key that is not written as it is begins a character with
_FIELD: Final = re.compile(rb'"(\w+)"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


class Redactor:
    """Replaces one key by ``[key]``.

    It is found as it stands, with some or all of its characters escaped for JSON, URLs (also more than once) or HTML, in
    base64, in hexadecimal, in whatever case its letters are, and in a stream also where it is cut over several events.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._secret = key.encode()
        self._pattern = re.compile(b"".join(map(_any_spelling, key)))
        long = len(key) >= MIN_SECRET_KEY
        self._encoded = tuple(_in_base64(self._secret)) if long else ()
        self._folded = (self._secret.lower(), self._secret.hex().encode()) if long else ()
        self._in_any_case = re.compile(b"|".join(map(re.escape, self._folded)), re.IGNORECASE)

    def outcome(self, outcome: Reply | Failure) -> Reply | Failure:
        """Give what came of an attempt without the key."""
        if isinstance(outcome, Reply):
            return self._reply(outcome) if len(self._key) >= MIN_SECRET_KEY else outcome
        if len(self._key) < MIN_SCRUBBED_KEY:
            return outcome
        return replace(
            outcome,
            code=self.text(outcome.code),
            message=self.text(outcome.message),
            request_id=self.text(outcome.request_id) if outcome.request_id else None,
            evidence=self._without_a_cut_one(self._stream(outcome.evidence)),
        )

    def _reply(self, reply: Reply) -> Reply:
        body = self._stream(reply.body) if reply.streamed else self._body(reply.body)
        request_id = self.text(reply.request_id) if reply.request_id else reply.request_id
        if body is reply.body and request_id == reply.request_id:
            return reply
        return replace(reply, body=body, request_id=request_id)

    def text(self, text: str) -> str:
        """Give a text without the key, also where the text was cut within it."""
        data = text.encode("utf-8", "surrogateescape")
        return self._without_a_cut_one(self._body(data)).decode("utf-8", "surrogateescape")

    def _body(self, data: bytes) -> bytes:
        if self._secret in data:
            data = data.replace(self._secret, HIDDEN_KEY)
        if any(escape in data for escape in ESCAPES):
            data = self._pattern.sub(HIDDEN_KEY, data)
        for encoded in self._encoded:
            if encoded in data:
                data = data.replace(encoded, HIDDEN_KEY)
        if self._folded:
            lowered = data.lower()
            if any(folded in lowered for folded in self._folded):
                data = self._in_any_case.sub(HIDDEN_KEY, data)
        return data

    def _without_a_cut_one(self, data: bytes) -> bytes:
        cut = data.removesuffix("…".encode())
        for length in range(len(self._secret) - 1, PUBLIC_KEY, -1):
            if cut.endswith(self._secret[:length]):
                return cut[:-length] + HIDDEN_KEY
        return data

    def _stream(self, body: bytes) -> bytes:
        """Look also through the texts that events carry on: the values of one name, one after the other."""
        body = self._body(body)
        values: dict[bytes, list[tuple[int, bytes]]] = {}
        for match in _FIELD.finditer(body):
            values.setdefault(match[1], []).append((match.start(2), match[2]))
        changes: list[tuple[int, int, bytes]] = []
        for parts in values.values():
            whole = b"".join(part for _, part in parts)
            for found in self._pattern.finditer(whole):
                changes += _spread(parts, found.start(), found.end())
        for start, end, new in sorted(changes, reverse=True):
            body = body[:start] + new + body[end:]
        return body


def _spread(parts: list[tuple[int, bytes]], start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Say what to change in parts of a text so that a stretch of the whole is hidden; places are those of the body."""
    at, new = 0, HIDDEN_KEY
    for place, part in parts:
        low, high = max(start - at, 0), min(end - at, len(part))
        if low < high:
            yield place + low, place + high, new
            new = b""
        at += len(part)


def _any_spelling(character: str) -> bytes:
    """Give a pattern for one character of a key, as it is or escaped."""
    number = ord(character)
    spellings = [
        re.escape(character),
        rf"\\*\\u00(?i:{number:02x})",
        rf"%(?:25)*(?i:{number:02x})",
        rf"&#0*{number};",
        rf"&#[xX]0*(?i:{number:x});",
    ]
    if character in '/"\\':
        spellings.append(rf"\\{re.escape(character)}")
    return f"(?:{'|'.join(spellings)})".encode()


def _in_base64(secret: bytes) -> Iterator[bytes]:
    """Give what base64 makes of a key within a longer text: of each place that it may begin at, the part it decides."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret)
        begin = -(-before * 8 // 6)
        end = (before + len(secret)) * 8 // 6
        yield whole[begin:end]
        yield base64.urlsafe_b64encode(b"\0" * before + secret)[begin:end]
