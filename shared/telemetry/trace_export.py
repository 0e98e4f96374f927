"""Export of spans by OTLP over HTTP. Importing this module imports OpenTelemetry's SDK."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = logging.getLogger(__name__)


class LoggedOnce(SpanExporter):
    """Exports with another exporter, and logs once that it fails and once that it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failed:
            log.warning(
                "spans cannot be exported and are dropped; start the collector of "
                "OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_SDK_DISABLED=true"
            )
        elif self._failed and not failed:
            log.warning("spans are exported again")
        self._failed = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def make_provider(service: str) -> TracerProvider:
    """Return a provider whose sampler, limits, headers and collector the ``OTEL_*`` variables set.

    ``service`` is the service's name unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES``
    has one. Spans wait in a queue of bounded length, and a thread exports them.
    """
    own = {"service.name": service, "service.namespace": "dimee"}
    with suppress(PackageNotFoundError):  # run from a folder, without an installation
        own["service.version"] = version("dimee")
    given = Resource.create()
    if not str(given.attributes["service.name"]).startswith("unknown_service"):
        del own["service.name"]
    provider = TracerProvider(resource=given.merge(Resource(own)), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(LoggedOnce(OTLPSpanExporter())))
    # they would repeat each failed export, each span that is dropped meanwhile, and each wrong part
    # of a caller's tracestate
    for name in ("opentelemetry.exporter", "opentelemetry.sdk", "opentelemetry.trace"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return provider
