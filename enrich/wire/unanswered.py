"""An attempt that got no response: what broke, and whether anything was sent."""

from __future__ import annotations

import os

import aiohttp
from aiohttp.http import HttpProcessingError

from enrich.base.descriptors import no_descriptor_left
from enrich.records import TOO_MANY_FILES, Failure, Fate
from enrich.wire.envelope import one_line

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)  # TimeoutError is an OSError


def no_response(error: Exception) -> Failure:
    """Classify an error before any response: only a failure to connect proves that nothing was sent."""
    code, message, fate = "connection_lost", "the connection broke before the answer", Fate.UNKNOWN
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "")
            code, message, fate = (
                "certificate_invalid",
                f"the certificate is not trusted: {reason}",
                Fate.UNSENT,
            )
        case aiohttp.ClientConnectorError() if no_descriptor_left():
            code, message, fate = TOO_MANY_FILES, "this machine lets no more files be opened", Fate.UNSENT
        case aiohttp.ClientConnectorDNSError():
            code, message, fate = "dns_failed", f"no address for {error.host}", Fate.UNSENT
        case aiohttp.ClientConnectorSSLError():
            code, message, fate = (
                "tls_failed",
                f"no TLS with {error.host}: {getattr(error.os_error, 'reason', None)}",
                Fate.UNSENT,
            )
        case aiohttp.ClientConnectorError():
            code, message, fate = (
                "connect_failed",
                f"no connection to {_place(error)}: {_reason(error)}",
                Fate.UNSENT,
            )
        case aiohttp.ConnectionTimeoutError():
            code, message, fate = "connect_failed", "no connection in time", Fate.UNSENT
        case aiohttp.ClientHttpProxyError():
            code, message, fate = "connect_failed", f"the proxy answered HTTP {error.status}", Fate.UNSENT
        case TimeoutError():
            code, message = "timeout", "no answer in time"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            code, message = (
                "bad_response",
                "the answer is no HTTP, or its head is beyond 64 KiB a line or 512 lines",
            )
    return Failure(code=code, message=one_line(message), fate=fate)


def _place(error: aiohttp.ClientConnectorError) -> str:
    return f"[{error.host}]:{error.port}" if ":" in error.host else f"{error.host}:{error.port}"


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Say why a connection was not made, as the system does: asyncio puts the address in the reason's place."""
    number = error.os_error.errno
    return os.strerror(number).lower() if number and number > 0 else str(error.strerror)
