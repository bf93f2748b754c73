"""What requests have in common from their begin on: as much of a prompt as an endpoint can read from its cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enrich.prompt.request import RequestBuilder
    from enrich.prompt.template import Template
    from enrich.records import Ask

_MARKUP = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MESSAGES = b'"messages":['


class Prefix:
    """Measures the requests of a step as they come; only what they have in common stays in memory.

    Attributes:
        requests: how many were looked at.
        size: bytes of their prompts, all together.
    """

    def __init__(self, builder: RequestBuilder) -> None:
        self.requests = 0
        self.size = 0
        self._constant = builder.constant_bytes
        self._common: bytes | None = None

    def add(self, ask: Ask) -> None:
        """Look at one more request."""
        body = ask.body
        begin = body.find(_MESSAGES) + len(_MESSAGES)
        self.requests += 1
        self.size += ask.weight - begin
        if self._common is None:
            self._common = body[begin:]
        elif not body.startswith(self._common, begin):
            self._common = self._common[: same_begin(self._common, body[begin : begin + len(self._common)])]

    @property
    def common(self) -> int:
        """Give the bytes that all requests begin with: of schema and tools, which endpoints put first, and of the messages."""
        return self._constant + len(self._common or b"")

    @property
    def mean(self) -> float:
        """Give the bytes of a prompt, on average."""
        return self.size / self.requests if self.requests else 0.0


def same_begin(one: bytes, other: bytes) -> int:
    """Give how many bytes are the same from the begin on, by halves."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class Constant:
    """How much of a step's prompt is the same for every row, by its templates.

    Attributes:
        ahead: bytes that stand before the first row's data, schema and tools included.
        behind: bytes that stand behind some.
        first: where that data stands, as the configuration has it.
    """

    ahead: int
    behind: int
    first: str


def constant_of(builder: RequestBuilder) -> Constant:
    """Look through a step's templates for text that is the same for every row."""
    ahead, behind, first = builder.constant_bytes, 0, ""
    for template in builder.contents:
        before, after = _constant_text(template)
        if first:
            behind += before + after
        else:
            ahead, behind = ahead + before, behind + after
            first = template.where if template.constant is None else ""
    return Constant(ahead, behind, first)


def _constant_text(template: Template) -> tuple[int, int]:
    """Give the bytes of a template's own text: before the first markup, and behind."""
    if template.constant is not None:
        return len(template.constant.encode()), 0
    pieces = _MARKUP.split(template.source)
    return len(pieces[0].encode()), sum(len(piece.encode()) for piece in pieces[1:])


def constant_first(source: str) -> str | None:
    """Put the paragraphs of a template that are the same for every row before the others; None where it is no better.

    Paragraphs within a condition or a loop belong together, so templates with any are left alone.
    """
    if "{%" in source:
        return None
    apart = "\n\n" if "\n\n" in source else "\n"
    parts = [part.strip("\n") for part in source.split(apart) if part.strip()]
    same = [part for part in parts if not _MARKUP.search(part)]
    moved = apart.join([*same, *(part for part in parts if _MARKUP.search(part))])
    return moved if same and moved != apart.join(parts) else None
