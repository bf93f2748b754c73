"""A collector of OpenTelemetry on loopback: takes OTLP over HTTP as protobuf, and gives what it was told."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KINDS: dict[str, Any] = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector:
    """The collector in threads of its own, as a context manager.

    Args:
        slow: seconds before it answers.
        status: what it answers.

    Attributes:
        raw: every body that came.
    """

    def __init__(self, *, slow: float = 0.0, status: int = 200) -> None:
        self.raw: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.raw.append((self.path, body))
                time.sleep(slow)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self, path: str) -> Iterator[Any]:
        """Give the messages of one kind."""
        for where, body in self.raw:
            if where == path:
                message = KINDS[path]()
                message.ParseFromString(body)
                yield message

    def spans(self) -> list[Any]:
        """Give every span."""
        return [
            span
            for message in self.told("/v1/traces")
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Give attributes and point of a metric, as it was told last."""
        found: list[tuple[dict[str, Any], Any]] = []
        for message in self.told("/v1/metrics"):
            metrics = [m for r in message.resource_metrics for s in r.scope_metrics for m in s.metrics]
            for metric in metrics:
                if metric.name == name:
                    data = getattr(metric, metric.WhichOneof("data"))
                    found = [(attributes(point.attributes), point) for point in data.data_points]
        return found


def attributes(pairs: Sequence[Any]) -> dict[str, Any]:
    """Give attributes as a mapping."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
