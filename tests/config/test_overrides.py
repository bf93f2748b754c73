"""What stands in a file, in the environment and in flags: which goes before which, and relative to what."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config.overrides import TEMPLATE_KEYS, as_path_mapping, complete
from enrich.errors import ConfigError
from tests.config.conftest import CONFIG

words = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
BARE: dict[str, Any] = {"input": "/in.csv", "output": "/out.csv", "steps": [{"name": "s"}, {"name": "two"}]}


def completed(*assignments: str, document: dict[str, Any] | None = None, **env: str) -> dict[str, Any]:
    """Give a document with assignments put in."""
    return complete(copy.deepcopy(document or BARE), Path("/"), assignments, env, {})


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
        ("steps.s.system=# Task", ("steps", 0, "system"), "# Task"),
        ("steps.s.system=Classify {{ t }} # urgent", ("steps", 0, "system"), "Classify {{ t }} # urgent"),
        ("steps.s.system='quoted' # not", ("steps", 0, "system"), "quoted"),
        ("steps.s.system= two  words ", ("steps", 0, "system"), "two  words"),
        ("limits.concurrency=8 # eight", ("limits", "concurrency"), 8),
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


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("endpoint: sandbox", {"base_url": "sandbox"}, "endpoint: must be a mapping of keys"),
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
    assert any(line.startswith(f"  {said}") for line in caught.value.message.splitlines())


def test_an_output_of_the_wrong_kind_gives_way_to_the_flag(load: Any) -> None:
    """`--output` stands in the place of whatever the file says."""
    assert load(CONFIG.replace("out/o.parquet", "5"), output="/x.csv").output.path == "/x.csv"


@given(st.lists(words.filter(lambda w: w not in TEMPLATE_KEYS), min_size=1, max_size=4), plain_values)
def test_what_is_set_is_found_at_its_place(path: list[str], value: Any) -> None:
    """Any value, written as JSON (which is YAML), stands at its path, and nothing else is changed."""
    found: Any = completed(f"x.{'.'.join(path)}={json.dumps(value)}")
    rest = {key: found[key] for key in found if key != "x"}
    assert rest == completed()
    for part in ("x", *path):
        found = found[part]
    assert found == value


@given(st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=30))
def test_any_text_can_be_set(text: str) -> None:
    """What is no YAML is text as it stands: a prompt with `{{ }}`, a `:` or a quote needs no escapes."""
    found = completed(f"steps.s.prompt={text} {{{{ t }}}}: 'x")["steps"][0]["prompt"]
    assert found.strip() == f"{text} {{{{ t }}}}: 'x".strip()


@given(st.text(max_size=30))
def test_no_assignment_is_a_defect(text: str) -> None:
    """Whatever is typed behind `--set` is carried out, or refused in words."""
    try:
        completed(text)
    except ConfigError as error:
        assert error.message.startswith("--set ")  # noqa: PT017  # not every text is refused


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("limits", "--set limits: not of the form key.path=value"),
        ("=5", "--set =5: not of the form key.path=value"),
        ("input.path.more=5", "--set input.path.more=5: `path` is a plain value, it has no parts"),
        ("steps.thre.model=x", "--set steps.thre.model=x: no item `thre`"),
        ("steps.2.model=x", "--set steps.2.model=x: no item `2`"),
        ("steps.-1.model=x", "--set steps.-1.model=x: no item `-1`"),
        ("steps.²=x", "--set steps.²=x: no item `²`"),
        ("endpoint.headers", "--set endpoint.headers…: not of the form key.path=value"),
    ],
)
def test_assignments_that_cannot_be_carried_out(assignment: str, said: str) -> None:
    """An item that is not there, or a part of what has none, is named."""
    with pytest.raises(ConfigError) as caught:
        completed(assignment)
    assert caught.value.message == said


def test_later_assignments_stand_above_earlier_ones() -> None:
    """They are applied in order, each on what the one before left."""
    assert completed("a.b=1", "a.b=2")["a"] == {"b": 2}
    assert completed("a={x: 1}", "a.y=2")["a"] == {"x": 1, "y": 2}
    assert completed("a.y=2", "a={x: 1}")["a"] == {"x": 1}
    assert completed("steps.two={name: three}", "steps.three.model=m")["steps"][1]["model"] == "m"


@given(st.dictionaries(words.map(str.upper), st.text(max_size=8), min_size=1, max_size=3), st.data())
def test_variables_in_a_text(env: dict[str, str], data: st.DataObject) -> None:
    """Each `${NAME}` is its value, once; all else stays: `$NAME`, `${}` and a `$` alone are text."""
    texts = st.sampled_from(["$", "}", "{}", "$X", "${}", "${1}", " "])
    parts = data.draw(st.lists(texts.map(lambda text: (text, text)) | st.sampled_from(sorted(env.items()))))
    text = "".join(f"${{{part}}}" if part in env else part for part, _ in parts)
    found = completed(document={**BARE, "x": {"y": [text]}}, **env)
    assert found["x"]["y"] == ["".join(value for _, value in parts)]


@pytest.mark.parametrize(
    ("value", "found"),
    [("a.csv", {"path": "a.csv"}), (["a", "b"], {"path": ["a", "b"]}), ({"path": 1}, {"path": 1}), (5, 5)],
)
def test_a_path_alone_is_a_section(value: Any, found: Any) -> None:
    """A path, or a list of them, stands for a mapping with it; all else is left for the models to judge."""
    assert as_path_mapping(value) == found
