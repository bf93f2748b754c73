from __future__ import annotations

from enrich.base.command import Command


def test_another_verb_keeps_the_rest() -> None:
    """What is advised is the user's own command line, with another verb and perhaps a word behind it."""
    command = Command("run", "'my config.yaml' --set model=big")
    assert str(command.but("retry")) == "beatra-enrich retry 'my config.yaml' --set model=big"
    assert str(command.but("show", "--failed")) == (
        "beatra-enrich show 'my config.yaml' --set model=big --failed"
    )
    assert str(command) == "beatra-enrich run 'my config.yaml' --set model=big"
