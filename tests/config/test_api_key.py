from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from enrich.config import EndpointConfig
from enrich.config.endpoint import resolve_endpoint
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-0123456789abcdefSECRET"
ENV = {"BEATRA_API_KEY": KEY}


def refused(env: dict[str, str] | None = None, **config: Any) -> ConfigError:
    """Give the error that this configuration meets; it never shows the key."""
    with pytest.raises(ConfigError) as caught:
        resolve_endpoint(EndpointConfig(**config), ENV if env is None else env)
    assert "SECRET" not in str(caught.value)
    return caught.value


def test_key_from_the_environment() -> None:
    """The key comes from BEATRA_API_KEY, or from the variable that the configuration names, and from no other."""
    found = resolve_endpoint(EndpointConfig(), {"BEATRA_API_KEY": f"{KEY}\n"}).api_key
    assert found is not None
    assert found.get_secret_value() == KEY
    other = resolve_endpoint(
        EndpointConfig(api_key_env="OTHER"), {"OTHER": "sk-other", "BEATRA_API_KEY": KEY}
    ).api_key
    assert other is not None
    assert other.get_secret_value() == "sk-other"
    refused(api_key_env="OTHER")


def test_key_from_a_file(tmp_path: Path) -> None:
    """A key file that only its owner can read goes before the environment."""
    file = tmp_path / "key"
    file.write_text(f"  {KEY}-file\n")
    file.chmod(0o600)
    found = resolve_endpoint(EndpointConfig(api_key_file=file), ENV).api_key
    assert found is not None
    assert found.get_secret_value() == f"{KEY}-file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_key_file_of_others(tmp_path: Path, mode: int) -> None:
    """A key file that others can read is refused, with the command that mends it."""
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(mode)
    assert refused(api_key_file=file).hint == f"chmod 600 {file}"


def test_broken_key_files(tmp_path: Path) -> None:
    """A key file that is missing, empty, no file or no key is named."""
    file = tmp_path / "key"
    assert "endpoint.api_key_file cannot be read" in str(refused(api_key_file=file))
    assert "cannot be read" in str(refused(api_key_file=tmp_path))
    file.touch(0o600)
    assert "is empty" in str(refused(api_key_file=file))
    file.write_bytes(b"\xff\xfe\x00SECRET")
    assert "ASCII" in str(refused(api_key_file=file))
    file.write_bytes(b"x" * 100_000)
    assert "at most 65,536 are read" in str(refused(api_key_file=file))


@pytest.mark.parametrize("key", ["SECRET two", "SECRET\n2", "SECRETé", "SECRET\x00", "SECRET\u200b"])
def test_unusable_key(key: str) -> None:
    """A key that no header can carry is refused without being shown."""
    assert "copy the key once more" in refused({"BEATRA_API_KEY": key}).hint


def test_a_key_longer_than_a_header() -> None:
    """No server takes it, and it is told by its length."""
    assert "has 100,003 characters" in refused({"BEATRA_API_KEY": "sk-" + "a" * 100_000}).message


def test_missing_key() -> None:
    """Without a key every place that was searched is listed, in order."""
    error = refused({})
    assert error.message.splitlines()[1:] == [
        "  1. endpoint.api_key_file in the configuration: not set",
        "  2. the environment variable BEATRA_API_KEY: not set",
    ]
    assert error.hint == "export BEATRA_API_KEY=sk-…"
    assert "empty" in str(refused({"BEATRA_API_KEY": " "}))
