"""The JSON Schema of an answer: which Arrow columns it stands for, and whether a value keeps to it."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import jsonschema_rs
import orjson
import pyarrow as pa
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from enrich.config.strict_yaml import parse_yaml, read_text
from enrich.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from enrich.config import StepConfig

MAX_ERRORS = 8  # problems of one value that are reported
MAX_MESSAGE = 200  # characters of one problem; the middle of a longer one is left out
MAX_NAME = 64  # characters of a response_format's name
EXACT_FLOAT = 2**53  # up to here every integer has a float64 of its own
IMPORT_PATH = re.compile(r"[\w.]+:\w+")
SHAPE_KEYS = ("type", "enum", "format", "properties", "items", "prefixItems", "anyOf", "oneOf")
OBJECT_HINT = "write {type: object, properties: {answer: …}, required: [answer]}."

CATEGORY = pa.dictionary(pa.int32(), pa.string())
JSON_TEXT = pa.string()


class Misfit(ValueError):
    """A value that its column cannot hold.

    Attributes:
        errors: one line per problem, ``/place: what is wrong``.
    """

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        super().__init__("; ".join(errors))

    def under(self, name: str | int) -> Misfit:
        """Give the same problems, seen from one level further out."""
        step = str(name).replace("~", "~0").replace("/", "~1")
        return Misfit(*(f"/{step}{error}" for error in self.errors))


@dataclass(frozen=True, slots=True)
class Column:
    """How one place of the schema is kept in Arrow.

    Attributes:
        type: the Arrow type.
        coerce: turns a JSON value other than null into one that `pa.array` takes; raises `Misfit`.
        categories: the values of a dictionary column, in the schema's order.
    """

    type: pa.DataType
    coerce: Callable[[Any], Any]
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class AnswerSchema:
    """What an answer must look like.

    Attributes:
        json: the JSON Schema.
        columns: one per top-level property, in the schema's order. Every one may be null.
    """

    json: dict[str, Any]
    columns: dict[str, Column]
    _validator: jsonschema_rs.Validator = field(repr=False)

    @property
    def fields(self) -> tuple[pa.Field[Any], ...]:
        """The Arrow field of each top-level property, named as the property."""
        return tuple(pa.field(name, column.type) for name, column in self.columns.items())

    def read(self, value: Any) -> tuple[dict[str, Any] | None, list[str]]:
        """Check an answer and turn it into values ready for Arrow.

        Args:
            value: parsed JSON.

        Returns:
            What `coerce` gives and no problems, or None and at most eight lines such as
            ``/score: 3 is greater than the maximum of 1``.
        """
        try:
            errors = list(islice(self._validator.iter_errors(value), MAX_ERRORS))
        except UnicodeEncodeError:
            return None, ["/: holds half of a surrogate pair, which is no Unicode text"]
        if errors:
            lines = [f"{_pointer(error.instance_path) or '/'}: {error.message}" for error in errors]
            return None, [_shorten(line) for line in lines]
        try:
            return self.coerce(value), []
        except Misfit as misfit:
            return None, misfit.errors[:MAX_ERRORS]

    def validate(self, value: Any) -> list[str]:
        """Say what is wrong with an answer, as `read` does: nothing, when its columns can hold it."""
        return self.read(value)[1]

    def coerce(self, value: Any) -> dict[str, Any]:
        """Turn an answer into values ready for Arrow: each property of the schema, None where it is absent.

        Dates are parsed, numbers stay exact, free-form parts become JSON text. Properties that the schema does
        not list are left out.

        Raises:
            Misfit: a value does not fit its column; never for a value that `validate` found nothing wrong with.
        """
        if not isinstance(value, dict):
            raise Misfit(f"/: {_show(value)} is not an object")
        values: dict[str, Any] = {}
        errors: list[str] = []
        for name, column in self.columns.items():
            item = value.get(name)
            try:
                values[name] = None if item is None else column.coerce(item)
            except Misfit as misfit:
                errors += misfit.under(name).errors
        if errors:
            raise Misfit(*errors)
        return values

    @property
    def digest(self) -> str:
        """Name the schema by its content."""
        return hashlib.sha256(json.dumps(self.json, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_strict(self) -> bool:
        """Whether every object in it is closed and requires all its properties, as strict servers want it."""
        return all(_is_closed(node) for node in _nodes(self.json))

    def response_format(self, name: str, *, strict: bool = True) -> dict[str, Any]:
        """Give the request field that tells the endpoint of the schema.

        Args:
            name: what to call the schema; letters, digits and underscores, of which 64 are used.
            strict: whether the answer is to be held to it to the letter.
        """
        return {
            "type": "json_schema",
            "json_schema": {"name": name[:MAX_NAME], "schema": self.json, "strict": strict},
        }


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for part in parts:
        yield from _nodes(part)


def _is_closed(node: dict[str, Any]) -> bool:
    properties = node.get("properties")
    if not isinstance(properties, dict) or node.get("type") not in ("object", None):
        return True
    return node.get("additionalProperties") is False and set(node.get("required", ())) >= set(properties)


# --- loading -------------------------------------------------------------------------------------------


def step_schema(step: StepConfig) -> AnswerSchema | None:
    """Read the schema of a step's answer; None where it has none.

    Raises:
        ConfigError: it is not a JSON Schema of an object with properties; names the step.
    """
    if step.answer_schema is None:
        return None
    try:
        return load_schema(step.answer_schema)
    except ConfigError as error:
        raise ConfigError(f"steps.{step.name}.schema: {error.message}", hint=error.hint) from None


def load_schema(spec: Mapping[str, Any] | str | Path | type[BaseModel]) -> AnswerSchema:
    """Read the schema of an answer.

    Args:
        spec: a JSON Schema, the path of a .json or .yaml file that holds one, a pydantic model, or the import
            path of a pydantic model (``module:Model``).

    Raises:
        ConfigError: it is not a JSON Schema of an object with properties; names the place.
    """
    try:
        document = _plain(_document(spec), "#")
        if not isinstance(document, dict):
            raise ConfigError(f"the answer's schema is {_show(document)}, not a mapping", hint=OBJECT_HINT)
        if "properties" in document:
            document = {"type": "object", **document}
        validator = _validator(document)
        columns = _top_level(document)
    except (RecursionError, _RecursionFound):
        raise ConfigError("the answer's schema is nested without end", hint="flatten it.") from None
    return AnswerSchema(json=document, columns=columns, _validator=validator)


def _document(spec: Any) -> Any:
    if isinstance(spec, str) and IMPORT_PATH.fullmatch(spec):
        spec = _import_model(spec)
    if isinstance(spec, Mapping):
        return spec
    if isinstance(spec, str | Path):
        return _read(Path(spec))
    if not (isinstance(spec, type) and issubclass(spec, BaseModel)):
        raise ConfigError(
            f"`{spec!r}` is no schema of an answer", hint="give a JSON Schema or a pydantic model."
        )
    try:
        return spec.model_json_schema()
    except PydanticUserError as error:
        raise ConfigError(
            f"the model {spec.__name__} has no JSON Schema: {error.message}",
            hint="use field types that JSON can express.",
        ) from None


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError(
            f"the schema `{path}` is neither a .json or .yaml file nor an import path",
            hint="write schema: answer.json, or schema: package.module:Model.",
        )
    text = read_text(path, "the schema file")
    try:
        return orjson.loads(text) if suffix == ".json" else parse_yaml(text, str(path))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from None


def _import_model(path: str) -> Any:
    module_name, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `python` does; a console script does not
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"the schema `{path}` cannot be imported: {error}",
            hint="the module must be installed, or lie in the working directory.",
        ) from None
    if not hasattr(module, name):
        models = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, BaseModel)]
        raise ConfigError(
            f"the module `{module_name}` has no `{name}`", hint=did_you_mean(name, sorted(models))
        )
    return getattr(module, name)


def _plain(value: Any, place: str) -> Any:
    """Copy a schema, making sure that it is plain JSON."""
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise ConfigError(f"the schema has the key {wrong!r} at `{place}`", hint="quote it.")
        return {key: _plain(item, f"{place}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}/{i}") for i, item in enumerate(value)]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigError(
        f"the schema holds {value!r} at `{place}`, which is not JSON", hint="quote it, if it is a text."
    )


def _validator(document: dict[str, Any]) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(document, validate_formats=True, offline=True)
    except jsonschema_rs.ValidationError as error:
        raise ConfigError(
            _shorten(f"the schema is not valid at `#{_pointer(error.instance_path)}`: {error.message}"),
            hint="see https://json-schema.org/understanding-json-schema/reference.",
        ) from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise ConfigError(_shorten(f"the schema is not valid: {error}")) from None


# --- from schema to columns ----------------------------------------------------------------------------


class _RecursionFound(Exception):  # not an error: a recursive part is kept as JSON text
    """A schema refers to itself."""


def _top_level(document: dict[str, Any]) -> dict[str, Column]:
    reader = _Reader(document)
    shape, refs = reader.shape(document, "#", frozenset({"#"}))
    properties = shape.get("properties")
    if not properties or (shape.get("type") or {"object"}) != {"object"}:
        raise ConfigError(
            "the answer's schema is not that of an object with properties, so there are no columns to make",
            hint=OBJECT_HINT,
        )
    return {name: reader.column(part, f"#/properties/{name}", refs) for name, part in properties.items()}


class _Reader:
    """Finds the columns of one schema document, following its references."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def column(self, node: Any, place: str, refs: frozenset[str]) -> Column:
        """Choose the column for one part of the schema; what no single type holds is kept as JSON text."""
        try:
            shape, refs = self.shape(node, place, refs)
        except _RecursionFound:
            return JSON_COLUMN
        if "enum" in shape:
            return _enum_column(shape["enum"])
        types = (shape.get("type") or _implied_types(shape)) - {"null"}
        if types == {"object"} and shape.get("properties"):
            parts = shape["properties"].items()
            return _struct_column({n: self.column(p, f"{place}/properties/{n}", refs) for n, p in parts})
        if types == {"array"} and isinstance(shape.get("items"), dict) and "prefixItems" not in shape:
            return _list_column(self.column(shape["items"], f"{place}/items", refs))
        if not types:
            return self._union(shape.get("anyOf") or shape.get("oneOf") or [], place, refs)
        by_format = FORMAT_COLUMNS.get(shape.get("format", "")) if types == {"string"} else None
        return by_format or SCALAR_COLUMNS.get(types, JSON_COLUMN)

    def shape(self, node: Any, place: str, refs: frozenset[str]) -> tuple[dict[str, Any], frozenset[str]]:
        """Gather the keywords that decide on a type from a schema, what it refers to and its ``allOf``.

        Returns:
            The keywords, ``type`` as a set and ``const`` as an ``enum`` of one; and the references followed.
        """
        if not isinstance(node, dict):
            return {}, refs
        shape: dict[str, Any] = {}
        if "$ref" in node:
            target, refs = self._resolve(node["$ref"], place, refs)
            shape, refs = self.shape(target, place, refs)
        for i, part in enumerate(node.get("allOf", [])):
            more, refs = self.shape(part, f"{place}/allOf/{i}", refs)
            shape = _merge(shape, more, place)
        own = {key: node[key] for key in SHAPE_KEYS if key in node}
        if "type" in own:
            own["type"] = frozenset([own["type"]] if isinstance(own["type"], str) else own["type"])
        if "const" in node:
            own["enum"] = [node["const"]]
        return _merge(shape, own, place), refs

    def _resolve(self, ref: str, place: str, refs: frozenset[str]) -> tuple[Any, frozenset[str]]:
        pointer = unquote(ref)
        if pointer in refs:
            raise _RecursionFound
        if not pointer.startswith("#/"):
            raise ConfigError(
                f"the schema refers to `{ref}` at `{place}`",
                hint="only references within the schema, such as #/$defs/Name, are followed.",
            )
        target: Any = self._root
        try:
            for step in pointer[2:].split("/"):
                key = step.replace("~1", "/").replace("~0", "~")
                target = target[int(key)] if isinstance(target, list) else target[key]
        except (LookupError, ValueError, TypeError):
            raise ConfigError(f"the schema refers to `{ref}` at `{place}`, which is not there") from None
        return target, refs | {pointer}

    def _union(self, branches: list[Any], place: str, refs: frozenset[str]) -> Column:
        """One column for all branches when they agree on a type (null apart), else JSON text."""
        columns = [self.column(branch, place, refs) for branch in branches if branch != {"type": "null"}]
        if not columns:
            return JSON_COLUMN
        first = columns[0]
        if len(columns) == 1:
            return first
        types = {column.type for column in columns}
        if types == {pa.int64(), pa.float64()}:
            return NUMBER_COLUMN
        if types <= {pa.string(), CATEGORY} and JSON_COLUMN not in columns:
            return STRING_COLUMN
        simple = len(types) == 1 and first in (*SCALAR_COLUMNS.values(), *FORMAT_COLUMNS.values())
        return first if simple else JSON_COLUMN


def _implied_types(shape: dict[str, Any]) -> frozenset[str]:
    """The type that a schema without ``type`` is plainly meant for."""
    if "properties" in shape:
        return frozenset({"object"})
    if "items" in shape:
        return frozenset({"array"})
    return frozenset({"string"}) if shape.get("format") in FORMAT_COLUMNS else frozenset()


def _merge(one: dict[str, Any], other: dict[str, Any], place: str) -> dict[str, Any]:
    """Both schemas at once."""
    merged = {**one, **other}
    for key in one.keys() & other.keys():
        if one[key] != other[key]:
            merged[key] = _both(key, one[key], other[key])
            if not merged[key]:
                raise ConfigError(
                    f"the schema asks for two kinds of `{key}` at once at `{place}`",
                    hint="write the combined schema out instead of allOf.",
                )
    return merged


def _both(key: str, one: Any, other: Any) -> Any:
    """One keyword under two schemas that must both hold; something empty when nothing fits both."""
    if key == "type":
        integer = {"integer"} if "integer" in one | other and "number" in one | other else set()
        return (one & other) | integer
    if key == "enum":
        return [value for value in one if value in other]
    if key == "properties":
        shared = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
        return {**one, **other, **shared}
    return {"allOf": [one, other]} if key == "items" else None


# --- columns -------------------------------------------------------------------------------------------


def _coerce_string(value: Any) -> str:
    if not isinstance(value, str):
        raise Misfit(f": {_show(value)} is not a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Misfit(": holds half of a surrogate pair, which is no Unicode text") from None
    return value


def _coerce_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or value % 1 != 0:
        raise Misfit(f": {_show(value)} is not an integer")
    if isinstance(value, float) and abs(value) > EXACT_FLOAT:
        raise Misfit(f": {value!r} is too large to be an exact integer")
    if not -(2**63) <= value < 2**63:
        raise Misfit(f": {_show(value)} does not fit a 64-bit integer")
    return int(value)


def _coerce_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Misfit(f": {_show(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Misfit(f": {_show(value)} is not a finite 64-bit number")
    if number != value and value % 1 == 0:  # of a fraction the nearest is meant, as 0.1 is
        raise Misfit(f": {_show(value)} cannot be kept exactly as a 64-bit number")
    return number


def _coerce_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit(f": {_show(value)} is not true or false")
    return value


def _coerce_date(value: Any) -> date:
    try:
        return date.fromisoformat(_coerce_string(value))
    except ValueError:
        raise Misfit(f': {_show(value)} is not a "date" of the years 1 to 9999') from None


_FINE_FRACTION = re.compile(r"\.\d{6}\d*[1-9]")


def _coerce_datetime(value: Any) -> datetime:
    text = _coerce_string(value)
    if _FINE_FRACTION.search(text):
        raise Misfit(f": {_show(value)} is finer than a microsecond")
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Misfit(f': {_show(value)} is not a "date-time" of the years 1 to 9999 with a time zone')


def exact_json(value: Any) -> str:
    """Write JSON with every digit of its decimals.

    Raises:
        ValueError: it holds NaN or Infinity.
        RecursionError: it is nested too deeply.
    """
    written: dict[str, str] = {}

    def stand_in(number: Any) -> str:
        if not isinstance(number, Decimal):
            raise TypeError(f"{type(number).__name__} is not JSON")
        token = f"\ue000{len(written)}\ue001"
        written[f'"{token}"'] = str(number)
        return token

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=stand_in)
    for token, number in written.items():
        text = text.replace(token, number, 1)
    return text


def _coerce_json(value: Any) -> str:
    try:
        text = exact_json(value)
        text.encode()
    except RecursionError:
        raise Misfit(": is nested too deeply") from None
    except UnicodeEncodeError:
        raise Misfit(": holds half of a surrogate pair, which is no Unicode text") from None
    except ValueError:
        raise Misfit(": holds NaN or Infinity") from None
    return text


STRING_COLUMN = Column(pa.string(), _coerce_string)
INTEGER_COLUMN = Column(pa.int64(), _coerce_integer)
NUMBER_COLUMN = Column(pa.float64(), _coerce_number)
BOOLEAN_COLUMN = Column(pa.bool_(), _coerce_boolean)
JSON_COLUMN = Column(JSON_TEXT, _coerce_json)
FORMAT_COLUMNS = {
    "date": Column(pa.date32(), _coerce_date),
    "date-time": Column(pa.timestamp("us", tz="UTC"), _coerce_datetime),
}
SCALAR_COLUMNS = {
    frozenset({"string"}): STRING_COLUMN,
    frozenset({"integer"}): INTEGER_COLUMN,
    frozenset({"number"}): NUMBER_COLUMN,
    frozenset({"integer", "number"}): NUMBER_COLUMN,
    frozenset({"boolean"}): BOOLEAN_COLUMN,
}


def _enum_column(values: list[Any]) -> Column:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return _category_column([value for value in values if value is not None])
    if kinds == {bool}:
        return BOOLEAN_COLUMN
    if kinds == {int}:
        return INTEGER_COLUMN
    return NUMBER_COLUMN if kinds and kinds <= {int, float} else JSON_COLUMN


def _category_column(values: list[str]) -> Column:
    categories = dict.fromkeys(values)

    def coerce(value: Any) -> str:
        if not isinstance(value, str) or value not in categories:
            raise Misfit(f": {_show(value)} is not one of {', '.join(map(repr, categories))}")
        return _coerce_string(value)

    return Column(CATEGORY, coerce, tuple(categories))


def _struct_column(parts: dict[str, Column]) -> Column:
    def coerce(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Misfit(f": {_show(value)} is not an object")
        values: dict[str, Any] = {}
        for name, part in parts.items():
            item = value.get(name)
            try:
                values[name] = None if item is None else part.coerce(item)
            except Misfit as misfit:
                raise misfit.under(name) from None
        return values

    return Column(pa.struct([pa.field(name, _inner_type(part)) for name, part in parts.items()]), coerce)


def _list_column(item: Column) -> Column:
    def coerce(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Misfit(f": {_show(value)} is not an array")
        values = []
        for i, element in enumerate(value):
            try:
                values.append(None if element is None else item.coerce(element))
            except Misfit as misfit:
                raise misfit.under(i) from None
        return values

    return Column(pa.list_(_inner_type(item)), coerce)


def _inner_type(column: Column) -> pa.DataType:
    """Categories are texts below the top: pyarrow 26 builds invalid arrays of dictionaries under null structs."""
    return pa.string() if column.categories else column.type


# --- words ---------------------------------------------------------------------------------------------


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _shorten(text: str) -> str:
    """Leave out the middle: the place stands at the start, the reason at the end."""
    if len(text) <= MAX_MESSAGE:
        return text
    half = MAX_MESSAGE // 2
    return f"{text[:half]} … {text[-half:]}"


def _show(value: Any) -> str:
    """Write a value into a message, on one line and not at length."""
    return _shorten(
        str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=True, default=str)
    )
