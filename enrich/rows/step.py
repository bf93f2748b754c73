"""One step, compiled: what it asks, how an answer is read, and what later steps may see of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enrich.answer.reader import AnswerReader
    from enrich.prompt.request import RequestBuilder
    from enrich.records import Outcome
    from enrich.rows.conversation import Conversation
    from enrich.schema.choice import Column


@dataclass(slots=True)
class Step:
    """One step, compiled.

    Attributes:
        generation: how often its answers were asked anew (`--fresh`).
        given: the columns that later steps may use, as far as the row has an answer.
        needs: the earlier steps whose answers its templates use.
        follows: the earlier steps of which its templates use anything at all.
        columns: those that are written.
        anew: whether the rows that were chosen for it are asked anew.
    """

    name: str
    builder: RequestBuilder
    reader: AnswerReader
    conversation: Conversation
    generation: int
    given: tuple[str, ...]
    needs: tuple[str, ...]
    follows: tuple[str, ...]
    columns: tuple[Column, ...]
    anew: bool = False


def strayed_name(fingerprint: bytes) -> str:
    """Name the note that answers of this step may stand elsewhere than under its first request's key."""
    return f"strayed:{fingerprint.hex()}"


def given_by(step: Step, outcome: Outcome) -> dict[str, Any]:
    """Give what later steps may see of this one."""
    values: dict[str, Any] = dict.fromkeys(step.given)
    name = step.name
    values.update({name: outcome.text, f"{name}_status": outcome.status})
    values.update({f"{name}_error": outcome.error, f"{name}_model": outcome.model})
    for field, value in (outcome.values or {}).items():
        values[f"{name}_{field}"] = value
    return values
