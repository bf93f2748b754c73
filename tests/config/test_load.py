from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from enrich.config import complete_config, load_config, load_job, read_mapping, validate_config, validate_job
from enrich.errors import ConfigError
from tests.config.conftest import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.config import Config

DOCUMENT: dict[str, Any] = yaml.safe_load(CONFIG)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    """A file saved by Notepad works."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + CONFIG.replace("\n", "\r\n").encode())
    assert load_config(path).steps[0].name == "s"


def test_multi_line_templates_keep_their_lines(load: Any) -> None:
    """Block scalars arrive as written."""
    config = load(CONFIG.replace('"{{ t }}"', "|\n      One: {{ t }}\n\n      - two: 'x' # y\n"))
    assert config.steps[0].prompt == "One: {{ t }}\n\n- two: 'x' # y\n"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overrides": ["limits.concurrency=3", "steps.s.model=m"]},
        {"input": "/x/y.csv", "output": "/x/o.csv", "partitions": ["day=1"], "base_url": "sandbox"},
        {"input": ["/a.csv", "/b.csv"]},
    ],
)
def test_a_mapping_is_as_a_file_that_holds_it(
    load: Callable[..., Config], tmp_path: Path, options: dict[str, Any]
) -> None:
    """From Python or from a file, with the same flags, the configuration is the same; the mapping stays as it was."""
    before = copy.deepcopy(DOCUMENT)
    assert complete_config(DOCUMENT, folder=tmp_path, **options).model_dump() == load(**options).model_dump()
    assert before == DOCUMENT


def test_the_environment_is_the_process_s_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`${NAME}` comes from the environment of the process; one that is given stands in its place."""
    monkeypatch.setenv("WHICH_MODEL", "of-the-process")
    document = {**DOCUMENT, "steps": [{**DOCUMENT["steps"][0], "model": "${WHICH_MODEL}"}]}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    given = {"WHICH_MODEL": "given"}
    assert load_config(path).steps[0].model == "of-the-process"
    assert load_job(path).steps[0].model == "of-the-process"
    assert complete_config(document, folder=tmp_path).steps[0].model == "of-the-process"
    assert load_config(path, env=given).steps[0].model == "given"
    assert complete_config(document, folder=tmp_path, env=given).steps[0].model == "given"


def test_rows_that_come_from_elsewhere(tmp_path: Path) -> None:
    """A job over a data frame needs neither input nor output; a job over files needs both."""
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"steps": DOCUMENT["steps"]}), encoding="utf-8")
    job = load_job(path, base_url="sandbox")
    assert (job.input, job.output, job.endpoint.base_url) == (None, None, "sandbox")
    with pytest.raises(ConfigError, match=r"(?s)c\.yaml is not valid:.*input: .*output: "):
        load_config(path)
    assert validate_job({"steps": DOCUMENT["steps"]}).model_dump() == load_job(path).model_dump()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A slip of the pen is answered with the name that is there; without any, with what makes one."""
    with pytest.raises(ConfigError) as caught:
        read_mapping(tmp_path / "confg.yaml")
    assert caught.value.hint == "beatra-enrich init makes one."
    (tmp_path / "config.yml").write_text("a: 1", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_mapping(tmp_path / "confg.yml")
    assert "config.yml" in caught.value.hint


def test_every_problem_is_told_with_the_place_of_the_mapping() -> None:
    """What a mapping is called stands first; each problem has a line."""
    with pytest.raises(ConfigError) as caught:
        validate_config({**DOCUMENT, "dedupe": [], "limits": {"concurrency": 0}}, "the job of 7 o'clock")
    lines = caught.value.message.splitlines()
    assert lines[0] == "the job of 7 o'clock is not valid:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  limits.concurrency", "  dedupe"]
