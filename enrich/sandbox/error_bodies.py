"""Refusals: Beatra's error envelope, and the pages that proxies on the way answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as Beatra answers it.

    Attributes:
        status: the HTTP status.
        code: `error.code`.
        message: `error.message`.
        retryable: `error.retryable`.
        param: JSON Pointer into the request's body, or None.
        details: `error.details`, or None.
        retry_after: the `Retry-After` header as it is sent, or None.
    """

    status: int
    code: str
    message: str
    retryable: bool = False
    param: str | None = None
    details: dict[str, Any] | None = None
    retry_after: str | None = None

    def envelope(self, request_id: str) -> dict[str, Any]:
        """Give the envelope as a JSON-ready mapping."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "request_id": request_id,
        }
        if self.param is not None:
            error["param"] = self.param
        if self.details is not None:
            error["details"] = self.details
        return {"error": error}

    def body(self, request_id: str) -> bytes:
        """Give the envelope as it goes over the wire."""
        return orjson.dumps(self.envelope(request_id))


class RefusedError(Exception):
    """The request is answered with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.code)


@dataclass(frozen=True, slots=True)
class ProxyPage:
    """An error that did not come from Beatra: no envelope, no request id.

    Attributes:
        status: the HTTP status.
        content_type: of the body.
        body: the page.
        location: where a redirect points, or None.
    """

    status: int
    content_type: str
    body: bytes
    location: str | None = None


def html_page(status: int, title: str) -> ProxyPage:
    """Make the page that a common proxy shows for a status."""
    body = f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body><center><h1>{status} {title}</h1></center></body>\r\n</html>\r\n"
    return ProxyPage(status, "text/html", body.encode())
