from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from enrich.config.endpoint import Endpoint
from enrich.verbs.check import check_endpoint
from enrich.wire.gateways import find_gateway


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"x-litellm-call-id": "1", "Server": "uvicorn"}, "LiteLLM"),
        ({"X-Portkey-Trace-Id": "1"}, "Portkey"),
        ({"Server": "nginx/1.22.1"}, "nginx"),
        ({"cf-aig-cache-status": "MISS", "Server": "cloudflare"}, "Cloudflare AI Gateway"),
        ({"server": "uvicorn", "Content-Type": "application/json"}, None),
        ({"X-Nginx-Joke": "nginx"}, None),
    ],
)
def test_headers_that_give_one_away(headers: dict[str, str], name: str | None) -> None:
    """A gateway is known by its own headers alone."""
    gateway = find_gateway(headers)
    assert (gateway and gateway.name) == name


@pytest.mark.parametrize("told", [False, True])
def test_check_says_what_it_wants(told: bool) -> None:
    """`check` names the gateway and the setting that it wants, unless that is set."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:  # the library's name
            body = b'{"status": "ok", "data": []}'
            self.send_response(200)
            for name, value in (("x-litellm-version", "1"), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        headers = {"X-LiteLLM-Num-Retries": "0"} if told else {}
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", headers=headers)
        findings = {found.name: found for found in asyncio.run(check_endpoint(endpoint))}
        server.shutdown()
    assert findings["gateway"].ok
    assert findings["gateway"].text.startswith("LiteLLM")
    assert ("x-litellm-num-retries" in findings["gateway"].text) is not told
