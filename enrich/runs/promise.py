"""Whether an endpoint keeps Idempotency-Keys, so that asking again is free: said, found by a probe, or assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from enrich.config.endpoint import EndpointConfig
    from enrich.ledger.protocol import Ledger


class Promise(NamedTuple):
    """What is known of an endpoint's keys.

    Attributes:
        kept: whether a request that comes again under its key gets its answer at no second charge.
        source: who says so: the ``configuration``, a ``probe``, or nobody (``assumed``, as Beatra's API promises).
    """

    kept: bool
    source: str

    def text(self) -> str:
        """Say for people what it is worth."""
        if self.kept:
            return f"asking again under a key is free ({self.source})"
        return f"it keeps no keys ({self.source}): what is asked again may be paid for again"


async def promise_of(config: EndpointConfig, base_url: str, ledger: Ledger) -> Promise:
    """Tell what is known of an endpoint's keys.

    Args:
        config: the section ``endpoint``.
        base_url: where requests go.
        ledger: remembers what `check --probe` found.
    """
    if config.idempotent != "auto":
        return Promise(bool(config.idempotent), "configuration")
    found = await ledger.recall(_name(base_url), vital=True)
    if found is not None and isinstance(found.get("kept"), bool):
        return Promise(found["kept"], "probe")
    return Promise(kept=True, source="assumed")


async def note_promise(base_url: str, ledger: Ledger, *, kept: bool) -> None:
    """Remember what a probe found."""
    await ledger.remember(_name(base_url), {"kept": kept})


def _name(base_url: str) -> str:
    return f"idempotent:{base_url}"
