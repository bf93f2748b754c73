"""How many tokens a request may use at worst, by what the answers of a run have shown so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

LENGTH_MARGIN = 1.5  # over the longest answer seen, or the most tokens per byte seen, once many were seen
LENGTH_DOUBT = 4.0  # what is added to that margin after the first answer; falls with the root of their number
FIRST_ANSWER = 4_096  # tokens expected of an answer before any was seen and when no limit is set


@dataclass(slots=True)
class Lengths:
    """What answers have shown.

    Attributes:
        answers: that told their tokens.
        tokens_per_byte: of a request, at most.
        longest_body: bytes.
        longest_answer: tokens.
    """

    answers: int = 0
    tokens_per_byte: float = 0.0
    longest_body: int = 0
    longest_answer: int = 0

    def learn(self, body_bytes: int, prompt: int, answer: int) -> None:
        """Take in how many tokens a request and its answer had."""
        self.answers += 1
        self.tokens_per_byte = max(self.tokens_per_byte, prompt / max(body_bytes, 1))
        self.longest_body = max(self.longest_body, body_bytes if prompt else 0)
        self.longest_answer = max(self.longest_answer, answer)

    def worst(self, body_bytes: int, max_tokens: int | None) -> tuple[float, float]:
        """Give the most tokens of prompt and answer that a request may use.

        No tokenizer makes more than one token of a byte. Up to the longest body seen the answers say better; beyond it
        each further byte counts as a token.
        """
        if not self.answers:
            return body_bytes, max_tokens if max_tokens is not None else FIRST_ANSWER
        margin = LENGTH_MARGIN + LENGTH_DOUBT / math.sqrt(self.answers)
        known = min(body_bytes, self.longest_body)
        prompt = min(margin * self.tokens_per_byte, 1.0) * known + body_bytes - known
        longest = margin * max(self.longest_answer, 1)
        return prompt, max_tokens if max_tokens is not None else longest

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return asdict(self)
