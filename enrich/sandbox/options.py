"""What one emulator is told to do: speed, limits, money, models and faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.errors import ConfigError

if TYPE_CHECKING:
    from enrich.sandbox.faults import Fault

MODELS = ("fast-1", "smart-1", "reason-1", "vision-1")


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How the emulator behaves.

    Attributes:
        port: TCP port; 0 takes a free one.
        host: address to listen on.
        api_keys: the keys that are accepted; empty: any key.
        latency: median seconds until an answer is ready. Errors and replays come at once.
        latency_spread: sigma of the lognormal distribution around the median; 0 makes every answer take `latency`.
        rpm: requests per minute that are let through, evenly; more get a 429.
        rate: the same per second. With `rpm` too, both hold.
        burst: requests that may come at once before `rpm` and `rate` bite; default one second's worth.
        tpm: tokens per minute; a request is refused while the tokens of earlier ones are not worked off.
        retry_after: the `Retry-After` of a 429: a number of seconds, `date` (an HTTP-date one to two seconds ahead), or any text
            to send as it stands; None sends none.
        balance: credits on the account; once spent, a 402. None: no end of them. May be topped up on the books.
        faults: what goes wrong, and how often. Of several that strike one request the first one counts.
        seed: of faults and latencies; the same seed strikes the same keys.
        models: the ids that are served. `auto` is served by the first. One that begins with `reason` refuses the legacy
            `max_tokens`.
        cache: tokens of a prompt that earlier ones began with too, from which on these cost a tenth; None: there is no cache.
        parts: take content parts with pictures, which the contract does not know.

    Raises:
        ConfigError: a value is out of range.
    """

    port: int = 0
    host: str = "127.0.0.1"
    api_keys: tuple[str, ...] = ()
    latency: float = 0.0
    latency_spread: float = 0.0
    rpm: float | None = None
    rate: float | None = None
    burst: float | None = None
    tpm: float | None = None
    retry_after: float | str | None = None
    balance: float | None = None
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    models: tuple[str, ...] = MODELS
    parts: bool = False
    cache: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(
                f"port {self.port} does not exist", hint="give 1 to 65535, or 0 for any free port."
            )
        for name in ("latency", "latency_spread"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; it must be a number, 0 or more")
        for name in ("rpm", "rate", "burst", "tpm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(
                    f"`{name}` is {value}; it must be a number, more than 0",
                    hint="leave it out for no limit.",
                )
        if self.balance is not None and not 0 <= self.balance < math.inf:
            raise ConfigError(
                f"`balance` is {self.balance}; it must be a number, 0 or more",
                hint="leave it out for no limit.",
            )
        if self.cache is not None and self.cache < 1:
            raise ConfigError(
                f"`cache` is {self.cache}; it must be 1 or more", hint="leave it out for no cache."
            )
        if not self.models or "auto" in self.models:
            raise ConfigError(
                "`models` must name at least one model, and `auto` is none", hint="for example fast-1."
            )
