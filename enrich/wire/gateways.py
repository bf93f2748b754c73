"""Gateways and proxies that give themselves away by a response's headers, and the setting that each wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Gateway:
    """What stands in front of an endpoint.

    Attributes:
        name: for people.
        header: a prefix of the names of its response headers.
        value: what that header's value holds, where the name alone says too little.
        advice: what to set; empty where nothing is known to help.
        setting: the name of a request header that follows the advice.
    """

    name: str
    header: str
    value: str = ""
    advice: str = ""
    setting: str = ""


# Their behaviour was seen with LiteLLM 1.108, Portkey 1.15 and nginx 1.22 in front of an endpoint that keeps books.
GATEWAYS = (
    Gateway(
        "LiteLLM",
        "x-litellm-",
        advice="it drops the Idempotency-Key and asks again by itself: "
        'set endpoint.headers to {x-litellm-num-retries: "0"}',
        setting="x-litellm-num-retries",
    ),
    Gateway(
        "Portkey",
        "x-portkey-",
        advice="it drops the Idempotency-Key unless told: "
        "set endpoint.headers to {x-portkey-forward-headers: Idempotency-Key}",
        setting="x-portkey-forward-headers",
    ),
    Gateway("Helicone", "helicone-"),
    Gateway("Cloudflare AI Gateway", "cf-aig-"),
    Gateway("Kong", "x-kong-"),
    Gateway(
        "nginx",
        "server",
        "nginx",
        advice="its proxy_read_timeout must be above endpoint.timeout ({timeout} s)",
    ),
    Gateway(
        "Envoy", "server", "envoy", advice="its route timeout must be above endpoint.timeout ({timeout} s)"
    ),
)


def find_gateway(headers: Mapping[str, str]) -> Gateway | None:
    """Say which gateway a response came through; None where none is to be seen."""
    told = [(name.lower(), value.lower()) for name, value in headers.items()]
    for gateway in GATEWAYS:
        if any(name.startswith(gateway.header) and gateway.value in value for name, value in told):
            return gateway
    return None
