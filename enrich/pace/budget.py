"""What a run may spend: the worst case is reserved before each send and settled on usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.errors import BudgetSpent
from enrich.pace.lengths import Lengths
from enrich.pace.prices import Charge, Prices

if TYPE_CHECKING:
    from enrich.config import BudgetConfig
    from enrich.records import Completion

BYTES_PER_TOKEN = 4.0  # of ordinary English, the first guess
FIRST_GUESS = 256  # tokens of an answer, the first guess


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request may cost at worst, until its usage is known."""

    tokens: float
    credits: float


class Budget:
    """Keeps a run's spending within its budget, what is in flight included.

    Learns from the run's own answers: tokens per byte of request, the longest answer, the prices.

    Attributes:
        requests: distinct requests sent, or about to be.
        tokens: used; where an answer named no usage, what was reserved for it.
        credits: charged, in the same way.
        held: why the next request waits for what is in flight; empty when it does not.
    """

    def __init__(self, config: BudgetConfig) -> None:
        self._config = config
        self.requests = 0
        self.tokens = 0.0
        self.credits = 0.0
        self.held = ""
        self._reserved_tokens = 0.0
        self._reserved_credits = 0.0
        self._in_flight = 0
        self._prices = Prices()
        self._lengths = Lengths()
        self._unpriced = False
        self._mean_per_byte = 0.0

    @property
    def active(self) -> bool:
        """Say whether there is a budget at all."""
        config = self._config
        return config.credits is not None or config.tokens is not None or config.requests is not None

    def left(self) -> dict[str, float]:
        """Give what may still be spent of what there is a budget for, by its name; what is reserved counts as spent."""
        spent = {
            "credits": self.credits + self._reserved_credits,
            "tokens": self.tokens + self._reserved_tokens,
            "requests": self.requests,
        }
        limits = {name: getattr(self._config, name) for name in spent}
        return {name: max(0.0, limit - spent[name]) for name, limit in limits.items() if limit is not None}

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
        prompt, answer = self._lengths.worst(body_bytes, max_tokens)
        credits_ = self._prices.worst(prompt, answer) if self._prices.known else 0.0
        over = self._over(prompt + answer, credits_)
        if over is None:
            self.held = ""
            self.requests += 1
            self._in_flight += 1
            self._reserved_tokens += prompt + answer
            self._reserved_credits += credits_
            return Reservation(prompt + answer, credits_)
        if self._in_flight:
            unpriced = self._config.credits is not None and not self._prices.known
            self.held = over if unpriced else "they may use up what is left of the budget"
            return None
        raise BudgetSpent(over, hint="raise `budget` in the configuration and run again.")

    def likely_tokens(self, body_bytes: int, max_tokens: int | None) -> float:
        """Estimate the tokens a request will use, from the mean of this run's last answers."""
        if self._lengths.answers:
            return body_bytes * self._mean_per_byte
        return body_bytes / BYTES_PER_TOKEN + min(max_tokens or FIRST_GUESS, FIRST_GUESS)

    def settle(
        self,
        reservation: Reservation,
        body_bytes: int,
        completion: Completion | None,
        *,
        maybe_paid: bool = False,
    ) -> None:
        """Replace a reservation by what was used.

        Args:
            reservation: as `reserve` gave it.
            body_bytes: the request's size.
            completion: the answer; None when there is none.
            maybe_paid: whether a request without an answer may have been charged: then it counts as reserved.
        """
        self._free(reservation)
        if completion is not None:
            usage = completion.usage
            self.tokens += usage.tokens if usage.tokens is not None else reservation.tokens
            self.credits += usage.credits if usage.credits is not None else reservation.credits
            self.learn(body_bytes, completion)
        elif maybe_paid:
            self.tokens += reservation.tokens
            self.credits += reservation.credits

    def release(self, reservation: Reservation) -> None:
        """Undo a reservation whose request is not sent by this run after all."""
        self._free(reservation)
        self.requests -= 1

    def _free(self, reservation: Reservation) -> None:
        self._in_flight -= 1
        self._reserved_tokens -= reservation.tokens
        self._reserved_credits -= reservation.credits

    def learn(self, body_bytes: int, completion: Completion) -> None:
        """Learn from an answer what requests of this run cost."""
        usage = completion.usage
        prompt, answer = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if usage.credits is None:
            self._unpriced = True
        if usage.tokens is None:  # it tells nothing of how long the next ones are
            return
        self._lengths.learn(body_bytes, prompt, answer)
        self._mean_per_byte += (usage.tokens / max(body_bytes, 1) - self._mean_per_byte) / min(
            self._lengths.answers, 200
        )
        if usage.credits is not None and self._config.credits is not None:
            self._prices.learn(completion.model, Charge(prompt, answer, usage.credits))

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
        if not self._prices.known:
            if self._unpriced:
                return f"the budget of {limit:g} credits cannot be held: the endpoint names no charge"
            return "the price is not known before the first answer" if self._in_flight else None
        if self.credits + self._reserved_credits + credits_ > limit:
            spent = f"{self.credits:,.6g} used; the next request may take {credits_:,.3g}"
            return f"the budget of {limit:g} credits is spent ({spent})"
        return None
