"""The waste account of a job: what became of what its runs paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.report.facts import CacheLine, Waste, WasteLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from enrich.ledger.protocol import RunInfo

# The uses in the order of the page, and in words.
WORDS = {
    "ok": "answers that are ok",
    "reasked": "answers that were asked again",
    "invalid_output": "answers that do not fit",
    "truncated": "answers cut short by their limit of tokens",
    "cut": "answers of streams that broke off",
    "filtered": "answers that were filtered",
    "failed": "answers of rows that failed in the end",
    "undecided": "answers of rows that were not decided when the run stopped",
    "unanswered": "requests without an answer",
}
ENOUGH = 20  # answers that say how much was read from a cache; of fewer nothing is concluded
FAR_BELOW = 0.5  # of what the common begin promises
CACHE_HINT = (
    "Ask the provider whether this model caches prompts, from which length on, and for how long; "
    "`params: {prompt_cache_key: …}` keeps requests of one prefix together where the endpoint takes it."
)
FIGURES = ("requests", "prompt_tokens", "completion_tokens", "total_tokens", "credits")


def waste_of(runs: Iterable[RunInfo]) -> Waste | None:
    """Add up what runs say of what they paid for; None where none says anything."""
    told = [run.summary["waste"] for run in runs if run.summary and run.summary.get("waste")]
    if not told:
        return None
    caches = tuple(_caches(use for one in told for use in one["saved"]["cache"].get("by", ())))
    priced = [line.saved_usd for line in caches if line.saved_usd is not None]
    lines = tuple(_line(words, [one["spent"][use] for one in told]) for use, words in WORDS.items())
    return Waste(
        lines=tuple(line for line in lines if line.requests),
        total=_line("all", [one["total"] for one in told]),
        duplicates=_line("duplicates", [one["saved"]["duplicates"] for one in told]),
        ledger=_line("ledger", [one["saved"]["ledger"] for one in told]),
        votes=sum(one["saved"].get("votes", {}).get("requests", 0) for one in told),
        cached_tokens=sum(one["saved"]["cache"]["prompt_tokens"] for one in told),
        cached_usd=sum(priced) if priced else None,
        caches=caches,
        lost_attempts=sum(one["perhaps"]["lost_attempts"] for one in told),
        runs=len(told),
    )


def _caches(uses: Iterable[dict[str, Any]]) -> Iterator[CacheLine]:
    """Add up what runs say of each step's models."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for use in uses:
        found.setdefault((use["step"], use["model"]), []).append(use)
    for (step, model), told in sorted(found.items()):
        priced = [use["saved_usd"] for use in told if use.get("saved_usd") is not None]
        prompt, cached = (sum(use[name] for use in told) for name in ("prompt_tokens", "cached_tokens"))
        yield CacheLine(step, model, prompt, cached, sum(priced) if priced else None)


def unread_caches(waste: dict[str, Any] | None, least: int) -> Iterator[str]:
    """Say of a run where far less was read from a cache than the requests' common begin promised.

    Args:
        waste: of the run's summary.
        least: tokens from which on the endpoint caches.
    """
    for use in waste["saved"]["cache"].get("by", ()) if waste else ():
        enough = use["told"] >= ENOUGH and use["promised_tokens"] >= least
        if enough and use["share"] < FAR_BELOW * use["promised_share"]:
            yield (
                f"step {use['step']}, {use['model']}: {use['share']:.0%} of the prompts' tokens were read from a cache, "
                f"where {use['promised_share']:.0%} are the same in all requests"
            )


def _line(words: str, costs: list[dict[str, float]]) -> WasteLine:
    sums = {name: sum(cost[name] for cost in costs) for name in FIGURES}
    return WasteLine(
        words,
        int(sums["requests"]),
        int(sums["prompt_tokens"]),
        int(sums["completion_tokens"]),
        int(sums["total_tokens"]),
        sums["credits"],
    )
