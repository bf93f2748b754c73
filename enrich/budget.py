"""What a run may spend: the worst case is reserved before each send and settled on usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.errors import BudgetSpent

if TYPE_CHECKING:
    from enrich.config import BudgetConfig
    from enrich.records import Usage

BYTES_PER_TOKEN_FLOOR = 1.0  # no tokenizer in use makes more than one token of a byte
LENGTH_MARGIN = 1.5  # over the longest answer seen, where the request sets no limit of its own
BYTES_PER_TOKEN = 4.0  # of ordinary English, the first guess
FIRST_GUESS = 256  # tokens of an answer, the first guess
FIRST_ANSWER = 4_096  # tokens expected of an answer before any was seen and when no limit is set
PRICE_MARGIN = 1.1  # over the dearest token seen


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request may cost at worst, until its usage is known."""

    tokens: float
    credits: float


class Budget:
    """Keeps a run's spending within its budget, what is in flight included.

    Learns from the run's own answers: the most tokens per byte of request, the longest answer, the dearest token.
    """

    def __init__(self, config: BudgetConfig) -> None:
        self._config = config
        self.requests = 0
        self.tokens = 0.0
        self.credits = 0.0
        self._reserved_tokens = 0.0
        self._reserved_credits = 0.0
        self._in_flight = 0
        self._price: float | None = None
        self._tokens_per_byte: float | None = None
        self._longest_answer = 0
        self._answers = 0
        self._unpriced = False
        self._mean_per_byte = 0.0

    @property
    def active(self) -> bool:
        """Say whether there is a budget at all."""
        config = self._config
        return config.credits is not None or config.tokens is not None or config.requests is not None

    def reserve(self, body_bytes: int, max_tokens: int | None) -> Reservation | None:
        """Set aside what a request may cost at worst.

        Args:
            body_bytes: the request's size.
            max_tokens: the longest answer it allows, or None.

        Returns:
            The reservation; None when it must wait for what is in flight to settle.

        Raises:
            BudgetSpent: even with nothing else in flight it would not fit.
        """
        tokens = self.worst_tokens(body_bytes, max_tokens)
        credits_ = tokens * self._price * PRICE_MARGIN if self._price is not None else 0.0
        over = self._over(tokens, credits_)
        if over is None:
            self.requests += 1
            self._in_flight += 1
            self._reserved_tokens += tokens
            self._reserved_credits += credits_
            return Reservation(tokens, credits_)
        if self._in_flight:
            return None
        raise BudgetSpent(
            over, hint="raise `budget` in the configuration and run again; what is paid for is kept."
        )

    def worst_tokens(self, body_bytes: int, max_tokens: int | None) -> float:
        """Give the most tokens a request may use, by what this run has seen so far."""
        per_byte = self._tokens_per_byte or BYTES_PER_TOKEN_FLOOR
        longest = LENGTH_MARGIN * self._longest_answer if self._answers else FIRST_ANSWER
        return body_bytes * per_byte + (max_tokens if max_tokens is not None else longest)

    def likely_tokens(self, body_bytes: int, max_tokens: int | None) -> float:
        """Estimate the tokens a request will use, from the mean of this run's last answers."""
        if self._answers:
            return body_bytes * self._mean_per_byte
        return body_bytes / BYTES_PER_TOKEN + min(max_tokens or FIRST_GUESS, FIRST_GUESS)

    def settle(self, reservation: Reservation, body_bytes: int, usage: Usage | None) -> None:
        """Replace a reservation by what was used; None for a request that brought no answer."""
        self._in_flight -= 1
        self._reserved_tokens -= reservation.tokens
        self._reserved_credits -= reservation.credits
        if usage is None:
            return
        self.tokens += usage.total_tokens if usage.total_tokens is not None else reservation.tokens
        self.learn(body_bytes, usage)

    def learn(self, body_bytes: int, usage: Usage) -> None:
        """Learn from an answer what requests of this run cost."""
        total = usage.total_tokens
        self._answers += 1
        self._mean_per_byte += ((total or 0) / max(body_bytes, 1) - self._mean_per_byte) / min(
            self._answers, 200
        )
        if usage.credits is None:
            self._unpriced = True
        else:
            self.credits += usage.credits
            if total:
                self._price = max(self._price or 0.0, usage.credits / total)
        if usage.prompt_tokens and body_bytes:
            self._tokens_per_byte = max(self._tokens_per_byte or 0.0, usage.prompt_tokens / body_bytes)
        self._longest_answer = max(self._longest_answer, usage.completion_tokens or 0)

    def _over(self, tokens: float, credits_: float) -> str | None:
        """Say which budget a further request would break, or None."""
        limit = self._config
        if limit.requests is not None and self.requests + 1 > limit.requests:
            return f"the budget of {limit.requests:,} requests is spent"
        if limit.tokens is not None and self.tokens + self._reserved_tokens + tokens > limit.tokens:
            spent = f"{self.tokens:,.0f} used; the next request may take {tokens:,.0f}"
            return f"the budget of {limit.tokens:,} tokens is spent ({spent})"
        return None if limit.credits is None else self._over_credits(limit.credits, credits_)

    def _over_credits(self, limit: float, credits_: float) -> str | None:
        if self._price is None:
            if self._answers and self._unpriced:
                return f"the budget of {limit:g} credits cannot be held: the endpoint names no price"
            return "the price is not known yet" if self._in_flight else None
        if self.credits + self._reserved_credits + credits_ > limit:
            spent = f"{self.credits:g} used; the next request may take {credits_:g}"
            return f"the budget of {limit:g} credits is spent ({spent})"
        return None
