"""The key `escalate` of a step: a cheap model first, and a better one for the rows of whose answer there is doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from enrich.config.section import Number, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

Name = Annotated[str, Field(min_length=1, max_length=256)]
FEWEST, MOST = 2, 5  # models
UNFIT = "status != 'ok'"  # what passes a row on where nothing else is said, behind the step's name
FEWEST_TRIED = 20  # rows of a sample


class Stage(Section):
    """One model, and which rows come to it.

    Attributes:
        model: that is asked.
        when: an expression over the columns of the answer before, such as `s_status != 'ok' or s_confidence < 0.7 or not
            (check)`, where `check` says whether that answer is as it should be. By default the rows whose answer is not.
    """

    model: Name
    when: Annotated[str, Field(min_length=1)] | None = None


class Escalate(Section):
    """A cheap model first, and how far its answers are to be trusted.

    Attributes:
        models: two to five, the cheapest first: names, or `{model, when}` each.
        guarantee: the share of rows that are to be right, such as 0.95. Below which score the second model is asked is then
            found on a sample of rows whose values are known, by hand (`gold`) or by a review; two models, without `when`.
        sample: rows that both models are asked for that, drawn from those whose values are known.
        sure: in how many of 100 such samples the promise is kept at least.
        of: the column of answers that counts as right or wrong; the only one in `gold` by default.
        score: the column of the answer that says how sure it is, from 0 to 1; `s_confidence` by default, which `logprobs`
            bring, or a property of the schema.
    """

    models: Annotated[list[Name | Stage], Field(min_length=1, max_length=20)]
    guarantee: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), Number] | None = None
    sample: Annotated[int, Field(ge=FEWEST_TRIED, le=100_000), Number] = 300
    sure: Annotated[float, Field(ge=0.5, le=0.999, allow_inf_nan=False), Number] = 0.95
    of: Name | None = None
    score: Name | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Give the models with their conditions."""
        return tuple(Stage(model=one) if isinstance(one, str) else one for one in self.models)

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        names = [stage.model for stage in self.stages]
        if not FEWEST <= len(names) <= MOST:
            raise ValueError(
                f"takes {FEWEST} to {MOST} models, the cheapest first; here {'is' if len(names) == 1 else 'are'} {len(names)}"
            )
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"`{twice}` is named twice: the same request has the same answer")
        if any("{{" in name or "{%" in name for name in names):
            raise ValueError("models are named here, not by templates")
        if self.stages[0].when is not None:
            raise ValueError("the first model is asked for every row; `when` goes with the others")
        if self.guarantee is None:
            usual = {name: field.default for name, field in type(self).model_fields.items()}
            extra = [name for name in ("sample", "sure", "of", "score") if getattr(self, name) != usual[name]]
            if extra:
                raise ValueError(
                    f"`{extra[0]}` goes with `guarantee`, the share of rows that are to be right"
                )
        elif len(names) > FEWEST:
            raise ValueError(f"`guarantee` takes two models; here are {len(names)}")
        elif self.stages[1].when is not None:
            raise ValueError(
                "`guarantee` finds which rows are passed on by itself; remove `when`, or the guarantee"
            )
        return self


def as_escalate(value: Any) -> Any:
    """Write a list of models as the whole section."""
    return {"models": value} if isinstance(value, list) else value


def first_model(value: Any) -> str | None:
    """Give the model that is asked first, as far as what was given names one."""
    models = (
        value.models
        if isinstance(value, Escalate)
        else value.get("models")
        if isinstance(value, dict)
        else None
    )
    first: Any = _first(models)
    found = (
        first.model if isinstance(first, Stage) else first.get("model") if isinstance(first, dict) else first
    )
    return found if isinstance(found, str) else None


def _first(models: Sequence[Any] | None) -> Any:
    return models[0] if isinstance(models, list) and models else None
