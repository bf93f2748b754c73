"""A real S3 server of our own for the tests: moto's, in a process of its own, behind a door that can refuse or hang."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from pathlib import Path

SECRET = "s3-secret-0123456789-never-shown"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",  # there is none to ask, and asking takes seconds
}
BUCKET = "lake"
LENGTHS = ("content-length", "transfer-encoding")  # headers that say where a body ends


class S3:
    """The server and its door, as a context manager.

    Attributes:
        seen: method and path of every request that came through the door.
        refuse: may give a request (method, path, headers) the status and S3 error code of a refusal.
        hang: requests (method and path) that match are never answered; `hung` is set when one has come.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.calm()

    def calm(self) -> None:
        """Let everything through from now on."""
        self.refuse: Callable[[str, str, Message], tuple[int, str] | None] = lambda *_: None
        self.hang = "$."
        self.hung = threading.Event()
        self.seen.clear()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        told = iter(self._process.stderr.readline, "")
        port = next(
            found[1] for line in told if (found := re.search(r"Running on http://[\d.]+:(\d+)", line))
        )
        threading.Thread(target=self._process.stderr.read, daemon=True).start()  # lest its pipe fills up
        self.inside = f"127.0.0.1:{port}"
        self._door = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("OurDoor", (Door,), {"store": self})
        )
        self._door.daemon_threads = True
        threading.Thread(target=self._door.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self._door.server_address[1]}"
        self.ask("PUT", f"/{BUCKET}")
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown()
        self._door.server_close()
        self._process.kill()
        self._process.communicate()

    # --- past the door, with a client that shares no code with the one under test --------------------

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request straight to the server."""
        signed = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/s3/aws4_request",
            "Content-Type": "application/octet-stream",
        }
        request = urllib.request.Request(f"http://{self.inside}{path}", body, signed, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310  # http, on loopback
            return bytes(response.read())

    def url(self, key: str, bucket: str = BUCKET) -> str:
        """Give the URL of a key, through the door."""
        return f"s3://{bucket}/{key}?endpoint_override={self.host}&scheme=http&region=us-east-1"

    def put(self, key: str, content: bytes | Path) -> str:
        """Put an object there; gives its URL."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        self.ask("PUT", f"/{BUCKET}/{quote(key)}", data)
        return self.url(key)

    def get(self, key: str) -> bytes:
        """Give an object's content."""
        return self.ask("GET", f"/{BUCKET}/{quote(key)}")

    def keys(self, prefix: str = "") -> list[str]:
        """Give the keys there are; what only stands for a folder is left out."""
        listing = self.ask("GET", f"/{BUCKET}?list-type=2&prefix={quote(prefix)}").decode()
        return [key for key in re.findall(r"<Key>(.*?)</Key>", listing) if not key.endswith("/")]

    def uploads(self) -> int:
        """Count the uploads that were begun and never completed."""
        return self.ask("GET", f"/{BUCKET}?uploads").count(b"<UploadId>")

    def counted(self, method: str, pattern: str = "") -> int:
        """Count the requests that came through the door."""
        return sum(1 for how, path in self.seen if how == method and re.search(pattern, path))


class Door(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the server, unless it is told otherwise."""

    store: ClassVar[S3]
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        """Take a request; its client may be gone by then."""
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_any(self) -> None:
        """Answer a request, whatever its method."""
        body = self.body()
        self.store.seen.append((self.command, self.path))
        if re.search(self.store.hang, f"{self.command} {self.path}"):
            self.store.hung.set()
            threading.Event().wait()
        refused = self.store.refuse(self.command, self.path, self.headers)
        if refused:
            self.reply(refused[0], {}, f"<Error><Code>{refused[1]}</Code></Error>".encode())
            return
        inner = http.client.HTTPConnection(self.store.inside, timeout=60)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in LENGTHS}
        inner.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = inner.getresponse()
        content = answer.read()
        self.reply(answer.status, dict(answer.getheaders()), content)
        inner.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815  # as http.server names them

    def body(self) -> bytes:
        """Read its body."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        """Send an answer; what says where it ends is worked out anew."""
        self.send_response(status)
        length = str(len(content))
        if self.command == "HEAD":
            length = headers.get("Content-Length") or headers.get("content-length") or "0"
            content = b""
        for name, value in headers.items():
            if name.lower() not in (
                "content-length",
                "transfer-encoding",
                "connection",
                "date",
                "server",
            ):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
