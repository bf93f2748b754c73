"""Which columns a template needs, and what it must not use: found in its tree before any row is rendered."""

from __future__ import annotations

import json
import keyword
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateAssertionError, TemplateSyntaxError, meta, nodes

from enrich.errors import TemplateError, did_you_mean
from enrich.prompt.environment import (
    ENVIRONMENT,
    UNSTABLE_FILTERS,
    UNSTABLE_FUNCTIONS,
    UNSTABLE_METHODS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


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
_WRITING_FILTERS = frozenset({"tojson", "string", "trim"})
_BY_NAME = frozenset(
    {"map", "select", "reject", "selectattr", "rejectattr"}
)  # take a filter's or a test's name
_ROW_METHODS = frozenset({"items", "keys", "values", "get"})


@dataclass(frozen=True, slots=True)
class Uses:
    """What a template uses.

    Attributes:
        variables: the columns it names.
        whole_row: whether it uses ``row`` in a way that may need any column.
        writes_row: whether it writes ``row`` as it is, and so every column.
        kept: what it uses of the names that Jinja keeps, such as `row` as a whole.
    """

    variables: frozenset[str]
    whole_row: bool
    writes_row: bool
    kept: frozenset[str]


def parse(source: str, where: str) -> tuple[nodes.Template, Uses]:
    """Read a template: its tree, and what it uses.

    Raises:
        TemplateError: its syntax is wrong, or it does what no prompt may.
    """
    try:
        tree = ENVIRONMENT.parse(source)
        _refuse_unstable(tree, where)
        _refuse_unknown(tree)
        names = meta.find_undeclared_variables(tree) | _named_like_functions(tree)
    except TemplateSyntaxError as error:
        raise syntax_error(error, where, source) from None
    for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
        if tree.find(kind) is not None:
            raise TemplateError(
                f"{where}: a template cannot load another one ({kind.__name__.lower()})",
                hint="put the whole prompt into one file and name it with `prompt_file`.",
            )
    if any(name.name == "self" and name.ctx == "load" for name in tree.find_all(nodes.Name)):
        raise kept_by_jinja("self", where)
    if _bare_loop(tree):
        raise kept_by_jinja("loop", where)
    named, whole_row, alone = _row_columns(tree) if "row" in names else (set[str](), False, False)
    kept = frozenset({"row"} if alone else ()) | _constants(tree)
    return tree, Uses(frozenset((names - {"row"}) | named), whole_row, _writes_row(tree), kept)


def kept_by_jinja(name: str, where: str) -> TemplateError:
    """Say that a name is none for a column."""
    return TemplateError(
        f"{where}: `{name}` is a name that the template engine keeps for itself",
        hint=f'a column of that name is written {{{{ row["{name}"] }}}}.',
    )


def _refuse_unstable(tree: nodes.Template, where: str) -> None:
    """Refuse what would give another text at every run: each would be paid for again."""
    calls = [call.node for call in tree.find_all(nodes.Call)]
    found = [f"the filter `{f.name}`" for f in tree.find_all(nodes.Filter) if f.name in UNSTABLE_FILTERS]
    found += [f"`{n.name}()`" for n in calls if isinstance(n, nodes.Name) and n.name in UNSTABLE_FUNCTIONS]
    found += [f"`{n.attr}()`" for n in calls if isinstance(n, nodes.Getattr) and n.attr in UNSTABLE_METHODS]
    for what in found:
        raise TemplateError(
            f"{where}: {what} gives another text at every run, and each is paid for",
            hint="put the value into a column of the input; a prompt is a function of its row alone.",
        )


def _refuse_unknown(tree: nodes.Template) -> None:
    """Refuse a filter or test that is named by a text, and that there is not: Jinja would find out with each row.

    Raises:
        TemplateAssertionError: naming it, as Jinja does of those that are no texts.
    """
    for use in tree.find_all(nodes.Filter):
        named = use.args[int(use.name.endswith("attr")) :][:1]
        known = ENVIRONMENT.filters if use.name == "map" else ENVIRONMENT.tests
        if (
            use.name in _BY_NAME
            and named
            and isinstance(named[0], nodes.Const)
            and named[0].value not in known
        ):
            what = "filter" if use.name == "map" else "test"
            raise TemplateAssertionError(f"No {what} named {str(named[0].value)!r}.", use.lineno)


def _bare_loop(tree: nodes.Template) -> bool:
    """Say whether a loop uses `loop` by itself, which is Jinja's and no column."""
    for loop in tree.find_all(nodes.For):
        uses = sum(name.name == "loop" for name in loop.find_all(nodes.Name))
        parts: list[Any] = [*loop.find_all(nodes.Getattr), *loop.find_all(nodes.Getitem)]
        if uses > sum(isinstance(part.node, nodes.Name) and part.node.name == "loop" for part in parts):
            return True
    return False


def _constants(tree: nodes.Template) -> set[str]:
    """Name the words that stand for none, true and false where they are put out."""
    parts = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    found = {
        str(p.value)
        for p in parts
        if isinstance(p, nodes.Const) and (p.value is None or isinstance(p.value, bool))
    }
    return found & {"None", "True", "False"} | {word.lower() for word in found & {"None", "True", "False"}}


def _named_like_functions(tree: nodes.Template) -> set[str]:
    """Find columns named like one of Jinja's own functions, such as ``range``: names that are not just called."""
    uses = Counter(name.name for name in tree.find_all(nodes.Name) if name.name in ENVIRONMENT.globals)
    calls = Counter(call.node.name for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name))
    return set(uses - calls)


def _row_columns(tree: nodes.Template) -> tuple[set[str], bool, bool]:
    """Find the columns behind ``row["a b"]`` and ``row.a``; whether ``row`` is used in another way, and by itself."""
    columns: set[str] = set()
    methods = plain = 0
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    for attribute in tree.find_all(nodes.Getattr):
        if _is_row(attribute.node):
            if id(attribute) in called and attribute.attr in _ROW_METHODS:
                methods += 1
            else:
                columns.add(attribute.attr)
                plain += 1
    for item in tree.find_all(nodes.Getitem):
        if _is_row(item.node):
            if isinstance(item.arg, nodes.Const):
                columns.add(str(item.arg.value))
                plain += 1
            else:
                methods += 1
    written = sum(
        1
        for f in tree.find_all(nodes.Filter)
        if isinstance(f.node, nodes.Name) and _is_row(f.node) and f.name == "tojson"
    )
    uses = sum(1 for name in tree.find_all(nodes.Name) if name.name == "row" and name.ctx == "load")
    return columns, uses > plain, uses > plain + methods + written


def _writes_row(tree: nodes.Template) -> bool:
    """Say whether ``row`` is put out as it is, or as JSON."""
    parts = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    written = [p.node if isinstance(p, nodes.Filter) and p.name in _WRITING_FILTERS else p for p in parts]
    return any(isinstance(part, nodes.Expr) and _is_row(part) for part in written)


def _is_row(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Name) and node.name == "row"


def as_variable(column: str) -> str:
    """Write a column's value as a template has it; one whose name is no plain word is taken out of ``row``."""
    plain = column.isidentifier() and not keyword.iskeyword(column) and column not in RESERVED
    return f"{{{{ {column} }}}}" if plain else as_row_value(column)


def as_row_value(column: str) -> str:
    """Write a column's value as it is taken out of ``row``, whatever the column is called."""
    return f"{{{{ row[{json.dumps(column, ensure_ascii=False)}] }}}}"


def _spaced(source: str) -> str | None:
    """Find a column's name with blanks or signs in it that was written as if it were a plain one."""
    for match in _PRINTED.finditer(source):
        inner = match["inner"].strip()
        if _NAME_WITH_BLANKS.fullmatch(inner) and not _WORDS_OF_JINJA.search(inner):
            return inner
    return None


def syntax_error(error: TemplateSyntaxError, where: str, source: str = "") -> TemplateError:
    """Say what Jinja says of a template, and what to do about it."""
    said = (error.message or "not a template").partition("\n")[0]
    spaced = _spaced(source)
    if spaced is not None:
        return TemplateError(
            f"{where}: line {error.lineno}: {said}",
            hint=f"a column with blanks or signs in its name is written {as_variable(spaced)}",
        )
    unknown = re.fullmatch(r"No filter named '(.*)'\.", said)
    hint = (
        did_you_mean(unknown[1], sorted(ENVIRONMENT.filters))
        if unknown
        else "a value is written {{ column }}, a condition {% if … %} … {% endif %}, a literal {{ as {{ '{{' }}."
    )
    return TemplateError(f"{where}: line {error.lineno}: {said}", hint=hint)


def column_hint(name: str, known: Sequence[str]) -> str:
    """Say what may be meant by a column that is not there."""
    delimiter = next((sign for sign in ";\t|" if len(known) == 1 and sign in known[0]), None)
    if delimiter is not None:
        return f"the input has one column, {known[0]!r}; set input.csv.delimiter to {json.dumps(delimiter)}."
    begun = next((c for c in known if name in re.split(r"\W+", c) and "[" in as_variable(c)), None)
    if begun is not None:
        return f"a column with blanks or signs in its name is written {as_variable(begun)}"
    if name in _ROW_METHODS:
        return f"row.{name}() is the function; {did_you_mean(name, known)}"
    if "row" in known:
        return f'the column `row` is written row["row"]; {did_you_mean(name, known)}'
    return did_you_mean(name, known)
