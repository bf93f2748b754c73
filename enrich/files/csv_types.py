"""The types of CSV columns: told from the texts where every value writes back to its own, or given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CANDIDATES: tuple[pa.DataType, ...] = (
    pa.bool_(),
    pa.int64(),
    pa.float64(),
    pa.date32(),
    *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")),
)
TYPE_NAMES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}  # beside Arrow's own names (int64, string, timestamp[ms], …)


class Guess:
    """Finds the type that every text of a column writes back from; refuted candidates are not tried again.

    Args:
        decimal: what stands before a fraction.
        known: the type that the column had before, when that is known.
    """

    def __init__(self, decimal: str, known: pa.DataType | None = None) -> None:
        self._decimal = decimal
        self._seen = known == pa.string() or known in CANDIDATES
        wider = (pa.int64(), pa.float64()) if known == pa.int64() else (known,)
        self._candidates = [type_ for type_ in CANDIDATES if not self._seen or type_ in wider]

    def look(self, texts: pa.Array[Any]) -> None:
        """Refute what these texts do not write back from."""
        values = texts.drop_null()
        if len(values):
            self._seen = True
            self._candidates = [
                type_ for type_ in self._candidates if _writes_back(values, type_, self._decimal)
            ]

    @property
    def type(self) -> pa.DataType:
        """The first candidate that holds; text where none does, or where there are only nulls."""
        return self._candidates[0] if self._seen and self._candidates else pa.string()


def _writes_back(texts: pa.Array[Any], type_: pa.DataType, decimal: str) -> bool:
    import pyarrow.compute as pc

    if _is_fraction(type_) and decimal != ".":
        if pc.any(pc.match_substring(texts, ".")).as_py():
            return False
        texts = pc.replace_substring(texts, decimal, ".")
    try:
        values = texts.cast(type_)
    except pa.ArrowInvalid:
        return False
    same = pc.all(pc.equal(values.cast(pa.string()), texts)).as_py()
    return same and (not pa.types.is_floating(type_) or pc.all(pc.is_finite(values)).as_py())


def typed(texts: pa.Array[Any], type_: pa.DataType, decimal: str) -> pa.Array[Any]:
    """Give a column the type that was found or given.

    Raises:
        pa.ArrowInvalid: a text cannot become it.
    """
    import pyarrow.compute as pc

    if type_ == pa.string():
        return texts
    if _is_fraction(type_) and decimal != ".":
        texts = pc.replace_substring(pc.replace_substring(texts, ".", "no number"), decimal, ".")
    return (pc.utf8_trim_whitespace(texts) if pa.types.is_primitive(type_) else texts).cast(type_)


def _is_fraction(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_decimal(type_)


def unfit(texts: pa.Array[Any], type_: pa.DataType, decimal: str) -> int | None:
    """Give the position of the first text that cannot become the type, or None."""
    try:
        typed(texts, type_, decimal)
    except pa.ArrowInvalid:
        half = len(texts) // 2
        if not half:
            return 0
        before = unfit(texts.slice(0, half), type_, decimal)
        if before is not None:
            return before
        behind = unfit(texts.slice(half), type_, decimal)
        return None if behind is None else half + behind
    return None


def given_types(types: Mapping[str, str], names: Sequence[str]) -> dict[str, pa.DataType]:
    """Give the types that the configuration names, by column.

    Raises:
        InputError: there is no such column, or no such type.
    """
    for name in types:
        if name not in names:
            raise InputError(
                f"`input.csv.types` names `{name}`, no such column", hint=did_you_mean(name, names)
            )
    return {name: _type_named(text, name) for name, text in types.items()}


def _type_named(text: str, column: str) -> pa.DataType:
    try:
        found = TYPE_NAMES.get(text) or pa.type_for_alias(text)  # type: ignore[call-overload]  # any text may stand there
        pa.array([], pa.string()).cast(found)
    except (ValueError, pa.ArrowNotImplementedError):
        known = ["string", "int64", "float64", "bool", "date", "timestamp"]
        raise InputError(
            f"`input.csv.types.{column}` is {text!r}, which is no type that text can become",
            hint=did_you_mean(text, known),
        ) from None
    return found
