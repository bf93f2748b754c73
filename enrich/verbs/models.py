"""The account's models."""

from __future__ import annotations

import os

from enrich.config import URL_VARIABLE, EndpointConfig
from enrich.config.endpoint import Endpoint, resolve_endpoint
from enrich.runs.job import SANDBOX
from enrich.runs.session import sandbox_endpoint
from enrich.wire.client import Client


async def list_models(endpoint: EndpointConfig | None) -> list[str]:
    """List the account's models.

    Raises:
        ConfigError: there is no key.
        EnrichError: the endpoint gave no list.
    """
    config = endpoint or EndpointConfig()
    base_url = config.base_url or os.environ.get(URL_VARIABLE)
    if base_url == SANDBOX:
        with sandbox_endpoint(config.timeout) as local:
            return await _models_of(local)
    return await _models_of(resolve_endpoint(config, os.environ))


async def _models_of(endpoint: Endpoint) -> list[str]:
    async with Client(endpoint, concurrency=1) as client:
        return await client.models()
