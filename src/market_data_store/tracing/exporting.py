"""Takes spans to where the environment says, and never holds up who makes them."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Sequence

from celery.signals import worker_process_shutdown
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult

from market_data_store.config.reading import Traces
from market_data_store.connections.urls import without_password
from market_data_store.logs.repeated import Repeated

logger = logging.getLogger(__name__)

#: Seconds for the last spans at the end of a process: a collector that hangs must not use up the time of its shutdown.
_LAST_S = 2.0
#: What of OpenTelemetry says each failure of the exporter; `_Said` says them once.
_EXPORTERS = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


def provider_for(asked: Traces, process: str) -> TracerProvider:
    """Return the provider that the application has set, or else one by the OTEL_ variables, which becomes nobody's."""
    given = trace.get_tracer_provider()
    if isinstance(given, TracerProvider):
        return given
    for name in _EXPORTERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: process}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = ConsoleSpanExporter() if asked.exporter == "console" else OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(_Said(exporter, without_password(asked.endpoint))))
    atexit.register(_export_the_last, provider)
    worker_process_shutdown.connect(lambda **_: _export_the_last(provider), weak=False)  # there `atexit` does nothing
    return provider


class _Said(SpanExporter):
    """An exporter whose trouble is said once, and once when it is over."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._to = f" to {endpoint}" if endpoint else ""
        self._outage = Repeated(logger)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, and say whether that works."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._outage.over("Traces are exported again")
        else:
            self._outage.happened(
                f"Traces cannot be exported{self._to}, and are dropped; rows are not affected. "
                "Does OTEL_EXPORTER_OTLP_ENDPOINT name a collector that speaks OTLP over HTTP?",
                kind="away",
            )
        return result

    def shutdown(self) -> None:
        """Stop."""
        self._exporter.shutdown()


def _export_the_last(provider: TracerProvider) -> None:
    thread = threading.Thread(target=provider.force_flush, name="last-spans", daemon=True)
    thread.start()
    thread.join(_LAST_S)
