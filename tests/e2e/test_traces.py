"""One trace from the caller through mobile, edge, cloud and the ledger's record of each attempt."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.processes.processes import Testbed
from tests.support.commands import dimee
from tests.support.otlp_receiver import ReceivedSpan, Receiver, otlp_receiver
from tests.support.paths import REPOSITORY, free_ports
from tests.support.running_testbed import start

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TEXT = "a gripping, funny film"
POLICY = """
from shared.policies import RoutingDecision, StatelessPolicy, Tier

NEXT = {Tier.MOBILE: Tier.EDGE, Tier.EDGE: Tier.CLOUD}


class EveryTier(StatelessPolicy):
    name = "every-tier"

    def route(self, features):
        return RoutingDecision(Tier.MOBILE, self.name)

    def escalate(self, features, decision, outcome, meets_threshold):
        return NEXT.get(outcome.tier)
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    pytest.importorskip("opentelemetry.sdk")
    with otlp_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def testbed(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Four processes with tracing, and a policy that asks every tier."""
    folder = tmp_path_factory.mktemp("traces")
    (folder / "every_tier.py").write_text(POLICY)
    path = f"{folder}:{REPOSITORY}"
    settings = receiver.settings() | {"PYTHONPATH": path, "DIMEE_POLICY": "every_tier:EveryTier"}
    with start(folder / "state", DIMEE_MAX_QUEUE_MS="600000", **settings) as running:
        yield running


def classify(testbed: Testbed, flags: str, trace_id: str = TRACE_ID) -> httpx.Response:
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-{flags}", "tracestate": "vendor=1"}
    body = {"texts": [TEXT], "deadline_ms": 60_000}
    url = f"{testbed.roles['mobile'].url}/v1/classify"
    return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=60.0)


def of_trace(spans: list[ReceivedSpan], trace_id: str = TRACE_ID) -> list[ReceivedSpan]:
    return [span for span in spans if span.trace_id == trace_id]


def test_one_trace_through_three_tiers_and_the_ledger(testbed: Testbed, receiver: Receiver) -> None:
    """The flags 03 say: sampled, and the trace id is random."""
    response = classify(testbed, "03")
    answer = response.json()["items"][0]["result"]
    assert [one["tier"] for one in answer["attempts"]] == ["mobile", "edge", "cloud"]
    assert answer["trace_id"] == TRACE_ID
    version, trace_id, server_id, flags = response.headers["traceresponse"].split("-")
    assert (version, trace_id, int(flags, 16) & 1) == ("00", TRACE_ID, 1)
    # gateway, request, decision, 3 attempts, 2 on the mobile, 4 at each server, 6 in the ledger
    spans = of_trace(receiver.wait_for(lambda spans: len(of_trace(spans)) >= 22))
    assert len(spans) == 22
    by_id = {span.span_id: span for span in spans}

    def path(span: ReceivedSpan) -> list[tuple[str, str]]:
        above = by_id.get(span.parent_id)
        return [*(path(above) if above else []), (span.service, span.name)]

    tree = sorted({tuple(path(span)) for span in spans})
    gateway: list[tuple[str, str]] = [
        ("dimee-mobile", "POST /v1/classify"), ("dimee-mobile", "dimee.request")
    ]  # fmt: skip
    attempt = [*gateway, ("dimee-mobile", "dimee.attempt")]
    record = ("dimee-ledger", "dimee.ledger_record")
    expected: list[list[tuple[str, str]]] = [
        gateway[:1], gateway, attempt, [*attempt, record],
        [*gateway, ("dimee-mobile", "dimee.decision")],
        [*attempt, ("dimee-mobile", "dimee.queue")], [*attempt, ("dimee-mobile", "dimee.layers")],
    ]  # fmt: skip
    for tier in ("edge", "cloud"):
        service = f"dimee-{tier}"
        exchange = [*attempt, ("dimee-mobile", "POST /v1/infer")]
        served = [*exchange, (service, "POST /v1/infer")]
        expected += [exchange, served, [*served, record]]
        expected += [[*served, (service, "dimee.queue")], [*served, (service, "dimee.layers")]]
    assert tree == sorted({tuple(one) for one in expected})
    root = next(span for span in spans if span.parent_id == CALLER)
    assert root.span_id == server_id
    assert {span.trace_state for span in spans} <= {"vendor=1", ""}
    assert root.trace_state == "vendor=1", "the tracestate of the caller is kept"
    check_attributes(spans, answer)
    check_links(receiver, spans)
    check_ledger(testbed, answer["request_id"], spans)


def check_attributes(spans: list[ReceivedSpan], answer: dict[str, Any]) -> None:
    def named(name: str, kind: str = "internal") -> list[dict[str, Any]]:
        found = [span for span in spans if span.name == name and span.kind == kind]
        return [span.attributes for span in sorted(found, key=lambda span: span.start_ns)]

    (server,) = named("POST /v1/classify", "server")
    assert server["http.request.method"] == "POST"
    assert server["http.route"] == server["url.path"] == "/v1/classify"
    assert server["http.response.status_code"] == 200
    (request,) = named("dimee.request")
    assert request["dimee.request_id"] == answer["request_id"]
    assert request["dimee.policy"] == "every-tier"
    assert (request["dimee.tier"], request["dimee.reason"]) == ("cloud", "escalate")
    assert request["dimee.exit_layer"] == answer["exit_layer"]
    assert request["dimee.cost_lambda"] == answer["cost"]["cost_lambda"]
    assert named("dimee.decision")[0]["dimee.tier"] == "mobile"
    for attempt, report in zip(named("dimee.attempt"), answer["attempts"], strict=True):
        for name in ("attempt_id", "tier", "reason", "exit_layer", "compute_ms", "cost_lambda"):
            assert attempt[f"dimee.{name}"] == report[name], name
    for exchange, report in zip(
        named("POST /v1/infer", "client"), answer["attempts"][1:], strict=True
    ):
        assert exchange["dimee.network_ms"] == report["network_ms"]
        assert exchange["url.full"].endswith("/v1/infer")
        assert exchange["server.address"] == "127.0.0.1"
        assert exchange["http.response.status_code"] == 200
    layers = {(one["dimee.first_layer"], one["dimee.last_layer"]) for one in named("dimee.layers")}
    assert layers == {(1, one["exit_layer"]) for one in answer["attempts"]}
    text = TEXT.encode()
    assert not [span for span in spans if text in repr(span).encode()], "no span holds the text"


def check_links(receiver: Receiver, spans: list[ReceivedSpan]) -> None:
    """A delivery has a trace of its own, which is linked to the spans of the attempts."""
    records = [span for span in spans if span.name == "dimee.ledger_record"]
    attempts = {(TRACE_ID, span.parent_id) for span in records}
    deliveries = {link for span in records for link in span.links}

    def arrived(found: list[ReceivedSpan]) -> bool:
        """The span of a delivery ends after those of its entries, and may come later."""
        named = [span for span in found if span.name == "POST /v1/entries"]
        links = {link for span in named if span.kind == "client" for link in span.links}
        served = {(span.trace_id, span.span_id) for span in named if span.kind == "server"}
        return attempts <= links and deliveries <= served

    receiver.wait_for(arrived)
    assert [len(span.links) for span in records] == [1] * len(records)
    assert TRACE_ID not in {trace_id for trace_id, _ in deliveries}


def check_ledger(testbed: Testbed, request_id: str, spans: list[ReceivedSpan]) -> None:
    url = testbed.roles["ledger"].url
    entries = LedgerClient(url).request_entries(request_id)
    assert {entry.trace_id for entry in entries} == {TRACE_ID}
    attempts = {span.span_id for span in spans if span.name in ("dimee.attempt", "POST /v1/infer")}
    assert {str(entry.span_id) for entry in entries} <= attempts
    shown = dimee("ledger", "show", request_id, "--ledger-url", url)
    assert shown.stdout.splitlines()[0] == f"request {request_id} · trace {TRACE_ID}"


def test_caller_that_does_not_sample_gets_no_spans(testbed: Testbed, receiver: Receiver) -> None:
    unsampled, sampled = "1" * 32, "2" * 32
    answer = classify(testbed, "00", unsampled).json()["items"][0]["result"]
    assert answer["trace_id"] == unsampled
    classify(testbed, "01", sampled)
    spans = receiver.wait_for(
        lambda spans: (
            [one.name for one in of_trace(spans, sampled)].count("dimee.ledger_record") == 6
        )
    )
    assert not of_trace(spans, unsampled)
    entries = LedgerClient(testbed.roles["ledger"].url).request_entries(answer["request_id"])
    assert {(entry.trace_id, entry.span_id) for entry in entries} == {(unsampled, None)}


def test_probes_and_pages_make_no_spans(testbed: Testbed, receiver: Receiver) -> None:
    mobile = testbed.roles["mobile"].url
    for path in ("/readyz", "/healthz", "/v1/bundle"):
        httpx.get(mobile + path, trust_env=False)
    spans = receiver.wait_for(lambda spans: any(one.name == "GET /v1/bundle" for one in spans))
    assert not [span for span in spans if "z" in span.attributes.get("url.path", "")]


def test_command_begins_a_trace_of_its_own(
    testbed: Testbed, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without an outgoing trace; the command exports its spans before it ends."""
    for name, value in receiver.settings().items():
        monkeypatch.setenv(name, value)
    urls = {f"{name}_url": testbed.roles[name].url for name in ("edge", "ledger")}
    done = dimee(
        "classify", "--json", "--policy", "edge", TEXT, status=0, state_dir=tmp_path, **urls
    )
    trace_id = json.loads(done.stdout)[0]["trace_id"]
    # call, request, decision, attempt and exchange; 3 at the edge; 2 in the ledger
    spans = of_trace(
        receiver.wait_for(lambda spans: len(of_trace(spans, trace_id)) >= 10), trace_id
    )
    (root,) = [span for span in spans if not span.parent_id]
    assert (root.service, root.name) == ("dimee-classify", "dimee.classify")
    assert {span.service for span in spans} == {"dimee-classify", "dimee-edge", "dimee-ledger"}


def test_process_with_a_dead_collector_answers_and_stops(tmp_path: Path) -> None:
    """Its log has one line about that, and its ledger entries are delivered as before."""
    dead = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}"}
    dead |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with start(tmp_path / "state", DIMEE_MAX_QUEUE_MS="600000", **dead) as running:
        answer = classify(running, "01").json()["items"][0]["result"]
        log = running.log("mobile")
        until = time.monotonic() + 60
        while "spans cannot be exported" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        for _ in range(3):
            classify(running, "01")
        report = wait_for_consistent(LedgerClient(running.roles["ledger"].url), 60, 4)
        assert report.consistent
        assert report.requests == 4
        process = running.processes["mobile"]
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM, "uvicorn raises it again at its end"
        assert answer["trace_id"] == TRACE_ID
        lines = log.read_text().splitlines()
    assert len([line for line in lines if "span" in line]) == 1, lines


def test_last_spans_are_exported_when_a_process_stops(receiver: Receiver, tmp_path: Path) -> None:
    """The spans of the last request wait for an export in an hour."""
    settings = receiver.settings() | {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    with start(tmp_path / "state", DIMEE_MAX_QUEUE_MS="600000", **settings) as running:
        last = "3" * 32
        classify(running, "01", last)
        process = running.processes["mobile"]
        process.terminate()
        process.wait(60)
        receiver.wait_for(
            lambda spans: any(one.service == "dimee-mobile" for one in of_trace(spans, last))
        )
