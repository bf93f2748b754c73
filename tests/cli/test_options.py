"""Options that several commands share: what was typed can be typed again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.cli.options import CONFIG, command_line, job_options, names_in, statuses_of
from enrich.errors import ConfigError

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
given_options = st.fixed_dictionaries(
    {
        "sandbox": st.booleans(),
        "output": st.none() | texts,
        "input": st.none() | texts,
        "overrides": st.lists(texts.map(lambda text: f"steps.s.prompt={text}"), max_size=2).map(tuple),
        "partitions": st.lists(texts, max_size=2).map(tuple),
        "limit": st.none() | st.integers(0, 10**9),
    }
)


def parsed(line: str) -> dict[str, Any]:
    """Give what the command line makes of a line that was pasted into a shell."""
    found: dict[str, Any] = {}

    @click.command()
    @CONFIG
    @job_options
    def run(**options: Any) -> None:
        found.update(options)

    program, verb, *rest = shlex.split(line)
    assert (program, verb) == ("beatra-enrich", "run")
    done = CliRunner().invoke(run, rest, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found


@settings(max_examples=50)
@given(texts.filter(lambda text: not text.startswith("-")), given_options)
def test_a_command_that_is_advised_is_the_one_that_ran(path: str, options: dict[str, Any]) -> None:
    """Whatever paths, prompts and partitions hold, quoted for a shell and read again they are the same."""
    config = Path(path)
    assert parsed(str(command_line("run", config, options))) == {"config": config, **options}


def test_a_secret_is_left_out() -> None:
    """A header's value is not in the line that is advised; what else was set is."""
    options = dict.fromkeys(("limit", "input", "output", "sandbox"))
    overrides = ("endpoint.headers.key=hush", "dedupe=false")
    line = str(command_line("run", Path("c.yaml"), {**options, "partitions": (), "overrides": overrides}))
    assert "hush" not in line
    assert "dedupe=false" in line


@pytest.mark.parametrize(
    ("text", "names"),
    [("error", {"error"}), (" error , truncated,", {"error", "truncated"})],
)
def test_names_with_commas(text: str, names: set[str]) -> None:
    """Spaces around them, and a comma too many, do no harm."""
    assert statuses_of(text) == names


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_retry_of_nothing(text: str) -> None:
    """An empty list, as of a variable of the shell that is not set, is no list of the default."""
    with pytest.raises(ConfigError, match=r"--status .* names no status"):
        statuses_of(text)


@pytest.mark.parametrize("name", ["in_doubt", "ok", "Error", "error;truncated"])
def test_no_status_to_retry(name: str) -> None:
    """What `retry` cannot ask again by its status is refused with what it can."""
    with pytest.raises(ConfigError, match=f"--status {name}: no such status") as caught:
        statuses_of(name)
    assert caught.value.hint == "one of error, filtered, invalid_output, truncated, unsupported."
    with pytest.raises(ConfigError, match="--x b: no such x"):
        names_in("--x", "a,b", ["a"])
