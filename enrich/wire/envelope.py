"""The error envelope of a response, and the JSON around it: read leniently, since proxies answer too."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import orjson

from enrich.records import Failure, Fate
from enrich.wire.meanings import is_known, meaning
from enrich.wire.retry_after import said_wait

MAX_EVIDENCE = 2048  # bytes of a failing body that are kept
MAX_MESSAGE = 500  # characters of a message
MOST_DIGITS = 4_000  # of an integer
MAX_LISTED = 5  # fields named in a message

# The codes that Beatra documents. Any other envelope may come from a gateway on the way, which cannot
# know whether the request was executed.
BEATRA_CODES = frozenset(
    {
        "api_key_region_mismatch",
        "billing_failed",
        "forbidden",
        "idempotency_in_progress",
        "insufficient_balance",
        "invalid_api_key",
        "invalid_request",
        "model_unavailable",
        "rate_limited",
        "tenant_disabled",
        "unauthorized",
        "unsupported_capability",
        "unsupported_model",
        "unsupported_option",
    }
)
_CODE = re.compile(r"(?!\d+$|None$)[A-Za-z0-9][\w.:/-]{0,63}", re.ASCII)  # LiteLLM writes "400" and "None"
_BLAMES_CLIENT = frozenset(
    {"invalid_request", "invalid_request_error", "badrequesterror", "bad_request", "invalid_argument"}
)
_CLIENTS_FAULT = frozenset(
    {400, 404, 405, 411, 413, 414, 415, 422}
)  # statuses under which such a type may stand
_PLACES = (
    "path",
    "field",
    "param",
    "pointer",
    "loc",
    "name",
)  # where an item of `details` may say what it is about
_REASONS = ("message", "msg", "reason", "error", "code")  # and what is wrong with it


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the body of an error says.

    Attributes:
        code: ``error.code``, else ``error.type``; None where it is no plain word.
        message: one line for people, with the fields that ``param`` and ``details`` name.
        retryable: the flag; None where there is none, or it is no boolean.
        request_id: the envelope's own.
        kind: whether ``code`` is only a ``type``: it gives way to a status that says otherwise.
        told: the HTTP status that stands where a code should, as in an event of a stream.
        retry_after: seconds, where it says how long to wait.
    """

    code: str | None
    message: str
    retryable: bool | None = None
    request_id: str | None = None
    kind: bool = False
    told: int | None = None
    retry_after: float | None = None

    @property
    def from_beatra(self) -> bool:
        """Whether Beatra itself speaks (its flag or one of its codes is there), and not a gateway."""
        return self.retryable is not None or self.code in BEATRA_CODES


def loads(data: bytes) -> Any:
    r"""Read JSON.

    What orjson refuses is tried once more, for the sake of what was paid for: it refuses lone surrogates
    (``\ud83d``, where a text was cut within an emoji; see `mend`) and numbers beyond a double. NaN and the infinities,
    which servers write among log probabilities, are null.

    Raises:
        ValueError: it is no whole JSON in UTF-8.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as refused:
        try:
            return json.loads(data.decode(), parse_constant=_nothing, parse_int=_whole)
        except RecursionError:
            raise refused from None


def _whole(digits: str) -> int | None:
    """Read an integer; one that is longer than any number of use, or than Python reads, is none."""
    return int(digits) if len(digits) <= MOST_DIGITS else None


def _nothing(_: str) -> None:
    """Read a constant that JSON has not."""


def mend(text: str) -> str:
    """Join surrogate pairs that came in two pieces; a half that stays alone becomes U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def find(payload: Any) -> Envelope | None:
    """Give the envelope in a JSON value; None where it has none.

    ``{"error": {…}}`` and ``{"error": "…"}``, also as the only item of a list, and ``{"object": "error", …}``.
    """
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    if error is None and payload.get("object") == "error":
        error = payload
    if isinstance(error, str) and error:
        return Envelope(None, one_line(error))
    return _envelope(error) if isinstance(error, dict) and error else None


def _envelope(error: dict[str, Any]) -> Envelope:
    code = _code(error.get("code"))
    kind = _code(error.get("type")) or _code(error.get("status"))
    by_kind = kind is not None and (code is None or (is_known(kind) and not is_known(code)))
    retryable = error.get("retryable")
    return Envelope(
        kind if by_kind else code,
        _message(error),
        retryable if isinstance(retryable, bool) else None,
        _text(error.get("request_id")),
        kind=by_kind,
        told=_status(error.get("code")),
        retry_after=said_wait(error),
    )


def read_error(body: bytes) -> Envelope | None:
    """Give what an error response's body says; None for HTML, nothing, or JSON cut in the middle."""
    try:
        payload = loads(body)
    except ValueError:
        return None
    envelope = find(payload)
    if envelope is not None or not isinstance(payload, dict):
        return envelope
    errors = payload.get("errors")
    said = (
        _listed(payload.get("detail"))  # FastAPI's shape
        or _text(payload.get("message"))  # a gateway's
        or (_listed(errors) if isinstance(errors, list) else "")  # Cloudflare's
    )
    words = (payload.get("code"), payload.get("type"), _without_namespace(payload.get("__type")))
    return Envelope(next(filter(None, map(_code, words)), None), one_line(said)) if said else None


def http_failure(
    status: int, body: bytes, *, request_id: str | None = None, retry_after: float | None = None
) -> Failure:
    """Make the failure of a response that is no 2xx.

    Args:
        status: the HTTP status.
        body: the body, or what came of it.
        request_id: the response's ``X-Request-Id``.
        retry_after: seconds, from the response's headers.
    """
    envelope = read_error(body)
    if envelope is None:
        begins = one_line(body[:200].decode("utf-8", "replace"), 80)
        envelope = Envelope(
            None, f"HTTP {status} {f'and no error in JSON: {begins}' if begins else 'without a body'}"
        )
    return to_failure(envelope, status, evidence=body, request_id=request_id, retry_after=retry_after)


def to_failure(
    envelope: Envelope,
    status: int,
    *,
    evidence: bytes,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> Failure:
    """Make a failure of an envelope: its code and flag, and the fate that it and the status prove."""
    if status < 300 and envelope.told is not None:
        status = envelope.told
    word = envelope.code or _code_of(status)
    if envelope.kind and word.lower() in _BLAMES_CLIENT and status not in _CLIENTS_FAULT:
        word = _code_of(status)
    failure = Failure(
        code=word,
        message=envelope.message,
        fate=_fate(status, envelope),
        status=status,
        retryable=envelope.retryable,
        request_id=request_id or envelope.request_id,
        retry_after=envelope.retry_after if retry_after is None else retry_after,
        evidence=evidence[:MAX_EVIDENCE],
    )
    refused = failure.fate is Fate.UNKNOWN and status >= 300 and meaning(failure) is not None
    return replace(failure, fate=Fate.REFUSED) if refused else failure


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make any text fit for a log or a cell: one line, nothing unprintable, at most ``limit`` characters."""
    if len(text) <= limit and text.isprintable() and "  " not in text:
        return text.strip()
    text = text[: 4 * limit]
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _fate(status: int, envelope: Envelope) -> Fate:
    if envelope.code == "billing_failed":
        return Fate.UNKNOWN  # the completion is there, its charge is not settled
    if envelope.from_beatra:
        return Fate.REFUSED
    return Fate.UNKNOWN if status < 300 or status in (408, 499) or status >= 500 else Fate.REFUSED


def _code_of(status: int) -> str:
    if 300 <= status < 400:
        return "redirected"
    return "rate_limited" if status == 429 else f"http_{status}"


def _without_namespace(kind: Any) -> Any:
    """Give the name in an error's type as AWS writes it: ``com.amazon.coral#ThrottlingException``."""
    return kind.rpartition("#")[2] if isinstance(kind, str) else None


def _code(value: Any) -> str | None:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else None


def _status(value: Any) -> int | None:
    """Read a code that is an HTTP status, as a number or in digits."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{3}", value) else value
    return number if type(number) is int and 400 <= number < 600 else None


def _text(value: Any) -> str | None:
    return (one_line(value) or None) if isinstance(value, str) else None


def _message(error: dict[str, Any]) -> str:
    message = error.get("message")
    if isinstance(message, dict | list):  # Mistral puts FastAPI's list there
        message = _listed(message.get("detail", message) if isinstance(message, dict) else message)
    message = _text(message) or ""
    param = _text(error.get("param"))
    if param and param not in message:
        message = f"{message} (at {param})".lstrip()
    details = error.get("details")
    unsupported = details.get("unsupported_fields") if isinstance(details, dict) else None
    if unsupported:
        return one_line(f"{message}; remove {_listed(unsupported)}".lstrip("; "))
    listed = _listed(details.get("errors", details) if isinstance(details, dict) else details)
    return one_line(f"{message}: {listed}".lstrip(": ")) if listed else message


def _listed(value: Any) -> str:
    """Write whatever stands in ``details`` as a short list: ``max_tokens: must be positive; …``."""
    if value is None or value in ({}, []):
        return ""
    items = value if isinstance(value, list) else [value]
    more = f"; {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return "; ".join(_item(item) for item in items[:MAX_LISTED]) + more


def _item(item: Any) -> str:
    if isinstance(item, str):
        return one_line(item, 200)
    if isinstance(item, dict):
        place = next((item[name] for name in _PLACES if item.get(name)), None)
        reason = next((item[name] for name in _REASONS if isinstance(item.get(name), str)), None)
        if reason is not None:
            where = ".".join(str(part) for part in place) if isinstance(place, list) else str(place or "")
            return one_line(f"{where}: {reason}".lstrip(": "), 200)
    return one_line(json.dumps(item), 200)
