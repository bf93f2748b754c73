"""Values that no check of types sees through: each is refused in words, and nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("steps.s.schema=~nobody-here/schema.json", "cannot be read"),
        (f"a{'.b' * 3_000}=1", "no setting lies"),
        ("ledger=circle.db", "circle.db"),
        ("steps.s.examples_file=/proc/kmsg", "it is a device or pipe"),
    ],
    ids=["a user that there is not", "parts without end", "links in a circle", "a pipe of the system's"],
)
def test_an_odd_value_is_refused(
    cli: Callable[..., Ended], job: Callable[..., Path], tmp_path: Path, given: str, said: str
) -> None:
    """Exit code 2, one line that says what it is, and no output."""
    (tmp_path / "circle.db").symlink_to("circle.db")
    ended = cli("run", job(endpoint={"base_url": "sandbox"}), "--set", given)
    assert (ended.code, said in ended.err, "defect" in ended.err) == (2, True, False), ended.err
    assert not (tmp_path / "out.parquet").exists()


def test_a_text_without_the_mark_of_its_order_is_refused(cli: Callable[..., Ended], tmp_path: Path) -> None:
    """UTF-16 begins with a mark; a file that is none is named, with what may help."""
    (tmp_path / "in.csv").write_text("t\na\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text(
        "input: {path: in.csv, csv: {encoding: utf-16}}\noutput: out.parquet\nendpoint: {base_url: sandbox}\n"
        "steps: [{name: s, prompt: '{{ t }}'}]\n",
        encoding="utf-8",
    )
    ended = cli("run", tmp_path / "config.yaml")
    assert (ended.code, "is not utf-16" in ended.err) == (2, True), ended.err


def test_an_answer_that_never_comes_is_no_rehearsal(cli: Callable[..., Ended]) -> None:
    """The sandbox takes a latency that is a number of seconds."""
    ended = cli("sandbox", "--latency", "inf")
    assert (ended.code, "`latency` is inf" in ended.err) == (2, True), ended.err
