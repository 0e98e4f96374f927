"""Tracing is off by default, does not fail a process, and ends every span that it begins."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.domain import Tier
from shared.errors import DimeeError
from shared.telemetry import tracing
from shared.telemetry.recorded_span import begin_span
from shared.telemetry.trace_context import TraceContext
from shared.telemetry.trace_export import LoggedOnce
from shared.wire import Classification
from testbed.texts import sample_sentences
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE, free_ports
from tests.support.played_tiers import seen, world
from tests.support.silent_tier import SilentTier

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TEXT = "a gripping, funny film"


class Begun(SpanProcessor):
    """Counts the spans that begin."""

    count = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.count += 1


class Spans:
    """Spans that ended, and the number of those that began."""

    def __init__(self, provider: TracerProvider) -> None:
        exporter = InMemorySpanExporter()
        self._exporter = exporter
        self._begun = Begun()
        provider.add_span_processor(self._begun)
        provider.add_span_processor(SimpleSpanProcessor(exporter))

    def ended(self) -> list[ReadableSpan]:
        """Return the ended spans; every span must have ended."""
        spans = list(self._exporter.get_finished_spans())
        assert len(spans) == self._begun.count
        assert all(span.end_time >= span.start_time for span in spans)
        return spans

    def attempts(self) -> list[tuple[str, str | None]]:
        """Return tier and error of each attempt, in the order of their ends."""
        attributes = [span.attributes or {} for span in self.ended() if span.name.endswith("pt")]
        return [(str(one["dimee.tier"]), one.get("error.type")) for one in attributes]


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans of the mobile, with tracing that is on."""
    provider = TracerProvider(shutdown_on_exit=False)
    found = Spans(provider)
    tracing.use_provider(provider)
    yield found
    tracing.stop_tracing()


def begin() -> TraceContext:
    """Begin the span of a caller."""
    found = tracing.tracer()
    assert found is not None
    return begin_span(found, "caller", "internal", {})


async def traced(mobile: MobileService) -> Classification | DimeeError:
    """Send a text to the edge within a span."""
    caller = begin()
    try:
        options = RequestOptions("edge")
        return (await mobile.classify([TEXT], options=options, trace=caller))[0]
    finally:
        caller.end()


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({}, None),
        ({ENDPOINT: ""}, None),
        ({ENDPOINT: "http://a:4318", "OTEL_SDK_DISABLED": "true"}, None),
        ({ENDPOINT: "http://a:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_SERVICE_NAME": "a", "OTEL_TRACES_SAMPLER": "always_on"}, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is zipkin; set it to otlp"),
        (
            {ENDPOINT: "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc; set it to http/protobuf",
        ),
    ],
)
def test_off_unless_the_variables_ask_for_traces(
    variables: dict[str, str], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert tracing.start_tracing("dimee-edge", variables) is None
    assert tracing.tracer() is None
    assert [record.message for record in caplog.records] == (
        [] if warning is None else [f"no traces: {warning}"]
    )


def test_without_the_extra_one_warning_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "shared.telemetry.trace_export", None)
    assert tracing.start_tracing("dimee-edge", {ENDPOINT: "http://a:4318"}) is None
    assert "pip install -e '.[otel]'" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
    ],
)
def test_wrong_value_of_a_variable_means_no_traces(name: str, value: str) -> None:
    """In a process of its own, because some variables are read when the SDK is imported."""
    code = (
        "from shared.telemetry.tracing import start_tracing\n"
        "assert start_tracing('dimee-edge') is None\n"
    )
    environment = {**os.environ, ENDPOINT: "http://127.0.0.1:1", name: value}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr.startswith("no traces: a variable OTEL_ has a wrong value; correct it: ")
    assert len(done.stderr.splitlines()) == 1


def test_services_without_tracing_do_not_load_the_sdk() -> None:
    code = (
        "import sys, edge_server.app, shared.ledger.server.app, mobile_client.gateway.app\n"
        "from shared.telemetry.tracing import start_tracing\n"
        "assert start_tracing('dimee-edge', {}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("dead", ["refuses", "hangs"])
def test_dead_collector_delays_the_end_by_its_bound_only(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SilentTier() as silent:
        refusing = f"http://127.0.0.1:{free_ports(1)[0]}"
        monkeypatch.setenv(ENDPOINT, silent.url if dead == "hangs" else refusing)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "120")
        assert tracing.start_tracing("dimee-edge") is not None
        begin().end()
        started = time.monotonic()
        tracing.stop_tracing(0.1)
        assert time.monotonic() - started < 20, "the exporter's own limits are 30 and 120 s"
    assert tracing.tracer() is None


def test_failed_exports_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    results = [SpanExportResult.FAILURE] * 3 + [SpanExportResult.SUCCESS] * 2

    class Exporter(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return results.pop(0)

    exporter = LoggedOnce(Exporter())
    while results:
        exporter.export([])
    lost, found = (record.message for record in caplog.records)
    assert lost.startswith("spans cannot be exported and are dropped; start the collector")
    assert found == "spans are exported again"


def test_libraries_do_not_repeat_failed_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    tracing.start_tracing("dimee-edge")
    tracing.stop_tracing(0.1)
    for name in ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk.trace.export"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)


def test_tracestate_of_a_caller_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    tracer = tracing.start_tracing("dimee-edge")
    assert tracer is not None
    parent = f"00-{'a' * 32}-{'b' * 16}-00"
    caller = TraceContext("a" * 32, {"traceparent": parent, "tracestate": "the text,=,k=v"})
    assert begin_span(tracer, "request", "server", {}, caller).trace_id == "a" * 32
    tracing.stop_tracing(0.1)
    assert not caplog.records


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "dimee-edge"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=ours,a=b"}, "ours"),
    ],
)
def test_service_name(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.telemetry.trace_export import make_provider

    for variable, value in ({ENDPOINT: "http://127.0.0.1:9"} | variables).items():
        monkeypatch.setenv(variable, value)
    provider = make_provider("dimee-edge")
    assert provider.resource.attributes["service.name"] == name
    assert provider.resource.attributes["service.namespace"] == "dimee"
    assert provider.resource.attributes.get("a") == ("b" if name == "ours" else None)
    provider.shutdown()


def test_failed_attempt_and_the_one_that_replaces_it(spans: Spans, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Classification | DimeeError:
        return await traced(mobile)

    assert answered(world(tmp_path, "fails", "answers").run(work)).tier is Tier.CLOUD
    assert spans.attempts() == [("edge", "tier_failed"), ("cloud", None)]
    names = Counter(span.name for span in spans.ended())
    assert names["POST /v1/infer"] == 2


def test_loser_of_a_hedged_pair_is_abandoned(spans: Spans, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Classification | DimeeError:
        seen(mobile, Tier.EDGE, 5.0)
        return await traced(mobile)

    assert answered(world(tmp_path, "hangs", "answers", hedge="p95").run(work)).tier is Tier.CLOUD
    assert sorted(spans.attempts(), key=str) == [("cloud", None), ("edge", "abandoned")]


def test_cancelled_request_ends_its_spans(spans: Spans, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def work(mobile: MobileService) -> None:
        task = asyncio.ensure_future(traced(mobile))
        await asked.wait()
        task.cancel()
        await asyncio.wait({task})

    World(tmp_path, played={"edge": hang}).run(work)
    assert spans.attempts() == [("edge", "abandoned")]


def test_trace_that_is_not_sampled_makes_no_spans(tmp_path: Path) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    spans = Spans(provider)
    tracing.use_provider(provider)
    sent: list[str] = []

    async def work(mobile: MobileService) -> Classification | DimeeError:
        caller = begin()
        sent.append(caller.headers["traceparent"])
        options = RequestOptions("edge")
        return (await mobile.classify([TEXT], options=options, trace=caller))[0]

    found = World(tmp_path, up=("edge",))
    answer = answered(found.run(work))
    tracing.stop_tracing()
    assert not spans.ended()
    assert sent[0] == f"00-{answer.trace_id}-{sent[0][36:52]}-02" or sent[0].endswith("-00")
    assert {(entry.trace_id, entry.span_id) for entry in found.entries()} == {
        (answer.trace_id, None)
    }


CALLER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from mobile_client import MobileClient

exporter = InMemorySpanExporter()
if {records}:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
settings = {{"bundle": {bundle!r}, "state_dir": {state!r}, "ledger_url": "off"}}
with MobileClient(policy="mobile", **settings) as mobile:
    with trace.get_tracer("program").start_as_current_span("program") as span:
        answer = mobile.classify("a fine film")
spans = exporter.get_finished_spans()
by_id = {{one.context.span_id: one for one in spans}}
for one in spans:
    parent = by_id.get(one.parent.span_id) if one.parent else None
    print(one.name, "<", parent.name if parent else None)
    assert f"{{one.context.trace_id:032x}}" == answer.trace_id
print("trace", answer.trace_id is not None)
"""


@pytest.mark.parametrize("records", [True, False])
def test_client_continues_the_trace_of_its_program(records: bool, tmp_path: Path) -> None:
    code = CALLER.format(records=records, bundle=str(BUNDLE), state=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {
        "program < None",
        "dimee.classify < program",
        "dimee.request < dimee.classify",
        "dimee.decision < dimee.request",
        "dimee.attempt < dimee.request",
        "dimee.queue < dimee.attempt",
        "dimee.layers < dimee.attempt",
        "trace True",
    }
    assert set(done.stdout.splitlines()) == (expected if records else {"trace False"})


def test_layers_after_a_hidden_state_are_those_that_the_tier_ran(
    spans: Spans, tmp_path: Path
) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        caller = begin()
        outcomes = await mobile.classify(sample_sentences(), trace=caller)
        caller.end()
        return outcomes

    world = World(tmp_path, up=("cloud",), settings={"resume": "always", "deadline_ms": 60_000})
    resumed = [
        attempt
        for outcome in world.run(work)
        for attempt in answered(outcome).attempts
        if attempt.resumed_after is not None
    ]
    assert resumed
    found = spans.ended()
    served = {
        span.context.span_id: str((span.attributes or {})["dimee.attempt_id"])
        for span in found
        if span.name == "POST /v1/resume" and span.kind is SpanKind.SERVER
    }
    ranges = {
        served[span.parent.span_id]: tuple(
            (span.attributes or {})[f"dimee.{name}_layer"] for name in ("first", "last")
        )
        for span in found
        if span.name == "dimee.layers" and span.parent and span.parent.span_id in served
    }
    assert ranges == {
        one.attempt_id: ((one.resumed_after or 0) + 1, one.exit_layer) for one in resumed
    }
