"""The headers of a request: which hold the key, which a gateway may want besides, which are not to be set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from pydantic import field_validator, model_validator

from enrich.config.section import Section
from enrich.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")


class AuthConfig(Section):
    """How the key stands in a request.

    Attributes:
        header: that holds it.
        scheme: the word before it; `Bearer` in `Authorization`, none in another header.
    """

    header: str = "Authorization"
    scheme: str | None = None

    @field_validator("header", "scheme")
    @classmethod
    def _is_a_word(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return value
        if not _HEADER_NAME.fullmatch(value):
            raise ValueError("it holds what no header's name may")
        return value

    @model_validator(mode="after")
    def _is_free(self) -> Self:
        name = self.header.lower()
        if not name or (name in RESERVED_HEADERS and name != "authorization"):
            raise ValueError("`header` must be one that requests do not set themselves, such as api-key")
        return self


def scheme_of(auth: AuthConfig) -> str:
    """Give the word before the key, empty for none."""
    if auth.scheme is not None:
        return auth.scheme
    return "Bearer" if auth.header.lower() == "authorization" else ""


def checked_headers(headers: Mapping[str, str], auth: AuthConfig) -> dict[str, str]:
    """Give a gateway's headers as requests carry them.

    Raises:
        ConfigError: one of them is set by every request itself, or cannot be sent.
    """
    for name, value in headers.items():
        if name.lower() in RESERVED_HEADERS | {auth.header.lower()}:
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
