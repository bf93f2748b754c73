"""Bounds on what a template may make and do: a slip (`"x" * 10 ** 9`, loops within loops) fails its rows, and takes no memory."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from jinja2 import nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer

from enrich.prompt.allowance import CHARACTERS, spend, spend_within, steps_of
from enrich.prompt.guesses import (
    FILTERS,
    LISTS,
    MAX_BYTES,
    METHODS,
    TEXTS,
    WRITING,
    check_operation,
    check_width,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BEARERS = (*TEXTS, int)  # whose methods make what they are told
CALL = 5  # steps, as a macro takes its time
LOOK_THROUGH = 20  # items that are looked through for another, or tens of characters, a step
# Filters of ours; no template can spell them.
GONE_THROUGH, LOOKED_THROUGH, MADE, WRITTEN = "gone through", "looked through", "made of", "written out"
_AT_ONCE = frozenset({"length", "count", "first", "last", "default", "d", "attr"})  # whatever the size


class BoundedFormatter(SandboxedFormatter):
    """Writes the fields of `"…".format(…)`, none wider than a prompt."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Write one field."""
        check_width(format_spec)
        if not format_spec:
            spend_within(value)
        found = super().format_field(value, format_spec)
        spend(1 + len(found) // CHARACTERS)
        return str(found)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Looks at operations and calls whose result can be far larger than what they are given, and counts steps."""

    formatter: type[SandboxedFormatter] = BoundedFormatter
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Put the parts of a text together, such as those of a macro or a `set` block."""
        found = list(parts)
        made = sum(map(len, found))
        if made > MAX_BYTES * 4:
            refuse(f"a text of {made:,} characters")
        spend(made // CHARACTERS)
        return "".join(found)

    def bind(self) -> None:
        """Have each filter count what it goes through and makes; to be called when all are there."""
        for name, function in self.filters.items():
            if name not in _AT_ONCE:
                self.filters[name] = _counted(name, function)
        self.filters.update({GONE_THROUGH: _gone_through, LOOKED_THROUGH: _looked_through})
        self.filters.update({MADE: _made, WRITTEN: _written_out})
        self.tests["in"] = _looking(cast("Callable[[Any, Any], bool]", self.tests["in"]))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        marked = _Marked().visit(source)
        marked.set_environment(self)
        return super()._generate(marked, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Carry out an operation whose result has a bound."""
        check_operation(operator, left, right)
        found = super().call_binop(context, operator, left, right)
        if isinstance(found, (*TEXTS, *LISTS)):
            spend(len(found) // CHARACTERS)
        return found

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Have `"…".format(…)` write values as the rest of a template does."""
        if super().wrap_str_format(value) is None:
            return None
        pattern, mapped, write = (
            str(value.__self__),
            value.__name__ == "format_map",
            self.formatter(self).vformat,
        )

        def call(*args: Any, **kwargs: Any) -> str:
            return write(pattern, (), *args) if mapped else write(pattern, args, kwargs)

        return call

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; a text's own methods with numbers that a text can have."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, _BEARERS):
            _check_method(owner, obj, args, kwargs)
        found = super().call(context, obj, *args, **kwargs)
        spend(CALL if type(found) is range else CALL + steps_of(found))
        return found


def _check_method(owner: Any, method: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    if any(isinstance(a, int) and a > MAX_BYTES for a in (*args, *named.values())):
        refuse("a text of such a width")
    if isinstance(owner, TEXTS):
        if (guess := METHODS.get(method.__name__)) is not None:
            guess(owner, *args, **named)
        spend(len(owner) // 1_000)


# --- what is counted -----------------------------------------------------------------------------------------


class _Marked(NodeTransformer):
    """Puts a filter of ours where a loop takes its items, where something is looked for, and where a part is cut out."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.iter = _filtered(cast("nodes.Expr", node.iter), GONE_THROUGH)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        for operand in node.ops:
            if operand.op in ("in", "notin") and not isinstance(
                operand.expr, nodes.Const | nodes.List | nodes.Tuple
            ):
                operand.expr = _filtered(operand.expr, LOOKED_THROUGH)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        return _filtered(node, MADE) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  # Jinja's name for it
        self.generic_visit(node)
        node.nodes = [
            part if isinstance(part, nodes.Const) else _filtered(part, WRITTEN) for part in node.nodes
        ]
        return _filtered(node, MADE)


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@pass_context  # so that Jinja does not work it out beforehand
def _gone_through(_: Any, items: Any) -> Any:
    try:
        spend(len(items))
    except TypeError:
        return _one_by_one(items)
    return items


def _one_by_one(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        spend(1)
        yield item


@pass_context
def _looked_through(_: Any, place: Any) -> Any:
    if isinstance(place, LISTS):
        spend(len(place) // LOOK_THROUGH)
    elif isinstance(place, TEXTS):
        spend(len(place) // (LOOK_THROUGH * 50))
    return place


@pass_context
def _made(_: Any, value: Any) -> Any:
    if isinstance(value, TEXTS) and len(value) > MAX_BYTES * 4:
        refuse(f"a text of {len(value):,} characters")
    if isinstance(value, (*TEXTS, *LISTS)):
        spend(len(value) // CHARACTERS)
    return value


@pass_context
def _written_out(_: Any, value: Any) -> Any:
    if type(value) is not str:
        spend_within(value)
    return value


def _looking(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, place: test(value, _looked_through(None, place))


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    first = int(hasattr(function, "jinja_pass_arg"))
    guess, writes = FILTERS.get(name), name in WRITING

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if guess is not None:
            guess(*args[first:], **kwargs)
        given = args[first] if len(args) > first else None
        if writes:
            spend_within(given)
        found = function(*args, **kwargs)
        spend(1 + max(steps_of(given), steps_of(found)))
        return found

    return call
