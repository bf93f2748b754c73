"""A YAML file or a mapping, the environment and flags become one `Config`."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import (
    ValidationError,
)

from enrich.config.job import Config, JobConfig
from enrich.config.overlap import refuse_overlaps
from enrich.config.overrides import complete
from enrich.config.own_table import refuse_own_table
from enrich.config.problems import problems
from enrich.config.section import sound_path
from enrich.config.strict_yaml import parse_yaml, read_text
from enrich.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Job = TypeVar("_Job", bound=JobConfig)


def load_config(
    path: str | Path,
    *,
    overrides: list[str] | None = None,
    env: Mapping[str, str] | None = None,
    **flags: Any,
) -> Config:
    """Read a configuration file.

    Args:
        path: the YAML file. Relative paths in it are relative to its folder.
        overrides: ``key.path=value`` assignments, applied in order.
        env: the environment for ``${NAME}``; the process's own by default.
        flags: ``input`` (one path or several) and ``output`` (relative to the working directory), ``partitions`` of the input,
            ``metrics_file`` and ``base_url``, which override the file's.

    Raises:
        ConfigError: with the place, the value and the nearest real key.
        OutputError: it writes a file that it reads.
    """
    document = _read_document(Path(path), overrides or [], os.environ if env is None else env, flags)
    return _checked(validate_config(document, str(path)), Path(path))


def load_job(path: str | Path, *, base_url: str | None = None) -> JobConfig:
    """Read a configuration file for rows that come from elsewhere: its input and output may be left out.

    Raises:
        ConfigError: with the place, the value and the nearest real key.
    """
    document = _read_document(Path(path), [], os.environ, {"base_url": base_url})
    return _checked(validate_job(document, str(path)), Path(path))


def complete_config(
    document: Mapping[str, Any],
    *,
    folder: Path,
    where: str = "config",
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    **flags: Any,
) -> Config:
    """Make a configuration of a mapping as `load_config` makes one of a file that holds it.

    Args:
        document: the content of such a file; it stays as it is.
        folder: what relative paths in it are relative to.
        where: what it is called in messages.
        overrides: as for `load_config`.
        env: as for `load_config`.
        flags: as for `load_config`.

    Raises:
        ConfigError: with the place, the value and the nearest real key.
    """
    env = os.environ if env is None else env
    completed = complete(copy.deepcopy(dict(document)), folder, overrides, env, flags)
    return _checked(validate_config(completed, where))


def _checked(config: _Job, file: Path | None = None) -> _Job:
    """Note where a configuration was read from, and see to it that it writes no file that it reads."""
    config._file = file  # noqa: SLF001  # what a file does not say of itself
    refuse_overlaps(config)
    refuse_own_table(config)
    return config


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a configuration file as it stands.

    Raises:
        ConfigError: it is not there, or holds no mapping.
    """
    try:
        sound_path(str(path))
    except ValueError as error:
        raise ConfigError(f"the configuration file {str(path)[:80]!r} {error}") from None
    if not path.exists():
        beside = sorted(other.name for suffix in ("yaml", "yml") for other in path.parent.glob(f"*.{suffix}"))
        hint = did_you_mean(path.name, beside) if beside else "beatra-enrich init makes one."
        raise ConfigError(f"no configuration file {path}", hint=hint)
    document = parse_yaml(read_text(path, "the configuration file"), str(path))
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} holds no mapping of keys", hint="beatra-enrich init makes a file to start from."
        )
    return document


def _read_document(
    path: Path, overrides: Sequence[str], env: Mapping[str, str], flags: Mapping[str, Any]
) -> dict[str, Any]:
    return complete(read_mapping(path), path.parent.resolve(), overrides, env, flags)


def validate_config(document: Mapping[str, Any], where: str = "config") -> Config:
    """Turn a mapping into a `Config`.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    return _validated(Config, document, where)


def validate_job(document: Mapping[str, Any], where: str = "config") -> JobConfig:
    """Turn a mapping, in which input and output may be left out, into a `JobConfig`.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    return _validated(JobConfig, document, where)


def _validated(model: type[_Job], document: Mapping[str, Any], where: str) -> _Job:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            f"{where} is not valid:\n{problems(error, document, model)}",
            hint="beatra-enrich schema prints every key there is.",
        ) from None
