"""The section `endpoint`: with the environment it becomes one `Endpoint`, that is where requests go and with which key."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator

from enrich.base.reading import read_small
from enrich.config.api_key import KEY_VARIABLE, find_key, is_variable
from enrich.config.headers import AuthConfig, checked_headers, scheme_of
from enrich.config.key_source import CommandKey, KeySource
from enrich.config.section import FilePath, Number, Seconds, Section
from enrich.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_BASE_URL = "https://api.beatra.ai/v1"
URL_VARIABLE = "BEATRA_BASE_URL"
CHAT = "/chat/completions"
MAX_URL = 2_048  # characters
MAX_CA_FILE = 16 << 20  # bytes; all the world's authorities together have a quarter of a million
LOCAL_SUFFIXES = (
    ".local",
    ".lan",
    ".internal",
    ".home.arpa",
    ".localdomain",
)  # names that no public server has
_AUTHORIZES = re.compile(r"(?i)key|token|auth|secret")  # of a header that stands in for the key


def _check_signs(url: str) -> None:
    """Hold a URL to signs that one is written with.

    Raises:
        ValueError: it cannot be one; the text does not repeat it.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"a URL of {len(url):,} characters; it has at most {MAX_URL:,}")
    if re.search(r"[\x00-\x20\x7f\\\ud800-\udfff]", url):
        raise ValueError("it holds a blank, a line end or another sign that no URL can")


def _as_text(value: Any) -> Any:
    """Take a number or a date, such as an API's version, as the text that it is written with."""
    return str(value) if isinstance(value, int | float | date) and not isinstance(value, bool) else value


class EndpointConfig(Section):
    """Where requests go, and how.

    Attributes:
        base_url: of an OpenAI-compatible API, with a query if it needs one (`…?api-version=…`); the word `sandbox` means the built-in emulator.
        url: of the completions as a whole, in place of `base_url`, where its path is not `/chat/completions`.
        query: parameters behind every URL, such as `{api-version: 2026-01-01}`.
        timeout: seconds for one attempt.
        api_key_env: the environment variable that holds the key.
        api_key_file: a file that holds the key and nothing else, readable by its owner only. It is read again when it changes.
        api_key_command: a program and its arguments that writes the key, or JSON with `access_token` and `expires_in`. It is
            run again when that time is nearly over, and when the key is refused; no shell reads it, and what it writes is not shown.
        api_key_expires_in: seconds after which the program is run again, where it does not say so.
        auth: how the key stands in a request; `Authorization: Bearer …` by default, `{header: api-key}` for gateways.
        headers: further request headers, for gateways.
        ca_file: a PEM file of certificates to trust instead of the system's.
        proxy: the URL of an HTTP proxy; the environment's proxies are not used.
        metrics_url: of the metrics of the engine behind it, such as `http://gpu:8000/metrics` (vLLM, SGLang, llama.cpp, TGI):
            they tell sooner than answers do how many requests it works on at once. The key does not go there.
        allow_http: send to a plain http URL of another machine, key and all. Without it that is done for a host on
            one's own network only, and never with a key.
        stream_end: what ends a stream: `done`, only `[DONE]`; `finish_reason`, an orderly end after the finish reason;
            `auto`, either, as the endpoint is learned to do it.
        finish_reason: whether a stream without a finish reason was cut; `optional` for servers that never send one.
        idempotent: whether it gives the same answer, at no second charge, to a request that comes again under its
            Idempotency-Key; `auto` takes what `check --probe` found, else that it does, as Beatra's API does.
        cache_from: tokens that prompts must have in common, from their begin on, for the endpoint to read them from its cache;
            1,024 as OpenAI's guide on prompt caching has it, and most do as well or ask for more. It decides about advice alone.
    """

    base_url: str | None = None
    url: str | None = None
    query: dict[str, Annotated[str, BeforeValidator(_as_text)]] = {}
    timeout: Seconds = 120.0
    api_key_env: Annotated[str, AfterValidator(is_variable)] = KEY_VARIABLE
    api_key_file: FilePath | None = None
    api_key_command: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    api_key_expires_in: Seconds | None = None
    auth: AuthConfig = AuthConfig()
    headers: dict[str, str] = {}
    ca_file: FilePath | None = None
    proxy: str | None = None
    metrics_url: str | None = None
    allow_http: bool = False
    stream_end: Literal["auto", "done", "finish_reason"] = "auto"
    finish_reason: Literal["required", "optional"] = "required"
    idempotent: Literal["auto"] | bool = "auto"
    cache_from: Annotated[int, Field(ge=1, le=10_000_000), Number] = 1_024

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.url is not None and self.base_url not in (None, "sandbox"):
            raise ValueError("`url` and `base_url` exclude each other; keep one")
        if self.api_key_file is not None and self.api_key_command is not None:
            raise ValueError("`api_key_file` and `api_key_command` exclude each other; keep one")
        if self.api_key_expires_in is not None and self.api_key_command is None:
            raise ValueError("`api_key_expires_in` is of `api_key_command`, which is not given")
        return self

    @property
    def command(self) -> CommandKey | None:
        """The program that tells the key, if one does."""
        told = self.api_key_command
        return CommandKey(tuple(told), self.api_key_expires_in) if told is not None else None

    @field_validator("base_url", "url")
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
        base_url: without a slash at its end; ``/chat/completions`` comes behind it, unless it is `whole`.
        whole: whether ``base_url`` is that of the completions themselves.
        api_key: never shown; None only for this machine's own addresses.
        key_source: where the key came from, and may come from again; None without a key.
        key_lives: seconds that the key is good for; None where that is not known.
        key_header: name of the header that holds the key.
        key_scheme: word before the key in it, or "".
        timeout: seconds for one attempt.
        headers: further request headers; not shown, since gateways keep secrets in them.
        ca_file: a PEM file to trust instead of the system's certificates.
        proxy: URL of an HTTP proxy; not shown, since it may hold a password.
        stream_end: what ends a stream: ``[DONE]``, an orderly end after the finish reason, or either (``auto``).
        finish_reason: whether each stream must give one.
        metrics_url: of the engine's metrics.
    """

    base_url: str
    api_key: SecretStr | None = None
    whole: bool = False
    key_source: KeySource | None = None
    key_lives: float | None = None
    key_header: str = "Authorization"
    key_scheme: str = "Bearer"
    timeout: float = 120.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    stream_end: Literal["auto", "done", "finish_reason"] = "auto"
    finish_reason: Literal["required", "optional"] = "required"
    metrics_url: str | None = None

    @property
    def account(self) -> str:
        """What stands for the account, of two runs the same: the key, or the program that tells ever other ones."""
        if isinstance(self.key_source, CommandKey):
            return "\0".join(self.key_source.arguments)
        return self.api_key.get_secret_value() if self.api_key is not None else ""


def resolve_endpoint(config: EndpointConfig, env: Mapping[str, str], *, key_needed: bool = True) -> Endpoint:
    """Find base URL and key: the configuration first, then the environment, then Beatra's own URL.

    Args:
        config: the ``endpoint`` section; its ``base_url`` is a URL or None here, not ``sandbox``.
        env: the environment.
        key_needed: False for what sends nothing: an absent key is no error then.

    Raises:
        ConfigError: there is no key, or it would travel in the clear, or a value cannot be used.
    """
    given = config.url or config.base_url
    where = "endpoint.url" if config.url else "endpoint.base_url" if given else URL_VARIABLE
    url, whole = _with_query((given or env.get(URL_VARIABLE) or DEFAULT_BASE_URL).rstrip("/"), config)
    parts = _split(url, where)
    local = is_loopback(parts.hostname or "")
    own_network = parts.scheme == "http" and is_near(parts.hostname or "")
    keyless = local or own_network or any(_AUTHORIZES.search(name) for name in config.headers)
    may_go = parts.scheme == "https" or config.allow_http
    wanted = key_needed or config.api_key_env in env
    found = find_key(
        env,
        file=config.api_key_file,
        command=config.command,
        variable=config.api_key_env,
        needed=wanted and may_go and not keyless,
        as_told=wanted and local,
    )
    secrets = found is not None or bool(config.headers)
    if parts.scheme == "http" and not (local or config.allow_http):
        _refuse_http(parts, config, secrets=secrets, own_network=own_network)
    if config.proxy is not None:
        _check_proxy(config.proxy, parts.scheme, secrets=secrets)
    if config.metrics_url is not None:
        _split(config.metrics_url, "endpoint.metrics_url")
    trust(config.ca_file)  # what is wrong with it is told before anything is made
    return Endpoint(
        base_url=url,
        whole=whole,
        api_key=found.key if found is not None else None,
        key_source=found.source if found is not None else None,
        key_lives=found.lives if found is not None else None,
        key_header=config.auth.header,
        key_scheme=scheme_of(config.auth),
        timeout=config.timeout,
        headers=checked_headers(config.headers, config.auth),
        ca_file=config.ca_file,
        proxy=config.proxy,
        stream_end=config.stream_end,
        finish_reason=config.finish_reason,
        metrics_url=config.metrics_url,
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


def _with_query(url: str, config: EndpointConfig) -> tuple[str, bool]:
    """Put the configured parameters behind a URL; say whether it names the completions themselves.

    One that ends in ``/chat/completions`` means the same as the URL before that.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # told where the URL is looked at
        return url, False
    path = parts.path
    usual = path.rstrip("/").endswith(CHAT)
    if usual:
        path = path.rstrip("/").removesuffix(CHAT)
    query = "&".join(part for part in (parts.query, urlencode(config.query)) if part)
    whole = config.url is not None and not usual
    return (urlunsplit(parts._replace(path=path, query=query)) if usual or config.query else url), whole
