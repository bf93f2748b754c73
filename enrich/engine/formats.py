"""Which ways of telling an answer's schema a model does not take, learned once per endpoint and kept in the ledger."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from enrich.wire.meanings import is_about_the_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enrich.records import Failure

log = logging.getLogger("enrich")


class Formats:
    """Remembers refusals of `response_format`: of a mode as such, or of one schema in it."""

    def __init__(self) -> None:
        self._refused: set[tuple[str, str, str]] = set()  # model, mode, and the schema's digest or nothing

    def takes(self, model: str, mode: str, schema: str) -> bool:
        """Say whether a model may be asked in a mode with a schema, which its digest names."""
        return not self._refused or self._refused.isdisjoint(
            {(model, _family(mode), ""), (model, mode, schema)}
        )

    def refused(self, model: str, mode: str, schema: str, failure: Failure) -> None:
        """Learn from a refusal; what is learned is said once."""
        about_it = is_about_the_schema(failure)
        learned = (model, mode, schema) if about_it else (model, _family(mode), "")
        if learned in self._refused:
            return
        self._refused.add(learned)
        what = "this schema as" if about_it else "the response_format"
        log.warning(
            "model `%s` does not take %s %s: it is told of the schema in another way from now on (%s)",
            model,
            what,
            mode,
            failure,
        )

    def learned(self) -> dict[str, Any]:
        """Give what is known, to be kept in the ledger."""
        return {"refused": sorted(map(list, self._refused))}

    def know(self, told: Mapping[str, Any] | None) -> None:
        """Take over what an earlier run learned."""
        for entry in (told or {}).get("refused", ()):
            model, mode, schema = entry
            self._refused.add((model, mode, schema))


def _family(mode: str) -> str:
    """Give what a mode has in common with its looser form."""
    return mode.partition(",")[0]
