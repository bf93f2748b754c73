"""YAML that cannot explode, and the text files that it stands in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from enrich.base.reading import read_small
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_YAML_DEPTH = 32  # levels; deeper is no configuration anybody wrote
MAX_YAML_BYTES = 1_000_000  # bytes of one file


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without aliases (they can explode), without duplicate keys, of bounded depth."""

    yaml_implicit_resolvers = {}  # as PyYAML declares it
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stub leaves it out
            raise ConfigError(
                f"line {mark.line + 1}: YAML aliases (`*name`) are not accepted",
                hint="write the value out; a text that begins with `*`, such as a glob, must be quoted.",
            )
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH:
            raise ConfigError(f"the YAML is nested deeper than {MAX_YAML_DEPTH} levels", hint="flatten it.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's own signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise ConfigError(
                    f"line {key_node.start_mark.line + 1}: a text that begins with `{{` must be quoted",
                    hint='write for example prompt: "{{ review }}", or put the text on lines of its own after `|`.',
                )
            if key in seen:
                raise ConfigError(
                    f"line {key_node.start_mark.line + 1}: the key `{key}` stands twice", hint="remove one."
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Put the halves together in which JSON escapes a character beyond U+FFFF, such as an emoji."""
        value = super().construct_scalar(node)
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise ConfigError(
                f"line {node.start_mark.line + 1}: `\\u` escapes half a character",
                hint="write the character itself, or both of its halves.",
            ) from None


# What an unquoted word means is as in YAML 1.2, with less magic: `no` and `on` are words, `2024-05-01` and `00501`
# are texts, so that nothing in a schema or a parameter changes behind its author's back.
for _kind, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _first)


# PyYAML checks little of what stands behind a tag, such as `!!int x`, or of an escape beyond Unicode.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML that cannot explode: no aliases, no duplicate keys, bounded size and depth.

    Raises:
        ConfigError: it is not such YAML.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(
            f"{where} has {len(text):,} characters; a configuration has at most {MAX_YAML_BYTES:,}"
        )
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # _Loader is a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    except _YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not valid YAML"
        hint = "check the indentation; quote a text that holds `: ` or begins with `{`."
        if getattr(error, "context", None) == "while scanning an alias":
            problem, hint = "a text that begins with `*` must be quoted", 'write for example input: "*.csv"'
        raise ConfigError(f"{where}:{place} {problem}", hint=hint) from None
    except RecursionError:
        raise ConfigError(
            f"{where}: the YAML is nested deeper than {MAX_YAML_DEPTH} levels", hint="flatten it."
        ) from None


def read_text(path: Path, what: str, *, most: int = MAX_YAML_BYTES) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: it is, for messages.
        most: bytes that it may have.

    Raises:
        ConfigError: it cannot be read; begins with ``what``.
    """
    try:
        return read_small(path, most)[0].decode("utf-8-sig")
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        raise ConfigError(f"{what} {path} cannot be read: {problem}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} {path} is not UTF-8 at byte {error.start:,}", hint="save it as UTF-8."
        ) from None
