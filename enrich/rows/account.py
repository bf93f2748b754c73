"""The waste account: what a run paid for and got nothing by, and what it did not pay for.

Every answer that a run paid for stands under exactly one use, so the uses add up to what the run spent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from enrich.pace.prices import saved_usd
from enrich.prompt.prefix import Prefix
from enrich.records import Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enrich.config import ModelPrices
    from enrich.engine.ticket import Stats
    from enrich.prompt.request import RequestBuilder
    from enrich.records import Ask, Outcome, RowStatus, Settled, Usage

Use = Literal[
    "ok", "reasked", "invalid_output", "truncated", "cut", "filtered", "failed", "undecided", "unanswered"
]
USES: tuple[Use, ...] = get_args(Use)
WASTED: tuple[Use, ...] = ("reasked", "invalid_output", "truncated", "cut", "filtered", "failed")
CUT = "response_cut"  # the error of an answer that is a stream which ended early


@dataclass(slots=True)
class Cost:
    """What some requests cost; what no answer names is 0."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    credits: float = 0.0

    def add(self, usage: Usage | Outcome) -> None:
        """Add one request."""
        self.requests += 1
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        self.total_tokens += usage.total_tokens or 0
        self.credits += usage.credits or 0.0

    def less(self, other: Cost) -> Cost:
        """Take another's away."""
        mine, theirs = asdict(self), asdict(other)
        return Cost(**{name: mine[name] - theirs[name] for name in mine})

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON; credits without the noise that adding floats up makes."""
        return {**asdict(self), "credits": round(self.credits, 9)}


@dataclass(slots=True)
class CacheUse:
    """How much of the prompts that one model served at one step was read from a cache.

    Attributes:
        told: answers that say how much of their prompt was.
    """

    answers: int = 0
    told: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def add(self, usage: Usage) -> None:
        """Add one answer."""
        self.answers += 1
        self.told += usage.cached_tokens is not None
        self.prompt_tokens += usage.prompt_tokens or 0
        self.cached_tokens += usage.cached_tokens or 0

    def to_dict(
        self, step: str, model: str, prefix: Prefix | None, prices: Mapping[str, ModelPrices]
    ) -> dict[str, Any]:
        """Give it as plain JSON: with the share that the requests' common begin promises, and about how many tokens that is.

        ``saved_usd``: what was saved against reading all of it anew, where prices say; else None.
        """
        promised = min(1.0, prefix.common / prefix.mean) if prefix is not None and prefix.mean else 0.0
        mean = self.prompt_tokens / self.answers if self.answers else 0.0
        return {
            "step": step,
            "model": model,
            **asdict(self),
            "share": round(self.cached_tokens / self.prompt_tokens, 4) if self.prompt_tokens else 0.0,
            "promised_share": round(promised, 4),
            "promised_tokens": round(promised * mean),
            "saved_usd": saved_usd(self.cached_tokens, prices, model),
        }


class Account:
    """Notes what became of each answer that a run paid for, and which rows had one for nothing.

    Attributes:
        in_doubt: requests that may have been paid for, without an answer.
        rows: how many stand so at a step, by its name and their status.
    """

    def __init__(self) -> None:
        self._spent: dict[Use, Cost] = {use: Cost() for use in USES}
        self._saved = {"duplicates": Cost(), "ledger": Cost(), "votes": Cost()}
        self._prompts: dict[tuple[str, str], CacheUse] = {}
        self._prefixes: dict[str, Prefix] = {}
        self.in_doubt = 0
        self.rows: Counter[tuple[str, RowStatus]] = Counter()

    def sending(self, builder: RequestBuilder, ask: Ask) -> None:
        """Note a request that is to be sent."""
        name = builder.step.name
        if name not in self._prefixes:
            self._prefixes[name] = Prefix(builder)
        self._prefixes[name].add(ask)

    def decided(self, step: str, outcome: Outcome, paid: list[Settled]) -> None:
        """Note how a row stands at a step, and the answers that were paid for on the way there.

        Args:
            step: its name.
            outcome: of the row at the step.
            paid: the answers that this run paid for, for this row.
        """
        self.rows[step, outcome.status] += 1
        own = False
        for settled in paid:
            result = settled.result
            assert isinstance(result, Completion)  # noqa: S101  # nothing else is paid for
            decides = settled.key == outcome.key or outcome.votes is not None
            own = own or decides
            self._spent[_use(outcome, decides=decides)].add(result.usage)
            self._prompts.setdefault((step, result.model or ""), CacheUse()).add(result.usage)
        if outcome.source is not None and not own:
            self._saved["ledger" if outcome.source == "ledger" else "duplicates"].add(outcome)
        if paid:
            self._saved["votes"].requests += outcome.spared
        self.in_doubt += outcome.status == "in_doubt"

    def to_dict(self, stats: Stats, prices: Mapping[str, ModelPrices]) -> dict[str, Any]:
        """Give the account as plain JSON.

        Args:
            stats: what the run's engine counted: the uses add up to it.
            prices: what models are told to cost.
        """
        total = Cost(
            stats.requests, stats.prompt_tokens, stats.completion_tokens, stats.total_tokens, stats.credits
        )
        answered = Cost(
            stats.answered, stats.prompt_tokens, stats.completion_tokens, stats.total_tokens, stats.credits
        )
        left = answered
        for cost in self._spent.values():
            left = left.less(cost)
        spent = {**self._spent, "undecided": left, "unanswered": Cost(stats.requests - stats.answered)}
        return {
            "total": total.to_dict(),
            "spent": {use: spent[use].to_dict() for use in USES},
            "perhaps": {"lost_attempts": stats.lost, "in_doubt": self.in_doubt},
            "saved": {
                **{name: cost.to_dict() for name, cost in self._saved.items()},
                "cache": {
                    "prompt_tokens": stats.cached_tokens,
                    "by": [
                        use.to_dict(step, model, self._prefixes.get(step), prices)
                        for (step, model), use in sorted(self._prompts.items())
                    ],
                },
            },
        }


def _use(outcome: Outcome, *, decides: bool) -> Use:
    """Say what an answer was good for."""
    if not decides:
        return "failed" if outcome.status in ("error", "in_doubt") else "reasked"
    if outcome.status == "truncated":
        return "cut" if (outcome.error or "").startswith(CUT) else "truncated"
    return outcome.status if outcome.status in ("ok", "invalid_output", "filtered") else "failed"
