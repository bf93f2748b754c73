"""Jinja as prompts need it: data before Python's methods, one text for each value, and nothing that differs between runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from enrich.base.texts import as_json, digits
from enrich.prompt.allowance import CHARACTERS, spend, spend_within
from enrich.prompt.beside_text import beside
from enrich.prompt.bounds import BoundedEnvironment, BoundedFormatter
from enrich.prompt.cells import NULL, Cell, is_null, is_true, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jinja2.nodes import EvalContext
    from jinja2.runtime import Context

# Filters of ours; no template can spell them.
METHOD, TEXT, BESIDE, NO_NAN, TRUTH = "method of", "text of", "beside others", "null for NaN", "truth of"
UNSTABLE_FILTERS = frozenset({"random"})
UNSTABLE_FUNCTIONS = frozenset({"lipsum"})
UNSTABLE_METHODS = frozenset(
    {"now", "utcnow", "today", "fromtimestamp", "utcfromtimestamp", "astimezone", "timestamp", "ctime"}
)  # they ask this machine for its clock or zone
_TEXT_FILTERS = (
    *(
        "capitalize",
        "center",
        "e",
        "escape",
        "forceescape",
        "indent",
        "lower",
        "replace",
        "string",
        "striptags",
    ),
    *("title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap", "pprint"),
)
_COMPARING_TESTS = (
    *("==", "!=", "<", "<=", ">", ">=", "eq", "equalto", "ne"),
    *("lt", "lessthan", "le", "gt", "greaterthan", "ge", "in"),
)
_LIST_FILTERS = ("map", "select", "reject", "selectattr", "rejectattr", "unique", "batch", "slice")


class PromptEnvironment(BoundedEnvironment):
    """Looks data up before anything else; methods are found only where they are called."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Find `obj.attribute`: a mapping's item, or what a value has that is no method; null has nothing but nulls."""
        if obj is NULL:
            return NULL
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        found = super().getattr(_bearer(obj, attribute), attribute)
        if callable(found) and not isinstance(found, Undefined):
            raise SecurityError(f"`{attribute}` is a function; write `{attribute}()`")
        return found

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Find `obj[argument]`."""
        if obj is NULL:
            return NULL
        if isinstance(obj, Mapping):
            for key in (argument, argument.value()) if isinstance(argument, Cell) else (argument,):
                if key in obj:
                    return obj[key]
            return self.undefined(obj=obj, name=argument)
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if type(argument) is str:
                return self.getattr(obj, argument)
            return self.undefined(obj=obj, name=argument)

    def method(self, obj: Any, name: str) -> Any:
        """Find a method that is called."""
        if name in UNSTABLE_METHODS:
            raise SecurityError(f"`{name}()` asks this machine for its clock or zone")
        return super().getattr(_bearer(obj, name), name)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Format with `%` by the texts of values."""
        if operator == "%" and type(left) is str and not isinstance(right, Mapping):
            right = tuple(map(_formatted, right if isinstance(right, tuple) else (right,)))
        return super().call_binop(context, operator, left, right)


class _Formatter(BoundedFormatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return super().format_field(value, format_spec) if format_spec else str(finalize(value))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if isinstance(value, int | float | str):
            return super().convert_field(value, conversion)
        return value if conversion is None else finalize(value)


def _bearer(obj: Any, name: str) -> Any:
    """Give what bears an attribute: of a cell that is a date, the date."""
    return obj.value() if isinstance(obj, Cell) and not hasattr(str, name) else obj


class _Digits(Decimal):
    """A decimal that `%s` writes as a prompt does, and `%.2f` as a number."""

    __slots__ = ()

    def __str__(self) -> str:
        return digits(self)


def _formatted(value: Any) -> Any:
    if isinstance(value, Decimal):
        return _Digits(value)
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else _written(value)


def finalize(value: Any) -> Any:
    """Write what stands between braces."""
    if type(value) is str:
        spend(1 + len(value) // CHARACTERS)
        return value
    return value if isinstance(value, Undefined) else _written(value)


def _written(value: Any) -> str:
    """Write a value; what it holds counts as steps."""
    kind = type(value)
    spend(1 if kind is int or kind is float or kind is Cell else 1 + spend_within(value))
    return text(value)


# --- filters and tests ----------------------------------------------------------------------------------


def _texted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a filter take the text of a value."""
    first = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        own = [
            finalize(args[first]),
            *(a if isinstance(a, int | bool | None) else finalize(a) for a in args[first + 1 :]),
        ]
        return function(*args[:first], *own, **kwargs)

    return call


def _listed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a filter give a list where it gives a generator, whose text would be a place in memory."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return list(function(*args, **kwargs))

    return call


def _joined(
    eval_ctx: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> Any:
    found = map(make_attrgetter(eval_ctx.environment, attribute), value) if attribute is not None else value
    return finalize(d).join(str(finalize(item)) for item in found)


_joined.jinja_pass_arg = FILTERS["join"].jinja_pass_arg  # type: ignore[attr-defined]  # as `pass_eval_context` marks it


def _no_nan(value: Any) -> Any:
    """Put null, which is false, in the place of NaN, which Python takes for true."""
    return NULL if isinstance(value, float) and is_null(value) else value


def _truth(value: Any) -> bool:
    return bool(value) if isinstance(value, Undefined) else is_true(value)


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:  # noqa: FBT001, FBT002  # Jinja's signature
    return FILTERS["default"](_no_nan(value) if boolean else value, default_value, boolean)


def _chosen(name: str) -> Callable[..., Any]:
    """Have `select` and `reject` judge NaN as null where they are given no test."""
    listed = _listed(FILTERS[name])

    @functools.wraps(FILTERS[name])
    def call(context: Context, value: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        return listed(context, value if args else map(_no_nan, value), *args, **kwargs)

    return call


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TypeError("give `format` either names or values")
    named = {name: _formatted(item) for name, item in kwargs.items()}
    return str(finalize(value)) % (named or tuple(map(_formatted, args)))


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON, its keys sorted; other than Jinja's own it takes every value and escapes nothing."""
    if isinstance(value, Undefined):
        str(value)  # it raises what it knows
    return json.dumps(as_json(value), ensure_ascii=False, indent=indent, sort_keys=True)


def _read(function: Callable[..., bool]) -> Callable[..., bool]:
    """Have a test look at what a cell stands for."""

    def test(value: Any, *args: Any) -> bool:
        return function(value.value() if isinstance(value, Cell) else value, *args)

    return test


def _comparing(function: Any) -> Callable[[Any, Any], bool]:
    """Have a test compare as the operator does that it stands for."""
    return lambda value, other: function(beside(value), other if function is TESTS["in"] else beside(other))


def make_environment() -> PromptEnvironment:
    """Make the environment that all templates share."""
    made = PromptEnvironment(
        undefined=StrictUndefined,
        finalize=finalize,
        autoescape=False,
        keep_trailing_newline=False,
        cache_size=0,
    )
    made.filters.update({name: _texted(FILTERS[name]) for name in _TEXT_FILTERS if name != "pprint"})
    made.filters.update({name: _listed(FILTERS[name]) for name in _LIST_FILTERS})
    made.filters.update({name: _chosen(name) for name in ("select", "reject")})
    made.filters.update({"default": _default, "d": _default})
    made.filters.update({"join": _joined, "format": _format, "tojson": to_json, "pprint": finalize})
    made.tests.update({name: _comparing(TESTS[name]) for name in _COMPARING_TESTS})
    for name in ("boolean", "false", "float", "integer", "number", "true"):
        made.tests[name] = _read(cast("Callable[..., bool]", TESTS[name]))
    made.tests["none"] = lambda value: value is None or value is NULL
    made.bind()
    made.filters.update({METHOD: made.method, TEXT: finalize, BESIDE: beside, NO_NAN: _no_nan, TRUTH: _truth})
    return made


PromptEnvironment.formatter = _Formatter
ENVIRONMENT = make_environment()

# --- templates as trees ---------------------------------------------------------------------------------


class _Settled(NodeTransformer):
    """Marks what is called as a method, has `~` join texts, dates compare with texts, and NaN be false."""

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        if isinstance(node.node, nodes.Getattr):
            found = node.node
            name = nodes.Const(found.attr, lineno=node.lineno)
            node.node = nodes.Filter(found.node, METHOD, [name], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.nodes = [nodes.Filter(n, TEXT, [], [], None, None, lineno=node.lineno) for n in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.expr = _beside_others(node.expr)
        for operand in node.ops:
            if operand.op not in ("in", "notin"):
                operand.expr = _beside_others(operand.expr)
        return node

    def visit_If(self, node: Any) -> Any:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.test = _filtered(node.test, NO_NAN)
        return node

    visit_CondExpr = visit_If  # noqa: N815  # Jinja's name for it

    def visit_For(self, node: Any) -> Any:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.test = node.test and _filtered(node.test, NO_NAN)
        return node

    def visit_Not(self, node: nodes.Not) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.node = _filtered(node.node, NO_NAN)
        return node

    def visit_And(self, node: Any) -> Any:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.left = _filtered(node.left, NO_NAN)
        return node

    visit_Or = visit_And  # noqa: N815  # Jinja's name for it


def _filtered(node: nodes.Expr, name: str) -> nodes.Expr:
    """Put what an expression gives through a filter of ours, but what is true or false already."""
    if isinstance(node, nodes.Const | nodes.Compare | nodes.Not | nodes.Test):
        return node
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def judged(node: nodes.Expr) -> nodes.Expr:
    """Have a condition's `and`, `or`, `not` and `if` judge their values as it is judged itself, see `is_true`."""
    if isinstance(node, nodes.And | nodes.Or):
        node.left, node.right = judged(node.left), judged(node.right)
    elif isinstance(node, nodes.Not):
        node.node = judged(node.node)
    elif isinstance(node, nodes.CondExpr):
        node.test, node.expr1 = judged(node.test), judged(node.expr1)
        node.expr2 = node.expr2 and judged(node.expr2)
    else:
        return _filtered(node, TRUTH)
    return node


def _beside_others(node: nodes.Expr) -> nodes.Expr:
    return (
        node
        if isinstance(node, nodes.Const)
        else nodes.Filter(node, BESIDE, [], [], None, None, lineno=node.lineno)
    )


def settled(tree: nodes.Template, environment: PromptEnvironment) -> nodes.Template:
    """Prepare a template's tree for `PromptEnvironment`."""
    found = _Settled().visit(tree)
    found.set_environment(environment)
    return found  # type: ignore[no-any-return]  # a template stays one
