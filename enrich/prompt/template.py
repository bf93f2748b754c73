"""Templates: compile once in Jinja2's immutable sandbox, find their variables, render a row."""

from __future__ import annotations

import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.environment import TemplateExpression

from enrich.base.texts import as_json
from enrich.errors import TemplateError
from enrich.prompt.allowance import grant, spend, spend_within
from enrich.prompt.bounds import BoundedEnvironment
from enrich.prompt.cells import MODE, NullInText, is_true, text
from enrich.prompt.environment import (
    ENVIRONMENT,
    judged,
    settled,
)
from enrich.prompt.variables import column_hint, kept_by_jinja, parse, syntax_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Spelling = Literal[1, 2]  # of values: by a column's type, as before 0.9; or each by its own cell

MAX_PROMPT_BYTES = 8 * 2**20  # bytes of one rendered text; no model's context takes more
_EXPRESSION = re.compile(r"\s*\{\{(?P<inner>(?:(?!\{\{|\}\}).)*)\}\}\s*", re.DOTALL)


def _blank_for_none(value: Any) -> Any:
    return "" if value is None else value


def _put_out(value: Any) -> Any:
    spend(1 + spend_within(value))
    return _blank_for_none(value)


_first = BoundedEnvironment(
    undefined=StrictUndefined,
    finalize=_put_out,  # reached only where `on_null: render` lets a null through
    autoescape=False,  # prompts are plain text, not HTML
    keep_trailing_newline=False,
    cache_size=0,
)  # for `prompt_text: 1`
_first.bind()


class RowError(Exception):
    """One row cannot be rendered; the row gets the status, the run goes on.

    Attributes:
        code: ``null_value``, ``template_error`` or ``prompt_too_large``.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template.

    Attributes:
        source: its text.
        where: its place in the configuration, for messages.
        variables: the columns it needs.
        whole_row: whether it uses ``row`` in a way that may need any column.
        constant: its text when it has no variable parts, else None.
        pieces: texts and column names in order, when it does no more than put columns between texts; else None.
        blank: whether nulls are let through, as nothing.
        spelling: how values become text.
        writes_row: whether it writes ``row`` as it is.
        kept: what it uses of the names that Jinja keeps, such as `row` as a whole.
    """

    source: str
    where: str
    variables: frozenset[str]
    whole_row: bool
    writes_row: bool
    constant: str | None
    pieces: tuple[tuple[str, str | None], ...] | None
    blank: bool
    spelling: Spelling
    kept: frozenset[str]
    _parts: Callable[[Any], Iterable[str]] = field(repr=False)
    _context: Callable[[dict[str, Any]], Any] = field(repr=False)

    def render(self, values: Mapping[str, Any]) -> str:
        """Render one row.

        Args:
            values: column name → Python value; ``row`` inside the template is this mapping.

        Raises:
            RowError: the expression fails on this row's values, or the text is too large.
        """
        if self.constant is not None:
            return self.constant
        MODE.blank = self.blank
        try:
            written = self._joined(values) or self._rendered(values)
        except NullInText as error:
            raise RowError("null_value", f"{self.where}: {error}") from None
        except _ROW_ERRORS as error:
            raise RowError("template_error", f"{self.where}: {_one_line(error)}") from None
        if (
            len(written) > MAX_PROMPT_BYTES // 4
            and len(written.encode(errors="surrogatepass")) > MAX_PROMPT_BYTES
        ):
            raise self._too_large()
        return written

    def _rendered(self, values: Mapping[str, Any]) -> str:
        grant()
        parts = list(self._parts(self._context({**values, "row": values})))
        if sum(map(len, parts)) > MAX_PROMPT_BYTES:
            raise self._too_large()
        return "".join(parts)

    def _too_large(self) -> RowError:
        return RowError(
            "prompt_too_large", f"{self.where}: more than {MAX_PROMPT_BYTES // 2**20} MiB when rendered"
        )

    def _joined(self, values: Mapping[str, Any]) -> str | None:
        """Put the columns between the texts, as Jinja would, in a tenth of its time; None where it must do it."""
        if self.pieces is None:
            return None
        found = ""
        for before, name in self.pieces:
            found += before
            if name is not None:
                if name not in values:
                    return None  # Jinja says what is missing
                value = values[name]
                if type(value) is str:
                    found += value
                else:
                    found += text(value) if self.spelling > 1 else str(_blank_for_none(value))
        return found

    def is_true(self, values: Mapping[str, Any]) -> bool:
        """Render as a condition, see `enrich.prompt.cells.is_true`."""
        return is_true(self.render(values))


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression that keeps the type of its value."""

    source: str
    where: str
    variables: frozenset[str]
    whole_row: bool
    writes_row: bool
    kept: frozenset[str]
    _evaluate: Callable[..., Any] = field(repr=False)

    def is_true(self, values: Mapping[str, Any]) -> bool:
        """Evaluate as a condition, see `enrich.prompt.cells.is_true`.

        Raises:
            RowError: it fails on this row's values.
        """
        found = self.found(values)
        try:
            return is_true(found)
        except ValueError as error:  # it cannot be had on this machine
            raise RowError("template_error", f"{self.where}: {_one_line(error)}") from None

    def value(self, values: Mapping[str, Any]) -> Any:
        """Evaluate on one row, as JSON has it.

        Raises:
            RowError: it fails on this row's values.
        """
        result = self.found(values)
        if isinstance(result, float) and not math.isfinite(result):
            raise RowError(
                "template_error", f"{self.where}: the value is {result}, which JSON has no word for"
            )
        try:
            spend_within(result)
            return as_json(result)
        except _ROW_ERRORS as error:
            raise RowError("template_error", f"{self.where}: {_one_line(error)}") from None

    def found(self, values: Mapping[str, Any]) -> Any:
        """Evaluate on one row.

        Raises:
            RowError: it fails on this row's values.
        """
        MODE.blank = True
        grant()
        try:
            result = self._evaluate(**{**values, "row": values})
            if isinstance(result, StrictUndefined):
                result._fail_with_undefined_error()  # noqa: SLF001  # jinja's own way to raise what it knows
        except _ROW_ERRORS as error:
            raise RowError("template_error", f"{self.where}: {_one_line(error)}") from None
        return result


# What data can make a template do: the config's author is trusted, the data is not.
_ROW_ERRORS = (
    ArithmeticError,
    AssertionError,  # of a filter's own arguments
    AttributeError,
    LookupError,
    MemoryError,
    NameError,  # of `inf` and `nan`, which Jinja folds constants to
    RecursionError,
    TemplateRuntimeError,  # Jinja's own: a name or filter that there is not, what its sandbox forbids
    TypeError,
    ValueError,
)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text or type(error).__name__


def is_template(text: str) -> bool:
    """Say whether a text holds anything for Jinja to do."""
    return "{{" in text or "{%" in text or "{#" in text


def compile_template(source: str, where: str, *, spelling: Spelling = 2, blank: bool = True) -> Template:
    """Compile a template once.

    Args:
        source: its text.
        where: its place in the configuration, for messages.
        spelling: how values become text.
        blank: whether nulls are let through, as nothing.

    Raises:
        TemplateError: its syntax is wrong, with the line, or it is nested too deeply.
    """
    with _compiling(where):
        return _compiled_template(source, where, spelling=spelling, blank=blank)


def _compiled_template(source: str, where: str, *, spelling: Spelling, blank: bool) -> Template:
    tree, uses = parse(source, where)
    pieces = _pieces(tree, uses.variables)
    environment = ENVIRONMENT if spelling > 1 else _first
    try:
        template = environment.from_string(settled(tree, ENVIRONMENT) if spelling > 1 else source)
    except TemplateSyntaxError as error:
        raise syntax_error(error, where) from None
    constant = (
        template.render() if all(isinstance(n, nodes.Output) and _is_text(n) for n in tree.body) else None
    )
    shared = dict(environment.globals)

    def context(values: dict[str, Any]) -> Any:
        return template.new_context({**shared, **values}, shared=True)

    return Template(
        source,
        where,
        uses.variables,
        uses.whole_row,
        uses.writes_row,
        constant,
        pieces,
        blank,
        spelling,
        uses.kept,
        template.root_render_func,
        context,
    )


def literal(text: str, where: str) -> Template:
    """Give a template that renders to this text, whatever stands in it."""
    return replace(compile_template("", where), source=text, constant=text)


def compile_value(source: str, where: str) -> Template | Expression:
    """Compile a text whose value keeps its type when it is one whole ``{{ expression }}``.

    Raises:
        TemplateError: its syntax is wrong.
    """
    match = _EXPRESSION.fullmatch(source)
    if match is None:
        return compile_template(source, where)
    return compile_expression(source, where)


def compile_condition(source: str, where: str, *, spelling: Spelling = 2) -> Template | Expression:
    """Compile what decides on a row: one whole ``{{ expression }}`` by its value, any other template by its text.

    Raises:
        TemplateError: its syntax is wrong.
    """
    if _EXPRESSION.fullmatch(source) is None:
        return compile_template(source, where, spelling=spelling)
    return compile_expression(source, where, condition=True)


@contextmanager
def _compiling(where: str) -> Iterator[None]:
    """Turn what Python says of a template that it cannot take into a `TemplateError`."""
    grant()  # what is constant is worked out now
    try:
        yield
    except (RecursionError, MemoryError, IndentationError):
        raise TemplateError(
            f"{where}: the template is nested too deeply, or one expression is too long",
            hint="flatten it: a value may be computed in steps with {% set name = … %}.",
        ) from None
    except (SyntaxError, ValueError) as error:
        said = "too many loops within each other" if "nested blocks" in str(error) else _one_line(error)
        raise TemplateError(f"{where}: {said}", hint="flatten it, or write it another way.") from None


def compile_expression(source: str, where: str, *, condition: bool = False) -> Expression:
    """Compile one whole ``{{ expression }}``, whose truth alone is wanted where it is a condition.

    Raises:
        TemplateError: its syntax is wrong, or it is nested too deeply.
    """
    with _compiling(where):
        return _compiled_expression(source, where, condition=condition)


def _compiled_expression(source: str, where: str, *, condition: bool) -> Expression:
    tree, uses = parse(source.strip(), where)
    output = settled(tree, ENVIRONMENT).find(nodes.Output)
    assert output is not None  # noqa: S101  # there is one expression, and it is put out
    target = nodes.Name("result", "store", lineno=1)
    found = judged(output.nodes[0]) if condition else output.nodes[0]
    body: list[nodes.Node] = [nodes.Assign(target, found, lineno=1)]
    assigned = nodes.Template(body, lineno=1).set_environment(ENVIRONMENT)
    template = ENVIRONMENT.from_string(assigned)  # type: ignore[arg-type]  # a template as a tree
    return Expression(
        source,
        where,
        uses.variables,
        uses.whole_row,
        uses.writes_row,
        uses.kept,
        TemplateExpression(template, undefined_to_none=False),
    )


def _pieces(tree: nodes.Template, columns: frozenset[str]) -> tuple[tuple[str, str | None], ...] | None:
    """Take a template apart that puts columns between texts, ``A {{ x }} and {{ y }}``; None for any other."""
    pieces: list[tuple[str, str | None]] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for part in output.nodes:
            if isinstance(part, nodes.TemplateData):
                pieces.append((part.data, None))
            elif isinstance(part, nodes.Name) and part.name in columns:
                pieces.append(("", part.name))
            else:
                return None
    return tuple(pieces)


def _is_text(output: nodes.Output) -> bool:
    return all(isinstance(part, nodes.TemplateData) for part in output.nodes)


def check_columns(templates: Iterable[Template | Expression], columns: Iterable[str]) -> None:
    """Compare what templates need with the columns there are.

    Raises:
        TemplateError: naming the missing column and the nearest real one.
    """
    known = list(columns)
    present = set(known)
    for template in templates:
        for name in sorted(template.variables - present):
            raise TemplateError(f"{template.where}: no column `{name}`", hint=column_hint(name, known))
        for name in sorted(template.kept & present):
            raise kept_by_jinja(name, template.where)
