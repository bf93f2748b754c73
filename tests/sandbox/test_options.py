"""Options of the emulator that make no sense are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from enrich.errors import ConfigError
from enrich.sandbox import Sandbox, SandboxOptions, parse_fault


def test_options_out_of_range_are_refused() -> None:
    """Each bad number is named."""
    wrong: dict[str, Any] = {"port": 70_000, "latency": -1, "rpm": 0, "models": (), "tpm": float("nan")}
    wrong |= {"burst": float("inf"), "balance": float("nan")}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=name):
            dataclasses.replace(SandboxOptions(), **{name: value})
    with pytest.raises(ConfigError, match="`times` must be 1 to"):
        parse_fault(f"rate_limited=1:{10**40}")
    with pytest.raises(ConfigError, match="no fault"):
        Sandbox(SandboxOptions(), script=["rest"])
