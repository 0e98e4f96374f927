"""Traces with OpenTelemetry, configured by its standard ``OTEL_*`` variables; off by default.

`start_tracing` turns them on for a service or a command. Until then `tracer` returns None, no code
of OpenTelemetry is imported here, and a request pays for a comparison.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.extras import install_command

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

STOP_S = 2.0
"""Longest time in seconds for which the end of a process waits for its last spans."""
SCOPE = "dimee"
"""Name of the instrumentation scope of all spans."""

_tracer: Tracer | None = None
_shut_down: Callable[[], None] | None = None


def tracer() -> Tracer | None:
    """Return the tracer of this process; None if tracing is off."""
    return _tracer


def start_tracing(service: str, variables: Mapping[str, str] | None = None) -> Tracer | None:
    """Turn tracing on if ``variables`` (the environment) ask for it; return the tracer or None.

    ``service`` is the service's name unless the variables have one. What cannot be done is logged,
    and the process then runs without traces. Tracing that is already on stays as it is.
    """
    if _tracer is not None or not _is_asked_for(os.environ if variables is None else variables):
        return _tracer
    try:
        from shared.telemetry.trace_export import make_provider

        provider = make_provider(service)
    except ImportError:
        log.warning(
            "no traces: the OTEL_ variables ask for them, but OpenTelemetry is not installed; in "
            "the clone of the repository, run: %s",
            install_command("otel"),
        )
        return None
    except ValueError as error:  # OpenTelemetry replaces only some wrong values by defaults
        log.warning("no traces: a variable OTEL_ has a wrong value; correct it: %s", error)
        return None
    return use_provider(provider)


def use_provider(provider: TracerProvider) -> Tracer:
    """Record the spans of this process with ``provider``; `stop_tracing` shuts it down."""
    global _tracer, _shut_down
    _tracer, _shut_down = provider.get_tracer(SCOPE), provider.shutdown
    return _tracer


def stop_tracing(timeout_s: float = STOP_S) -> None:
    """Turn tracing off, and export the last spans for at most ``timeout_s``."""
    global _tracer, _shut_down
    shut_down, _tracer, _shut_down = _shut_down, None, None
    if shut_down is not None:
        # the provider's shutdown has no time limit, and a collector may not answer
        ending = threading.Thread(target=shut_down, name="last spans", daemon=True)
        ending.start()
        ending.join(timeout_s)


@contextmanager
def traces(service: str) -> Iterator[None]:
    """Record the spans of a command in this block if the ``OTEL_*`` variables ask for it."""
    start_tracing(service)
    try:
        yield
    finally:
        stop_tracing()


def _is_asked_for(variables: Mapping[str, str]) -> bool:
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if exporter == "none" or not (exporter or any(variables.get(name) for name in endpoints)):
        return False
    protocol = (
        variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    for name, value, supported in (
        ("OTEL_TRACES_EXPORTER", exporter or "otlp", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, "http/protobuf"),
    ):
        if value != supported:
            log.warning("no traces: %s is %s; set it to %s", name, value[:100], supported)
            return False
    return True
