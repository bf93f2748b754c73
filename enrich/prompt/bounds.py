"""A bound on what one step of a template may make: a slip (`"x" * 10 ** 9`) fails its rows, and takes no memory."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 8 * 2**20  # of a text or list that one operation makes; no model's context takes more
MAX_BITS = 100_000  # of a power
_WIDTH = re.compile(r"\d{7,}")  # a width or a precision beyond any prompt's length
_TEXTS = (str, bytes)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Looks at operations and calls whose result can be far larger than what they are given."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Carry out an operation whose result has a bound."""
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                repeats = isinstance(value, (*_TEXTS, list, tuple)) and isinstance(times, int)
                if repeats and len(value) * times > MAX_BYTES:
                    _refuse(f"a text or list times {times:,}")
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
                _refuse("a power")
        elif isinstance(left, _TEXTS):
            check_width(str(left))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; a text's own methods with numbers that a text can have."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, _TEXTS) and any(isinstance(a, int) and a > MAX_BYTES for a in args):
            _refuse("a text of such a width")
        return super().call(context, obj, *args, **kwargs)


def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a filter refuse a width, or a number of parts, beyond any prompt's."""
    first = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, int) and a > MAX_BYTES for a in (*args[first + 1 :], *kwargs.values())):
            _refuse("a text or list of such a width")
        return function(*args, **kwargs)

    return call


def check_width(pattern: str) -> None:
    """Refuse what is to format a value where it gives a width beyond any prompt's.

    Raises:
        OverflowError: it does.
    """
    if _WIDTH.search(pattern):
        _refuse("a text of such a width")


def _refuse(what: str) -> None:
    raise OverflowError(f"{what} would be larger than any prompt")
