"""Made-up values that conform to a JSON Schema: the same seed gives the same value, texts are marked as the sandbox's."""

from __future__ import annotations

import math
import random
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from rstr import Rstr

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "[sandbox]"
LEAN_DEPTH = 6  # levels below which only what is required is made
MADE_DEPTH = 16  # levels below which nothing is made: the schema requires itself without end
MAX_ITEMS = 1_000  # array items, whatever the schema asks for
MAX_LENGTH = 100_000  # characters of one text, whatever the schema asks for
TRIES = 30  # draws to find a value that is not there yet, or one that fits a pattern and a length
MAX_INT = 2**63 - 1  # the widest integer that JSON readers agree on
SPAN = 100  # width of a range of numbers that the schema leaves open at one end
MADE_UP_FROM = datetime(2025, 1, 1, tzinfo=UTC)  # made-up dates lie within the year after it

Schema = dict[str, Any]


def conform(schema: Any, seed: bytes) -> Any:
    """Make a JSON value that conforms to a schema.

    Known are type, enum, const, the bounds of numbers, texts and arrays, multipleOf, pattern, the common formats,
    items, prefixItems, uniqueItems, properties, required, additionalProperties, $ref within the schema, anyOf, oneOf
    and allOf. Other keywords are not looked at. `oneOf` is taken as `anyOf`.

    Args:
        schema: a valid JSON Schema.
        seed: decides what is made.
    """
    return _Maker(schema, seed).make(schema, "answer", 0)


class _Maker:
    def __init__(self, root: Any, seed: bytes) -> None:
        self._root = root
        self._random = random.Random(seed)  # noqa: S311  # made-up data, no secrets
        self._by_type: dict[str, Callable[[Schema, str, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": lambda schema, _name, _depth: self._number(schema, whole=True),
            "number": lambda schema, _name, _depth: self._number(schema, whole=False),
            "boolean": lambda _schema, _name, _depth: self._random.random() < 0.5,
            "null": lambda _schema, _name, _depth: None,
        }

    def make(self, schema: Any, name: str, depth: int) -> Any:
        """Make a value; ``name`` goes into texts, ``depth`` counts levels and references."""
        if depth > MADE_DEPTH or schema is False:
            return None
        schema = self._resolved(schema if isinstance(schema, dict) else {}, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._random.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                rest = {k: v for k, v in schema.items() if k != keyword}
                branches = _without_bare_text(schema[keyword])
                return self.make(_merged(rest, self._branch(branches, depth)), name, depth + 1)
        return self._by_type[self._type(schema, depth)](schema, name, depth)

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Put what `$ref` and `allOf` say into the schema itself."""
        while "$ref" in schema and depth <= MADE_DEPTH:
            rest = {k: v for k, v in schema.items() if k != "$ref"}
            schema = _merged(rest, self._target(schema["$ref"]))
            depth += 1
        for part in schema.get("allOf", ()) if depth <= MADE_DEPTH else ():
            rest = {k: v for k, v in schema.items() if k != "allOf"}
            schema = _merged(rest, self._resolved(part if isinstance(part, dict) else {}, depth + 1))
        return schema

    def _target(self, reference: str) -> Schema:
        found: Any = self._root
        for part in unquote(reference.removeprefix("#")).split("/")[1:]:
            step = part.replace("~1", "/").replace("~0", "~")
            found = found[int(step)] if isinstance(found, list) else found.get(step, {})
        return found if isinstance(found, dict) else {}

    def _branch(self, branches: list[Any], depth: int) -> Schema:
        """Choose one of several schemas: any near the top, the simplest one below."""
        known = [branch if isinstance(branch, dict) else {} for branch in branches]
        if depth < LEAN_DEPTH:
            return self._random.choice(known)
        return min(
            known, key=lambda branch: (branch.get("type") != "null", "$ref" in branch, len(str(branch)))
        )

    def _type(self, schema: Schema, depth: int) -> str:
        declared = schema.get("type")
        if isinstance(declared, str):
            return declared
        if isinstance(declared, list):
            simple = "null" in declared and depth >= LEAN_DEPTH
            return "null" if simple else str(self._random.choice(declared))
        return next((kind for kind, words in _TELLTALES if words & schema.keys()), "string")

    def _object(self, schema: Schema, _name: str, depth: int) -> dict[str, Any]:
        properties: Schema = schema.get("properties", {})
        required: list[str] = schema.get("required", [])
        extra = schema.get("additionalProperties", {})
        wanted = [
            n for n in properties if n in required or (depth < LEAN_DEPTH and properties[n] is not False)
        ]
        made = {name: self.make(properties[name], name, depth + 1) for name in wanted}
        for name in required:
            if name not in made:
                made[name] = self.make(extra, name, depth + 1)
        few = min(max(schema.get("minProperties", 0), int(not properties and depth < LEAN_DEPTH)), MAX_ITEMS)
        if extra is not False:
            for number in range(len(made), few):
                made[f"field_{number + 1}"] = self.make(extra, f"field_{number + 1}", depth + 1)
        most = schema.get("maxProperties", len(made))
        optional = [name for name in made if name not in required]
        for name in optional[: max(len(made) - most, 0)]:
            del made[name]
        return made

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        least = min(int(schema.get("minItems", 0)), MAX_ITEMS)
        most = min(int(schema.get("maxItems", MAX_ITEMS)), MAX_ITEMS)
        prefix: list[Any] = schema.get("prefixItems", [])
        items = schema.get("items", {})
        if isinstance(items, list):  # the older spelling of prefixItems
            prefix, items = items, schema.get("additionalItems", {})
        if items is False:
            most = min(most, len(prefix))
        usual = max(len(prefix), 0 if depth >= LEAN_DEPTH else self._random.randint(1, 3))
        count = max(least, min(most, usual))
        made: list[Any] = []
        for number in range(count):
            item = prefix[number] if number < len(prefix) else items
            for _ in range(TRIES if schema.get("uniqueItems") else 1):
                value = self.make(item, name, depth + 1)
                if not schema.get("uniqueItems") or value not in made:
                    made.append(value)
                    break
        return made

    def _number(self, schema: Schema, *, whole: bool) -> float:
        low, high = _bounds(schema)
        step = schema.get("multipleOf")
        if step:
            return self._multiple(schema, step, (low, high), whole=whole)
        if whole:
            first = math.floor(low) + 1 if _excluded(schema, low, "exclusiveMinimum") else math.ceil(low)
            last = math.ceil(high) - 1 if _excluded(schema, high, "exclusiveMaximum") else math.floor(high)
            return _whole(first + self._random.randrange(max(last - first, 0) + 1))
        share = self._random.uniform(0.1, 0.9)
        value = min(max(low * (1 - share) + high * share, low), high)
        rounded = round(value, 3)
        return rounded if low < rounded < high else value

    def _multiple(self, schema: Schema, step: float, span: tuple[float, float], *, whole: bool) -> float:
        low, high = span
        first, last = math.ceil(low / step), max(math.floor(high / step), math.ceil(low / step))
        first += _excluded(schema, first * step, "exclusiveMinimum")
        last -= _excluded(schema, last * step, "exclusiveMaximum") and last > first
        value = (first + self._random.randrange(max(last - first, 0) + 1)) * step
        return _whole(value) if whole or isinstance(step, int) else round(value, 10)

    def _string(self, schema: Schema, name: str, _depth: int) -> str:
        least = min(int(schema.get("minLength", 0)), MAX_LENGTH)
        most = min(int(schema.get("maxLength", MAX_LENGTH)), MAX_LENGTH)
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]](self._random)
        if "pattern" in schema:
            for text in self._matching(schema["pattern"]):
                if least <= len(text) <= most:
                    return text
        text = f"{MARK} {name} {self._random.getrandbits(16):04x}"
        return text[:most].ljust(least, ".")

    def _matching(self, pattern: str) -> list[str]:
        """Draw texts that match a pattern: none when Python cannot read it."""
        try:
            found = re.compile(pattern)
            draws = (Rstr(self._random).xeger(pattern) for _ in range(TRIES))
            return [text for text in draws if found.search(text)]
        except (re.error, LookupError, ValueError, OverflowError):  # the last three: rstr out of its depth
            return []


_TELLTALES: tuple[tuple[str, frozenset[str]], ...] = (
    ("object", frozenset({"properties", "required", "additionalProperties", "minProperties"})),
    ("array", frozenset({"items", "prefixItems", "minItems", "uniqueItems"})),
    ("number", frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})),
)


def _merged(schema: Schema, other: Schema) -> Schema:
    """Join two schemas that both hold: properties and required add up, of bounds the narrower one stays."""
    merged = {**schema, **other}
    for keyword in schema.keys() & other.keys():
        one, two = schema[keyword], other[keyword]
        if keyword in ("properties", "$defs", "definitions"):
            merged[keyword] = {**one, **two}
        elif keyword in ("required", "allOf"):
            merged[keyword] = [*one, *(item for item in two if item not in one)]
        elif keyword == "enum":
            merged[keyword] = [item for item in one if item in two] or one
        elif keyword in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            merged[keyword] = max(one, two)
        elif keyword in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            merged[keyword] = min(one, two)
    return merged


def _bounds(schema: Schema) -> tuple[float, float]:
    """Give the range of a number; an end that the schema leaves open is `SPAN` away from the other one, or from 0."""
    lows = [schema[k] for k in ("minimum", "exclusiveMinimum") if _is_bound(schema.get(k))]
    highs = [schema[k] for k in ("maximum", "exclusiveMaximum") if _is_bound(schema.get(k))]
    if not lows:
        lows = [0 if not highs or min(highs) > 0 else min(highs) - SPAN]
    return max(lows), min(highs) if highs else max(lows) + SPAN


def _is_bound(value: Any) -> bool:
    """Tell a number from the flags that drafts before 6 wrote in `exclusiveMinimum`."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _excluded(schema: Schema, bound: float, keyword: str) -> bool:
    return _is_bound(schema.get(keyword)) and bool(schema[keyword] == bound)


def _whole(value: float) -> float:
    """Give an integer, or a float where an integer would not fit into 64 bits."""
    return int(value) if abs(value) <= MAX_INT else float(value)


def _moment(rng: random.Random) -> datetime:
    return MADE_UP_FROM + timedelta(seconds=rng.randrange(365 * 86_400))


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


_FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date": lambda rng: _moment(rng).date().isoformat(),
    "date-time": lambda rng: _moment(rng).isoformat().replace("+00:00", "Z"),
    "time": lambda rng: f"{_moment(rng).time().isoformat()}Z",
    "duration": lambda rng: f"PT{rng.randint(1, 59)}M",
    "email": lambda rng: f"sandbox-{rng.getrandbits(16):04x}@example.com",
    "hostname": lambda rng: f"sandbox-{rng.getrandbits(16):04x}.example.com",
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 65_535):x}",
    "uri": lambda rng: f"https://example.com/sandbox/{rng.getrandbits(16):04x}",
    "uuid": _uuid,
}


def _without_bare_text(branches: Any) -> Any:
    """Leave out a text of any kind beside a number: that is how a decimal is written, and not every text is one."""
    if not isinstance(branches, list) or not any(
        isinstance(branch, dict) and branch.get("type") == "number" for branch in branches
    ):
        return branches
    return [
        branch for branch in branches if not (isinstance(branch, dict) and branch.get("type") == "string")
    ]
