"""A rendered row becomes body bytes, a fingerprint and an idempotency key: an `Ask`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from enrich.base.moments import Unreadable
from enrich.base.words import is_blank
from enrich.prompt import parameters
from enrich.prompt.cells import Cell, NullInText, is_null, text
from enrich.prompt.idempotency import ROUND_STRIDE, idempotency_key
from enrich.prompt.images import Images, parts
from enrich.prompt.messages import compile_messages
from enrich.prompt.models import Models
from enrich.prompt.parameters import TOKEN_LIMITS
from enrich.prompt.template import Expression, RowError, Template, compile_condition
from enrich.records import Ask, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from enrich.config import StepConfig
    from enrich.prompt.images import Named
    from enrich.records import Picture
    from enrich.schema.schema import AnswerSchema

NEVER_NULL = frozenset({str, int, bool, Cell})  # types of values that need no closer look
JSON_MODE = {"type": "json_object"}
LOOSE_MODE = "json_schema, not strict"  # for schemas that strict servers do not take

Messages = list[dict[str, Any]]


@frozen
class Prepared:
    """One row's request for one step, before a model is chosen.

    Attributes:
        messages: rendered.
        options: this row's values of templated parameters.
        models: those to ask, one after the other.
        named: the pictures that the row names and nobody has looked at.
        pictures: those that were looked at.
        sources: the texts that the answer's values must stand in, in the order of the step's `evidence`.
    """

    messages: Messages
    options: dict[str, Any]
    models: tuple[str, ...]
    named: tuple[Named, ...] = ()
    pictures: tuple[Picture, ...] = ()
    sources: tuple[str | None, ...] = ()


class RequestBuilder:
    """Makes the requests of one step. Everything that does not depend on the row is prepared once.

    Attributes:
        step: the step's configuration.
        schema: the parsed answer schema, or None.
        models: those that its rows ask.
        rereads: whether an answer is more than its text, so that a changed rule or schema reads it in another way.
        columns: the columns whose values the templates need.
        contents: the templates of its messages.
        constant_bytes: of what a prompt begins with beside its messages: tools, and the schema where the endpoint is told of it.
        images: the pictures that its rows name; None where they name none.
        sources: the columns that its answer's values must stand in.
        fingerprint: 16 bytes that identify the step's question: its templates, model and parameters.
    """

    def __init__(self, step: StepConfig, base_url: str, schema: AnswerSchema | None = None) -> None:
        where = f"steps.{step.name}"
        self.step = step
        self.schema = schema
        self._base_url = base_url
        self._messages = compile_messages(step, where, schema)
        self.models = Models(step, where)
        self.images = Images(step, where) if step.images else None
        self.when = compile_condition(step.when, f"{where}.when") if step.when is not None else None
        self._fixed, self._per_row = parameters.split(step, where)
        self._limits = _token_limits(self._fixed)
        self._tails: dict[str, bytes] = {}
        self.rereads = schema is not None or step.check is not None
        self._question = hashlib.sha1(base_url.encode(), usedforsecurity=False)
        templates: list[Template | Expression] = [m.content for m in self._messages]
        templates += [leaf for tree in self._per_row.values() for leaf in parameters.leaves(tree)]
        self.asking = (*templates, *self.models.templates)
        self.texts = (*self.asking, *((self.when,) if self.when else ()))
        self.templates = (*self.texts, *(self.images.templates if self.images else ()))
        self.sources = tuple(rule.from_ for rule in step.evidences)
        self.columns = frozenset(self.sources).union(*(t.variables for t in self.templates))
        self.whole_row = any(t.whole_row for t in self.templates)
        self.writes_row = any(t.writes_row for t in self.templates)
        self._checked = tuple(sorted(frozenset().union(*(t.variables for t in self.asking))))
        self.contents = tuple(m.content for m in self._messages)
        schema_told = self._answer_format(step.schema_mode)
        fixed = [self._fixed.get("tools"), schema_told.get("response_format")]
        self.constant_bytes = sum(len(orjson.dumps(value)) for value in fixed if value is not None)
        self._may_be_empty = step.on_empty != "send"
        self.fingerprint = self._fingerprint()

    def prepare(self, values: Mapping[str, Any]) -> Prepared:
        """Render one row.

        Raises:
            RowError: a value is null and ``on_null`` is not ``render``, the prompt is empty and ``on_empty`` is not
                ``send``, or a template fails on this row.
        """
        messages = self.messages_of(values)
        models = self.models.of(values)
        options = {name: parameters.render(name, tree, values) for name, tree in self._per_row.items()}
        named = self.images.named(values) if self.images is not None else ()
        return Prepared(messages, options, models, named, sources=self._sources_of(values))

    def messages_of(self, values: Mapping[str, Any]) -> Messages:
        """Render a row's messages alone, without its pictures.

        Raises:
            RowError: as for `prepare`.
        """
        self._check(self._checked, values)
        messages = [{"role": m.role, "content": m.content.render(values)} for m in self._messages]
        if self._may_be_empty and is_blank(messages[-1]["content"]):
            raise RowError("empty_prompt", f"steps.{self.step.name}: the prompt is empty")
        return messages

    def look(self, prepared: Prepared) -> Prepared:
        """Look at the pictures that a row names; this reads files, and may go over the network.

        Raises:
            RowError: one cannot be had, is too large, or is none.
        """
        if self.images is None or not prepared.named:
            return prepared
        return replace(prepared, named=(), pictures=self.images.look(prepared.named))

    def _sources_of(self, values: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Give the texts that the row's answer must stand in.

        Raises:
            RowError: a value has no text.
        """
        found: list[str | None] = []
        for name in self.sources:
            value = values.get(name)
            try:
                found.append(None if is_null(value) else str(text(value)))
            except (NullInText, TypeError, ValueError) as error:
                where = f"steps.{self.step.name}.evidence"
                raise RowError("template_error", f"{where}: column `{name}`: {error}") from None
        return tuple(found)

    def models_of(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Give a row's models alone, whatever its prompt needs.

        Raises:
            RowError: as for `prepare`.
        """
        self._check(self.models.columns, values)
        return self.models.of(values)

    def _check(self, names: Iterable[str], values: Mapping[str, Any]) -> None:
        for name in names:
            value = values.get(name, "")
            if type(value) not in NEVER_NULL:
                self._check_value(name, value)

    def _check_value(self, name: str, value: Any) -> None:
        if self.step.on_null != "render" and is_null(value):
            raise RowError("null_value", f"column `{name}` is null")
        if isinstance(value, Unreadable):
            raise RowError("template_error", f"the value of column `{name}` {value.reason}")

    def skips(self, code: str) -> bool:
        """Say whether a row that cannot be asked for this reason is skipped, not failed."""
        settings = {"null_value": self.step.on_null, "empty_prompt": self.step.on_empty}
        return settings.get(code) == "skip"

    def wanted(self, values: Mapping[str, Any]) -> bool:
        """Say whether ``when`` lets this row through.

        Raises:
            RowError: the condition fails on this row's values.
        """
        return self.when is None or self.when.is_true(values)

    def ask(
        self,
        prepared: Prepared,
        *,
        model: str | None = None,
        ordinal: int = 0,
        parent: bytes | None = None,
        further: Sequence[dict[str, str]] = (),
        options: Mapping[str, Any] | None = None,
        mode: str | None = None,
    ) -> Ask:
        """Make the request: its body, once, and its key.

        Args:
            prepared: the row.
            model: the model to ask; the row's first by default.
            ordinal: see `idempotency_key`.
            parent: the request this one follows.
            further: messages after the step's own (a re-ask's).
            options: request fields that replace the step's (a re-ask with more tokens).
            mode: how the endpoint is told of the schema; the step's ``schema_mode`` by default.

        Raises:
            RowError: a text holds what JSON cannot (a lone surrogate).
        """
        model = model or prepared.models[0]
        messages = _with_pictures(prepared)
        messages = [*messages, *further] if further else messages
        own = {**prepared.options, **options} if options else prepared.options
        body = self._body(model, messages, own, mode or self.step.schema_mode)
        key = idempotency_key(self._base_url, body, ordinal)
        question = self._question_of(prepared, ordinal) if self.rereads else None
        return Ask(key, body, model, parent, question, prepared.pictures, self.step.name)

    def key(self, values: Mapping[str, Any], ordinal: int) -> bytes:
        """Give the key of the request that `ask` makes of a row without pictures, and of an ordinal.

        Raises:
            RowError: as for `prepare` and `ask`.
        """
        messages, model = self.messages_of(values), self.models.of(values)[0]
        options = {name: parameters.render(name, tree, values) for name, tree in self._per_row.items()}
        body = self._body(model, messages, options, self.step.schema_mode)
        return idempotency_key(self._base_url, body, ordinal)

    def _body(self, model: str, messages: Messages, own: Mapping[str, Any], mode: str) -> bytes:
        if self.schema is not None and mode not in ("json_schema", LOOSE_MODE):
            messages = self._with_schema_message(messages)
        try:
            body_messages = orjson.dumps(messages)
            tail = self._dynamic_tail(own, mode) if own else self._tail(mode)
        except TypeError as error:
            raise RowError("template_error", f"steps.{self.step.name}: {error}") from None
        return b'{"model":%b,"messages":%b%b' % (orjson.dumps(model), body_messages, tail)

    def _tail(self, mode: str) -> bytes:
        if mode not in self._tails:
            self._tails[mode] = self._dynamic_tail({}, mode)
        return self._tails[mode]

    def _dynamic_tail(self, own: Mapping[str, Any], mode: str) -> bytes:
        fields = dict(sorted({**self._fixed, **own, **self._answer_format(mode)}.items()))
        return b"," + orjson.dumps(fields)[1:-1] + b"}" if fields else b"}"

    def _answer_format(self, mode: str) -> dict[str, Any]:
        if self.schema is None or mode == "prompt":
            return {}
        if mode == "json_object":
            return {"response_format": JSON_MODE}
        strict = mode != LOOSE_MODE
        return {"response_format": self.schema.response_format(self.step.name, strict=strict)}

    def _with_schema_message(self, messages: Messages) -> Messages:
        assert self.schema is not None  # noqa: S101  # the caller asked for the schema's message
        text = (
            "Answer with one JSON object and nothing else. It must conform to this JSON Schema:\n"
            + json.dumps(self.schema.json, ensure_ascii=False, sort_keys=True)
        )
        if messages and messages[0]["role"] == "system":
            return [{"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
        return [{"role": "system", "content": text}, *messages]

    def token_limits(self, prepared: Prepared) -> dict[str, int]:
        """Give the request's limits on the answer's tokens, by name; empty without one."""
        return _token_limits({**self._fixed, **prepared.options}) if prepared.options else self._limits

    def _question_of(self, prepared: Prepared, ordinal: int) -> bytes:
        """Identify what the row asks, whatever model, mode, schema, re-ask or round it is asked in."""
        asked = [
            prepared.messages,
            prepared.models[0],
            {**self._fixed, **prepared.options},
            ordinal % ROUND_STRIDE,
            *(picture.mark for picture in prepared.pictures),
        ]
        digest = self._question.copy()
        digest.update(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS))
        return digest.digest()[:16]

    def _fingerprint(self) -> bytes:
        facts: list[list[Any]] = [
            [(m.role, m.content.source) for m in self._messages],
            [self.step.model, self._fixed, {k: parameters.source(tree) for k, tree in self._per_row.items()}],
        ]
        if self.step.images:
            facts.append(list(self.step.images))
        text = json.dumps([self._base_url, facts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).digest()[:16]


def _with_pictures(prepared: Prepared) -> Messages:
    """Put a row's pictures behind the text of the last message of the user, or into one of their own."""
    if not prepared.pictures:
        return prepared.messages
    messages = list(prepared.messages)
    users = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        return [*messages, {"role": "user", "content": parts("", prepared.pictures)[1:]}]
    last = messages[users[-1]]
    messages[users[-1]] = {**last, "content": parts(last["content"], prepared.pictures)}
    return messages


def _token_limits(fields: Mapping[str, Any]) -> dict[str, int]:
    return {name: fields[name] for name in TOKEN_LIMITS if isinstance(fields.get(name), int)}
