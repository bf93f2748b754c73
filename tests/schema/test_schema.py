"""What a schema takes, refuses, and makes of answers: columns and their types.

It is long because a schema is one thing to its users, whichever module reads a part of it.
"""

from __future__ import annotations

import datetime as dt
import enum
import io
import json
import math
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from enrich.errors import ConfigError
from enrich.schema.schema import CATEGORY, AnswerSchema, Misfit, load_schema

if TYPE_CHECKING:
    from pathlib import Path

SENTIMENT = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg", "neutral"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["label", "score"],
}
MOMENT = pa.timestamp("us", tz="UTC")
NODE = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}}}


def schema_of(part: Any, **rest: Any) -> AnswerSchema:
    """A schema of one property `a`."""
    return load_schema({"type": "object", "properties": {"a": part}, **rest})


def read(part: Any, value: Any) -> Any:
    """What becomes of a valid value of property `a`."""
    values, problems = schema_of(part).read({"a": value})
    assert problems == []
    assert values is not None
    return values["a"]


def problem(part: Any, value: Any) -> str:
    """The one thing that is wrong with a value of property `a`."""
    values, problems = schema_of(part).read({"a": value})
    assert values is None
    assert len(problems) == 1
    return problems[0]


# --- types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "string"}, pa.string()),
        ({"type": "integer"}, pa.int64()),
        ({"type": "number"}, pa.float64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"type": "boolean"}, pa.bool_()),
        ({"type": ["boolean", "null"]}, pa.bool_()),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, pa.int64()),
        ({"oneOf": [{"type": "null"}, {"enum": ["a"]}]}, CATEGORY),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, pa.float64()),
        ({"anyOf": [{"const": "a"}, {"const": "b"}]}, pa.string()),
        ({"enum": ["a", "b", None]}, CATEGORY),
        ({"const": "a"}, CATEGORY),
        ({"enum": [1, 2]}, pa.int64()),
        ({"enum": [1, 2.5]}, pa.float64()),
        ({"enum": [True, False]}, pa.bool_()),
        ({"enum": ["a", 1]}, pa.string()),
        ({"type": "string", "format": "date"}, pa.date32()),
        ({"format": "date-time"}, MOMENT),
        ({"type": "string", "format": "uuid"}, pa.string()),
        ({"type": "array", "items": {"type": "integer"}}, pa.list_(pa.int64())),
        ({"items": {"enum": ["a"]}}, pa.list_(pa.string())),
        ({"type": "array", "items": {"type": ["string", "integer"]}}, pa.list_(pa.string())),
        ({"type": "array"}, pa.string()),
        ({"type": "array", "prefixItems": [{}], "items": {"type": "integer"}}, pa.string()),
        ({"properties": {"b": {"type": "string", "format": "date"}}}, pa.struct([("b", pa.date32())])),
        ({"type": "object"}, pa.string()),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, pa.string()),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, pa.string()),
        ({"type": "string", "anyOf": [{"minLength": 1}, {"pattern": "x"}]}, pa.string()),
        ({}, pa.string()),
        (True, pa.string()),
        ({"type": "null"}, pa.string()),
        ({"$ref": "#/$defs/Day", "description": "when"}, pa.date32()),
        ({"$ref": "#/$defs/Node"}, pa.struct([("v", pa.int64()), ("next", pa.string())])),
        ({"allOf": [{"$ref": "#/$defs/Day"}, {"description": "when"}]}, pa.date32()),
        (
            {"allOf": [{"type": ["integer", "null"]}, {"type": ["number", "string"], "minimum": 3}]},
            pa.int64(),
        ),
        (
            {
                "allOf": [{"properties": {"b": {"type": "number"}}}],
                "properties": {"b": {"type": "integer"}, "c": {"const": "x"}},
            },
            pa.struct([("b", pa.int64()), ("c", pa.string())]),
        ),
        ({"allOf": [{"enum": ["a", 1]}, {"enum": ["a", "b"]}]}, CATEGORY),
    ],
    ids=repr,
)
def test_types(part: Any, kind: pa.DataType) -> None:
    """A part of a schema has the Arrow type that holds all its values; what no one type holds is JSON text."""
    schema = schema_of(part, **{"$defs": {"Day": {"type": "string", "format": "date"}, "Node": NODE}})
    assert schema.fields == (pa.field("a", kind),)


def test_fields_stand_in_the_schemas_order() -> None:
    """Columns come in the order of the properties, and every one may be null."""
    schema = load_schema({"properties": {"z": {"type": "integer"}, "a": {"type": "boolean"}}})
    assert [field.name for field in schema.fields] == ["z", "a"]
    assert all(field.nullable for field in schema.fields)


def test_a_schema_that_refers_to_itself() -> None:
    """A recursive part is kept as JSON text from where it repeats, also when the root itself is referred to."""
    schema = load_schema({"$defs": {"Node": NODE}, "$ref": "#/$defs/Node"})
    assert schema.coerce({"v": 1, "next": {"v": 2, "next": None}}) == {"v": 1, "next": '{"v":2,"next":null}'}
    tree = load_schema({"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}})
    assert tree.fields == (pa.field("kids", pa.list_(pa.string())),)


# --- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "value", "kept"),
    [
        ({"type": "integer"}, 3.0, 3),
        ({"type": "integer"}, -(2**63), -(2**63)),
        ({"type": "number"}, 2**53, float(2**53)),
        ({"type": "number"}, 2**60, float(2**60)),
        ({"type": "string", "format": "date"}, "2024-02-29", dt.date(2024, 2, 29)),
        (
            {"format": "date-time"},
            "2024-02-29T12:00:00.25+02:00",
            dt.datetime(2024, 2, 29, 10, 0, 0, 250_000, dt.UTC),
        ),
        (
            {"format": "date-time"},
            "2024-02-29t12:00:00.1234560z",
            dt.datetime(2024, 2, 29, 12, 0, 0, 123_456, dt.UTC),
        ),
        ({}, {"k": [1, "ä", None]}, '{"k":[1,"ä",null]}'),
        ({}, "text", '"text"'),
        ({}, 10**30, str(10**30)),
        ({"type": "integer"}, 1e18, 10**18),
        ({"type": "integer"}, 1234567890123456800.0, 1234567890123456800),
        ({}, None, None),
        ({"type": ["array", "null"], "items": {"type": ["integer", "null"]}}, [1, None], [1, None]),
        ({"type": "object", "properties": {"b": {}, "c": {}}}, {"b": 1, "more": 2}, {"b": "1", "c": None}),
    ],
    ids=repr,
)
def test_values(part: Any, value: Any, kept: Any) -> None:
    """A value becomes what Arrow takes: exact numbers, dates, JSON text; absent parts are null."""
    found = read(part, value)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ({"type": "integer"}, 2**63, "/a: 9223372036854775808 does not fit a 64-bit integer"),
        ({"type": "integer"}, 1e300, "/a: 1E+300 does not fit a 64-bit integer"),
        ({"type": "integer"}, True, '/a: true is not of type "integer"'),
        ({"type": "number"}, 2**53 + 1, "/a: 9007199254740993 cannot be kept exactly as a 64-bit number"),
        ({"type": ["number", "null"]}, math.nan, "/a: null is not of types"),
        ({"type": ["number", "null"]}, -math.inf, "/a: null is not of types"),
        ({"type": "number"}, 10**400, "is not a finite 64-bit number"),
        ({}, {"k": math.inf}, "/a: holds NaN or Infinity"),
        ({}, ["\ud800"], "/a: holds half of a surrogate pair, which is no Unicode text"),
        ({"type": "string"}, "\ud800", "half of a surrogate pair"),
        ({"type": "string", "format": "date"}, "2024-02-30", '/a: "2024-02-30" is not a "date"'),
        ({"type": "string", "format": "date"}, "0000-01-01", "/a: "),
        ({"format": "date-time"}, "2024-02-29 12:00", '/a: "2024-02-29 12:00" is not a "date-time"'),
        (
            {"format": "date-time"},
            "2024-02-29T12:00:00.1234567Z",
            '/a: "2024-02-29T12:00:00.1234567Z" is finer than a microsecond',
        ),
        ({"format": "date-time"}, "0001-01-01T00:00:00+10:00", "of the years 1 to 9999"),
        ({"format": "date-time"}, "2016-12-31T23:59:60Z", 'is not a "date-time" of the years'),
        (
            {"items": {"properties": {"x/~y": {"type": "integer"}}}},
            [{}, {"x/~y": 2**70}],
            "/a/1/x~1~0y: 1180591620717411303424 does not fit",
        ),
        ({"items": {"type": "integer"}}, {"not": "a list"}, '/a: {"not": "a list"} is not an array'),
        ({"properties": {"b": {}}}, [1], "/a: [1] is not an object"),
        ({"format": "date"}, 5, '/a: 5 is not a "date"'),
        ({"enum": ["a", "b"]}, "c", '/a: "c" is not one of "a" or "b"'),
    ],
    ids=repr,
)
def test_wrong_values(part: Any, value: Any, message: str) -> None:
    """A value that breaks the schema, or that its column cannot hold exactly, is named with its place."""
    assert message in problem(part, value)


def test_problems_say_what_to_do_better() -> None:
    """Each problem of an answer is a line with its place; there are at most eight, and none is long."""
    schema = load_schema(SENTIMENT)
    assert schema.validate({"label": "pos", "score": 0.5}) == []
    assert schema.validate({"label": "pos", "score": 3}) == ["/score: 3 is greater than the maximum of 1"]
    assert schema.validate({"label": "pos"}) == ['/: "score" is a required property']
    assert schema.validate([]) == ['/: [] is not of type "object"']
    many = schema_of({"items": {"type": "integer"}}).validate({"a": ["x" * 1_000] * 20})
    assert len(many) == 8
    assert all(line.startswith("/a/") and line.endswith('is not of type "integer"') for line in many)
    assert max(map(len, many)) < 210


def test_coercing_alone_refuses_wrong_values() -> None:
    """What was never validated still does not become a wrong value; every property's problem is told."""
    with pytest.raises(Misfit) as caught:
        load_schema(SENTIMENT).coerce({"label": "good", "score": "1"})
    assert caught.value.errors == [
        "/label: \"good\" is not one of 'pos', 'neg', 'neutral'",
        '/score: "1" is not a number',
    ]
    with pytest.raises(Misfit, match="not an object"):
        load_schema(SENTIMENT).coerce(None)


@pytest.mark.parametrize("value", [0, "x", None, [], 1.5, {"b": 1}])
@pytest.mark.parametrize("kind", ["string", "integer", "number", "boolean"])
def test_coercing_agrees_with_the_schema(kind: str, value: Any) -> None:
    """A column refuses the values of other types by itself."""
    schema = schema_of({"type": [kind, "null"]})
    if schema.validate({"a": value}):
        with pytest.raises(Misfit):
            schema.coerce({"a": value})
    else:
        assert schema.coerce({"a": value}) == {"a": value}


def test_deep_answers() -> None:
    """An answer nested deeper than it can be written is a problem, not a crash."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert schema_of({}).validate({"a": deep}) == ["/a: is nested too deeply"]
    while deep:  # take it apart gently: Python frees nested lists by recursion
        deep = deep.pop()


# --- any schema, any value -----------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
DAYS = st.dates()
MOMENTS = st.datetimes(timezones=st.just(dt.UTC))
Part = tuple[dict[str, Any], st.SearchStrategy[Any]]  # a schema, and JSON values that keep to it
SCALARS: list[Part] = [
    ({"type": "string"}, TEXT),
    ({"type": "integer"}, INTEGERS),
    ({"type": "number"}, NUMBERS),
    ({"type": "boolean"}, st.booleans()),
    ({"type": "string", "format": "date"}, DAYS.map(dt.date.isoformat)),
    ({"type": "string", "format": "date-time"}, MOMENTS.map(dt.datetime.isoformat)),
    ({"enum": [3, 4]}, st.sampled_from([3, 4])),
    ({"type": "object"}, st.dictionaries(TEXT, JSON, max_size=3)),
    ({}, JSON),
]


def categories(values: list[str]) -> Part:
    """An enum of these texts."""
    return {"enum": values}, st.sampled_from(values)


def nullable(part: Part) -> Part:
    """The part, or null."""
    return {"anyOf": [part[0], {"type": "null"}]}, st.none() | part[1]


def array(part: Part) -> Part:
    """Lists of the part."""
    return {"type": "array", "items": part[0]}, st.lists(part[1], max_size=3)


def an_object(parts: dict[str, Part]) -> Part:
    """Objects of the parts, any of which may be left out."""
    values = st.fixed_dictionaries({}, optional={name: value for name, (_, value) in parts.items()})
    return {"type": "object", "properties": {name: schema for name, (schema, _) in parts.items()}}, values


def objects(parts: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    """Objects of one to three such parts."""
    return st.dictionaries(TEXT, parts, min_size=1, max_size=3).map(an_object)


PARTS = st.recursive(
    st.sampled_from(SCALARS) | st.lists(TEXT, min_size=1, max_size=3, unique=True).map(categories),
    lambda inner: inner.map(nullable) | inner.map(array) | objects(inner),
    max_leaves=5,
)


@given(data=st.data())
def test_any_answer_comes_back_from_parquet(data: st.DataObject) -> None:
    """Whatever the schema, a value that keeps to it becomes columns, goes into a file and comes back equal."""
    document, conforming = data.draw(objects(PARTS))
    answers = data.draw(st.lists(conforming, min_size=1, max_size=4))
    schema = load_schema(document)
    assert [schema.validate(answer) for answer in answers] == [[]] * len(answers)
    rows = [schema.coerce(answer) for answer in answers]
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(schema.fields)))
    table.validate(full=True)
    file = io.BytesIO()
    pq.write_table(table, file)
    assert pq.read_table(io.BytesIO(file.getvalue())).to_pylist() == rows


@given(value=JSON)
def test_free_parts_are_kept_as_their_json(value: Any) -> None:
    """The text of a free-form part reads back as the very value."""
    kept = read({}, value)
    assert kept is None if value is None else json.loads(kept) == value


# --- where schemas come from ---------------------------------------------------------------------------


class Tone(enum.Enum):
    """How something is said."""

    kind = "kind"
    harsh = "harsh"


class Part_(BaseModel):  # noqa: N801  # nested
    """A part of an answer."""

    name: str
    tags: list[str] = []


class Answer(BaseModel):
    """What a user would write."""

    label: Literal["pos", "neg"]
    score: float = Field(ge=0, le=1)
    tone: Tone | None = None
    day: dt.date | None = None
    at: dt.datetime
    parts: list[Part_] = []
    counts: dict[str, int] = {}
    either: int | str | None = None


def test_a_pydantic_model() -> None:
    """A pydantic model gives typed columns; optional fields may be missing."""
    schema = load_schema(Answer)
    assert [(field.name, field.type) for field in schema.fields] == [
        ("label", CATEGORY),
        ("score", pa.float64()),
        ("tone", CATEGORY),
        ("day", pa.date32()),
        ("at", MOMENT),
        ("parts", pa.list_(pa.struct([("name", pa.string()), ("tags", pa.list_(pa.string()))]))),
        ("counts", pa.string()),
        ("either", pa.string()),
    ]
    values, problems = schema.read({"label": "pos", "score": 1, "at": "2024-01-01T00:00:00Z", "tone": "kind"})
    assert problems == []
    assert values is not None
    assert (values["tone"], values["day"], values["score"]) == ("kind", None, 1.0)


def test_files(tmp_path: Path) -> None:
    """A schema may lie in a JSON or a YAML file."""
    (tmp_path / "a.json").write_text(json.dumps(SENTIMENT))
    (tmp_path / "a.yaml").write_text(
        "properties: {label: {enum: [pos, neg, neutral]}, score: {type: number}}\n"
    )
    assert load_schema(str(tmp_path / "a.json")).fields == load_schema(SENTIMENT).fields
    assert load_schema(tmp_path / "a.yaml").fields == load_schema(SENTIMENT).fields


def test_an_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is found by its import path, in the working directory too."""
    (tmp_path / "my_answers.py").write_text(
        "import pydantic\nclass Mine(pydantic.BaseModel):\n    label: str\nvalue = 3\n"
    )
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    assert load_schema("my_answers:Mine").fields == (pa.field("label", pa.string()),)
    with pytest.raises(ConfigError, match="no `Mina`") as caught:
        load_schema("my_answers:Mina")
    assert caught.value.hint == "did you mean `Mine`?"
    with pytest.raises(ConfigError, match="is no schema of an answer"):
        load_schema("my_answers:value")
    with pytest.raises(ConfigError, match="cannot be imported: No module named 'a_module_that_is_not_there'"):
        load_schema("my_broken:Mine")


def test_the_schema_is_a_copy() -> None:
    """Later changes to the given mapping do not reach the schema; what was read is plain JSON."""
    given_: dict[str, Any] = {"properties": {"a": {"enum": ("x", "y")}}}
    schema = load_schema(given_)
    given_["properties"]["a"]["enum"] = [1]
    assert schema.json == {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}


def test_response_format() -> None:
    """The request field that tells the endpoint of the schema holds the schema whole."""
    assert load_schema(SENTIMENT).response_format("s" * 80) == {
        "type": "json_schema",
        "json_schema": {"name": "s" * 64, "schema": SENTIMENT, "strict": True},
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "string"}, "not that of an object with properties"),
        ({"type": "object"}, "not that of an object with properties"),
        ({"type": ["object", "null"], "properties": {"a": {}}}, "not that of an object with properties"),
        ({"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]}, "not that of an object with properties"),
        ({"$ref": "#", "properties": {"a": {}}}, "nested without end"),
        ({"properties": {"a": {"type": "strnig"}}}, "not valid at `#/properties/a/type`: "),
        ({"properties": {"a": {"minimum": "1"}}}, "not valid at `#/properties/a/minimum`: "),
        ({"properties": {"a": {"pattern": "("}}}, "not valid at `#/properties/a/pattern`: "),
        ({"properties": {"a": {"$ref": "#/$defs/Missing"}}}, "/\\$defs/Missing"),
        ({"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "https://example.com/a.json"),
        (
            {"properties": {"a": {"const": dt.date(2024, 1, 1)}}},
            "at `#/properties/a/const`, which is not JSON",
        ),
        ({"properties": {"a": {"const": math.nan}}}, "at `#/properties/a/const`, which is not JSON"),
        ({"properties": {True: {"type": "string"}}}, "the key True at `#/properties`"),
        (
            {"properties": {"a": {"allOf": [{"type": "string"}, {"type": "integer"}]}}},
            "two kinds of `type` at once at `#/properties/a`",
        ),
        (
            {"properties": {"a": {"allOf": [{"format": "date"}, {"format": "date-time"}]}}},
            "two kinds of `format` at once at `#/properties/a`",
        ),
        ({"properties": {"a": {"$ref": "#x"}, "b": {"$anchor": "x"}}}, "refers to `#x` at `#/properties/a`"),
        ("answer.txt", "neither a .json or .yaml file nor an import path"),
        ("missing.json", "missing.json cannot be read"),
        ("no_such_module:Model", "cannot be imported: No module named 'no_such_module'"),
        (int, "is no schema of an answer"),
    ],
    ids=repr,
)
def test_what_is_no_schema_is_refused(spec: Any, message: str) -> None:
    """A schema that cannot become columns is refused with its place."""
    with pytest.raises(ConfigError, match=message):
        load_schema(spec)


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", r"is \[1\], not a mapping"), ("{", "line 1, column"), ("", "line 1")]
)
def test_files_that_hold_no_schema(tmp_path: Path, content: str, message: str) -> None:
    """A file that is not JSON, or holds no mapping, is refused."""
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_schema(tmp_path / "a.json")


def test_a_schema_without_bottom() -> None:
    """A schema nested deeper than anybody writes is refused, not a crash."""
    part: dict[str, Any] = {}
    for _ in range(5_000):
        part = {"items": part}
    with pytest.raises(ConfigError, match="nested without end"):
        schema_of(part)
