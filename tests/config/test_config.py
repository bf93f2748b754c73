from __future__ import annotations

import contextlib
import string
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import Config, load_config, validate_config
from enrich.config.strict_yaml import parse_yaml
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
input: in.csv
output: out/o.parquet
steps:
  - name: s
    prompt: "{{ t }}"
"""
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False)
    | st.text(string.printable + "é東🙂"),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(string.ascii_letters, min_size=1), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Write a configuration and load it."""

    def write(text: str = CONFIG, **options: Any) -> Config:
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "config.yaml", **options)

    return write


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: the key `a` stands twice"),
        ("a: &x [1]\nb: *x", "line 2: YAML aliases"),
        ("a: {{ t }}", "line 1: a text that begins with `{` must be quoted"),
        ("[" * 40 + "]" * 40, "nested deeper than 32 levels"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("x" * 1_000_001, "a configuration has at most 1,000,000"),
    ],
)
def test_dangerous_yaml_is_refused(text: str, said: str) -> None:
    """Duplicate keys, aliases, code, depth and size: refused with the line."""
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "here")
    assert said in caught.value.message


def test_relative_paths_are_the_file_s(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the file are relative to it, wherever one stands; URLs and absolute paths stay."""
    monkeypatch.chdir("/")
    config = load(CONFIG + "ledger: l/x.db\nreport: r.html\nendpoint: {api_key_file: key}\n")
    assert config.input.path == str(tmp_path / "in.csv")
    assert config.output.path == str(tmp_path / "out" / "o.parquet")
    assert config.ledger_location() == str(tmp_path / "l" / "x.db")
    assert config.endpoint.api_key_file == tmp_path / "key"
    assert load(CONFIG + "ledger: postgresql://h/d\n").ledger_location() == "postgresql://h/d"
    assert load(CONFIG.replace("in.csv", "/data/x.csv")).input.path == "/data/x.csv"
    assert load(CONFIG.replace("in.csv", "[a.csv, b/*.csv]")).input.path == [
        str(tmp_path / "a.csv"),
        str(tmp_path / "b" / "*.csv"),
    ]


def test_flags_are_relative_to_where_one_stands(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--input and --output are relative to the working folder; the ledger stays beside the file's own output."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    config = load(input="a.csv", output="b.csv")
    assert config.input.path == str(tmp_path / "there" / "a.csv")
    assert config.output.path == str(tmp_path / "there" / "b.csv")
    assert config.ledger_location() == str(tmp_path / "out" / ".beatra" / "ledger.db")


def test_an_output_flag_keeps_the_section(load: Any) -> None:
    """--output replaces the path alone; compression and the rest stay."""
    text = CONFIG.replace("out/o.parquet", "{path: o.parquet, compression: snappy}")
    assert load(text, output="/x/y.parquet").output.compression == "snappy"


def test_the_environment_fills_variables_but_not_templates(load: Any) -> None:
    """`${NAME}` is replaced in paths and settings; in templates it is text for the model."""
    text = CONFIG.replace("in.csv", "${DATA}/in.csv").replace("{{ t }}", "${DATA} {{ t }}")
    config = load(text + "    model: ${MODEL}\n", env={"DATA": "/data", "MODEL": "fast-1"})
    assert config.input.path == "/data/in.csv"
    assert config.steps[0].model == "fast-1"
    assert config.steps[0].prompt == "${DATA} {{ t }}"
    with pytest.raises(ConfigError, match=r"`input` uses \$\{DATA\}, which is not in the environment"):
        load(text, env={})


def test_values_of_variables_are_not_expanded_again(load: Any) -> None:
    """A variable whose value looks like a variable stays as it is."""
    config = load(CONFIG.replace("in.csv", "${A}"), env={"A": "/x/${B}", "B": "no"})
    assert config.input.path == "/x/${B}"


@pytest.mark.parametrize(
    ("assignment", "place", "value"),
    [
        ("limits.concurrency=8", ("limits", "concurrency"), 8),
        ("dedupe=false", ("dedupe",), False),
        ("tolerate=5%", ("tolerate",), "5%"),
        ("tolerate=5", ("tolerate",), 5),
        ("input.format=tsv", ("input", "format"), "tsv"),
        ("endpoint.base_url=sandbox", ("endpoint", "base_url"), "sandbox"),
        ("budget.credits=1.5", ("budget", "credits"), 1.5),
        ("limits.windows=[{requests: 5, seconds: 2}]", ("limits", "windows", 0, "requests"), 5),
        ("steps.s.model=fast-1", ("steps", 0, "model"), "fast-1"),
        ("steps.0.model=fast-1", ("steps", 0, "model"), "fast-1"),
        ("steps.s.prompt={{ u }}: x", ("steps", 0, "prompt"), "{{ u }}: x"),
        ("steps.s.params.seed=7", ("steps", 0, "params", "seed"), 7),
        ("steps.s.system=a=b", ("steps", 0, "system"), "a=b"),
    ],
)
def test_set_replaces_one_key(load: Any, assignment: str, place: tuple[Any, ...], value: object) -> None:
    """`--set key.path=value` reads its value as YAML, and names steps by name or number."""
    found = load(overrides=[assignment]).model_dump()
    for part in place:
        found = found[part]
    assert found == value


def test_set_fills_an_empty_section(load: Any) -> None:
    """A section whose keys are all commented out can be set."""
    config = load(CONFIG + "limits:\n  # concurrency: 8\n", overrides=["limits.concurrency=9"])
    assert config.limits.concurrency == 9


def test_multi_line_templates_keep_their_lines(load: Any) -> None:
    """Block scalars arrive as written."""
    config = load(CONFIG.replace('"{{ t }}"', "|\n      One: {{ t }}\n\n      - two: 'x' # y\n"))
    assert config.steps[0].prompt == "One: {{ t }}\n\n- two: 'x' # y\n"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    """A file saved by Notepad works."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + CONFIG.replace("\n", "\r\n").encode())
    assert load_config(path).steps[0].name == "s"


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        (
            "endpoint: sandbox",
            {"base_url": "sandbox"},
            "endpoint: must be a mapping of keys",
        ),
        ("endpoint: [1]", {"base_url": "sandbox"}, "endpoint: must be a mapping of keys"),
        ("input: 5", {"partitions": ["day=1"]}, "input: must be a mapping of keys (it is 5)"),
        ("input:", {"partitions": ["day=1"]}, "input.path: this key is required"),
        ("output: 5", {"partitions": ["day=1"]}, "output: must be a mapping of keys (it is 5)"),
    ],
)
def test_a_flag_does_not_hide_what_is_wrong(load: Any, text: str, flags: dict[str, Any], said: str) -> None:
    """A section of the wrong kind is refused as such, whatever a flag puts into it."""
    name = text.partition(":")[0]
    rest = "".join(line for line in CONFIG.splitlines(keepends=True) if not line.startswith(f"{name}:"))
    with pytest.raises(ConfigError) as caught:
        load(f"{rest}{text}\n", **flags)
    assert f"  {said}\n" in f"{caught.value.message}\n"


def test_an_output_of_the_wrong_kind_gives_way_to_the_flag(load: Any) -> None:
    """`--output` stands in the place of whatever the file says."""
    assert load(CONFIG.replace("out/o.parquet", "5"), output="/x.csv").output.path == "/x.csv"


@pytest.mark.parametrize(
    ("tolerate", "rows", "allowed"), [(0, 9, 0), (3, 9, 3), ("1%", 250, 2), ("1%", 99, 0), ("12.5%", 8, 1)]
)
def test_tolerated_rows(tolerate: int | str, rows: int, allowed: int) -> None:
    """A count stands as it is, a share is rounded down."""
    document = {"input": "a.csv", "output": "b.csv", "steps": [{"name": "s", "prompt": "x"}]}
    assert validate_config({**document, "tolerate": tolerate}).tolerated(rows) == allowed


def test_the_key_cannot_stand_in_the_file(load: Any) -> None:
    """A key in the file is refused, and not repeated in the message."""
    with pytest.raises(ConfigError) as caught:
        load(CONFIG + "endpoint: {api_key: sk-0123456789-secret}\n")
    assert "export BEATRA_API_KEY" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_configuration_cannot_be_changed(load: Any) -> None:
    """What was validated stays what it is."""
    with pytest.raises(ValueError, match="frozen"):
        load().dedupe = False


def test_the_json_schema_describes_every_key() -> None:
    """Editors get the keys as they stand in the file."""
    step = Config.model_json_schema(by_alias=True)["$defs"]["StepConfig"]
    assert "schema" in step["properties"]
    assert "answer_schema" not in step["properties"]
    assert step["additionalProperties"] is False


@pytest.mark.parametrize(
    ("share", "rows", "most"), [("0.57%", 10_000, 57), ("1%", 250, 2), ("100%", 3, 3), ("0.1 %", 1_000, 1)]
)
def test_a_tolerated_share_is_exact(share: str, rows: int, most: int) -> None:
    """A share of the rows is not lost to a rounding of binary fractions."""
    config = validate_config(
        {"input": "a.csv", "output": "b.csv", "steps": [{"name": "s", "prompt": "x"}], "tolerate": share}
    )
    assert config.tolerated(rows) == most
