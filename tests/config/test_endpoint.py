from __future__ import annotations

from typing import Any

import pytest

from enrich.config import DEFAULT_BASE_URL, EndpointConfig, validate_config
from enrich.config.endpoint import is_loopback, resolve_endpoint
from enrich.errors import ConfigError

KEY = "sk-0123456789abcdefSECRET"
STEP = {"name": "s", "prompt": "{{ t }}"}
ENV = {"BEATRA_API_KEY": KEY}


def refused(env: dict[str, str] | None = None, **config: Any) -> ConfigError:
    """Give the error that this configuration meets; it never shows the key."""
    with pytest.raises(ConfigError) as caught:
        resolve_endpoint(EndpointConfig(**config), ENV if env is None else env)
    assert "SECRET" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("config", "env", "url"),
    [
        ({}, {}, DEFAULT_BASE_URL),
        ({}, {"BEATRA_BASE_URL": "https://env.example/v1/"}, "https://env.example/v1"),
        (
            {"base_url": "https://file.example/v1"},
            {"BEATRA_BASE_URL": "https://env.example/v1"},
            "https://file.example/v1",
        ),
        ({}, {"BEATRA_BASE_URL": ""}, DEFAULT_BASE_URL),
    ],
)
def test_base_url(config: dict[str, Any], env: dict[str, str], url: str) -> None:
    """The configuration's URL goes before the environment's, and that before Beatra's own."""
    assert resolve_endpoint(EndpointConfig(**config), ENV | env).base_url == url


@pytest.mark.parametrize(
    "place",
    [
        {"base_url": "https://api.example/v1?token=sk-SECRET-0123456789abcdef"},
        {"base_url": "https://sk-SECRET-0123456789abcdef@api.example/v1"},
        {"base_url": "http://api.example/sk-SECRET-0123456789abcdef"},
        {"base_url": "sk-SECRET-0123456789abcdef"},
        {"api_key_file": "sk-SECRET-0123456789abcdef"},
        {"api_key_env": "sk-SECRET-0123456789abcdef"},
        {"proxy": "sk-SECRET-0123456789abcdef"},
        {"proxy": "http://sk-SECRET-0123456789abcdef"},
        {"headers": {"X-Key": "sk-SECRET-0123456789abcdef\n"}},
        {"headers": {"X-Key: sk-SECRET-0123456789abcdef": ""}},
        {"headers": "X-Key: sk-SECRET-0123456789abcdef"},
        {"headers": {"X-Key": ["sk-SECRET-0123456789abcdef"]}},
        {"timeout": "sk-SECRET-0123456789abcdef"},
        {"stream_end": "sk-SECRET-0123456789abcdef"},
        {"idempotent": "sk-SECRET-0123456789abcdef"},
        {"api_key": "sk-SECRET-0123456789abcdef"},
    ],
)
def test_what_stands_under_endpoint_is_never_quoted(place: dict[str, Any]) -> None:
    """A key in the wrong place is refused, or not, but never shown."""
    document = {"input": "in.csv", "output": "out.csv", "steps": [STEP], "endpoint": place}
    with pytest.raises(ConfigError) as caught:
        resolve_endpoint(validate_config(document).endpoint, {})
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "http://localhost/v1", "http://[::1]:80", "https://api.localhost"]
)
def test_own_machine(url: str) -> None:
    """This machine's own addresses need neither a key nor TLS."""
    assert resolve_endpoint(EndpointConfig(base_url=url), {}).api_key is None
    assert resolve_endpoint(EndpointConfig(base_url=url), ENV).api_key is not None


@pytest.mark.parametrize(
    "host", ["example.com", "10.0.0.1", "localhost.example.com", "127.evil.example", "192.168.0.1", ""]
)
def test_other_machines(host: str) -> None:
    """Names and addresses of other machines are told apart from this one's."""
    assert not is_loopback(host)


def test_plain_http() -> None:
    """The key never travels in the clear, neither to the endpoint nor through a proxy."""
    assert "plain http" in str(refused(base_url="http://api.example/v1"))
    assert "the proxy would see the API key" in str(
        refused(base_url="http://localhost:1", proxy="http://proxy.example:3128")
    )
    assert (
        resolve_endpoint(EndpointConfig(proxy="http://me:SECRET@proxy.example:3128"), ENV).proxy is not None
    )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example",
        "https://",
        "sandbox",
        "https://a.example:99999",
        "https://[::1",
        "https://" + "a" * 70 + ".example",
    ],
)
def test_broken_url(url: str) -> None:
    """A URL from the environment that cannot be used is named with its variable."""
    error = refused(ENV | {"BEATRA_BASE_URL": url})
    assert "BEATRA_BASE_URL" in str(error)
    assert DEFAULT_BASE_URL in error.hint


@pytest.mark.parametrize(
    "url", ["https://me:SECRET@a.example/v1", "https://a.example/v1?api_key=SECRET", "https://a.example/#x"]
)
def test_url_with_more_than_a_path(url: str) -> None:
    """Passwords, queries and fragments have no place in the base URL."""
    refused(base_url=url)


@pytest.mark.parametrize(
    "proxy", ["proxy.example", "socks5://proxy.example", "http://", "http://proxy.example:x"]
)
def test_broken_proxy(proxy: str) -> None:
    """A proxy that is no http(s) URL is refused."""
    assert "endpoint.proxy" in str(refused(proxy=proxy))


@pytest.mark.parametrize("name", ["Authorization", "idempotency-key", "CONTENT-TYPE", "X-Request-Id"])
def test_reserved_headers(name: str) -> None:
    """Headers that every request sets itself cannot be overridden."""
    assert name in str(refused(headers={name: "SECRET"}))


@pytest.mark.parametrize(
    "headers", [{"a b": "x"}, {"": "x"}, {"X-A": "SECRET\r\nX-B: 1"}, {"X-A": "SECRETé"}]
)
def test_broken_headers(headers: dict[str, str]) -> None:
    """Headers that cannot be sent are refused, their values not shown."""
    refused(headers=headers)


def test_secrets_are_not_shown() -> None:
    """Neither the key nor a gateway's header nor a proxy's password is in an endpoint's repr."""
    config = EndpointConfig(headers={"X-Gateway": "SECRET"}, proxy="http://me:SECRET@proxy.example:3128")
    assert "SECRET" not in repr(resolve_endpoint(config, ENV))


# --- plain http, and other providers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["10.0.0.5:8000", "192.168.1.7", "vllm:8000", "ollama.default.svc.cluster.local", "gpu.lan"]
)
def test_plain_http_on_ones_own_network_needs_no_key(host: str) -> None:
    """Servers on a LAN, in Compose and in Kubernetes are asked without a key; with one set, it is not sent in the clear."""
    config = EndpointConfig(base_url=f"http://{host}/v1")
    assert resolve_endpoint(config, {}).api_key is None
    with pytest.raises(ConfigError, match="the API key would travel in the clear") as caught:
        resolve_endpoint(config, {"BEATRA_API_KEY": "sk-0123456789"})
    assert "endpoint.allow_http: true" in caught.value.hint
    allowed = EndpointConfig(base_url=f"http://{host}/v1", allow_http=True)
    assert resolve_endpoint(allowed, {"BEATRA_API_KEY": "sk-0123456789"}).api_key is not None


def test_plain_http_to_strangers_is_refused() -> None:
    """What is asked does not go over the internet in the clear, key or not, unless that is allowed."""
    with pytest.raises(ConfigError, match="plain http"):
        resolve_endpoint(EndpointConfig(base_url="http://models.example.com/v1", api_key_env="NONE"), {})
    with pytest.raises(ConfigError, match="plain http"):
        resolve_endpoint(EndpointConfig(base_url="http://10.0.0.5/v1", headers={"api-key": "s"}), {})


def test_a_gateways_header_stands_in_for_the_key() -> None:
    """An endpoint that wants its key in a header of its own needs no second one; a key in the URL is refused."""
    url = "https://x.example.com/openai/deployments/d?api-version=2024-10-21"
    found = resolve_endpoint(EndpointConfig(base_url=url, headers={"api-key": "s"}), {})
    assert (found.base_url, found.api_key) == (url, None)
    with pytest.raises(ConfigError, match="holds a key in its query"):
        resolve_endpoint(
            EndpointConfig(base_url="https://x.example.com/v1?key=s"), {"BEATRA_API_KEY": "sk-1234567"}
        )
