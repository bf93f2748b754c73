"""What the tests of the configuration share: a small job, and loading it from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from enrich.config import Config, load_config

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
input: in.csv
output: out/o.parquet
steps:
  - name: s
    prompt: "{{ t }}"
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Write a configuration and load it."""

    def write(text: str = CONFIG, **options: Any) -> Config:
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "config.yaml", **options)

    return write
