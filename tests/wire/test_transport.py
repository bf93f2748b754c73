"""The connection itself, through a whole run: trust, redirects, proxies, headers; where the key may travel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from enrich.errors import ConfigError
from enrich.ledger.protocol import attempt_uuid
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope
from tests.helpers.loopback import LoopbackServer, tls_of
from tests.helpers.wire import config_of, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("_either_way")


class Relay(LoopbackServer):
    """A relay in front of a port: with TLS where it has a certificate, as an HTTP proxy where it is one.

    Attributes:
        heads: the first line and headers of each connection, as far as the relay can read them.
    """

    def __init__(self, port: int, certificate: Path | None = None) -> None:
        super().__init__(None if certificate is None else tls_of(certificate))
        self._target = port
        self.heads: list[str] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note the head, and pass everything on."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            far_writer.write(head)
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_own_authority(tmp_path: Path, endpoint: BookedEndpoint, certificate: Path) -> None:
    """A certificate that `endpoint.ca_file` vouches for is trusted."""
    with Relay(endpoint.port, certificate) as relay:
        ran = run(config_of(tmp_path, ["one", "two"], relay.base_url, endpoint={"ca_file": certificate}))
    assert ran.summary.statuses["ok"] == 2


def test_untrusted_certificate(tmp_path: Path, endpoint: BookedEndpoint, certificate: Path) -> None:
    """A certificate that nobody vouches for stops the run before anything is sent, and says what to set."""
    with Relay(endpoint.port, certificate) as relay:
        ran = run(config_of(tmp_path, ["one", "two"], relay.base_url))
    assert ran.summary.exit_code == 4
    assert "certificate is not trusted" in ran.summary.reason
    assert "endpoint.ca_file" in ran.summary.reason
    assert ran.summary.statuses["pending"] == 2
    assert (endpoint.seen, relay.heads, ran.entries) == ([], [], [])


def test_headers_for_gateways(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """Headers of the configuration go along with each request, beside our own."""
    run(config_of(tmp_path, ["one", "two"], endpoint.base_url, endpoint={"headers": {"X-Team": "etl"}}))
    assert [seen.headers["x-team"] for seen in endpoint.posts] == ["etl", "etl"]
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in endpoint.posts)
    assert len({seen.headers["x-request-id"] for seen in endpoint.posts}) == 2


def test_plain_http(tmp_path: Path) -> None:
    """A key never travels in the clear to another machine: such an address is refused before anything is done."""
    with pytest.raises(ConfigError, match="would travel in the clear"):
        run(config_of(tmp_path, ["one"], "http://example.test/v1"))
    assert not (tmp_path / ".beatra").exists()


def test_redirect(tmp_path: Path, endpoint: BookedEndpoint) -> None:
    """A redirect is not followed: its target sees neither the key nor the prompt."""
    away = Raw(b"", 307, {"Location": f"{endpoint.base_url}/chat/completions"})
    with BookedEndpoint(script=lambda _: away) as redirecting:
        ran = run(config_of(tmp_path, ["one"], redirecting.base_url))
    assert ran.rows[0]["s_status"] == "error"
    assert ran.rows[0]["s_error"].startswith("redirected: HTTP 307 to http://127.0.0.1")
    assert len(redirecting.posts) == 1
    assert endpoint.seen == []


def test_proxy_of_the_environment(
    tmp_path: Path, endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies that the environment names are not used."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ran = run(config_of(tmp_path, ["one"], endpoint.base_url))
    assert ran.summary.statuses["ok"] == 1


def test_proxy_of_the_configuration(tmp_path: Path, endpoint: BookedEndpoint, certificate: Path) -> None:
    """The proxy of the configuration carries the connection; of an encrypted one it sees the address alone."""
    with Relay(endpoint.port, certificate) as far, Relay(far.port) as proxy:
        config = config_of(
            tmp_path,
            ["one"],
            far.base_url,
            endpoint={"ca_file": certificate, "proxy": f"http://127.0.0.1:{proxy.port}"},
        )
        ran = run(config)
    assert ran.summary.statuses["ok"] == 1, ran.summary.reason
    assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{far.port} ")
    assert KEY not in "".join(proxy.heads)


def test_attempt_is_in_the_ledger_first(tmp_path: Path) -> None:
    """When a request arrives, its intent and the id of this very attempt are in the ledger already."""
    found: list[tuple[bytes, bytes]] = []

    def script(seen: Seen) -> Raw | None:
        key = bytes.fromhex(seen.key.replace("-", ""))
        with contextlib.closing(sqlite3.connect(tmp_path / ".beatra" / "ledger.db")) as ledger:
            (held,) = ledger.execute("SELECT attempt_id FROM request WHERE key = ?", (key,)).fetchone()
        found.append((held, bytes.fromhex(seen.headers["x-request-id"].replace("-", ""))))
        return envelope("internal_error", 500, retryable=True) if len(found) < 3 else None

    with BookedEndpoint(script=script) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url))
    assert ran.summary.statuses["ok"] == 1
    key = ran.entries[0].ask.key
    assert found == [(attempt_uuid(key, n), attempt_uuid(key, n)) for n in (1, 2, 3)]


def test_key_is_nowhere(tmp_path: Path) -> None:
    """An endpoint that echoes the key finds it neither in the output, nor in the log, nor on disk."""
    echo = json.dumps(
        {"error": {"code": "invalid_request", "message": f"bad key {KEY}", "retryable": False}}
    ).encode()
    with BookedEndpoint(script=lambda _: Raw(echo, 400)) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url))
    assert ran.rows[0]["s_error"] == "invalid_request: bad key [key]"
    said = "".join(record.getMessage() for record in ran.logged) + ran.summary.reason
    assert KEY not in said
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "key":
            assert KEY.encode() not in path.read_bytes()


def test_conflict(tmp_path: Path) -> None:
    """A key that was used for another body fails the row at once; no other key is tried."""
    with BookedEndpoint(script=lambda _: envelope("idempotency_key_reused", 409)) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url))
    assert (ran.rows[0]["s_status"], ran.rows[0]["s_attempts"]) == ("error", 1)
    assert ran.rows[0]["s_error"].startswith("idempotency_key_reused: ")
    assert len(endpoint.posts) == 1


def test_a_retry_after_is_for_the_request_that_got_it(tmp_path: Path) -> None:
    """A 429 with a Retry-After keeps its row from being sent until that is over; the other rows go on."""
    import time

    arrivals: list[tuple[str, float]] = []
    limited = envelope("rate_limited", 429, retryable=True)

    def script(seen: Seen) -> Raw | None:
        arrivals.append((seen.key, time.monotonic()))
        return Raw(limited.body, 429, {"Retry-After": "0.4"}) if len(arrivals) == 4 else None

    with BookedEndpoint(script=script) as endpoint:
        config = config_of(
            tmp_path, [f"row {n}" for n in range(20)], endpoint.base_url, limits={"concurrency": 4}
        )
        ran = run(config)
    assert ran.summary.statuses["ok"] == 20
    assert ran.summary.retries == {"rate_limited": 1}
    refused, at = arrivals[3]
    assert [key for key, _ in arrivals].index(refused, 4) == 20  # it came last
    assert arrivals[20][1] - at >= 0.4
