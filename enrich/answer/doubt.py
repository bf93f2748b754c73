"""An expression over an answer's own columns that says whether it is to be trusted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from enrich.errors import ConfigError, TemplateError, did_you_mean
from enrich.prompt.template import RowError, compile_value
from enrich.schema.choice import FURTHER_COLUMNS, RECORD_COLUMNS

if TYPE_CHECKING:
    from enrich.config import StepConfig
    from enrich.records import Outcome
    from enrich.schema.schema import AnswerSchema

log = logging.getLogger("enrich")

BROUGHT_BY_LOGPROBS = ("confidence", "logprob")
CHECK = "check"  # whether the answer is as it should be, where a rule may ask for that


class Doubt:
    """A rule about answers.

    Args:
        step: whose answers they are.
        schema: of them.
        rule: the expression, or a template.
        where: it stands, for messages.
        instead: what happens where it cannot be told, for people.
        checks: whether the rule may say `check`.

    Raises:
        ConfigError, TemplateError: it names what an answer does not have, or what the step does not ask for.
    """

    def __init__(
        self,
        step: StepConfig,
        schema: AnswerSchema | None,
        rule: str,
        where: str,
        *,
        instead: str,
        checks: bool = False,
    ) -> None:
        self._name = step.name
        self._instead = instead
        self._is_told = False
        self._rule = compile_value(rule if "{{" in rule or "{%" in rule else "{{ " + rule + " }}", where)
        known = [
            step.name,
            *(f"{step.name}_{name}" for name in columns_of(schema)),
            *([CHECK] if checks else []),
        ]
        for name in sorted(self._rule.variables.difference(known)):
            raise TemplateError(f"{where}: the answer has no `{name}`", hint=did_you_mean(name, known))
        require_logprobs(step, schema, self._rule.variables, where)

    def is_about(self, outcome: Outcome) -> bool:
        """Say whether there is doubt about an answer; none, and a word of it once, where it cannot be told."""
        shown = {
            f"{self._name}_{name}": getattr(outcome, name, None)
            for name, _ in (*RECORD_COLUMNS, *FURTHER_COLUMNS)
        }
        shown |= {f"{self._name}_{name}": value for name, value in (outcome.values or {}).items()}
        shown |= {self._name: outcome.text, CHECK: outcome.status == "ok"}
        try:
            return self._rule.is_true(shown)
        except RowError as error:
            if not self._is_told:
                self._is_told = True
                log.warning("%s; where it cannot be told, %s", error, self._instead)
            return False


def columns_of(schema: AnswerSchema | None) -> list[str]:
    """Give the short names of the columns of an answer that a rule may name."""
    own = schema.columns if schema is not None else ()
    return [*own, *(name for name, _ in (*RECORD_COLUMNS, *FURTHER_COLUMNS))]


def require_logprobs(
    step: StepConfig, schema: AnswerSchema | None, names: frozenset[str] | set[str], where: str
) -> None:
    """See that the step asks for what a rule needs.

    Raises:
        ConfigError: it names how probable an answer was, which no request asks for.
    """
    told = {
        f"{step.name}_{name}" for name in BROUGHT_BY_LOGPROBS if schema is None or name not in schema.columns
    }
    if names & told and not step.params.get("logprobs"):
        raise ConfigError(
            f"{where} needs the tokens' probabilities, which the step does not ask for",
            hint="set `params: {logprobs: true}`.",
        )
