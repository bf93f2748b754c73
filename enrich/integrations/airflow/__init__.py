"""The Airflow provider: `BeatraHook` and `BeatraEnrichOperator`, and what Airflow is told about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.base.version import __version__

if TYPE_CHECKING:
    from enrich.integrations.airflow.hook import BeatraHook
    from enrich.integrations.airflow.operator import BeatraEnrichOperator

__all__ = ["BeatraEnrichOperator", "BeatraHook", "provider_info"]

_HOMES = {"BeatraEnrichOperator": "operator", "BeatraHook": "hook"}


def provider_info() -> dict[str, Any]:
    """Describe the provider as Airflow's `provider_info` entry point wants it; imports nothing."""
    return {
        "package-name": "beatra-enrich",
        "name": "Beatra",
        "description": "Run a language model over the rows of a table: every answer paid for once, none lost.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": "Beatra", "external-doc-url": "https://beatra.ai", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": "Beatra", "python-modules": [f"{__name__}.hook"]}],
        "operators": [{"integration-name": "Beatra", "python-modules": [f"{__name__}.operator"]}],
        "connection-types": [
            {
                "connection-type": "beatra",
                "hook-name": "Beatra",
                "hook-class-name": f"{__name__}.hook.BeatraHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "port", "schema"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {"password": "sk-…", "host": "https://api.beatra.ai/v1"},
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout",
                        "description": "Seconds for one attempt.",
                        "schema": {"type": ["number", "null"], "default": None},
                    },
                    "proxy": {
                        "label": "Proxy",
                        "description": "The URL of an HTTP proxy; the environment's proxies are not used.",
                        "schema": {"type": ["string", "null"], "format": "password", "default": None},
                    },
                    "ca_file": {
                        "label": "CA file",
                        "description": "A PEM file of certificates to trust instead of the system's.",
                        "schema": {"type": ["string", "null"], "default": None},
                    },
                },
            }
        ],
    }


def __getattr__(name: str) -> Any:
    """Import a name from its home when it is first used: Airflow asks for `provider_info` in every process."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
