"""What a configuration file says, before it is held to the models: assignments, variables, paths and flags are put in."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich.base.location import is_url, plain
from enrich.config.catalog import resolved_catalog
from enrich.config.database_url import resolved_url, with_table_file
from enrich.config.same import with_same
from enrich.config.secrets import without_secret
from enrich.config.strict_yaml import parse_yaml
from enrich.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
OF_DATABASES = frozenset(
    {"sql", "url", "params", "folder", "table", "mode", "key", "version", "catalog", "snapshot", "since"}
)  # which a path replaces
OF_LAKES = ("delta", "iceberg")  # formats of tables, which a path of files replaces
MOST_PARTS = 64  # of a key in `--set`: no setting lies deeper
_QUOTES = frozenset("'\"|>!&")  # what a YAML text begins with that is not to be taken as it stands
TEMPLATE_KEYS = frozenset(
    {
        "system",
        "prompt",
        "content",
        "examples",
        "when",
        "check",
        "params",
        "schema",
        "max_tokens",
        "max_completion_tokens",
    }
)


def complete(
    document: dict[str, Any],
    folder: Path,
    overrides: Sequence[str],
    env: Mapping[str, str],
    flags: Mapping[str, Any],
) -> dict[str, Any]:
    """Put assignments, variables, paths and flags into a document, which may be changed.

    Args:
        document: what the file says.
        folder: what relative paths in it are relative to.
        overrides: ``key.path=value`` assignments, applied in order.
        env: the environment for ``${NAME}``.
        flags: ``input``, ``output``, ``partitions``, ``metrics_file`` and ``base_url``, which override the file's.

    Raises:
        ConfigError: an assignment or a variable cannot be carried out.
    """
    own = copy.deepcopy(document.get("output"))
    for assignment in overrides:
        _set(document, assignment)
    if document.get("output") != own:
        document = _with_ledger_of(_resolved_output(_expand(own, env, "output"), folder), document, folder)
    document = _resolve_paths(_expand(document, env, ""), folder)
    for name in ("input", "output"):
        if flags.get(name):
            section = document.get(name)
            if name == "output":
                document = _with_ledger_of(section, document, folder)
            document[name] = {
                **(
                    {
                        k: v
                        for k, v in section.items()
                        if k not in OF_DATABASES and not (k == "format" and v in OF_LAKES)
                    }
                    if isinstance(section, dict)
                    else {}
                ),
                "path": _resolved_all(flags[name], Path.cwd()),
            }
    if is_url(_path_of(document.get("output"))):
        document = _with_ledger_of(document["output"], document, folder)
    if flags.get("partitions"):
        rows = as_path_mapping(document.get("input"))
        document["input"] = _with(rows, partitions=list(flags["partitions"]))
    if flags.get("metrics_file"):
        document["metrics_file"] = _resolved_all(flags["metrics_file"], Path.cwd())
    if flags.get("base_url"):
        document["endpoint"] = _with(document.get("endpoint"), base_url=flags["base_url"])
    return document


def _with(section: Any, **values: Any) -> Any:
    """Put values into a section; one that is no mapping stays as it is, for the models to refuse."""
    return {**(section or {}), **values} if section is None or isinstance(section, dict) else section


def as_path_mapping(value: Any) -> Any:
    """Write an input or output that is given by its path alone as a mapping."""
    return {"path": value} if isinstance(value, str | list) else value


# --- assignments and variables ---------------------------------------------------------------------------


def _expand(value: Any, env: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):

        def replace(match: re.Match[str]) -> str:
            if match[1] not in env:
                raise ConfigError(
                    f"`{where}` uses ${{{match[1]}}}, which is not in the environment",
                    hint=f"export {match[1]}=…",
                )
            return env[match[1]]

        return _VARIABLE.sub(replace, value)
    if isinstance(value, dict):
        return {
            k: v
            if k in TEMPLATE_KEYS and where.startswith("steps")
            else _expand(v, env, f"{where}.{k}".lstrip("."))
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_expand(v, env, f"{where}.{i}") for i, v in enumerate(value)]
    return value


def _set(document: dict[str, Any], assignment: str) -> None:
    """Apply one ``key.path=value``; the value is read as YAML, a step may be named by its name or number."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(
            f"--set {without_secret(assignment)}: not of the form key.path=value",
            hint="for example --set limits.concurrency=8",
        )
    value = _value(text, path)
    *parents, last = path.strip().split(".")
    if len(parents) > MOST_PARTS:
        raise ConfigError(
            f"--set {without_secret(assignment)[:80]}…: no setting lies {len(parents) + 1:,} levels deep"
        )
    target: Any = document
    for part in parents:
        target = _descend(target, part, assignment)
    if isinstance(target, list):
        target[_index(target, last, assignment)] = value
    else:
        target[last] = value


def _value(text: str, path: str) -> Any:
    """Read an assignment's value as YAML; what is no YAML is text, and a ``#`` in it begins no comment."""
    try:
        value = parse_yaml(text, f"--set {path}") if text else ""
    except ConfigError:
        return text
    plain_text = isinstance(value, str) and text.lstrip()[:1] not in _QUOTES
    return text.strip() if plain_text or text.lstrip().startswith("#") else value


def _descend(target: Any, part: str, assignment: str) -> Any:
    if isinstance(target, list):
        child = target[_index(target, part, assignment)]
    else:
        if part in ("input", "output"):
            target[part] = as_path_mapping(target.get(part))
        child = target[part] = {} if target.get(part) is None else target[part]
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {without_secret(assignment)}: `{part}` is a plain value, it has no parts")
    return child


def _index(items: list[Any], part: str, assignment: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    raise ConfigError(
        f"--set {without_secret(assignment)}: no item `{part}`",
        hint=did_you_mean(part, [str(n) for n in names if n]),
    )


# --- paths -----------------------------------------------------------------------------------------------


def _with_ledger_of(output: Any, document: dict[str, Any], base: Path) -> dict[str, Any]:
    """Keep the ledger beside the file's own output when a flag names another one: it knows what is paid for.

    Beside an object there is no place for one: then it lies beside the configuration file.
    """
    path = _path_of(output)
    if "ledger" in document or not path:
        return document
    return {**document, "ledger": ledger_beside(str(base / "output") if is_url(path) else path)}


def _resolved_output(section: Any, folder: Path) -> Any:
    """Give the output that the file itself names, as an absolute path."""
    path = _path_of(section)
    return _resolved(path, folder) if path else None


def _path_of(section: Any) -> str:
    """Give the one path that a section of the document names, or an empty text."""
    mapping = as_path_mapping(section)
    path = mapping.get("path") if isinstance(mapping, dict) else None
    return path if isinstance(path, str) else ""


def ledger_beside(output: str) -> str:
    """Give the ledger that lies beside an output by default."""
    folder = Path(output).parent
    return str((folder if folder.name == ".beatra" else folder / ".beatra") / "ledger.db")


def _resolved(path: str, base: Path) -> str:
    """Make a path absolute; a ``file://`` URL becomes a path, other URLs stay."""
    if is_url(path):
        return plain(path) if path.startswith("file:///") else path
    expanded = os.path.expanduser(path)  # noqa: PTH111  # where there is no such user, a name as any other
    resolved = str(base / expanded)
    return f"{resolved}/" if path.endswith("/") and resolved != "/" else resolved


def _resolved_all(value: Any, base: Path) -> Any:
    """Make a path, or each of a list, absolute; what is no path stays."""
    if isinstance(value, list):
        return [_resolved_all(one, base) for one in value]
    return _resolved(value, base) if isinstance(value, str) and value else value


def _resolve_paths(document: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make relative paths relative to the configuration file; URLs stay."""

    def inside(section: Any, *keys: str) -> Any:
        if not isinstance(section, dict):
            return section
        return {k: _resolved_all(v, base) if k in keys else v for k, v in section.items()}

    document = with_same(document)
    for name in ("input", "output"):
        section = document.get(name)
        section = inside(section, "path") if isinstance(section, dict) else _resolved_all(section, base)
        document[name] = _with_database(section, base) if isinstance(section, dict) else section
    if isinstance(document["output"], dict):
        document["output"] = with_table_file(document["output"], base)
    if isinstance(document["input"], dict) and "csv" in document["input"]:
        document["input"] = {**document["input"], "csv": inside(document["input"]["csv"], "reject_file")}
    document = inside(document, "ledger", "report", "metrics_file")
    if isinstance(gold := document.get("gold"), dict) and isinstance(gold.get("columns"), dict):
        document["gold"] = inside(gold, "file")
    endpoint = inside(document.get("endpoint", {}), "api_key_file", "ca_file")
    if isinstance(endpoint, dict) and isinstance(command := endpoint.get("api_key_command"), list):
        endpoint = {**endpoint, "api_key_command": _with_program(command, base)}
    document["endpoint"] = endpoint
    steps = document.get("steps")
    if isinstance(steps, list):
        document["steps"] = [
            _resolve_schema(
                inside(_with_folder(s), "prompt_file", "messages_file", "examples_file", "images_folder"),
                base,
            )
            for s in steps
        ]
    return {k: v for k, v in document.items() if v is not None}


def _with_database(section: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make the path in a database's URL absolute; those in a query are relative to the configuration, too."""
    if isinstance(url := section.get("url"), str):
        section = {**section, "url": resolved_url(url, base)}
    if "catalog" in section:
        section = {**section, "catalog": resolved_catalog(section["catalog"], base)}
    return {"folder": str(base), **section} if "sql" in section else section


def _with_program(command: list[Any], base: Path) -> list[Any]:
    """A program that is named by its path is looked for from the configuration on; one by its name on PATH."""
    program, *arguments = command or [""]
    if not isinstance(program, str) or "/" not in program:
        return command
    return [_resolved(program, base), *arguments]


def _with_folder(step: Any) -> Any:
    """Relative paths of a step's pictures begin where the configuration lies."""
    return {"images_folder": ".", **step} if isinstance(step, dict) and step.get("images") else step


def _resolve_schema(step: Any, base: Path) -> Any:
    """A schema given as text is a file's path, unless it is an import path ``module:Model``."""
    schema = step.get("schema") if isinstance(step, dict) else None
    if isinstance(schema, str) and not re.fullmatch(r"[\w.]+:\w+", schema):
        return {**step, "schema": _resolved(schema, base)}
    return step
