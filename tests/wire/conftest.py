"""What the tests of the wire share: a certificate."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MAKE_KEY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
)
FOR_LOOPBACK = "-days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with a self-signed certificate for 127.0.0.1; its key is beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run([*MAKE_KEY.split(), *FOR_LOOPBACK.split()], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"
