from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.base.loops import run_sync
from enrich.config import EndpointConfig
from enrich.errors import ConfigError, EnrichError
from enrich.verbs.models import list_models
from tests.helpers.endpoint import KEY, BookedEndpoint, envelope

if TYPE_CHECKING:
    from pathlib import Path


def test_the_account_s_models(endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment points, with its key; nothing but the list is asked for."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    assert run_sync(lambda: list_models(None)) == ["served-1", "fast-1", "auto"]
    assert [(seen.method, seen.path) for seen in endpoint.seen] == [("GET", "/v1/models")]


def test_the_configuration_goes_before_the_environment(
    endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """URL and key are those that the configuration names."""
    monkeypatch.setenv("BEATRA_BASE_URL", "sandbox")
    monkeypatch.setenv("BEATRA_API_KEY", "sk-other")
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY)
    config = EndpointConfig(base_url=endpoint.base_url, api_key_file=key)
    assert run_sync(lambda: list_models(config)) == ["served-1", "fast-1", "auto"]
    assert endpoint.seen[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("by_environment", [True, False])
def test_the_sandbox_lists_its_own(monkeypatch: pytest.MonkeyPatch, *, by_environment: bool) -> None:
    """It needs no key, whoever names it."""
    if by_environment:
        monkeypatch.setenv("BEATRA_BASE_URL", "sandbox")
    config = None if by_environment else EndpointConfig(base_url="sandbox")
    assert "auto" in run_sync(lambda: list_models(config)) or run_sync(lambda: list_models(config))


def test_no_key_and_no_list(endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nothing is sent; an endpoint that gives no list is told of with its error."""
    with pytest.raises(ConfigError, match="there is no API key"):
        run_sync(lambda: list_models(EndpointConfig(base_url="https://api.example/v1")))
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    endpoint.script = lambda seen: envelope("invalid_api_key", 401)
    with pytest.raises(EnrichError):
        run_sync(lambda: list_models(EndpointConfig(base_url=endpoint.base_url)))
