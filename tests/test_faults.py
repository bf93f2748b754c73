"""Every fault of the endpoint that can be rehearsed: what becomes of the row, by how many requests, at what price.

`python -m tests.test_faults` writes the page of the documentation that this table is.

It is long because it is that table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from enrich.ledger.protocol import attempt_id
from enrich.sandbox import FAULTS, Fault, SandboxOptions, ThreadedSandbox
from enrich.sandbox.breakage import UNCHARGED
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, envelope
from tests.helpers.wire import Ran, config_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.sandbox.books import Attempt, Books

pytestmark = pytest.mark.usefixtures("_either_way")

Mode = Literal["sync", "stream"]
PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
ATTEMPTS = 4  # `retry.attempts` of the runs here
CONCURRENCY = (
    8  # so that good rows come between the attempts of struck ones, whose failures in a row were an outage
)
GOOD = 4  # rows without a fault beside each struck one: no outage, so nobody pauses
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


@dataclass(frozen=True)
class Ending:
    """What becomes of a row.

    Attributes:
        status: the row's.
        requests: sent for it.
        code: of its error.
    """

    status: str
    requests: int
    code: str | None = None


@dataclass(frozen=True)
class Case:
    """What becomes of a row whose first request suffers the fault, and of one that always does.

    Attributes:
        always: None where it would never end but for the row's deadline.
    """

    kind: str
    once: Ending
    always: Ending | None


AGAIN = Ending("ok", 2)


def _final(kind: str, code: str, status: str = "error") -> Case:
    """The first answer is the last word."""
    return Case(kind, Ending(status, 1, code), Ending(status, 1, code))


def _retried(kind: str, code: str) -> Case:
    """Refused for now: tried as often as the configuration says."""
    return Case(kind, AGAIN, Ending("error", ATTEMPTS, code))


def _unknown(kind: str, code: str) -> Case:
    """It may have been charged: the same request again, three times in all, then the operator decides."""
    return Case(kind, AGAIN, Ending("in_doubt", ATTEMPTS, code))


def _unusable(kind: str, code: str) -> Case:
    """A whole answer that is of no use: asked for once more."""
    return Case(kind, AGAIN, Ending("error", 2, code))


def _waits(kind: str) -> Case:
    """Waiting uses up no attempt."""
    return Case(kind, AGAIN, None)


def _harmless(kind: str) -> Case:
    """The answer is good all the same."""
    return Case(kind, Ending("ok", 1), Ending("ok", 1))


CASES = [
    *map(_waits, ("rate_limited", "retry_after_garbage", "in_flight_409")),
    _final("invalid_request", "invalid_request"),
    _final("unsupported_option", "unsupported_option"),
    _final("retryable_400", "invalid_request"),
    _final("internal_error_final", "internal_error"),
    _final("redirect", "redirected"),
    _retried("internal_error", "internal_error"),
    _retried("model_unavailable", "model_unavailable"),
    _retried("error_in_200", "model_unavailable"),
    _unknown("billing_failed", "billing_failed"),
    _unknown("bad_gateway_html", "http_502"),
    _unknown("gateway_timeout", "http_504"),
    _unknown("gateway_timeout_after_charge", "http_504"),
    _unknown("empty_500", "http_500"),
    _unknown("plain_500", "http_500"),
    _unknown("reset", "connection_lost"),
    _unknown("reset_after_charge", "connection_lost"),
    _unknown("disconnect_keepalive", "connection_lost"),
    *(_unknown(kind, "response_cut") for kind in ("cut_body", "cut_chunked", "cut_json", "empty_body")),
    _unusable("no_choices", "no_choices"),
    _unusable("invalid_utf8", "invalid_utf8"),
    _unusable("gzip_bomb", "compressed_answer"),
    _final("huge_body", "body_too_large"),
    *(_final(kind, "no_content", "invalid_output") for kind in ("null_content", "tool_calls")),
    _final("truncated", "length", "truncated"),
    _final("content_filter", "content_filter", "filtered"),
    _final("refusal", "refusal", "filtered"),
    _harmless("missing_usage"),
    _harmless("wrong_content_type"),
    _harmless("missing_request_id"),
    _harmless("duplicate_request_id"),
    _harmless("same_request_id"),
]
STREAM_CASES = [
    _unknown("stream_cut", "response_cut"),
    _unknown("stream_early_end", "response_cut"),
    _harmless("stream_no_done"),
    _unknown("stream_error_event", "internal_error"),
]
SLOW_CASES = [_unknown("stall", "timeout"), _unknown("slow_loris", "timeout")]
SLOW_STREAM_CASES = [*SLOW_CASES, _unknown("stream_stall", "timeout")]
SCHEMA_CASES = [
    Case("broken_schema", Ending("ok", 2), Ending("invalid_output", 2, "invalid_output")),
    _harmless("fenced_json"),
]
STOPS = {  # what stops the whole run, and the beginning of what it says
    "unauthorized": "the endpoint refused the API key",
    "forbidden": "the endpoint refused the API key",
    "tenant_disabled": "the endpoint refused the API key",
    "region_mismatch": "the endpoint refused the API key",
    "insufficient_balance": "the account's balance is spent",
    "unsupported_model": "the endpoint does not serve model `auto`",
    "unsupported_capability": "the endpoint does not serve model `auto`",
}
WAITS = {"rate_limited_retry_after": (1.0, 2.0), "retry_after_date": (1.0, 3.0)}  # seconds, jitter included


@dataclass(frozen=True)
class Rehearsal:
    """A run in which each fault strikes rows of its own."""

    ran: Ran
    books: Books

    def row(self, prompt: str) -> dict[str, Any]:
        """The output's row of this prompt."""
        return next(row for row in self.ran.rows if row["t"] == prompt)

    def attempts(self, key: str) -> list[Attempt]:
        """What the endpoint saw under this key."""
        return [attempt for attempt in self.books.attempts if attempt.key == key]


def rehearse(folder: Path, mode: Mode, cases: list[Case], **sections: Any) -> Rehearsal:
    """Run a job in which each case's fault strikes one row once and another one always, among good rows."""
    prompts, faults = [], []
    for case in cases:
        for how in ("once", "always")[: 1 if case.always is None else 2]:
            prompt = f"<{case.kind} {how}>"
            faults.append(Fault(case.kind, match=prompt, times=1 if how == "once" else None))
            prompts += [prompt, *(f"good, beside {case.kind} {how}: {n}" for n in range(GOOD))]
    step = {"stream": mode == "stream", **sections.pop("step", {})}
    with ThreadedSandbox(SandboxOptions(faults=tuple(faults))) as sandbox:
        config = config_of(
            folder,
            prompts,
            sandbox.base_url,
            step=step,
            limits={"adaptive": False, "concurrency": CONCURRENCY},
            tolerate="100%",
            **sections,
        )
        return Rehearsal(run(config), sandbox.books)


GROUPS: dict[str, tuple[Mode, list[Case], dict[str, Any]]] = {
    "sync": ("sync", CASES, {}),
    "stream": ("stream", CASES + STREAM_CASES, {}),
    "slow sync": ("sync", SLOW_CASES, {"endpoint": {"timeout": 1.0}}),
    "slow stream": ("stream", SLOW_STREAM_CASES, {"endpoint": {"timeout": 1.0}}),
    "schema sync": ("sync", SCHEMA_CASES, {"step": {"schema": SCHEMA}}),
    "schema stream": ("stream", SCHEMA_CASES, {"step": {"schema": SCHEMA}}),
}
EACH = [
    pytest.param(group, case, id=f"{group}-{case.kind}", marks=pytest.mark.xdist_group(group))
    for group, (_, cases, _) in GROUPS.items()
    for case in cases
]


@pytest.fixture(scope="module")
def rehearsal_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rehearsal]:
    """Gives the run of a group of faults, made once."""

    @functools.cache
    def rehearsal_of(group: str) -> Rehearsal:
        mode, cases, sections = GROUPS[group]
        return rehearse(tmp_path_factory.mktemp(group), mode, cases, **sections)

    return rehearsal_of


@pytest.mark.parametrize(("group", "case"), EACH)
def test_fault(rehearsal_of: Callable[[str], Rehearsal], group: str, case: Case) -> None:
    """A struck row ends as the table says: status, error and requests, under one key, of one body, paid once."""
    rehearsal = rehearsal_of(group)
    for how, ending in (("once", case.once), ("always", case.always)):
        if ending is None:
            continue
        row = rehearsal.row(f"<{case.kind} {how}>")
        code = (row["s_error"] or "").partition(":")[0] or None
        assert (row["s_status"], code, row["s_attempts"]) == (ending.status, ending.code, ending.requests)
        if case.kind == "broken_schema":
            continue  # what is asked after an answer that breaks the schema is another request
        attempts = rehearsal.attempts(row["s_idempotency_key"])
        assert len(attempts) == ending.requests
        assert len({attempt.body for attempt in attempts}) == 1
        key = bytes.fromhex(row["s_idempotency_key"].replace("-", ""))
        assert [a.client_id for a in attempts] == [attempt_id(key, n + 1) for n in range(ending.requests)]
        charged = case.kind not in UNCHARGED or ending.status == "ok"
        assert rehearsal.books.keys[row["s_idempotency_key"]].charges == charged


@pytest.mark.parametrize(("group", "case"), [each for each in EACH if "schema" not in str(each.id)])
def test_failure_log(rehearsal_of: Callable[[str], Rehearsal], group: str, case: Case) -> None:
    """The ledger's log holds each failed attempt with the id it was sent with, a code and what came of the body."""
    rehearsal = rehearsal_of(group)
    for how, ending in (("once", case.once), ("always", case.always)):
        if ending is None or ending.status not in ("ok", "error", "in_doubt"):
            continue
        row = rehearsal.row(f"<{case.kind} {how}>")
        entry = rehearsal.ran.entry(row["s_idempotency_key"])
        failed = ending.requests - (ending.status == "ok")
        ids = [attempt_id(entry.ask.key, n + 1) for n in range(failed)]
        assert list(dict.fromkeys(line.attempt_id for line in entry.failures)) == ids
        assert all(len(line.failure.evidence) <= 65_536 for line in entry.failures)
        if ending.code is not None:
            assert {line.failure.code for line in entry.failures} == {ending.code}


@pytest.mark.parametrize("group", GROUPS)
def test_bystanders(rehearsal_of: Callable[[str], Rehearsal], group: str) -> None:
    """Rows beside a struck one are answered by their first request; the counts sum up."""
    rehearsal = rehearsal_of(group)
    bystanders = [row for row in rehearsal.ran.rows if row["t"].startswith("good")]
    assert {(row["s_status"], row["s_attempts"]) for row in bystanders} == {("ok", 1)}
    summary, books = rehearsal.ran.summary, rehearsal.books
    assert summary.attempts == books.total.requests
    assert sum(row["s_attempts"] for row in rehearsal.ran.rows) == summary.attempts
    assert summary.attempts == summary.requests + sum(summary.retries.values())
    assert max(tally.charges for tally in books.bodies.values()) == 1


@pytest.mark.parametrize("mode", ["sync", "stream"])
@pytest.mark.parametrize("kind", STOPS)
def test_stopping_fault(kind: str, mode: Mode, tmp_path: Path) -> None:
    """What no row can survive stops the run at once: exit 4, rows pending, what is paid for kept, resumable."""
    texts = [f"row {n}" for n in range(60)]
    with ThreadedSandbox(SandboxOptions(faults=(Fault(kind, after=20, times=8),))) as sandbox:
        config = config_of(
            tmp_path, texts, sandbox.base_url, step={"stream": mode == "stream"}, limits={"concurrency": 4}
        )
        stopped = run(config)
        assert stopped.summary.exit_code == 4
        assert STOPS[kind] in stopped.summary.reason
        assert stopped.summary.statuses["pending"] >= 60 - 24
        assert stopped.summary.statuses["ok"] >= 20 - 4
        assert sum(stopped.summary.statuses.values()) == 60
        assert not stopped.rows
        assert sandbox.books.faults[kind] <= 4
        while (resumed := run(config)).summary.exit_code == 4:
            assert STOPS[kind] in resumed.summary.reason
        assert resumed.summary.statuses["ok"] == 60
        assert {tally.charges for tally in sandbox.books.bodies.values()} == {1}


@pytest.mark.parametrize("kind", WAITS)
def test_retry_after_as_asked(kind: str, tmp_path: Path) -> None:
    """A rate limit that says when to come back is taken at its word."""
    with ThreadedSandbox(SandboxOptions(), script=[kind]) as sandbox:
        ran = run(config_of(tmp_path, ["one"], sandbox.base_url), first_wait=True)
    least, most = WAITS[kind]
    assert least <= ran.waits[0] <= most
    assert ran.summary.exit_code == 130


RETRY_AFTER = [
    ({"Retry-After": "7"}, 7.0, 8.0),
    ({"Retry-After": "2.5"}, 2.5, 3.5),
    ({"Retry-After": "300"}, 300.0, 306.0),
    ({"Retry-After-Ms": "1500"}, 1.5, 2.5),
    ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5, 2.5),
    (
        {"Date": "Mon, 07 Nov 1994 08:49:37 GMT", "Retry-After": "Mon, 07 Nov 1994 08:50:07 GMT"},
        30.0,
        31.0,
    ),
    ({"Date": "Mon, 07 Nov 1994 08:49:37 GMT", "Retry-After": "Mon, 07 Nov 1994 08:40:07 GMT"}, 0.0, 0.5),
    *(
        ({"Retry-After": text}, 0.0, 0.5)
        for text in ("-3", "nan", "inf", "1_0", "\uff11\uff12", "soon", "", "9" * 99)
    ),
]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "least", "most"), RETRY_AFTER)
def test_retry_after(headers: dict[str, str], least: float, most: float, status: int, tmp_path: Path) -> None:
    """Retry-After counts in whole numbers, decimals, milliseconds and dates of the server's clock; else it is as if absent."""
    refused = envelope("rate_limited" if status == 429 else "busy", status, retryable=True)

    def script(_: Seen) -> Raw:
        return Raw(refused.body, status, headers)

    with BookedEndpoint(script=script) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url, retry={"deadline": 900}), first_wait=True)
    assert least <= ran.waits[0] <= most
    assert ran.summary.statuses["pending"] == 1
    assert ran.entries == []


@pytest.mark.parametrize("status", [429, 503])
def test_long_retry_after(status: int, tmp_path: Path) -> None:
    """An endpoint that asks for more than five minutes stops the run, to be resumed then."""
    refused = envelope("busy", status, retryable=True)
    with BookedEndpoint(script=lambda _: Raw(refused.body, status, {"Retry-After": "301"})) as endpoint:
        ran = run(config_of(tmp_path, ["one"], endpoint.base_url))
    assert ran.summary.exit_code == 4
    assert "asks to wait 301 seconds" in ran.summary.reason
    assert len(endpoint.posts) == 1


def test_every_fault_is_here() -> None:
    """No fault that can be rehearsed is left out."""
    listed = [case.kind for case in CASES + STREAM_CASES + SLOW_STREAM_CASES + SCHEMA_CASES]
    assert sorted([*listed, *STOPS, *WAITS]) == sorted(FAULTS)


# --- the page of the documentation ---------------------------------------------------------------------


def page() -> str:
    """Write the page: each fault, and what the table above says becomes of it."""
    cases = {case.kind: case for case in CASES + STREAM_CASES + SLOW_STREAM_CASES + SCHEMA_CASES}
    lines = [HEAD]
    for kind, meaning in FAULTS.items():
        lines.append(
            f"| `{kind}` | {meaning.replace('|', chr(92) + '|')} | {' | '.join(_told(kind, cases))} |"
        )
    return "\n".join(lines) + "\n"


HEAD = """\
# Faults to rehearse, and what becomes of a row

The sandbox plays each of these faults on demand. Give it the kind, how often it strikes, and how often at most
for one request:

    beatra-enrich sandbox --port 8080 --fault reset_after_charge=0.05 --fault rate_limited=0.1:2

Point a job at it with `BEATRA_BASE_URL=http://127.0.0.1:8080/v1` and any `BEATRA_API_KEY`; what was asked and charged
stands in `GET /sandbox/ledger`. A request that is sent again has the same body and the same `Idempotency-Key`, so what
was charged is delivered once more and not charged again. The requests are those of a job with `retry: {attempts: 4}`.

| fault | what the endpoint does | when it strikes a row's first request | when it strikes every time |
|---|---|---|---|"""


def _told(kind: str, cases: dict[str, Case]) -> tuple[str, str]:
    if kind in STOPS:
        stops = "the run stops at once (exit 4), the row stays pending"
        return stops, stops
    if kind in WAITS:
        return "the row waits as asked; `ok`, 2 requests", "waits until the row's deadline"
    case = cases[kind]
    if case.always is None:
        return _ending(case.once), "waits until the row's deadline"
    return _ending(case.once), _ending(case.always)


def _ending(ending: Ending) -> str:
    requests = f"{ending.requests} {'request' if ending.requests == 1 else 'requests'}"
    return f"`{ending.status}`, {requests}" + (f", error `{ending.code}`" if ending.code else "")


def test_page() -> None:
    """The page says what is true."""
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
