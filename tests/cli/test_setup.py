from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.warm import Ended


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Callable[..., Ended], shell: str) -> None:
    """`completion` prints a script for each shell, and its help says where to put it."""
    ended = cli("completion", shell)
    assert ended.code == 0
    assert "_BEATRA_ENRICH_COMPLETE" in ended.out
    assert f"completion {shell}" in cli("completion", "--help").out


def test_completion_completes(cli: Callable[..., Ended]) -> None:
    """What the script calls back gives the commands that begin so."""
    ended = cli(
        script=True, _BEATRA_ENRICH_COMPLETE="bash_complete", COMP_WORDS="beatra-enrich sta", COMP_CWORD="1"
    )
    assert ended.out == "plain,status\n"
