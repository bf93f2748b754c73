"""A command line for a job, as a user types it: the same words behind another verb."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Command:
    """A command for a job, ready to be typed.

    Attributes:
        verb: run, retry, collect, ….
        rest: what stands behind the verb, quoted for a shell; holds no secret.
        own: what stands behind that, and belongs to this verb alone.
    """

    verb: str = "run"
    rest: str = "CONFIG"
    own: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, ("beatra-enrich", self.verb, self.rest, self.own)))

    def but(self, verb: str, *further: str) -> Command:
        """Give the command of another verb for the same job.

        Args:
            verb: of it.
            further: words behind it, such as ``--failed``.
        """
        return replace(self, verb=verb, rest=" ".join((self.rest, *further)), own="")
