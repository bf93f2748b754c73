"""Several answers to one question become one: the majority, field by field, as soon as nothing can change it."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from enrich.answer.doubt import Doubt
from enrich.errors import ConfigError, did_you_mean
from enrich.records import AMOUNTS, Outcome
from enrich.schema.places import first_column, place_columns, voted_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import StepConfig
    from enrich.schema.schema import AnswerSchema


class Ballot:
    """How the answers of a row are counted.

    Attributes:
        most: answers at most.

    Raises:
        ConfigError, TemplateError: ``vote_on`` or ``votes.when`` names what the answer does not have.
    """

    def __init__(self, step: StepConfig, schema: AnswerSchema | None) -> None:
        votes = step.ballot
        self.most = votes.most if votes is not None else 1
        self._models = votes.models if votes is not None else []
        self._on_tie = step.on_tie
        self._fields = _fields(step, schema)
        self._doubt = (
            Doubt(step, schema, votes.when, f"steps.{step.name}.votes.when", instead="one answer counts")
            if votes is not None and votes.when
            else None
        )

    def models(self, number: int, usual: tuple[str, ...]) -> tuple[str, ...]:
        """Give the models to ask for an answer, one after the other.

        Args:
            number: of the answer, from 0.
            usual: the row's.
        """
        return (self._models[number % len(self._models)], *usual[1:]) if self._models else usual

    def is_settled(self, cast: Sequence[Outcome]) -> bool:
        """Say whether no further answer is to be asked for: the majority is certain, or there was no doubt."""
        left = self.most - len(cast)
        if left <= 0 or (len(cast) == 1 and not self._is_doubtful(cast[0])):
            return True
        fit = [outcome for outcome in cast if outcome.status == "ok"]
        return all(_lead(Counter(_value(outcome, field) for outcome in fit)) > left for field in self._fields)

    def _is_doubtful(self, first: Outcome) -> bool:
        return self._doubt is None or first.status != "ok" or self._doubt.is_about(first)

    def decide(self, cast: Sequence[Outcome]) -> Outcome:
        """Make one outcome of a row's answers.

        It stands under the last request, which the others lead to, so that what all of them cost is its cost.
        """
        fit = [outcome for outcome in cast if outcome.status == "ok"]
        counts = {field: Counter(_value(outcome, field) for outcome in fit) for field in self._fields}
        chosen = {field: count.most_common(1)[0][0] for field, count in counts.items() if count}
        base = max(
            fit or cast[:1], key=lambda outcome: sum(_value(outcome, f) == v for f, v in chosen.items())
        )
        last = cast[-1]
        made = base._replace(
            key=last.key,
            follows=last.follows,
            attempts=last.attempts,
            source="api" if any(outcome.source == "api" for outcome in cast) else last.source,
            votes=len(fit),
            agreement=min((count.most_common(1)[0][1] / len(fit) for count in counts.values()), default=None)
            if fit
            else None,
            firsts={first_column(field): _said(cast[0], field) for field in self._fields},
            spared=self.most - len(cast),
            served=tuple(one for outcome in cast for one in outcome.served or ()) or None,
            **{name: getattr(last, name) for name in AMOUNTS},
        )
        for field, value in chosen.items():
            giver = next(outcome for outcome in fit if _value(outcome, field) == value)
            made = _with(made, field, giver)
        tied = [field for field, count in counts.items() if len(fit) > 1 and _lead(count) == 0]
        return self._tied(made, tied, counts) if tied and self._on_tie != "first" else made

    def _tied(
        self, made: Outcome, tied: Sequence[str | None], counts: dict[str | None, Counter[str]]
    ) -> Outcome:
        if self._on_tie == "null":
            if made.values is None:
                return made._replace(text=None)
            return made._replace(
                values={**made.values, **{field: None for field in tied if field is not None}}
            )
        told = "; ".join(f"{field or 'the answer'}: {_told(counts[field])}" for field in tied)
        return made._replace(status="invalid_output", values=None, error=f"tie: {told}"[:1_000])


def useless(step: StepConfig) -> str | None:
    """Say why several answers to each row of a step are the same one; None where they may differ."""
    votes = step.ballot
    if votes is None or votes.most < 2 or len(set(votes.models)) > 1:
        return None
    where = f"steps.{step.name}.votes"
    fields = {
        **step.params,
        **{n: v for n in ("temperature", "top_p") if (v := getattr(step, n)) is not None},
    }
    if fields.get("temperature") == 0 or fields.get("top_p") == 0:
        name = "temperature" if fields.get("temperature") == 0 else "top_p"
        why = f"with `{name}: 0` the model says the same each time"
    elif fields.get("seed") is not None:
        why = "with a fixed `seed` the model says the same each time"
    else:
        return None
    return f"{where} is useless: {why}, and each answer is paid for; set a `temperature` above 0, or name `votes.models`"


def _fields(step: StepConfig, schema: AnswerSchema | None) -> tuple[str | None, ...]:
    """Give the fields that are voted on.

    Raises:
        ConfigError: the answer has no such field.
    """
    fields = voted_fields(step, schema)
    known = list(schema.columns) if schema is not None else []
    for name in fields:
        if name is not None and name not in known:
            raise ConfigError(
                f"steps.{step.name}.vote_on: the answer has no field `{name}`",
                hint=did_you_mean(name, known) if known else "`schema` says what the step answers with.",
            )
    return fields


def _said(outcome: Outcome, field: str | None) -> Any:
    if outcome.status != "ok":
        return None
    return outcome.text if field is None else (outcome.values or {}).get(field)


def _value(outcome: Outcome, field: str | None) -> str:
    """Write what an answer says for a field, so that the same is written the same."""
    value: Any = outcome.text if field is None else (outcome.values or {}).get(field)
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    return json.dumps(value, sort_keys=True, default=str)


def _lead(count: Counter[str]) -> int:
    """Say by how much the most frequent value is ahead of the next one."""
    first, second = ([*(number for _, number in count.most_common(2)), 0, 0])[:2]
    return first - second


def _with(made: Outcome, field: str | None, giver: Outcome) -> Outcome:
    """Take a field, and where it stands in its source, from the answer that was chosen for it."""
    if field is None:
        return made._replace(text=giver.text)
    places = {n: v for n, v in (giver.evidence or {}).items() if n in place_columns(field)}
    evidence = {**made.evidence, **places} if made.evidence is not None else None
    return made._replace(
        values={**(made.values or {}), field: (giver.values or {}).get(field)}, evidence=evidence
    )


def _told(count: Counter[str]) -> str:
    return ", ".join(f"{value[:60]} {number}" for value, number in count.most_common(4))
