from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    PlainSerializer,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

import enrich.pandas  # noqa: F401  # registers the accessor
from enrich.answer.columns import step_columns
from enrich.config import StepConfig
from enrich.errors import ConfigError
from enrich.records import Outcome
from enrich.schema.choice import choose
from enrich.schema.schema import AnswerSchema, load_schema
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from pathlib import Path


class Tone(BaseModel):
    """A model with a rule and a default."""

    label: str
    score: float = 0.5

    @field_validator("label")
    @classmethod
    def _known(cls, label: str) -> str:
        if label not in ("pos", "neg"):
            raise ValueError("pos or neg")
        return label


class Bill(BaseModel):
    """A model of amounts and times."""

    price: Decimal
    tax: Annotated[Decimal, Field(max_digits=6, decimal_places=2)] | None = None
    at: NaiveDatetime | None = None
    opens: time | None = None
    day: date | None = None
    sent: datetime | None = None


def arrow(schema: AnswerSchema, value: Any) -> dict[str, Any]:
    """Give an answer's values as they come back from Arrow."""
    values, problems = schema.read(value)
    assert problems == []
    outcome = Outcome("ok", text="", values=values)
    chosen = choose(StepConfig(name="s", prompt="x", columns="fields"), schema)
    columns = step_columns(chosen, schema, [outcome])
    return {field.name: column.to_pylist()[0] for field, column in zip(schema.fields, columns, strict=True)}


def test_validators_and_defaults() -> None:
    """What a validator refuses is invalid, in its own words; what is left out has the model's default."""
    schema = load_schema(Tone)
    assert schema.read({"label": "banana", "score": 1}) == (None, ["/label: Value error, pos or neg"])
    assert schema.read({"label": "pos"}) == ({"label": "pos", "score": 0.5}, [])
    assert schema.read({"label": "pos", "score": "0.25"}) == ({"label": "pos", "score": 0.25}, [])


def test_words_of_the_schema() -> None:
    """What the schema itself finds wrong is said in its words, as for a schema that is no model's."""
    assert load_schema(Tone).read({"score": 1})[1] == ['/: "label" is a required property']
    assert load_schema(Tone).read([])[1] == ['/: [] is not of type "object"']


def test_types() -> None:
    """Decimals, naive times and dates have columns of their own kinds, in Arrow and back."""
    schema = load_schema(Bill)
    kinds = {field.name: field.type for field in schema.fields}
    assert kinds == {
        "price": pa.decimal128(38, 18),
        "tax": pa.decimal128(6, 2),
        "at": pa.timestamp("us"),
        "opens": pa.string(),
        "day": pa.date32(),
        "sent": pa.timestamp("us", tz="UTC"),
    }
    answer = {
        "price": 12.5, "tax": "1.20", "at": "2026-05-01T10:00:00", "opens": "10:00:00", "day": "2026-05-01",
        "sent": "2026-05-01T10:00:00+02:00",
    }  # fmt: skip
    assert arrow(schema, answer) == {
        "price": Decimal("12.5"),
        "tax": Decimal("1.20"),
        "at": datetime(2026, 5, 1, 10),  # noqa: DTZ001  # naive on purpose
        "opens": "10:00:00",
        "day": date(2026, 5, 1),
        "sent": datetime(2026, 5, 1, 8, tzinfo=UTC),
    }


@pytest.mark.parametrize(
    "price", ["9007199254740993.0", "12345678901234567890.123456789012345678", "0.1", "-1", "1e3"]
)
def test_decimals_keep_their_digits(price: str) -> None:
    """A decimal that no double holds comes through, as a number or as a text."""
    for given in (Decimal(price), price):
        assert arrow(load_schema(Bill), {"price": given})["price"] == Decimal(price)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ({"price": "1e-19"}, "/price"),
        ({"price": "1e21"}, "/price"),
        ({"price": "much"}, "/price"),
        ({"price": 1, "tax": 1.234}, "/tax"),
        ({"price": 1, "at": "2026-05-01T10:00:00Z"}, "/at"),
        ({"price": 1, "sent": "2026-05-01T10:00:00"}, "/sent"),
    ],
)
def test_what_does_not_fit(answer: dict[str, Any], place: str) -> None:
    """What the model refuses, or its column cannot hold, is invalid and says where."""
    values, problems = load_schema(Bill).read(answer)
    assert values is None
    assert problems[0].startswith(place)


def test_strict_as_the_model_says() -> None:
    """A strict model takes no text for a number; one that is not does."""

    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        n: int

    class Lax(BaseModel):
        n: int

    assert load_schema(Strict).read({"n": "5"})[0] is None
    assert load_schema(Lax).read({"n": "5"}) == ({"n": 5}, [])


def test_validator_that_breaks() -> None:
    """Whatever a validator raises refuses the answer; the run goes on."""

    class Broken(BaseModel):
        n: int

        @model_validator(mode="after")
        def _halve(self) -> Broken:
            _ = 1 / self.n
            return self

    schema = load_schema(Broken)
    assert schema.read({"n": 1}) == ({"n": 1}, [])
    assert schema.read({"n": 0}) == (None, ["/: a validator failed with ZeroDivisionError: division by zero"])


def test_nested_aliases_and_computed_fields() -> None:
    """Nested models, aliases and computed fields give what the model gives."""

    class Item(BaseModel):
        kind: Literal["a", "b"] = "a"
        cost: Decimal

    class Order(BaseModel):
        items: list[Item]
        number: int = Field(alias="no")

        @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
        @property
        def count(self) -> int:
            return len(self.items)

    schema = load_schema(Order)
    assert [field.name for field in schema.fields] == ["items", "no", "count"]
    assert arrow(schema, {"no": 7, "items": [{"cost": "1.5"}]}) == {
        "items": [{"kind": "a", "cost": Decimal("1.5")}],
        "no": 7,
        "count": 1,
    }


def test_a_serializer_says_what_it_gives() -> None:
    """What a serializer makes of a value has its type; one that does not say it is refused before anything is paid."""

    class Said(BaseModel):
        score: float
        share: Annotated[float, PlainSerializer(lambda v: f"{v:.0%}", return_type=str)]

        @field_serializer("score")
        def _short(self, value: float) -> str:
            return f"{value:.2f}"

    assert arrow(load_schema(Said), {"score": 1.5, "share": 0.5}) == {"score": "1.50", "share": "50%"}

    class Unsaid(BaseModel):
        score: float

        @field_serializer("score")
        def _short(self, value: float):  # type: ignore[no-untyped-def]  # noqa: ANN202  # that is what is tried
            return f"{value:.2f}"

    with pytest.raises(ConfigError, match=r"serializer `.*Unsaid\._short` does not say what type it gives"):
        load_schema(Unsaid)


def test_request_is_the_schemas(tmp_path: Path) -> None:
    """What is sent is the model's JSON Schema, as before; a refusal of the model's is told in the re-ask."""
    answers = iter(['{"label": "banana"}', '{"label": "pos"}'])
    with BookedEndpoint(answer=lambda _: next(answers)) as server:
        out = pd.DataFrame({"t": ["x"]}).beatra.complete(
            "{{ t }}", name="s", schema=Tone, base_url=server.base_url, api_key=KEY,
            ledger=tmp_path / "l.db", progress=False,
        )  # fmt: skip
        bodies = [seen.body for seen in server.posts]
    assert out["s_label"].tolist() == ["pos"]
    assert out["s_score"].tolist() == [0.5]
    assert (
        bodies[0]["response_format"]["json_schema"]["schema"]["properties"]
        == (Tone.model_json_schema()["properties"])
    )
    assert "pos or neg" in bodies[1]["messages"][-1]["content"]


def test_model_by_its_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that a configuration names by its path validates too."""
    (tmp_path / "small_numbers.py").write_text(
        "from pydantic import BaseModel, field_validator\n"
        "class A(BaseModel):\n    n: int\n"
        "    @field_validator('n')\n    @classmethod\n    def small(cls, n):\n"
        "        assert n < 5, 'too large'\n        return n\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_schema("small_numbers:A").read({"n": 7}) == (None, ["/n: Assertion failed, too large"])
