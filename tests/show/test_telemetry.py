"""Traces and metrics: what a collector receives of real runs, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from enrich.show.telemetry import SECONDS_BUCKETS, TOKEN_BUCKETS
from tests.helpers.collector import Collector, attributes
from tests.helpers.endpoint import KEY, BookedEndpoint, Seen, echo, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import Raw


def ran(config: Path, endpoint: BookedEndpoint, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a job with these variables."""
    command = [sys.executable, "-m", "enrich.cli", "run", str(config), "--no-progress", "--json"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    own |= {"BEATRA_API_KEY": KEY, "BEATRA_BASE_URL": endpoint.base_url}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env={**own, **env}
    )


def test_a_run_as_a_collector_sees_it(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """One trace: the run, its phases, its requests; metrics by the names and buckets of the conventions; no text of a row."""
    refused: set[str] = set()

    def script(seen: Seen) -> Raw | None:
        if seen.method == "POST" and not refused:
            refused.add(seen.key)
            return envelope("overloaded", 503, retryable=True, message="TEXT-OF-ERROR")
        return None

    endpoint.script = script
    with Collector() as collector:
        done = ran(job(budget={"requests": 100}), endpoint, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert done.returncode == 0, done.stderr
    spans = collector.spans()
    assert len({span.trace_id for span in spans}) == 1
    (run,) = [span for span in spans if span.name == "beatra_enrich.run"]
    assert attributes(run.attributes)["beatra_enrich.exit_code"] == 0
    assert "beatra_enrich.asking" in {span.name for span in spans}
    chats = [attributes(span.attributes) for span in spans if span.name.startswith("chat ")]
    assert len(chats) == 4
    good = [chat for chat in chats if "error.type" not in chat]
    assert {chat["gen_ai.operation.name"] for chat in chats} == {"chat"}
    assert all(chat["gen_ai.usage.input_tokens"] > 0 for chat in good)
    assert [chat["error.type"] for chat in chats if "error.type" in chat] == ["overloaded"]
    duration = collector.points("gen_ai.client.operation.duration")
    assert sum(point.count for _, point in duration) == 4
    assert all(tuple(point.explicit_bounds) == SECONDS_BUCKETS for _, point in duration)
    usage = collector.points("gen_ai.client.token.usage")
    assert {told["gen_ai.token.type"] for told, _ in usage} == {"input", "output"}
    assert all(tuple(point.explicit_bounds) == TOKEN_BUCKETS for _, point in usage)
    assert [(t["beatra_enrich.status"], p.as_int) for t, p in collector.points("beatra_enrich.rows")] == [
        ("ok", 3)
    ]
    assert [(t, p.as_int) for t, p in collector.points("beatra_enrich.retries")] == [
        ({"beatra_enrich.cause": "overloaded"}, 1)
    ]
    assert collector.points("beatra_enrich.budget.left")
    assert collector.points("beatra_enrich.ledger.commit.time")[0][1].as_double > 0
    sent = b"".join(body for _, body in collector.raw)
    assert KEY.encode() not in sent
    assert b"TEXT-OF-ERROR" not in sent
    for seen in endpoint.posts:
        assert seen.body["messages"][-1]["content"].encode() not in sent
        assert echo(seen.body).encode() not in sent


def test_the_variables_of_the_sdk_hold(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """A name for the service, no traces, one's own headers, a parent from whoever started it: as the SDK documents them."""
    with Collector() as collector:
        done = ran(
            job(),
            endpoint,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{collector.url}/v1/metrics",
            OTEL_TRACES_EXPORTER="none",
            OTEL_SERVICE_NAME="nightly",
            OTEL_RESOURCE_ATTRIBUTES="team=data",
        )
        assert done.returncode == 0, done.stderr
        assert collector.spans() == []
        message = next(collector.told("/v1/metrics"))
        resource = attributes(message.resource_metrics[0].resource.attributes)
        assert (resource["service.name"], resource["team"]) == ("nightly", "data")
    with Collector() as collector:
        trace = "0af7651916cd43dd8448eb211c80319c"
        parent = f"00-{trace}-b7ad6b7169203331-01"
        ran(job(output="b.jsonl"), endpoint, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, TRACEPARENT=parent)
        assert {span.trace_id.hex() for span in collector.spans()} == {trace}
    with Collector() as collector:
        off = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SDK_DISABLED": "true"}
        ran(job(output="c.jsonl"), endpoint, **off)
        assert collector.raw == []


@pytest.mark.parametrize("how", ["down", "slow", "broken"])
def test_a_collector_that_is_down_changes_nothing(
    job: Callable[..., Path], endpoint: BookedEndpoint, how: str
) -> None:
    """The run ends with its own exit code, output and figures."""
    with Collector(slow=60 if how == "slow" else 0, status=500 if how == "broken" else 200) as collector:
        url = "http://127.0.0.1:9" if how == "down" else collector.url
        done = ran(job(), endpoint, OTEL_EXPORTER_OTLP_ENDPOINT=url)
        assert done.returncode == 0, done.stderr
        assert '"ok": 3' in done.stdout
        assert "Traceback" not in done.stderr


def test_off_imports_nothing(job: Callable[..., Path], endpoint: BookedEndpoint) -> None:
    """Without a variable nothing of OpenTelemetry is loaded."""
    code = (
        "import sys; from enrich.api import run; s = run(sys.argv[1]); "
        "print(s.exit_code, [m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    own |= {"BEATRA_API_KEY": KEY, "BEATRA_BASE_URL": endpoint.base_url}
    done = subprocess.run(
        [sys.executable, "-c", code, str(job())], capture_output=True, text=True, check=True, env=own
    )
    assert done.stdout.strip() == "0 []"
