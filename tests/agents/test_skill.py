"""What the page for agents promises is true of the program."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from click.testing import CliRunner

from enrich.agents.skill import skill
from enrich.cli import main
from enrich.config import complete_config
from enrich.records import STATUSES


def test_it_opens_as_skills_do() -> None:
    """A head in YAML with a name of its folder and a description that says when to use it, within the lengths that hosts take."""
    _, head, body = skill().split("---\n", 2)
    told = yaml.safe_load(head)
    assert set(told) == {"name", "description"}
    assert re.fullmatch(r"[a-z0-9-]{1,64}", told["name"])
    assert len(told["description"]) <= 1024
    assert body.lstrip().startswith("# ")


def test_its_configuration_is_one() -> None:
    """The example is read as it stands, and its keys mean what the page says."""
    found = re.search(r"```yaml\n(.+?)```", skill(), re.DOTALL)
    assert found is not None
    config = complete_config(yaml.safe_load(found.group(1)), folder=Path())
    assert config.budget.credits == 5
    assert config.steps[0].name == "mood"


def test_its_commands_are_there() -> None:
    """Each command line that it names has these options."""
    lines = re.findall(r"`beatra-enrich ([a-z]+)([^`]*)`", skill())
    assert len(lines) >= 10
    for name, rest in lines:
        helped = CliRunner().invoke(main, [name, "--help"])
        assert helped.exit_code == 0, name
        for option in re.findall(r"(?<=\s)--?[a-z]+", rest):
            if option != "--help":
                assert option in helped.output, (name, option)


def test_its_statuses_are_all_there_are() -> None:
    """None is missing, none made up."""
    found = re.search(r"`NAME_status` \(([^)]+)\)", skill())
    assert found is not None
    assert set(re.split(r",\s+", found.group(1))) == set(STATUSES)


def test_the_command_prints_it() -> None:
    """As it is, to be put into a file."""
    assert CliRunner().invoke(main, ["skill"]).output == skill()
