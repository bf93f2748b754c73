"""A step's messages as templates: system, examples, prompt; or a whole conversation as it is given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from enrich.config import Example, Message, StepConfig, problems
from enrich.config.strict_yaml import parse_yaml, read_text
from enrich.errors import ConfigError
from enrich.prompt.template import MAX_PROMPT_BYTES, Template, compile_template, literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from enrich.schema.schema import AnswerSchema

_Item = TypeVar("_Item", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class MessageTemplate:
    """One message; its content is rendered for each row."""

    role: str
    content: Template


def compile_messages(
    step: StepConfig, where: str, schema: AnswerSchema | None
) -> tuple[MessageTemplate, ...]:
    """Compile what a step says to the model.

    Raises:
        ConfigError: a file cannot be read, or an example breaks the schema.
        TemplateError: a template's syntax is wrong.
    """
    spelled = partial(
        compile_template, spelling=step.prompt_text, blank=step.prompt_text == 1 or step.on_null == "render"
    )
    messages = step.messages
    if step.messages_file is not None:
        messages = _read_items(step.messages_file, Message, f"{where}.messages_file")
    if messages is not None:
        return tuple(
            MessageTemplate(m.role, spelled(m.content, f"{where}.messages.{i}"))
            for i, m in enumerate(messages)
        )
    prompt, place = step.prompt, f"{where}.prompt"
    if step.prompt_file is not None:
        prompt, place = (
            read_text(step.prompt_file, f"{where}.prompt_file:", most=MAX_PROMPT_BYTES),
            f"{where} ({step.prompt_file.name})",
        )
    compiled = [MessageTemplate("user", spelled(prompt or "", place))]
    compiled[:0] = _example_messages(step, where, schema)
    if step.system is not None:
        compiled.insert(0, MessageTemplate("system", spelled(step.system, f"{where}.system")))
    return tuple(compiled)


def without_files(step: StepConfig) -> StepConfig:
    """Put what a step's prompt, messages and examples files say in their place, for machines that lack the files.

    Raises:
        ConfigError: a file cannot be read.
    """
    where = f"steps.{step.name}"
    found: dict[str, Any] = {}
    if step.prompt_file is not None:
        found["prompt"] = read_text(step.prompt_file, f"{where}.prompt_file:", most=MAX_PROMPT_BYTES)
    if step.messages_file is not None:
        found["messages"] = _read_items(step.messages_file, Message, f"{where}.messages_file")
    if step.examples_file is not None:
        found["examples"] = _read_items(step.examples_file, Example, f"{where}.examples_file")
    return step.model_copy(update={**found, **{f"{name}_file": None for name in found}})


def _example_messages(step: StepConfig, where: str, schema: AnswerSchema | None) -> Iterator[MessageTemplate]:
    """Turn the examples into messages; an answer that the step itself would not accept is an error."""
    examples, place = step.examples, f"{where}.examples"
    if step.examples_file is not None:
        examples, place = (
            _read_items(step.examples_file, Example, f"{where}.examples_file"),
            f"{where}.examples_file: example",
        )
    for number, example in enumerate(examples):
        answer = example.assistant
        if isinstance(answer, dict):
            if schema is not None and (wrong := schema.validate(answer)):
                raise ConfigError(
                    f"{place} {number + 1} breaks the step's own schema: {'; '.join(wrong)}",
                    hint="correct the example, or the schema.",
                )
            answer = json.dumps(answer, ensure_ascii=False)
        yield MessageTemplate("user", literal(example.user, place))
        yield MessageTemplate("assistant", literal(answer, place))


def _read_items(path: Path, model: type[_Item], where: str) -> list[_Item]:
    """Read a list of messages or examples from a .yaml, .json or .jsonl file."""
    text = read_text(path, f"{where}:", most=MAX_PROMPT_BYTES)
    try:
        items = _lines(text) if path.suffix == ".jsonl" else parse_yaml(text, str(path))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{where}: {path} has a line that is no JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise ConfigError(f"{where}: {path} holds no list of {model.__name__.lower()}s")
    try:
        return TypeAdapter(list[model]).validate_python(items)  # type: ignore[valid-type]  # a class all the same
    except ValidationError as error:
        raise ConfigError(f"{where}: {path} is not valid:\n{problems(error, items, model)}") from None


def _lines(text: str) -> list[Any]:
    return [orjson.loads(line) for line in text.split("\n") if line.strip()]
