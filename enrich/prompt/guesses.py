"""How large a text or list may become, seen before it is made: a step of a template that would make too much is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from enrich.prompt.allowance import spend_within

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 8 * 2**20  # of a text that one operation makes; no model's context takes more
MAX_PARTS = 2**20  # lists, or items of one, that an operation makes
MAX_GUESS = 32 * MAX_BYTES  # where it can only be guessed from above what an operation makes
MAX_BITS = 100_000  # of a whole number
MAX_PLACES = 10_000  # that a number is rounded to
TEXTS = (str, bytes)
LISTS = (list, tuple)
_SPEC = re.compile(r"%(?:\([^()]*\))?[-+ #0]*(\d+|\*)?(?:\.(\d+|\*))?")
_WIDTH = re.compile(r"\d{7,}")  # a width or a precision beyond any prompt's length


def check_pattern(pattern: str | bytes, values: Any) -> None:
    """Refuse what `%` would make where its widths and values make it too large.

    Raises:
        OverflowError: they do.
    """
    written = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    given = (
        list(values.values())
        if isinstance(values, Mapping)
        else list(values)
        if isinstance(values, tuple)
        else [values]
    )
    spend_within(given)
    specs = _SPEC.findall(written)
    widths = sum(int(part[:8]) for spec in specs for part in spec if part.isdecimal())
    if any("*" in spec for spec in specs):
        widths += sum(value for value in given if isinstance(value, int) and value > 0)
    longest = max((len(value) for value in given if isinstance(value, TEXTS)), default=0)
    if widths > MAX_BYTES or len(specs) * longest > MAX_GUESS:
        refuse("a text of such a width")


def check_width(pattern: str) -> None:
    """Refuse what is to format a value where it gives a width beyond any prompt's.

    Raises:
        OverflowError: it does.
    """
    if _WIDTH.search(pattern):
        refuse("a text of such a width")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large.

    Raises:
        OverflowError: it would.
    """
    if operator == "*":
        _check_product(left, right)
    elif operator == "**":
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
            refuse("a power")
    elif operator == "%":
        if isinstance(left, TEXTS):
            check_pattern(left, right)
    elif (isinstance(left, TEXTS) and isinstance(right, TEXTS)) or (
        isinstance(left, LISTS) and isinstance(right, LISTS)
    ):
        made = len(left) + len(right)
        if made > (MAX_BYTES if isinstance(left, TEXTS) else MAX_PARTS):
            refuse(f"a text or list of {made:,}")


def _check_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, (*TEXTS, *LISTS)) and isinstance(times, int):
            most = MAX_BYTES if isinstance(value, TEXTS) else MAX_PARTS
            if len(value) * times > most:
                refuse(f"a text or list times {times:,}")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        refuse("a product")


def _at_most(most: int) -> Callable[..., None]:
    """Have numbers no larger: widths, parts or places."""

    def guess(_: Any, *args: Any, **kwargs: Any) -> None:
        if any(isinstance(a, int) and abs(a) > most for a in (*args, *kwargs.values())):
            refuse("a text, list or number of such a width")

    return guess


def _replaced(value: Any, old: Any = "", new: Any = "", *_: Any, **named: Any) -> None:
    old, new = named.get("old", old), named.get("new", new)
    if isinstance(value, str) and isinstance(old, str) and isinstance(new, str):
        _check_times(value.count(old), new)


def _joined(value: Any, separator: Any = "", *_: Any, **named: Any) -> None:
    separator = named.get("d", separator)
    if hasattr(value, "__len__") and isinstance(separator, TEXTS):
        _check_times(len(value), separator)


def _joining(separator: Any, items: Any = (), *_: Any) -> None:
    _joined(items, separator)
    if isinstance(items, LISTS) and sum(len(item) for item in items if isinstance(item, TEXTS)) > MAX_GUESS:
        refuse("a text that long")


def _indented(value: Any, width: Any = 4, *_: Any, **named: Any) -> None:
    width = named.get("width", width)
    _at_most(MAX_BYTES)(value, width)
    if isinstance(value, str):
        lines = value.count("\n") + 1
        _check_times(
            lines, width if isinstance(width, str) else range(width) if isinstance(width, int) else ""
        )


def _wrapped(value: Any, *args: Any, **named: Any) -> None:
    _at_most(MAX_BYTES)(value, *args, **named)
    longest = max((len(a) for a in (*args, *named.values()) if isinstance(a, str)), default=0)
    if isinstance(value, str) and (len(value) // 2 + 1) * longest > MAX_GUESS:
        refuse("a text that long")


def _as_json(value: Any, indent: Any = None, **_: Any) -> None:
    steps = spend_within(value)
    if isinstance(indent, int) and (steps + 1) * indent > MAX_BYTES:
        refuse("a text of such a width")


def _summed(value: Any, *args: Any, **named: Any) -> None:
    start = named.get("start", args[1] if len(args) > 1 else 0)
    if not isinstance(start, int | float) and isinstance(value, LISTS):
        parts = [item for item in value if isinstance(item, LISTS)]
        if sum(map(len, parts)) * max(1, len(parts)) > MAX_GUESS:
            refuse("a sum of lists")


def _expanded(value: Any, size: Any = 8, **named: Any) -> None:
    size = named.get("tabsize", size)
    if isinstance(size, int):
        _check_times(value.count("\t" if isinstance(value, str) else b"\t"), range(max(0, size)))


def _translated(value: Any, table: Any = None, *_: Any) -> None:
    if isinstance(table, Mapping):
        _check_times(len(value), max((t for t in table.values() if isinstance(t, str)), key=len, default=""))


def _formatted(pattern: Any, *args: Any, **named: Any) -> None:
    check_pattern(pattern if isinstance(pattern, TEXTS) else "", named or args)


def _check_times(times: int, part: Any) -> None:
    if times * len(part) > MAX_BYTES * 4:
        refuse(f"a text with {len(part):,} characters put in {times:,} times")


def refuse(what: str) -> None:
    """Say that something would be too large.

    Raises:
        OverflowError: always.
    """
    raise OverflowError(f"{what} would be larger than any prompt")


WRITING = frozenset(
    {
        *(
            "capitalize",
            "center",
            "e",
            "escape",
            "forceescape",
            "indent",
            "join",
            "lower",
            "pprint",
            "replace",
        ),
        *(
            "string",
            "striptags",
            "title",
            "trim",
            "truncate",
            "upper",
            "urlencode",
            "urlize",
            "wordcount",
            "wordwrap",
        ),
        "xmlattr",
    }
)  # filters that write a list or mapping out, whatever they do with it
FILTERS: dict[str, Callable[..., None]] = {
    "batch": _at_most(MAX_PARTS),
    "center": _at_most(MAX_BYTES),
    "format": _formatted,
    "indent": _indented,
    "join": _joined,
    "replace": _replaced,
    "round": _at_most(MAX_PLACES),
    "slice": _at_most(MAX_PARTS),
    "sum": _summed,
    "tojson": _as_json,
    "urlize": _wrapped,
    "wordwrap": _wrapped,
}
METHODS: dict[str, Callable[..., None]] = {
    "expandtabs": _expanded,
    "join": _joining,
    "replace": _replaced,
    "translate": _translated,
}
