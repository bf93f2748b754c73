"""What the tests of frames share: an endpoint that every call goes to, and a cache that is the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def our_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """Every call goes to the endpoint that keeps books, and keeps its ledger in the test's folder."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
