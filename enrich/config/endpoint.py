"""The section `endpoint`: with the environment it becomes one `Endpoint`, that is where requests go and with which key."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr, field_validator

from enrich.base.reading import read_small
from enrich.config.api_key import KEY_VARIABLE, find_key, is_variable
from enrich.config.section import FilePath, Seconds, Section
from enrich.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_BASE_URL = "https://api.beatra.ai/v1"
URL_VARIABLE = "BEATRA_BASE_URL"
MAX_URL = 2_048  # characters
MAX_CA_FILE = 16 << 20  # bytes; all the world's authorities together have a quarter of a million
RESERVED_HEADERS = frozenset(  # what each request says for itself
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "transfer-encoding",
        "x-request-id",
    }
)
LOCAL_SUFFIXES = (
    ".local",
    ".lan",
    ".internal",
    ".home.arpa",
    ".localdomain",
)  # names that no public server has
_AUTHORIZES = re.compile(r"(?i)key|token|auth|secret")  # of a header that stands in for the key
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")


def _check_signs(url: str) -> None:
    """Hold a URL to signs that one is written with.

    Raises:
        ValueError: it cannot be one; the text does not repeat it.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"a URL of {len(url):,} characters; it has at most {MAX_URL:,}")
    if re.search(r"[\x00-\x20\x7f\\\ud800-\udfff]", url):
        raise ValueError("it holds a blank, a line end or another sign that no URL can")


class EndpointConfig(Section):
    """Where requests go, and how.

    Attributes:
        base_url: of an OpenAI-compatible API, with a query if it needs one (`…?api-version=…`); the word `sandbox` means the built-in emulator.
        timeout: seconds for one attempt.
        api_key_env: the environment variable that holds the key.
        api_key_file: a file that holds the key and nothing else, readable by its owner only.
        headers: further request headers, for gateways.
        ca_file: a PEM file of certificates to trust instead of the system's.
        proxy: the URL of an HTTP proxy; the environment's proxies are not used.
        allow_http: send to a plain http URL of another machine, key and all. Without it that is done for a host on
            one's own network only, and never with a key.
        stream_end: what ends a stream: `done`, only `[DONE]`; `finish_reason`, an orderly end after the finish reason;
            `auto`, either, as the endpoint is learned to do it.
        finish_reason: whether a stream without a finish reason was cut; `optional` for servers that never send one.
        idempotent: whether it gives the same answer, at no second charge, to a request that comes again under its
            Idempotency-Key; `auto` takes what `check --probe` found, else that it does, as Beatra's API does.
    """

    base_url: str | None = None
    timeout: Seconds = 120.0
    api_key_env: Annotated[str, AfterValidator(is_variable)] = KEY_VARIABLE
    api_key_file: FilePath | None = None
    headers: dict[str, str] = {}
    ca_file: FilePath | None = None
    proxy: str | None = None
    allow_http: bool = False
    stream_end: Literal["auto", "done", "finish_reason"] = "auto"
    finish_reason: Literal["required", "optional"] = "required"
    idempotent: Literal["auto"] | bool = "auto"

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None or value == "sandbox":
            return value
        _check_signs(value)
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"it is no http(s) URL; write for example {DEFAULT_BASE_URL}, or sandbox")
        return value.rstrip("/")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, ready to be connected to.

    Attributes:
        base_url: without a slash at its end; ``/chat/completions`` comes behind it.
        api_key: never shown; None only for this machine's own addresses.
        timeout: seconds for one attempt.
        headers: further request headers; not shown, since gateways keep secrets in them.
        ca_file: a PEM file to trust instead of the system's certificates.
        proxy: URL of an HTTP proxy; not shown, since it may hold a password.
        stream_end: what ends a stream: ``[DONE]``, an orderly end after the finish reason, or either (``auto``).
        finish_reason: whether each stream must give one.
    """

    base_url: str
    api_key: SecretStr | None = None
    timeout: float = 120.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    stream_end: Literal["auto", "done", "finish_reason"] = "auto"
    finish_reason: Literal["required", "optional"] = "required"


def resolve_endpoint(config: EndpointConfig, env: Mapping[str, str]) -> Endpoint:
    """Find base URL and key: the configuration first, then the environment, then Beatra's own URL.

    Args:
        config: the ``endpoint`` section; its ``base_url`` is a URL or None here, not ``sandbox``.
        env: the environment.

    Raises:
        ConfigError: there is no key, or it would travel in the clear, or a value cannot be used.
    """
    url = (config.base_url or env.get(URL_VARIABLE) or DEFAULT_BASE_URL).rstrip("/")
    where = "endpoint.base_url" if config.base_url else URL_VARIABLE
    parts = _split(url, where)
    local = is_loopback(parts.hostname or "")
    own_network = parts.scheme == "http" and is_near(parts.hostname or "")
    keyless = local or own_network or any(_AUTHORIZES.search(name) for name in config.headers)
    may_go = parts.scheme == "https" or config.allow_http
    key = find_key(
        env,
        file=config.api_key_file,
        variable=config.api_key_env,
        needed=may_go and not keyless,
        as_told=local,
    )
    secrets = key is not None or bool(config.headers)
    if parts.scheme == "http" and not (local or config.allow_http):
        _refuse_http(parts, config, secrets=secrets, own_network=own_network)
    if config.proxy is not None:
        _check_proxy(config.proxy, parts.scheme, secrets=secrets)
    trust(config.ca_file)  # what is wrong with it is told before anything is made
    return Endpoint(
        base_url=url,
        api_key=key,
        timeout=config.timeout,
        headers=_check_headers(config.headers),
        ca_file=config.ca_file,
        proxy=config.proxy,
        stream_end=config.stream_end,
        finish_reason=config.finish_reason,
    )


def is_near(host: str) -> bool:
    """Say whether a host is on one's own network: a private address, a name without dots, or one under `LOCAL_SUFFIXES`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(LOCAL_SUFFIXES)
    return address.is_private or address.is_link_local


def _refuse_http(parts: SplitResult, config: EndpointConfig, *, secrets: bool, own_network: bool) -> None:
    """Keep keys, and what is asked of strangers, from travelling in the clear.

    Raises:
        ConfigError: they would.
    """
    if own_network and not secrets:
        return
    where = f"endpoint.base_url (of {parts.hostname})"  # its path may hold a key
    secure = "https://…"
    if not own_network:
        raise ConfigError(
            f"{where} is plain http: {'the API key' if secrets else 'what is asked'} would travel in the clear",
            hint=f"write {secure}, or set endpoint.allow_http: true if it may.",
        )
    variable = config.api_key_env
    raise ConfigError(
        f"{where} is plain http: the API key would travel in the clear",
        hint=f"for an endpoint that needs no key, unset {variable} (or set endpoint.api_key_env to a variable that is "
        f"not set); else write {secure}, or set endpoint.allow_http: true if the key may go over this network.",
    )


def trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Give what decides whom to trust: a file of certificates, or True for the system's.

    Raises:
        ConfigError: the file cannot be used.
    """
    if ca_file is None:
        return True
    import ssl

    try:
        content, _ = read_small(ca_file, MAX_CA_FILE)
        if b"-----BEGIN " not in content:
            raise ValueError("it holds no certificate")  # noqa: TRY301  # told as the others are
        return ssl.create_default_context(cadata=content.decode("ascii", "replace"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a ValueError: it is empty
        problem = getattr(error, "strerror", None) or error.args[-1]
        raise ConfigError(
            f"endpoint.ca_file cannot be used: {problem}",
            hint="give a PEM file with the certificate of the authority.",
        ) from None


def is_loopback(host: str) -> bool:
    """Say whether a host name means this machine: localhost, a name under it, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str, where: str) -> SplitResult:
    try:
        _check_signs(url)
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is no number, brackets that do not close, a label that is too long
        usable = False
    if not usable:
        raise ConfigError(f"{where} is no http(s) URL", hint=f"write for example {DEFAULT_BASE_URL}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{where} holds a user name or password", hint="give the key by BEATRA_API_KEY instead."
        )
    if any(_AUTHORIZES.search(name) for name, _ in parse_qsl(parts.query)):
        raise ConfigError(
            f"{where} holds a key in its query, which would be seen in logs and reports",
            hint="give it by endpoint.headers, as ${NAME} from the environment.",
        )
    if parts.fragment:
        raise ConfigError(f"{where} has a fragment", hint="end it with the path, such as /v1.")
    return parts


def _check_proxy(proxy: str, scheme: str, *, secrets: bool) -> None:
    try:
        _check_signs(proxy)
        parts = urlsplit(proxy)
        host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise ConfigError(
            "endpoint.proxy is no http(s) URL", hint="write for example http://proxy.example:3128"
        )
    if scheme == "http" and secrets and not is_loopback(host):
        raise ConfigError(
            "the proxy would see the API key: requests to a plain http URL pass it in the clear",
            hint="remove endpoint.proxy, or use an https base_url.",
        )


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in RESERVED_HEADERS:
            raise ConfigError(
                f"endpoint.headers.{name}: every request sets this header itself",
                hint="remove it; the key comes from BEATRA_API_KEY or endpoint.api_key_file.",
            )
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(
                "endpoint.headers: a name holds what no header name may",
                hint="letters, digits and - in the name, the value behind the colon.",
            )
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(
                f"endpoint.headers.{name}: the value holds line ends or characters beyond ASCII"
            )
    return dict(headers)
