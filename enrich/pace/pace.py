"""When the next request may go: what is known of each model's limit, how many are in flight, the limits that were told."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final

from enrich.pace.bound import Bound, Cause
from enrich.pace.ceiling import Ceiling
from enrich.pace.lease import Cut
from enrich.pace.limit import Limit
from enrich.pace.sent import Sent
from enrich.pace.windows import OwnSlots

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config.limits import LimitsConfig
    from enrich.pace.lease import Lease
    from enrich.pace.windows import Slots

KEPT: Final = 86_400.0  # seconds for which what a run learned is of use to the next one

__all__ = ["Pace", "Sent"]

log = logging.getLogger("enrich")


class Pace:
    """Holds a run to the limits it was given and to those it finds.

    Only the dispatcher waits here, so requests go in the order they came. What refusals teach is kept per model
    (`Limit`); how many requests may be in flight is one for the run (`Ceiling`); what was told is kept by `Slots`.
    Where the told limits are shared with other runs, each still finds the rest by itself: what one of them is refused
    by chance slows no other.

    Attributes:
        in_flight: requests.
        most: requests in flight that are allowed.
        limits: what is known of each model's limit.
        bound: what held the run up.
        pause_cause: why there is a pause, for people.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        *,
        slots: Slots | None = None,
        learned: dict[str, Any] | None = None,
        most: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.most = most or limits.most
        self.limits: dict[str, Limit] = {}
        self.bound = Bound(monotonic)
        self.in_flight = 0
        self.pause_cause = ""
        self._adaptive = limits.adaptive
        self._monotonic = monotonic
        self._clock = clock
        self._slots = slots or OwnSlots(limits, monotonic)
        self._learned = _usable(learned or {}, clock()) if limits.adaptive else {}
        self._ceiling = Ceiling(
            self.most,
            adaptive=limits.adaptive,
            start=self._learned.get("ceiling"),
            usual=self._learned.get("latency"),
        )
        # Whether a limit on tokens was told, and it was not said yet that it goes by an estimate alone.
        self._counts_tokens = bool(limits.tokens_per_minute or any(w.tokens for w in limits.windows))
        self._sent = 0
        self._paused_until = 0.0
        self._refused_until = 0.0  # by what the newest refusal says, with no answer since
        self._cuts = 0  # of the rate, that the others know of
        self._episode: int | None = None  # the last one heard of
        self._slots.listen(self._hear)

    @property
    def ceiling(self) -> int:
        """Give how many requests may be in flight now."""
        return self._ceiling.value

    @property
    def why_no_more(self) -> Cause:
        """Say why no more than the ceiling may be in flight."""
        if self.ceiling >= self.most:
            return Cause.CONCURRENCY
        return Cause.QUEUEING if self._ceiling.queueing else Cause.GROWING

    @property
    def growing(self) -> bool:
        """Say whether it is still being found out how many may be in flight."""
        return self.why_no_more is Cause.GROWING

    def gauged(self, working: int, waiting: int) -> bool:
        """Note what the endpoint's own gauges say of everybody's requests; says whether more may go than before.

        Args:
            working: requests that it works on.
            waiting: requests that wait for that.
        """
        return self._ceiling.gauged(working, waiting, in_flight=self.in_flight, now=self._monotonic())

    def limit(self, model: str) -> Limit:
        """Give what is known of a model's limit."""
        limit = self.limits.get(model)
        if limit is None:
            known = self._learned.get("models", {}).get(model, {})
            limit = Limit(self._monotonic(), learned=known, adaptive=self._adaptive)
            self.limits[model] = limit
        return limit

    # --- before a request ---

    def wait(self, model: str) -> float:
        """Give the seconds until a request to a model may go; 0 for now, without end until something comes back."""
        return self.limit(model).wait(self._monotonic())

    def why_wait(self, model: str) -> Cause:
        """Say what a request to a model waits for."""
        return Cause.ENDPOINT if self.limit(model).met else Cause.GROWING

    async def turn(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go by every window that was told."""
        with self.bound.by(Cause.LIMITS):
            await self._slots.take(tokens)

    def sent(self, model: str, tokens: float = 0.0) -> Sent:
        """Note that a request goes now, for which so many tokens are reserved."""
        now = self._monotonic()
        limit = self.limit(model)
        self._sent += 1
        in_flight = limit.in_flight
        safe = limit.sent(now)
        self.in_flight += 1
        self._slots.sent()
        self._ceiling.last = self._sent
        sent = Sent(model, limit.sent_count, self._sent, now, in_flight, tokens, safe)
        limit.went(sent)
        return sent

    def paused_for(self) -> float:
        """Give the seconds that nobody may send; 0 when there is no pause."""
        return max(0.0, self._paused_until - self._monotonic()) if self._paused_until else 0.0

    def refused_for(self) -> float:
        """Give the seconds for which the endpoint asked to wait, while nothing is in flight; 0 otherwise."""
        return 0.0 if self.in_flight else max(0.0, self._refused_until - self._monotonic())

    def pause(self, seconds: float, cause: str) -> None:
        """Keep everybody from sending; the longest pause wins."""
        until = self._monotonic() + seconds
        if until > self._paused_until:
            self._paused_until, self.pause_cause = until, cause
            log.info("paused for %.3g s: %s", seconds, cause)

    # --- after a request ---

    def landed(self, sent: Sent) -> None:
        """Note that something whole came back."""
        now = self._monotonic()
        sent.landed = True
        self._refused_until = 0.0
        self._ceiling.answered(sent.order, in_flight=self.in_flight, sent_at=sent.at, now=now)
        self.in_flight -= 1
        self.limit(sent.model).ended(sent, now)

    def answered(self, sent: Sent, *, used: float | None = None) -> None:
        """Note an answer; ``used`` is the tokens that it took, where the server said so."""
        if not sent.landed:
            self.landed(sent)
        if used is not None:
            self._slots.settle(sent.tokens, used)
        elif self._counts_tokens:
            self._counts_tokens = False
            log.warning("answers tell no usage: the limit on tokens goes by about %d a request", sent.tokens)

    def limited(self, sent: Sent, retry_after: float | None) -> None:
        """Note a 429; ``retry_after`` is the seconds that it asks to wait."""
        self.released(sent.tokens)
        limit = self.limit(sent.model)
        if sent.landed:
            limit.in_flight += 1
        else:
            self.in_flight -= 1
        now = self._monotonic()
        self._refused_until = now + (retry_after or 0.0)
        limit.limited(sent, retry_after, now)
        self._tell(limit)

    def failed(self, sent: Sent, *, trouble: bool = False, timed_out: bool = False) -> None:
        """Note another failure.

        Args:
            sent: the request.
            trouble: whether the endpoint answered 5xx: what is in flight now is no reason to send more.
            timed_out: whether no answer came in time.
        """
        self.released(sent.tokens)
        if not sent.landed:
            self.in_flight -= 1
            self.limit(sent.model).ended(sent, self._monotonic())
        if trouble:
            self._ceiling.troubled()
        if timed_out:
            self._ceiling.timed_out()

    def released(self, tokens: float) -> None:
        """Give back the tokens of a request that brought no answer."""
        self._slots.settle(tokens, 0.0)

    # --- with other runs ---

    def _tell(self, limit: Limit) -> None:
        """Tell the others that share the limit what all of them get together."""
        part = limit.rate.measured
        if self._slots.runs < 2 or part is None or limit.rate.cuts == self._cuts:
            return
        self._cuts = limit.rate.cuts
        whole = part * self._slots.others
        self._slots.mark()
        self._slots.cut(Cut(self._episode or 0, whole))

    def _hear(self, lease: Lease, told: bool) -> None:  # noqa: FBT001  # a callback's arguments
        """Take one's part of what all runs get together; who met no limit of its own goes on as it does."""
        news, self._episode = lease.episode != self._episode, lease.episode
        if not (self._adaptive and news and lease.known > 0 and lease.runs > 1) or told:
            return
        for limit in self.limits.values():
            limit.rate.share_of(lease.known / lease.runs, self._monotonic())

    # --- what it found ---

    def found(self) -> list[str]:
        """Say what limits were found, for people: one phrase each."""
        several = len(self.limits) > 1
        return [
            f"{model}: {phrase}" if several else phrase
            for model, limit in self.limits.items()
            for phrase in limit.found()
        ]

    def learned(self) -> dict[str, Any]:
        """Give what the next run may start from."""
        return {
            "at": self._clock(),
            "ceiling": self._ceiling.value,
            "latency": self._ceiling.usual,
            "models": {model: limit.learned() for model, limit in self.limits.items()},
        }


def _usable(learned: dict[str, Any], now: float) -> dict[str, Any]:
    """Take from a note what makes sense and is not too old."""
    at = learned.get("at")
    if at is None or not _positive(at) or now - at > KEPT:
        return {}
    usable = {name: learned[name] for name in ("ceiling", "latency") if _positive(learned.get(name))}
    models = learned.get("models")
    if isinstance(models, dict):
        usable["models"] = {
            model: {name: value for name, value in known.items() if _positive(value)}
            for model, known in models.items()
            if isinstance(known, dict)
        }
    return usable


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
