"""Templates: compile once in Jinja2's immutable sandbox, find their variables, render a row."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from enrich.errors import TemplateError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_PROMPT_BYTES = 8 * 2**20  # bytes of one rendered text; no model's context takes more
_EXPRESSION = re.compile(r"\s*\{\{(?P<inner>(?:(?!\{\{|\}\}).)*)\}\}\s*", re.DOTALL)
_PRINTED = re.compile(r"\{\{(?P<inner>(?:(?!\{\{|\}\}).)*)\}\}", re.DOTALL)
_NAME_WITH_BLANKS = re.compile(r"\w[\w.%#&/?'°€$£-]*(?: +[\w.%#&/?'°€$£()-]+)+")
_WORDS_OF_JINJA = re.compile(r"\b(?:and|or|not|in|is|if|else)\b")
# What a name alone means to a template already.
RESERVED = frozenset(
    {
        *("row", "range", "dict", "lipsum", "cycler", "joiner", "namespace", "loop", "self"),
        *("true", "false", "none"),
    }
)
_FALSE_TEXTS = frozenset({"", "false", "0", "0.0", "no", "none", "null"})


def _blank_for_none(value: Any) -> Any:
    return "" if value is None else value


_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined,
    finalize=_blank_for_none,  # reached only where `on_null: render` lets a null through
    autoescape=False,  # prompts are plain text, not HTML
    keep_trailing_newline=False,
    cache_size=0,
)


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
    """

    source: str
    where: str
    variables: frozenset[str]
    whole_row: bool
    constant: str | None
    pieces: tuple[tuple[str, str | None], ...] | None
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
        try:
            text = self._joined(values) or "".join(self._parts(self._context({**values, "row": values})))
        except _ROW_ERRORS as error:
            raise RowError("template_error", f"{self.where}: {_one_line(error)}") from None
        if (
            len(text) > MAX_PROMPT_BYTES // 4
            and len(text.encode("utf-8", "surrogatepass")) > MAX_PROMPT_BYTES
        ):
            raise RowError(
                "prompt_too_large", f"{self.where}: more than {MAX_PROMPT_BYTES // 2**20} MiB when rendered"
            )
        return text

    def _joined(self, values: Mapping[str, Any]) -> str | None:
        """Put the columns between the texts, as Jinja would, in a tenth of its time; None where it must do it."""
        if self.pieces is None:
            return None
        text = ""
        for before, name in self.pieces:
            text += before
            if name is not None:
                if name not in values:
                    return None  # Jinja says what is missing
                value = values[name]
                text += value if type(value) is str else str(_blank_for_none(value))
        return text

    def is_true(self, values: Mapping[str, Any]) -> bool:
        """Render as a condition: an empty text, ``false``, ``0``, ``no``, ``none`` and ``null`` are false."""
        return self.render(values).strip().lower() not in _FALSE_TEXTS


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression that keeps the type of its value."""

    source: str
    where: str
    variables: frozenset[str]
    whole_row: bool
    _evaluate: Callable[..., Any] = field(repr=False)

    def value(self, values: Mapping[str, Any]) -> Any:
        """Evaluate on one row.

        Raises:
            RowError: it fails on this row's values.
        """
        try:
            result = self._evaluate(**{**values, "row": values})
            if isinstance(result, StrictUndefined):
                result._fail_with_undefined_error()  # noqa: SLF001  # jinja's own way to raise what it knows
        except _ROW_ERRORS as error:
            raise RowError("template_error", f"{self.where}: {_one_line(error)}") from None
        if isinstance(result, float) and not math.isfinite(result):
            raise RowError(
                "template_error", f"{self.where}: the value is {result}, which JSON has no word for"
            )
        return result


# What data can make a template do: the config's author is trusted, the data is not.
_ROW_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SecurityError,
    TypeError,
    UndefinedError,
    ValueError,
)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text or type(error).__name__


def is_template(text: str) -> bool:
    """Say whether a text holds anything for Jinja to do."""
    return "{{" in text or "{%" in text or "{#" in text


def compile_template(source: str, where: str) -> Template:
    """Compile a template once.

    Raises:
        TemplateError: its syntax is wrong, with the line.
    """
    tree, variables, whole_row = _parse(source, where)
    try:
        template = _environment.from_string(source)
    except TemplateSyntaxError as error:
        raise _syntax_error(error, where) from None
    constant = (
        template.render() if all(isinstance(n, nodes.Output) and _is_text(n) for n in tree.body) else None
    )
    shared = dict(_environment.globals)

    def context(values: dict[str, Any]) -> Any:
        return template.new_context({**shared, **values}, shared=True)

    return Template(
        source,
        where,
        variables,
        whole_row,
        constant,
        _pieces(tree, variables),
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
    _, variables, whole_row = _parse(source, where)
    try:
        evaluate = _environment.compile_expression(match["inner"].strip(), undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise _syntax_error(error, where) from None
    return Expression(source, where, variables, whole_row, evaluate)


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


def _parse(source: str, where: str) -> tuple[nodes.Template, frozenset[str], bool]:
    try:
        tree = _environment.parse(source)
        names = meta.find_undeclared_variables(tree) | _named_like_functions(tree)
    except TemplateSyntaxError as error:
        raise _syntax_error(error, where, source) from None
    for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
        if tree.find(kind) is not None:
            raise TemplateError(
                f"{where}: a template cannot load another one ({kind.__name__.lower()})",
                hint="put the whole prompt into one file and name it with `prompt_file`.",
            )
    named, whole_row = _row_columns(tree) if "row" in names else (set[str](), False)
    return tree, frozenset((names - {"row"}) | named), whole_row


def _named_like_functions(tree: nodes.Template) -> set[str]:
    """Find columns named like one of Jinja's own functions, such as ``range``: names that are not just called."""
    uses = Counter(name.name for name in tree.find_all(nodes.Name) if name.name in _environment.globals)
    calls = Counter(call.node.name for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name))
    return set(uses - calls)


def _row_columns(tree: nodes.Template) -> tuple[set[str], bool]:
    """Find the columns behind ``row["a b"]`` and ``row.a``, and whether ``row`` is used in any other way."""
    columns: set[str] = set()
    plain = 0
    for attribute in tree.find_all(nodes.Getattr):
        if _is_row(attribute.node):
            columns.add(attribute.attr)
            plain += 1
    for item in tree.find_all(nodes.Getitem):
        if _is_row(item.node) and isinstance(item.arg, nodes.Const):
            columns.add(str(item.arg.value))
            plain += 1
    uses = sum(1 for name in tree.find_all(nodes.Name) if name.name == "row" and name.ctx == "load")
    return columns, uses > plain


def _is_row(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Name) and node.name == "row"


def as_variable(column: str) -> str:
    """Write a column's value as a template has it; one whose name is no plain word is taken out of ``row``."""
    plain = column.isidentifier() and not keyword.iskeyword(column) and column not in RESERVED
    return f"{{{{ {column} }}}}" if plain else f"{{{{ row[{json.dumps(column, ensure_ascii=False)}] }}}}"


def _spaced(source: str) -> str | None:
    """Find a column's name with blanks or signs in it that was written as if it were a plain one."""
    for match in _PRINTED.finditer(source):
        inner = match["inner"].strip()
        if _NAME_WITH_BLANKS.fullmatch(inner) and not _WORDS_OF_JINJA.search(inner):
            return inner
    return None


def _syntax_error(error: TemplateSyntaxError, where: str, source: str = "") -> TemplateError:
    said = (error.message or "not a template").partition("\n")[0]
    spaced = _spaced(source)
    if spaced is not None:
        return TemplateError(
            f"{where}: line {error.lineno}: {said}",
            hint=f"a column with blanks or signs in its name is written {as_variable(spaced)}",
        )
    unknown = re.fullmatch(r"No filter named '(.*)'\.", said)
    hint = (
        did_you_mean(unknown[1], sorted(_environment.filters))
        if unknown
        else "a value is written {{ column }}, a condition {% if … %} … {% endif %}, a literal {{ as {{ '{{' }}."
    )
    return TemplateError(f"{where}: line {error.lineno}: {said}", hint=hint)


def check_columns(templates: Iterable[Template | Expression], columns: Iterable[str]) -> None:
    """Compare what templates need with the columns there are.

    Raises:
        TemplateError: naming the missing column and the nearest real one.
    """
    known = list(columns)
    present = set(known)
    for template in templates:
        for name in sorted(template.variables - present):
            raise TemplateError(f"{template.where}: no column `{name}`", hint=_column_hint(name, known))


def _column_hint(name: str, known: Sequence[str]) -> str:
    delimiter = next((sign for sign in ";\t|" if len(known) == 1 and sign in known[0]), None)
    if delimiter is not None:
        return f"the input has one column, {known[0]!r}; set input.csv.delimiter to {json.dumps(delimiter)}."
    begun = next((c for c in known if name in re.split(r"\W+", c) and "[" in as_variable(c)), None)
    if begun is not None:
        return f"a column with blanks or signs in its name is written {as_variable(begun)}"
    return did_you_mean(name, known)


def is_null(value: Any) -> bool:
    """Say whether a value counts as null: None, and NaN (which is how pandas writes a missing number)."""
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124  # NaN differs from itself
