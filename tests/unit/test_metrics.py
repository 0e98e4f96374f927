"""Parts of the metrics that no running system shows."""

from __future__ import annotations

import tomllib

from prometheus_client import CollectorRegistry

from mobile_client.gateway.metrics import GatewayMetrics
from shared.domain import Reason, State, Tier
from shared.telemetry.metrics import OTHER, BoundedLabel
from shared.version import VERSION
from tests.support.entries import caller
from tests.support.paths import REPOSITORY


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
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    for number in range(500):
        metrics.attempt_ended(caller(f"a{number}", policy=f"policy-{number}", final=True))
    (requests,) = (one for one in registry.collect() if one.name == "dimee_requests")
    counted = [one.value for one in requests.samples if one.name == "dimee_requests_total"]
    assert len(counted) <= 33
    assert sum(counted) == 500


def test_an_audit_is_no_request_and_enters_no_histogram() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    metrics.attempt_ended(caller("a1", reason=Reason.AUDIT, tier=Tier.CLOUD, final=False))
    labels = {"tier": "cloud", "reason": "audit", "result": State.ANSWERED.value}
    assert registry.get_sample_value("dimee_attempts_total", labels) == 1
    for name in ("dimee_attempt_round_trip_seconds_count", "dimee_attempt_compute_seconds_count"):
        assert registry.get_sample_value(name, {"tier": "cloud"}) == 0
    assert registry.get_sample_value("dimee_all_cloud_cost_lambda_total") == 0
