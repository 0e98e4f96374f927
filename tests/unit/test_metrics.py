"""Parts of the metrics that no running system shows."""

from __future__ import annotations

import tomllib

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from mobile_client.gateway.attempt_metrics import AttemptTotals
from shared.domain import Reason, State, Tier
from shared.serving.error_handlers import install_error_handlers
from shared.serving.metrics import serve_metrics
from shared.telemetry.metrics import OTHER, BoundedLabel, ScrapedState
from shared.telemetry.totals import BATCH, Batch, Durations
from shared.version import VERSION
from tests.support.entries import caller
from tests.support.paths import REPOSITORY
from tests.support.scrapes import Scrape


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_a_label_has_a_bounded_number_of_values() -> None:
    label = BoundedLabel(2)
    assert [label(value) for value in ("a", "b", "a", "c", "b", "d")] == [
        "a",
        "b",
        "a",
        OTHER,
        "b",
        OTHER,
    ]


def test_policies_without_bound_make_no_series_without_bound() -> None:
    totals = AttemptTotals("edge", {})
    for number in range(500):
        totals.attempt_ended(caller(f"a{number}", policy=f"policy-{number}", final=True))
    (requests,) = (one for one in totals.families() if one.name == "dimee_requests")
    counted = [one.value for one in requests.samples if one.name == "dimee_requests_total"]
    assert len(counted) <= 33 * 5
    assert sum(counted) == 500


def test_an_audit_is_no_request_and_enters_no_histogram() -> None:
    totals = AttemptTotals("edge", {})
    totals.attempt_ended(caller("a1", reason=Reason.AUDIT, tier=Tier.CLOUD, final=False))
    registry = CollectorRegistry()
    registry.register(ScrapedState(totals.families))
    labels = {"tier": "cloud", "reason": "audit", "result": State.ANSWERED.value}
    assert registry.get_sample_value("dimee_attempts_total", labels) == 1
    for name in ("dimee_attempt_round_trip_seconds_count", "dimee_attempt_compute_seconds_count"):
        assert registry.get_sample_value(name, {"tier": "cloud"}) == 0
    assert registry.get_sample_value("dimee_all_cloud_cost_lambda_total") == 0


def test_a_duration_is_in_the_buckets_from_its_bound_up() -> None:
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        durations.add(seconds)
    assert [*durations.buckets()] == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert durations.sum_s == pytest.approx(2.65)


def test_items_of_a_batch_are_counted_when_it_is_full_or_read() -> None:
    counted: list[int] = []
    batch = Batch(counted.append)
    for number in range(BATCH - 1):
        batch.add(number)
    assert not counted
    batch.add(BATCH - 1)
    assert counted == [*range(BATCH)]
    batch.add(-1)
    batch.flush()
    assert counted[-1] == -1


def test_errors_of_http_itself_are_counted() -> None:
    app = FastAPI()
    install_error_handlers(app)
    serve_metrics(app, CollectorRegistry())
    with TestClient(app) as client:
        before = Scrape.of(client.get("/metrics").text)
        assert client.put("/metrics").status_code == 405
        after = Scrape.of(client.get("/metrics").text)
    counted = [
        one.total("dimee_errors_total", code="http", status="405") for one in (before, after)
    ]
    assert counted[1] == counted[0] + 1
