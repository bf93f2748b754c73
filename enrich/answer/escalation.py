"""A cheap model first: which answers are passed on to the next one, and which of a row's answers counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from enrich.answer.doubt import Doubt, columns_of, require_logprobs
from enrich.config.escalate import UNFIT
from enrich.errors import TemplateError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import StepConfig
    from enrich.records import Outcome
    from enrich.schema.schema import AnswerSchema


class Escalation:
    """How the rows of a step go from one model to the next.

    Attributes:
        threshold: where a guarantee is asked for: the score below which an answer is passed on; None as long as it is not
            found, and both models are asked.

    Raises:
        ConfigError, TemplateError: a condition, or the score, names what the answer does not have.
    """

    def __init__(self, step: StepConfig, schema: AnswerSchema | None) -> None:
        escalate = step.escalation
        self._stages = escalate.stages if escalate is not None else ()
        self.guaranteed = escalate is not None and escalate.guarantee is not None
        self.threshold: float | None = None
        where = f"steps.{step.name}.escalate"
        self._doubts = [
            Doubt(
                step,
                schema,
                stage.when or f"{step.name}_{UNFIT}",
                f"{where}.when",
                instead="the answer counts",
                checks=True,
            )
            for stage in self._stages[1:]
            if not self.guaranteed
        ]
        self._score = _score_of(step, schema, where) if self.guaranteed else ""

    def __bool__(self) -> bool:
        return bool(self._stages)

    @property
    def count(self) -> int:
        """Give how many models there are."""
        return len(self._stages)

    def models(self, number: int, usual: tuple[str, ...]) -> tuple[str, ...]:
        """Give the models to ask at a stage, one after the other.

        Args:
            number: of the stage, from 0.
            usual: the row's.
        """
        return (self._stages[number].model, *usual[1:])

    def passes_on(self, number: int, outcome: Outcome) -> bool:
        """Say whether the answer of a stage is passed on to the next one; what is in doubt, or may come yet, is not."""
        if outcome.source is None and not outcome.lasting:
            return False
        if self.guaranteed:
            return self.threshold is None or self.score(outcome) < self.threshold
        return self._doubts[number].is_about(outcome)

    def score(self, outcome: Outcome) -> float:
        """Give how sure an answer is; below everything where it is unfit, or does not tell."""
        told = (outcome.values or {}).get(self._score, getattr(outcome, self._score, None))
        if (
            outcome.status != "ok"
            or isinstance(told, bool)
            or not isinstance(told, int | float)
            or math.isnan(told)
        ):
            return -math.inf
        return float(told)

    def decide(self, told: Sequence[Outcome]) -> Outcome:
        """Make one outcome of a row's answers: the last one that is fit; else the last. What all cost is its cost.

        Where the last model has no answer yet, the row has none.
        """
        last = told[-1]
        settled = last.source is not None or last.lasting
        fit = [outcome for outcome in told if outcome.status == "ok"]
        made = fit[-1] if fit and settled else last
        besides = tuple(outcome.key for outcome in told if outcome is not made and outcome.key is not None)
        if not besides:
            return made
        served = tuple(one for outcome in told for one in outcome.served or ()) or None
        stages = tuple(told) if self.guaranteed and self.threshold is None else None
        return made._replace(besides=besides, served=served, stages=stages)


def _score_of(step: StepConfig, schema: AnswerSchema | None, where: str) -> str:
    """Give the short name of the column that says how sure an answer is.

    Raises:
        ConfigError, TemplateError: there is none of this name, or the step does not ask for what it needs.
    """
    escalate = step.escalation
    name = (escalate.score if escalate is not None else None) or f"{step.name}_confidence"
    known = {f"{step.name}_{short}": short for short in columns_of(schema)}
    if name not in known:
        raise TemplateError(f"{where}.score: the answer has no `{name}`", hint=did_you_mean(name, known))
    require_logprobs(step, schema, {name}, f"{where}.guarantee")
    return known[name]
