"""The section `steps`: what is asked of every row, and what counts as an answer."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from enrich.config.escalate import Escalate, Stage, as_escalate, first_model
from enrich.config.evidence import Evidence
from enrich.config.pin import OnChange, Pin
from enrich.config.section import Amount, Count, FilePath, Number, PerMinute, Section, sound_path
from enrich.config.votes import MOST_VOTES, Votes

Role = Literal["system", "user", "assistant"]


class Message(Section):
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: a template.
    """

    role: Role
    content: str


class Example(Section):
    """One turn to learn from, sent as it stands: no templates.

    Attributes:
        user: what was asked.
        assistant: what the good answer was; a mapping is sent as JSON.
    """

    user: str
    assistant: str | dict[str, Any]


class StepLimits(Section):
    """How fast the requests of one step may go, within the limits of the run.

    Attributes:
        concurrency: the most requests of this step in flight.
        requests_per_minute: the most requests of this step; attempts made again are not counted here.
    """

    concurrency: Annotated[int, Field(ge=1, le=20_000), Number] | None = None
    requests_per_minute: PerMinute | None = None


PARAMETERS: dict[str, TypeAdapter[Any]] = {
    "temperature": TypeAdapter(Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False), Number]),
    "top_p": TypeAdapter(Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False), Number]),
    "max_tokens": TypeAdapter(Annotated[int, Field(ge=1), Number]),
    "max_completion_tokens": TypeAdapter(Annotated[int, Field(ge=1), Number]),
    "n": TypeAdapter(Count),
    "seed": TypeAdapter(Count),
    "top_logprobs": TypeAdapter(Annotated[int, Field(ge=0), Number]),
    "frequency_penalty": TypeAdapter(Amount),
    "presence_penalty": TypeAdapter(Amount),
    "logprobs": TypeAdapter(bool),
    "stream_options": TypeAdapter(dict[str, Any]),
}


class StepConfig(Section):
    """One question asked of every row.

    Attributes:
        name: prefix of the output columns.
        system: template of the system message.
        prompt: template of the user's message; the row's columns are its variables.
        prompt_file: a file that holds the prompt.
        messages: templates of a whole conversation, instead of `system` and `prompt`.
        messages_file: a .yaml, .json or .jsonl file of such messages.
        examples: turns to learn from (few-shot), between `system` and the prompt.
        examples_file: a .yaml, .json or .jsonl file of such turns.
        model: the model to ask; `auto` lets the endpoint choose. A template names one for each row.
        fallback_models: models, or templates, to turn to, in order, when that one is not available.
        temperature: of sampling; excludes `top_p`.
        top_p: share of the probability mass to sample from; excludes `temperature`.
        max_tokens: the most tokens of an answer, or a template that gives them.
        max_completion_tokens: the same under its newer name, which reasoning models want.
        params: further request fields; strings in it, at any depth, are templates.
        stream: ask for an event stream; the answer is the same.
        when: rows for which this is false are skipped: zero, null, empty, or a text such as `false`, `no` or `none`.
        on_null: what becomes of rows that lack a value the prompt needs: they fail, are skipped, or render it empty.
        on_empty: what becomes of rows whose prompt is empty or blank: they fail, are skipped, or are sent.
        prompt_text: how values become text; 1 as versions before 0.9 spelled them, for answers paid for by those.
        answer_schema: JSON Schema of the answer (`schema` in the file): inline, a file's path, or `module:Model`.
        schema_mode: how the endpoint is told of the schema.
        repair: take JSON out of fences and mend small breaks before an answer counts as invalid.
        reask: how often an answer that breaks the schema or `check` is asked again.
        reuse: let answers that were given under another `schema` serve where they conform to this one.
        on_truncated: `retry` asks once more with twice the tokens when the answer ran out of them.
        check: an expression on the parsed answer that must be true.
        images: columns, or templates, that give each row's pictures: paths, URLs or bytes, one or a list of them. They go as
            content parts, which not every endpoint takes.
        images_folder: where relative paths of pictures begin: where the configuration lies, by default.
        images_max_bytes: the most bytes of a picture; a row with a larger one fails.
        evidence: values that must stand in the text that they were taken from: one `{field, from}`, or a list of them.
        on_unsupported: `reask` asks again, within `reask`, with what does not stand there; else the row is `unsupported`.
        votes: how many answers a row may have, of which the majority counts: a number, or `{most, when, models}`. Each is
            paid for; asking stops as soon as the majority is certain.
        escalate: models to ask one after the other, the cheapest first, each only for rows of whose answer there is doubt:
            `[{model: small}, {model: large, when: "s_confidence < 0.7"}]`; or `{models, guarantee, sample}`, which finds out how
            far the cheap one is to be trusted.
        vote_on: the fields whose majority counts, each by itself; all of the schema by default.
        on_tie: what a field without a majority is: what the first answer said, null, or the row is `invalid_output`.
        pin: `true` pins the model that serves the first answer, also for later runs, and stops (exit code 4) when another one
            answers; `mark`, `ask`, or `{on_change, fingerprint}` say otherwise.
        explode: a list of the schema: each of its elements becomes a row of the output; of the last step alone.
        limits: of this step alone, within those of the run.
        columns: which of the step's columns are written, in this order: names such as `status`, `model`, `credits` or a
            property of the schema, and the words `answer`, `text`, `fields`, `tokens`, `minimal`, `standard` (the default)
            and `all`. What is left out stays in the ledger, and later steps see it.
        rename: names for written columns in place of the usual ones, such as `{status: state}`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    system: str | None = None
    prompt: str | None = None
    prompt_file: FilePath | None = None
    messages: list[Message] | None = None
    messages_file: FilePath | None = None
    examples: list[Example] = []
    examples_file: FilePath | None = None
    model: str = "auto"
    fallback_models: list[str] = []
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False), Number] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False), Number] | None = None
    max_tokens: Annotated[int, Field(ge=1), Number] | str | None = None
    max_completion_tokens: Annotated[int, Field(ge=1), Number] | str | None = None
    params: dict[str, Any] = {}
    stream: bool = False
    when: str | None = None
    on_null: Literal["error", "skip", "render"] = "error"
    on_empty: Literal["error", "skip", "send"] = "error"
    prompt_text: Literal[1, 2] = 2
    answer_schema: dict[str, Any] | str | SkipJsonSchema[type[BaseModel]] | None = Field(
        default=None, alias="schema"
    )
    schema_mode: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    repair: bool = True
    reask: Annotated[int, Field(ge=0, le=10), Number] = 1
    reuse: bool = False
    on_truncated: Literal["keep", "retry"] = "keep"
    check: str | None = None
    images: list[Annotated[str, Field(min_length=1)]] = []
    images_folder: FilePath | None = None
    images_max_bytes: Annotated[int, Field(ge=1, le=200_000_000), Number] = 20_000_000
    evidence: Evidence | list[Evidence] = []
    on_unsupported: Literal["keep", "reask"] = "keep"
    votes: Annotated[int, Field(ge=1, le=MOST_VOTES), Number] | Votes | None = None
    escalate: (
        Annotated[Escalate, BeforeValidator(as_escalate, json_schema_input_type=Escalate | list[str | Stage])]
        | None
    ) = None
    vote_on: str | list[str] | None = None
    on_tie: Literal["first", "null", "invalid_output"] = "first"
    pin: bool | OnChange | Pin = False
    explode: str | None = None
    limits: StepLimits | None = None
    columns: str | list[str] | None = None
    rename: dict[str, Annotated[str, Field(min_length=1)]] = {}

    @property
    def ballot(self) -> Votes | None:
        """Give how many answers a row may have, where that is more than one."""
        votes = Votes(most=self.votes) if isinstance(self.votes, int) else self.votes
        return votes if votes is not None and votes.most > 1 else None

    @property
    def escalation(self) -> Escalate | None:
        """Give the models that are asked one after the other."""
        return self.escalate

    @model_validator(mode="before")
    @classmethod
    def _begins_cheap(cls, data: Any) -> Any:
        """Have the step ask for the first of several models."""
        if not isinstance(data, dict) or data.get("escalate") is None:
            return data
        first = first_model(as_escalate(data["escalate"]))
        if first is None:
            return data
        if data.get("model") not in (None, "auto", first):
            raise ValueError(
                f"`model` is `{data['model']}`, and `escalate` begins with `{first}`: the models are named in `escalate`; "
                "remove `model`"
            )
        return {**data, "model": first}

    @model_validator(mode="after")
    def _escalates_alone(self) -> Self:
        if self.escalate is None:
            return self
        if self.ballot is not None:
            raise ValueError(
                "`escalate` and `votes` exclude each other: a row has one answer that counts, or several"
            )
        names = {stage.model for stage in self.escalate.stages}
        if twice := sorted(names.intersection(self.fallback_models)):
            raise ValueError(
                f"`{twice[0]}` stands in `escalate` and in `fallback_models`; keep it in one of them"
            )
        if self.escalate.guarantee is not None and self.explode is not None:
            raise ValueError(
                "`escalate.guarantee` and `explode` exclude each other: right or wrong is one answer of a row"
            )
        return self

    @property
    def pinned(self) -> Pin | None:
        """Give what to do when another model answers; None where that is nobody's concern."""
        if isinstance(self.pin, bool):
            return Pin() if self.pin else None
        return Pin(on_change=self.pin) if isinstance(self.pin, str) else self.pin

    @property
    def evidences(self) -> list[Evidence]:
        """Give the values that must stand in a text, as a list."""
        return self.evidence if isinstance(self.evidence, list) else [self.evidence]

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> Self:
        given = [
            n for n in ("prompt", "prompt_file", "messages", "messages_file") if getattr(self, n) is not None
        ]
        if not given:
            raise ValueError("a step needs `prompt`, `prompt_file`, `messages` or `messages_file`")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` exclude each other; keep one")
        if self.messages is not None and not self.messages:
            raise ValueError("`messages` is empty; it needs at least one message")
        if given[0].startswith("messages"):
            if self.system is not None:
                raise ValueError(
                    "`system` stands beside `prompt`; among `messages` write `{role: system, content: …}`"
                )
            if self.examples or self.examples_file is not None:
                raise ValueError("examples stand beside `prompt`; among `messages` write them as messages")
        if self.examples and self.examples_file is not None:
            raise ValueError("`examples` and `examples_file` exclude each other; keep one")
        return self

    @field_serializer("answer_schema", when_used="json")
    def _schema_as_json(self, schema: dict[str, Any] | str | type[BaseModel] | None) -> Any:
        return schema.model_json_schema() if isinstance(schema, type) else schema

    @model_validator(mode="after")
    def _can_grow(self) -> Self:
        limits = ("max_tokens", "max_completion_tokens")
        given = any(getattr(self, name) is not None or name in self.params for name in limits)
        if self.on_truncated == "retry" and not given:
            raise ValueError("`on_truncated: retry` doubles `max_tokens`, which is not given; set it")
        return self

    @field_validator("answer_schema")
    @classmethod
    def _is_place(cls, schema: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
        return sound_path(schema) if isinstance(schema, str) else schema

    @field_validator("params")
    @classmethod
    def _of_known_kinds(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Hold the API's own fields to its kinds; what holds a template is known for each row only."""
        for name, kind in PARAMETERS.items():
            value = params.get(name)
            if value is None or (isinstance(value, str) and "{{" in value):
                continue
            try:
                kind.validate_python(value, strict=True)
            except ValidationError as error:
                said = re.sub(r"^Input should ", "must ", error.errors()[0]["msg"])
                raise ValueError(f"`params.{name}` {said} (it is {value!r:.60})") from None
        return params

    @model_validator(mode="after")
    def _sampling(self) -> Self:
        top_p = self.top_p if self.top_p is not None else self.params.get("top_p")
        temperature = self.temperature if self.temperature is not None else self.params.get("temperature")
        if temperature is not None and top_p is not None:
            raise ValueError("`temperature` and `top_p` exclude each other (the API takes one); remove one")
        if isinstance(temperature, int | float) and not 0 <= temperature <= 2:
            raise ValueError(f"`temperature` is {temperature}; the API takes 0.0 to 2.0")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("`max_tokens` and `max_completion_tokens` exclude each other; remove one")
        for owned in ("model", "messages", "stream", "response_format"):
            if owned in self.params and not (owned == "response_format" and self.answer_schema is None):
                raise ValueError(
                    f"`params.{owned}` is set by the step's own `{owned}` key; remove it from params"
                )
        if self.params.get("n", 1) != 1:
            raise ValueError("`params.n` must be 1: a row has one answer; add a step for a second one")
        return self
