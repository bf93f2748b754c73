"""How sure a model was: from the log-probabilities of an answer's tokens, as ``logprobs`` and ``top_logprobs`` bring them."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.schema.schema import AnswerSchema


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        text: as bytes, for a token may end within a character.
        logprob: natural logarithm of its probability.
        others: what might have stood in its place, as far as it was told, with its logarithm.
    """

    text: bytes
    logprob: float
    others: tuple[tuple[bytes, float], ...] = ()


def tokens_of(logprobs: Any) -> list[Token]:
    """Read a choice's ``logprobs``: a list under ``content``, or the older lists beside each other; [] for anything else."""
    if not isinstance(logprobs, dict):
        return []
    content = logprobs.get("content")
    if isinstance(content, list):
        return [token for entry in content if (token := _token(entry)) is not None]
    texts, chances, others = (logprobs.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not isinstance(chances, list):
        return []
    others = others if isinstance(others, list) else [None] * len(texts)
    entries = (
        {"token": text, "logprob": chance, "top_logprobs": other}
        for text, chance, other in zip(texts, chances, others, strict=False)
    )
    return [token for entry in entries if (token := _token(entry)) is not None]


def _token(entry: Any) -> Token | None:
    pair = _pair(entry)
    if pair is None:
        return None
    top = entry.get("top_logprobs")
    if isinstance(top, dict):
        top = [{"token": token, "logprob": chance} for token, chance in top.items()]
    others = [_pair(other) for other in top] if isinstance(top, list) else []
    return Token(*pair, tuple(other for other in others if other is not None))


def _pair(entry: Any) -> tuple[bytes, float] | None:
    if not isinstance(entry, dict):
        return None
    raw, text = entry.get("bytes"), entry.get("token")
    chance = _logarithm(entry.get("logprob"))
    if chance is None:
        return None
    if isinstance(raw, list) and raw and all(type(byte) is int and 0 <= byte < 256 for byte in raw):
        return bytes(raw), chance
    return (text.encode("utf-8", "surrogatepass"), chance) if isinstance(text, str) else None


def _logarithm(value: Any) -> float | None:
    """Give a probability's logarithm, from a number or a text that holds one."""
    if type(value) not in (int, float, str):
        return None
    try:
        chance = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(chance) else min(chance, 0.0)


def mean_logprob(tokens: Sequence[Token]) -> float | None:
    """Give the mean of the tokens' log-probabilities; None without tokens."""
    told = [token.logprob for token in tokens if token.logprob > -math.inf]
    return math.fsum(told) / len(told) if told else None


def confidence(
    tokens: Sequence[Token], text: str, values: Mapping[str, Any] | None, schema: AnswerSchema | None
) -> float | None:
    """Give how probable the answer was, between 0 and 1; None without tokens.

    Of an answer with fields of a few known values it is the probability of those that were said, against the others that
    each field may have, where the server told what else it might have said (``top_logprobs``). Else it is that of the
    answer's own tokens.

    Args:
        tokens: in order; those of reasoning may stand before the answer's.
        text: the answer's.
        values: the parsed answer, or None.
        schema: of the answer, or None.
    """
    if not tokens:
        return None
    said = _Said.of(tokens, text)
    chances = [said.of_label(*label) for label in _labels(values, schema)]
    known = [chance for chance in chances if chance is not None]
    return math.prod(known) if known and len(known) == len(chances) else said.as_a_whole()


def _labels(
    values: Mapping[str, Any] | None, schema: AnswerSchema | None
) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Give the fields that have one of a few known values: name, value, what it might have been."""
    for name, column in schema.columns.items() if schema is not None and values is not None else ():
        value = (values or {}).get(name)
        if column.categories and isinstance(value, str):
            yield name, value, column.categories


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer among the tokens that were said.

    Attributes:
        tokens: each with the place where it begins, in bytes.
        whole: all that was said.
        span: where the answer begins and ends in it.
    """

    tokens: tuple[tuple[Token, int], ...]
    whole: bytes
    span: tuple[int, int]

    @classmethod
    def of(cls, tokens: Sequence[Token], text: str) -> Self:
        """Find an answer's text; where it is not found, all that was said is the answer."""
        begins = itertools.accumulate((len(token.text) for token in tokens), initial=0)
        whole = b"".join(token.text for token in tokens)
        wanted = text.strip().encode("utf-8", "surrogatepass")
        start = whole.rfind(wanted) if wanted else -1
        span = (start, start + len(wanted)) if start >= 0 else (0, len(whole))
        return cls(tuple(zip(tokens, begins, strict=False)), whole, span)

    def within(self, span: tuple[int, int]) -> Iterator[tuple[Token, int]]:
        """Give the tokens that hold some of a span."""
        for token, at in self.tokens:
            if at < span[1] and at + len(token.text) > span[0]:
                yield token, at

    def as_a_whole(self) -> float | None:
        """Give the probability of the answer's own tokens."""
        own = [token.logprob for token, _ in self.within(self.span)]
        return math.exp(math.fsum(own)) if own else None

    def of_label(self, name: str, value: str, options: Sequence[str]) -> float | None:
        """Give the probability of a field's value among those it may have; None where it is not found, or no other is told."""
        quoted = re.escape(name.encode()), re.escape(value.encode())
        found = list(re.compile(rb'"%b"\s*:\s*"(%b)"' % quoted).finditer(self.whole, *self.span))
        own = list(self.within(found[-1].span(1))) if found else []  # a draft may stand before the answer
        if not any(token.others for token, _ in own):
            return None
        known = [option.encode() + b'"' for option in options]
        begin = found[-1].start(1)
        return math.prod(
            _share(token, self.whole[at:begin], self.whole[begin:at], known) for token, at in own
        )


def _share(token: Token, before: bytes, said: bytes, known: Sequence[bytes]) -> float:
    """Give a token's probability among all that go on as some known value does; its own where nothing else was told."""
    own = math.exp(token.logprob)
    if not token.others:
        return own
    others = 0.0
    for text, logprob in dict(token.others).items():
        rest = said + text[len(before) :]
        fits = text.startswith(before) and len(text) > len(before)
        if text != token.text and fits and any(o.startswith(rest) or rest.startswith(o) for o in known):
            others += math.exp(logprob)
    return own / (own + others) if own + others else 0.0
