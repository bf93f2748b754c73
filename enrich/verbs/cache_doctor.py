"""Whether an endpoint's prompt cache can help a job, before it runs: what its requests begin with, and what moving text would do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from enrich.pace.budget import BYTES_PER_TOKEN
from enrich.prompt.prefix import constant_first, constant_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.prompt.prefix import Prefix
    from enrich.rows.step import Step

Verdict = Literal["one", "short", "cached", "movable", "below"]
WORTH = 1.2  # times as long as it is: a prefix that moving text would make


@dataclass(frozen=True, slots=True)
class PrefixPlan:
    """How much of a step's requests can be read from a cache.

    Attributes:
        requests: that were looked at, one for each row.
        to_ask: distinct ones that would be sent.
        mean_bytes: of a prompt.
        prefix_bytes: that all of them begin with.
        movable_bytes: that they would begin with if all that is the same for every row stood first.
        tokens_per_byte: learned from answers, or a guess.
        learned: whether it was learned.
        least_tokens: from which on endpoints cache.
        behind: where the row data stand that part the constant text; empty where nothing is parted.
        template: the prompt with the constant text first; None where it cannot be told.
    """

    step: str
    requests: int
    to_ask: int
    mean_bytes: float
    prefix_bytes: int
    movable_bytes: int
    tokens_per_byte: float
    learned: bool
    least_tokens: int
    behind: str = ""
    template: str | None = None

    def tokens(self, size: float) -> int:
        """Give about how many tokens so many bytes are."""
        return round(size * self.tokens_per_byte)

    @property
    def verdict(self) -> Verdict:
        """Say what a cache can do.

        ``one``: there is but one request. ``short``: prompts are shorter than what endpoints cache. ``cached``: the prefix is
        long enough. ``movable``: it is not, or is much shorter than it could be. ``below``: too little is the same in all.
        """
        if self.requests < 2:
            return "one"
        if self.tokens(self.mean_bytes) < self.least_tokens:
            return "short"
        could_be = self.tokens(self.movable_bytes) >= self.least_tokens
        if self.behind and could_be and self.movable_bytes > WORTH * self.prefix_bytes:
            return "movable"
        return "cached" if self.tokens(self.prefix_bytes) >= self.least_tokens else "below"

    @property
    def saving(self) -> int:
        """Give the tokens of all prompts that could be read from a cache, and are not as the prompt stands."""
        if self.verdict != "movable":
            return 0
        now = self.tokens(self.prefix_bytes)
        more = self.tokens(self.movable_bytes) - (now if now >= self.least_tokens else 0)
        return more * max(0, self.to_ask - 1)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            **asdict(self),
            "prefix_tokens": self.tokens(self.prefix_bytes),
            "movable_tokens": self.tokens(self.movable_bytes),
            "mean_tokens": self.tokens(self.mean_bytes),
            "verdict": self.verdict,
            "saving_tokens": self.saving,
        }

    def lines(self) -> Iterator[str]:
        """Say what to do about it, if there is anything."""
        about = "" if self.learned else "about "
        begin = f"all requests of step {self.step} begin with the same {about}{self.tokens(self.prefix_bytes):,} of {self.tokens(self.mean_bytes):,} tokens"
        if self.verdict == "movable":
            yield (
                f"{begin}; row data in {self.behind} stand before text that is the same for every row. With that text first it would be "
                f"{about}{self.tokens(self.movable_bytes):,}, and {about}{self.saving:,} tokens could be read from a cache"
            )
            if self.template is not None:
                yield "with the constant text first (read it: words such as `above` may have to change):"
                yield from (f"  | {line}" for line in self.template.splitlines())
        elif self.verdict == "below":
            yield f"{begin}; endpoints cache from {self.least_tokens:,} on (endpoint.cache_from), so none is read from a cache"


def measured_prefix(step: Step, prefix: Prefix, to_ask: int, rate: float | None, least: int) -> PrefixPlan:
    """Judge the requests of a step as they were rendered.

    Args:
        step: compiled.
        prefix: of its requests.
        to_ask: how many distinct ones would be sent.
        rate: tokens per byte of their prompts, where answers told.
        least: tokens from which on the endpoint caches.
    """
    constant = constant_of(step.builder)
    prompt = step.builder.step.prompt
    return PrefixPlan(
        step.name,
        prefix.requests,
        to_ask,
        round(prefix.mean, 1),
        prefix.common,
        max(prefix.common, constant.ahead + constant.behind),
        rate or 1 / BYTES_PER_TOKEN,
        rate is not None,
        least,
        constant.first if constant.behind else "",
        constant_first(prompt) if prompt is not None and constant.behind else None,
    )


def told_by_templates(step: Step, least: int) -> str | None:
    """Say what the templates alone show: enough text for a cache, parted by row data. None where there is nothing to say."""
    constant = constant_of(step.builder)
    first, whole = (size / BYTES_PER_TOKEN for size in (constant.ahead, constant.ahead + constant.behind))
    if whole < least or whole < WORTH * first:
        return None
    return (
        f"warning: step `{step.name}`: row data in {constant.first} stand before text that is the same for every row: about {first:,.0f} tokens "
        f"can be read from an endpoint's cache, {whole:,.0f} with the constant text first (`plan` shows it so)"
    )
