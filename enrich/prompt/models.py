"""The models that a row asks, one after the other: named in the step, or by templates for each row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from enrich.prompt.template import RowError, compile_template, is_template, literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from enrich.config import StepConfig
    from enrich.prompt.template import Template

LONGEST_NAME = 256  # characters; what is longer is some other text, such as a row's


class Models:
    """The models of a step.

    Attributes:
        templates: those that name a row's models; none where all rows ask the same.
        columns: whose values they need.
        same: the models that are the same for every row.
    """

    def __init__(self, step: StepConfig, where: str) -> None:
        spelled = partial(
            compile_template,
            spelling=step.prompt_text,
            blank=step.prompt_text == 1 or step.on_null == "render",
        )
        named = [(step.model, f"{where}.model")]
        named += [(name, f"{where}.fallback_models.{i}") for i, name in enumerate(step.fallback_models)]
        self._names: list[Template] = [
            spelled(name, place) if is_template(name) else literal(name, place) for name, place in named
        ]
        self.same = _distinct(*(t.constant for t in self._names if t.constant is not None))
        self.templates = tuple(template for template in self._names if template.constant is None)
        self.columns = frozenset[str]().union(*(template.variables for template in self.templates))

    def of(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Give a row's models, in the order in which they are asked.

        Raises:
            RowError: a template fails on this row, or gives no model's name.
        """
        if not self.templates:  # as nearly always
            return self.same
        return _distinct(*(_name(template, values) for template in self._names))


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _name(template: Template, values: Mapping[str, Any]) -> str:
    """Render a model's name."""
    if template.constant is not None:
        return template.constant
    name = template.render(values).strip()
    if not name:
        raise RowError("template_error", f"{template.where}: this row names no model")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise RowError("template_error", f"{template.where}: {name[:40]!r} is no model's name")
    return name
