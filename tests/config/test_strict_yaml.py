from __future__ import annotations

import contextlib
import json
import re
import string
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enrich.config.strict_yaml import parse_yaml, read_text
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

POWER = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+")  # 1e3: a text in YAML 1.1, a number in 1.2 and here
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False)
    | st.text(string.printable + "é東🙂").filter(lambda text: not POWER.fullmatch(text)),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(string.ascii_letters, min_size=1), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(PLAIN)
def test_plain_yaml_is_read_as_it_was_written(value: Any) -> None:
    """What a YAML writer writes comes back as it was."""
    text = yaml.safe_dump(value, allow_unicode=True)
    assert parse_yaml(text, "here") == yaml.safe_load(text)


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    """Any text is YAML, or is refused in words."""
    with contextlib.suppress(ConfigError):
        parse_yaml(text, "here")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("2024-05-01", "2024-05-01"),
        ("00501", "00501"),
        ("4:30", "4:30"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("-7", -7),
        ("0", 0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("~", None),
        ("", None),
        ("null", None),
        ("1.2.3", "1.2.3"),
    ],
)
def test_unquoted_words_mean_what_they_say(text: str, value: object) -> None:
    """No word becomes a boolean, a date or another number behind its author's back."""
    read = parse_yaml(f"[{text}]" if text else "[~]", "here")[0]
    assert (type(read), read) == (type(value), value)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_json_is_read_as_it_was_written(text: str) -> None:
    """A text that JSON escapes, emoji by two halves, is that text again, as value and as key."""
    assert parse_yaml(json.dumps({text: [text]}), "here") == {text: [text]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: the key `a` stands twice"),
        ("a: &x [1]\nb: *x", "line 2: YAML aliases"),
        ("a: {{ t }}", "line 1: a text that begins with `{` must be quoted"),
        ("[" * 40 + "]" * 40, "nested deeper than 32 levels"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ('a:\n  "\\ud83d!"', "line 2: `\\u` escapes half a character"),
        ("x" * 1_000_001, "a configuration has at most 1,000,000"),
    ],
)
def test_dangerous_yaml_is_refused(text: str, said: str) -> None:
    """Duplicate keys, aliases, code, depth and size: refused with the line."""
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "here")
    assert said in caught.value.message


def test_a_file_in_utf_8(tmp_path: Path) -> None:
    """With a byte order mark or without, the text is the same."""
    path = tmp_path / "prompt.txt"
    path.write_bytes("déjà 東🙂".encode("utf-8-sig"))
    assert read_text(path, "the prompt") == "déjà 東🙂"
    path.write_bytes("déjà 東🙂".encode())
    assert read_text(path, "the prompt") == "déjà 東🙂"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """What is wrong is said with the file's name and what it was to be; of other encodings with the place."""
    with pytest.raises(ConfigError, match=r"^the prompt .*no/prompt.txt cannot be read: no such file"):
        read_text(tmp_path / "no" / "prompt.txt", "the prompt")
    with pytest.raises(ConfigError, match=f"^the prompt {tmp_path} cannot be read: is a directory"):
        read_text(tmp_path, "the prompt")
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"x" * 1_500 + "é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"prompt.txt is not UTF-8 at byte 1,500"):
        read_text(path, "the prompt")
