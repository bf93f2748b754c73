"""A run's traces and metrics by OpenTelemetry, where the environment names somewhere to send them (`OTEL_…`).

Names and buckets are those of the GenAI semantic conventions (repository semantic-conventions-genai, 2026: `gen_ai.client.*`);
what they have no name for begins with `beatra_enrich.`. No text of a prompt or an answer, and no message of an error, is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from enrich.base.loops import meanwhile
from enrich.base.version import __version__
from enrich.config.endpoint import DEFAULT_BASE_URL, URL_VARIABLE
from enrich.errors import EnrichError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from enrich.config.endpoint import EndpointConfig
    from enrich.engine.ticket import Landing
    from enrich.records import Summary
    from enrich.show.snapshot import Snapshot
    from enrich.show.watch import Watch

ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT" for kind in ("", "TRACES_", "METRICS_"))
EXPORTERS = {"traces": "OTEL_TRACES_EXPORTER", "metrics": "OTEL_METRICS_EXPORTER"}
SECONDS_BUCKETS = tuple(
    0.01 * 2**power for power in range(14)
)  # of gen_ai.client.operation.duration, as advised
TOKEN_BUCKETS = tuple(4.0**power for power in range(14))  # of gen_ai.client.token.usage, likewise
SPANS_A_SECOND = 10  # requests that are traced one by one; the metrics count all
LOOK_EVERY = 1.0  # seconds between looks at the figures
ENDING = 5.0  # seconds at most that the last export may hold up the end of a run
MOST_KINDS = 200  # sets of attributes told apart: models are the endpoint's words

log = logging.getLogger("enrich")


def is_wanted() -> bool:
    """Say whether the environment names somewhere to send telemetry to."""
    env = os.environ
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    named = any(env.get(name) for name in ENDPOINTS)
    return any(env.get(name, "otlp" if named else "none") != "none" for name in EXPORTERS.values())


async def traced(
    work: Coroutine[object, object, Summary], watch: Watch, *, endpoint: EndpointConfig, output: str
) -> Summary:
    """Do a run and tell of it; where nothing is wanted, or nothing can be told, just do it."""
    telemetry = _opened(watch, endpoint, output) if is_wanted() else None
    if telemetry is None:
        return await work
    code = 1
    try:
        async with meanwhile(telemetry.keep_up(), "beatra-telemetry"):
            try:
                summary = await work
                code = summary.exit_code
            except EnrichError as error:
                code = error.exit_code
                raise
    finally:
        telemetry.end(code)
    return summary


def _opened(watch: Watch, endpoint: EndpointConfig, output: str) -> Telemetry | None:
    try:
        return Telemetry(watch, endpoint, output)
    except ImportError:
        log.info("OTEL_… names somewhere to send telemetry to; `pip install 'beatra-enrich[otel]'` sends it")
    except Exception as error:  # noqa: BLE001  # whatever the variables say: who only looks on must not end a run
        log.warning("no telemetry: %s", error)
    return None


class Telemetry:
    """Tells of one run: one trace with its phases and some requests, and metrics of all of it.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """

    def __init__(self, watch: Watch, endpoint: EndpointConfig, output: str) -> None:
        _hear_troubles()
        self._watch = watch
        self._snapshot = watch.snapshot()
        self._server = _server(endpoint)
        resource = _resource()
        self._spans = _tracer_provider(resource)
        self._meters = _meter_provider(resource)
        self._tracer = self._spans.get_tracer("beatra_enrich", __version__)
        self._kinds: dict[tuple[str, str | None, str | None], tuple[dict[str, Any], ...]] = {}
        self._tokens_of_spans = float(SPANS_A_SECOND)
        self._counted_at = time.monotonic()
        self._make_instruments()
        attributes = {"beatra_enrich.output": output, "beatra_enrich.version": __version__}
        self._run = self._tracer.start_span("beatra_enrich.run", context=_parent(), attributes=attributes)
        self._phase: Any = None
        watch.on_phase, watch.on_landing = self.phase, self.attempt

    def _make_instruments(self) -> None:
        meter = self._meters.get_meter("beatra_enrich", __version__)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS_BUCKETS,
        )
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        for name, unit, _ in _GAUGES:
            meter.create_observable_gauge(name, [self._observer(name)], unit=unit)
        for name, unit, _ in _COUNTERS:
            meter.create_observable_counter(name, [self._observer(name)], unit=unit)

    def _observer(self, name: str) -> Any:
        """Give what the SDK calls, in a thread of its own, to see a figure: it sees the last look at them."""
        from opentelemetry.metrics import Observation

        read = next(read for known, _, read in (*_GAUGES, *_COUNTERS) if known == name)

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, attributes) for value, attributes in read(self._snapshot)]

        return observe

    async def keep_up(self) -> None:
        """Look at the figures again and again."""
        while True:
            self._snapshot = self._watch.snapshot()
            await asyncio.sleep(LOOK_EVERY)

    def phase(self, name: str) -> None:
        """Begin a phase of the run."""
        from opentelemetry.trace import set_span_in_context

        self._end_phase()
        context = set_span_in_context(self._run)
        self._phase = self._tracer.start_span(f"beatra_enrich.{name.replace(' ', '_')}", context=context)

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.end()
            self._phase = None

    def attempt(self, attempt: Landing) -> None:
        """Count an attempt that has come to its end; some are traced as well."""
        whole, asked, answered = self._attributes(attempt)
        self._duration.record(attempt.seconds, whole)
        usage = attempt.usage
        if usage is not None and usage.prompt_tokens is not None:
            self._usage.record(usage.prompt_tokens, asked)
        if usage is not None and usage.completion_tokens is not None:
            self._usage.record(usage.completion_tokens, answered)
        if self._may_trace():
            self._trace(attempt, whole)

    def _attributes(self, attempt: Landing) -> tuple[dict[str, Any], ...]:
        """Give the attributes of duration, input and output; the same objects for attempts of one kind."""
        kind = (attempt.asked, attempt.served, attempt.error)
        known = self._kinds.get(kind)
        if known is not None:
            return known
        if len(self._kinds) >= MOST_KINDS:
            kind = ("_OTHER", None, "_OTHER" if attempt.error else None)
        asked, served, error = kind
        base = {"gen_ai.operation.name": "chat", "gen_ai.request.model": asked, **self._server}
        if served:
            base["gen_ai.response.model"] = served
        told = (
            {**base, "error.type": error} if error else base,
            {**base, "gen_ai.token.type": "input"},
            {**base, "gen_ai.token.type": "output"},
        )
        self._kinds[kind] = told
        return told

    def _may_trace(self) -> bool:
        """Say whether this attempt gets a span: so many a second do, and all where there are few."""
        if not self._run.is_recording():
            return False
        now = time.monotonic()
        earned = (now - self._counted_at) * SPANS_A_SECOND
        self._tokens_of_spans = min(float(SPANS_A_SECOND), self._tokens_of_spans + earned)
        self._counted_at = now
        if self._tokens_of_spans < 1:
            return False
        self._tokens_of_spans -= 1
        return True

    def _trace(self, attempt: Landing, attributes: dict[str, Any]) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        told = {
            **attributes,
            "beatra_enrich.attempt": attempt.number,
            "beatra_enrich.request_id": attempt.request_id,
            "gen_ai.request.stream": attempt.stream,
        }
        if attempt.finish_reason:
            told["gen_ai.response.finish_reasons"] = (attempt.finish_reason,)
        usage = attempt.usage
        if usage is not None:
            told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
            told["gen_ai.usage.output_tokens"] = usage.completion_tokens
        end = time.time_ns()
        span = self._tracer.start_span(
            f"chat {attempt.asked}",
            context=set_span_in_context(self._phase or self._run),
            kind=SpanKind.CLIENT,
            attributes={name: value for name, value in told.items() if value is not None},
            start_time=end - int(attempt.seconds * 1e9),
        )
        if attempt.error:
            span.set_status(Status(StatusCode.ERROR, attempt.error))
        span.end(end)

    def end(self, exit_code: int) -> None:
        """End the trace and have everything sent, for a bounded time: what is not sent by then is not sent."""
        from opentelemetry.trace import Status, StatusCode

        self._watch.on_phase = self._watch.on_landing = None
        self._snapshot = self._watch.snapshot()
        self._end_phase()
        self._run.set_attribute("beatra_enrich.exit_code", exit_code)
        if exit_code:
            self._run.set_status(Status(StatusCode.ERROR, f"exit code {exit_code}"))
        self._run.end()
        threads = [
            threading.Thread(target=_shut, args=(provider,), name="beatra-telemetry", daemon=True)
            for provider in (self._spans, self._meters)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + ENDING
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            log.warning("telemetry was not sent within %g s, and is left", ENDING)


def _shut(provider: TracerProvider | MeterProvider) -> None:
    with contextlib.suppress(Exception):  # the SDK's own troubles are told by its log
        provider.shutdown()


# --- figures ---------------------------------------------------------------------------------------------


def _plain(name: str) -> Any:
    def read(now: Snapshot) -> Iterator[tuple[float, dict[str, str]]]:
        yield getattr(now, name), {}

    return read


def _by(name: str, label: str) -> Any:
    def read(now: Snapshot) -> Iterator[tuple[float, dict[str, str]]]:
        for what, count in getattr(now, name):
            yield count, {f"beatra_enrich.{label}": what}

    return read


def _rows(now: Snapshot) -> Iterator[tuple[float, dict[str, str]]]:
    for step, status, count in now.rows:
        yield count, {"beatra_enrich.step": step, "beatra_enrich.status": status}


_GAUGES = (
    ("beatra_enrich.rows", "{row}", _rows),
    ("beatra_enrich.in_flight", "{request}", _plain("in_flight")),
    ("beatra_enrich.ceiling", "{request}", _plain("ceiling")),
    ("beatra_enrich.pause", "s", _plain("pause")),
    ("beatra_enrich.budget.left", "1", _by("budget_left", "of")),
)
_COUNTERS = (
    ("beatra_enrich.requests", "{request}", _plain("requests")),
    ("beatra_enrich.attempts", "{request}", _plain("attempts")),
    ("beatra_enrich.retries", "{request}", _by("retries", "cause")),
    ("beatra_enrich.credits", "{credit}", _plain("credits")),
    ("beatra_enrich.ledger.commits", "{commit}", _plain("commits")),
    ("beatra_enrich.ledger.commit.time", "s", _plain("commit_seconds")),
)


# --- the SDK ---------------------------------------------------------------------------------------------


def _server(endpoint: EndpointConfig) -> dict[str, Any]:
    """Give the attributes of the endpoint: a host that is none of Beatra's stands for its provider."""
    given = endpoint.url or endpoint.base_url
    parts = urlsplit(given or os.environ.get(URL_VARIABLE) or DEFAULT_BASE_URL)
    host = parts.hostname or "sandbox"
    beatra = host in {"sandbox", "beatra.ai"} or host.endswith(".beatra.ai")
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    told = {"gen_ai.provider.name": "beatra" if beatra else host, "server.address": host, "server.port": port}
    return {name: value for name, value in told.items() if value is not None}


def _resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return Resource.create({} if named else {"service.name": "beatra-enrich"})


def _parent() -> Any:
    """Give the context of who started this process, as far as it said so (`TRACEPARENT`)."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    names = ("traceparent", "tracestate")
    return TraceContextTextMapPropagator().extract({n: os.environ.get(n.upper(), "") for n in names})


def _tracer_provider(resource: Any) -> TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in _exporters("traces", ConsoleSpanExporter):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _meter_provider(resource: Any) -> MeterProvider:
    from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    exporters = _exporters("metrics", ConsoleMetricExporter)
    readers = [PeriodicExportingMetricReader(exporter) for exporter in exporters]
    off = None if os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER") else AlwaysOffExemplarFilter()
    return MeterProvider(readers, resource=resource, exemplar_filter=off, shutdown_on_exit=False)


def _exporters(signal: str, console: Any) -> Iterator[Any]:
    """Make the exporters that the environment names for a signal; OTLP goes over HTTP where nothing else is said."""
    import sys

    for name in os.environ.get(EXPORTERS[signal], "otlp").split(","):
        known = name.strip()
        if known in ("", "none"):
            continue
        if known == "console":
            yield console(out=sys.stderr)
            continue
        if known == "otlp":
            of_all = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", of_all)
            known = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}.get(protocol, protocol)
        found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=known))
        if not found:
            raise ValueError(f"no exporter `{known}` is installed")
        yield found[0].load()()


class _FirstTrouble(logging.Handler):
    """Tells the first thing that the SDK complains of, in our own log, and keeps the rest to itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of it."""
        if not self._told:
            self._told = True
            log.warning("telemetry: %s", record.getMessage().partition("\n")[0][:300])


def _hear_troubles() -> None:
    sdk = logging.getLogger("opentelemetry")
    if not sdk.handlers:
        sdk.addHandler(_FirstTrouble())
        sdk.propagate = False
