"""The metrics of the four processes: valid, without ids, and equal to the ledger's figures."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.domain import Reason, Side, State, Tier
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.ledger.reports import Summary
from shared.serving.tokens import new_token
from shared.version import VERSION
from testbed.processes.processes import Testbed
from tests.support.paths import REPOSITORY
from tests.support.running_testbed import sentences, start
from tests.support.scrapes import Scrape, scrape, scrape_until

SERVICES = ("ledger", "cloud", "edge", "mobile")
POLICIES = ("cascade-routing", "dimee-fixed", "mobile", "edge", "cloud")
NOT_AUDIT = tuple(reason.value for reason in Reason if reason is not Reason.AUDIT)
LABELS = {
    *("tier", "reason", "result", "policy", "exit_layer", "state", "kind", "code", "status"),
    *("worker", "version", "python", "report", "replica", "le"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, Summary]]:
    """A testbed after traffic of every kind, and its ledger's summary."""
    with start(
        tmp_path_factory.mktemp("metrics"),
        DIMEE_MAX_QUEUE_MS="600000",
        DIMEE_AUDIT_SHARE="0.3",
        DIMEE_LATENCY_PRICE_LAMBDA="0",
        DIMEE_DEADLINE_MS="20000",
        DIMEE_WORKERS="2",
    ) as testbed:
        texts = sentences(60)
        with httpx.Client(
            base_url=testbed.roles["mobile"].url, trust_env=False, timeout=60
        ) as http:
            for policy in POLICIES:
                for first in range(0, len(texts), 20):
                    body = {"texts": texts[first : first + 20], "policy": policy}
                    assert http.post("/v1/classify", json=body).status_code == 200
            assert http.post("/v1/classify", json={"texts": []}).status_code == 422
            # the edge is gone: requests fail over, and its circuit breaker opens
            testbed.kill("edge")
            for text in texts[:6]:
                body = {"texts": [text], "policy": "edge"}
                assert http.post("/v1/classify", json=body).status_code == 200
            # too short for any answer
            late = {"texts": texts[:1], "policy": "cloud", "deadline_ms": 1}
            assert http.post("/v1/classify", json=late).status_code in (200, 504)
        testbed.start("edge")
        testbed.wait_ready("edge")
        scrape_until(
            testbed.roles["mobile"].url, lambda found: found.total("dimee_audits_waiting") == 0
        )
        ledger = LedgerClient(testbed.roles["ledger"].url)
        assert wait_for_consistent(ledger, 60, 300).consistent
        for name in SERVICES[1:]:
            scrape_until(
                testbed.roles[name].url, lambda found: found.total("dimee_outbox_entries") == 0
            )
        yield testbed, ledger.summary()


def scraped(served: tuple[Testbed, Summary], name: str) -> Scrape:
    return scrape(served[0].roles[name].url)


def test_counters_of_requests_equal_the_ledgers_summary(
    served: tuple[Testbed, Summary],
) -> None:
    mobile, summary = scraped(served, "mobile"), served[1]
    assert summary.requests > 300
    assert mobile.total("dimee_requests_total") == summary.requests
    assert mobile.total("dimee_requests_total", result="answered") == summary.answered
    assert mobile.total("dimee_answers_total") == summary.answered
    assert summary.failed_over > 0
    assert mobile.total("dimee_answers_total", reason="fail_over") == summary.failed_over
    for policy, count in summary.requests_by_policy.items():
        assert mobile.total("dimee_requests_total", policy=policy) == count
    for tier, count in summary.answered_by_tier.items():
        assert mobile.total("dimee_answers_total", tier=tier) == count
    for tier, layers in summary.exits_by_tier.items():
        for layer, count in layers.items():
            assert mobile.total("dimee_answers_total", tier=tier, exit_layer=layer) == count
    assert mobile.total("dimee_degraded_requests_total") == summary.degraded == 0
    assert mobile.total("dimee_request_seconds_count") == summary.requests


def test_counters_of_attempts_equal_the_ledgers_summary(
    served: tuple[Testbed, Summary],
) -> None:
    mobile, summary = scraped(served, "mobile"), served[1]
    for state in State:
        count = summary.attempts_by_state.get(state.value, 0)
        counted = mobile.total("dimee_attempts_total", result=state.value, reason=NOT_AUDIT)
        assert counted == count, state
    assert summary.attempts_by_state["failed"] > 0
    for reason in NOT_AUDIT:
        count = summary.attempts_by_reason.get(reason, 0)
        assert mobile.total("dimee_attempts_total", reason=reason) == count, reason
    assert mobile.total("dimee_attempts_total", reason="audit") == summary.audits.attempts > 0
    for one in summary.durations:
        name = {"decision_ms": "dimee_decision_seconds"}.get(
            one.what, f"dimee_attempt_{one.what.removesuffix('_ms')}_seconds"
        )
        if one.what != "decision_ms":
            assert mobile.total(f"{name}_count", tier=one.tier) == one.count, one
    assert mobile.total("dimee_decision_seconds_count") == summary.requests


def test_counters_of_costs_equal_the_ledgers_summary(served: tuple[Testbed, Summary]) -> None:
    mobile, summary = scraped(served, "mobile"), served[1]
    for name, value, of_audits in (
        ("dimee_cost_lambda_total", summary.cost_lambda, summary.audits.cost_lambda),
        ("dimee_cost_usd_total", summary.cost_usd, summary.audits.cost_usd),
        ("dimee_sent_bytes_total", summary.sent_bytes, summary.audits.sent_bytes),
        ("dimee_received_bytes_total", summary.received_bytes, summary.audits.received_bytes),
        (
            "dimee_mobile_energy_joules_total",
            summary.energy_mj / 1e3,
            summary.audits.energy_mj / 1e3,
        ),
    ):
        assert value > 0
        assert mobile.total(name, reason=NOT_AUDIT) == pytest.approx(value, rel=1e-9), name
        assert mobile.total(name, reason="audit") == pytest.approx(of_audits, rel=1e-9), name
    all_cloud = mobile.total("dimee_all_cloud_cost_lambda_total")
    assert all_cloud == pytest.approx(summary.all_cloud_lambda, rel=1e-9)
    assert summary.cost_lambda < all_cloud


def test_tiers_count_what_they_wrote_to_the_ledger(served: tuple[Testbed, Summary]) -> None:
    testbed, _ = served
    wrote: Counter[tuple[str, str]] = Counter()
    ledger = LedgerClient(testbed.roles["ledger"].url)
    for entries in ledger.last_requests(1_000):
        for entry in ledger.request_entries(entries[0].request_id):
            if entry.side is Side.TIER:
                wrote[entry.tier.value, entry.state.value] += 1
    cloud = scraped(served, "cloud")
    # a request that no tier answered is not among the answered ones
    late = cloud.total("dimee_tier_attempts_total", result=("timed_out", "abandoned"))
    assert late <= 1
    answered = cloud.total("dimee_tier_attempts_total", result="answered")
    assert answered == wrote["cloud", "answered"] > 60
    for name in ("queue", "compute", "total"):
        assert cloud.total(f"dimee_tier_{name}_seconds_count") == answered
    assert cloud.total("dimee_tier_answers_total") == answered
    assert cloud.total("dimee_computed_texts_total") >= answered
    assert cloud.total("dimee_busy_seconds_total") > 0
    stored = scraped(served, "ledger")
    # each attempt's opening and its end
    assert stored.total("dimee_ledger_entries_total", result="stored") >= sum(wrote.values())
    assert stored.total("dimee_ledger_entries_total", result="conflict") == 0
    assert stored.total("dimee_ledger_database_bytes") > 0


@pytest.mark.parametrize("name", SERVICES)
def test_metrics_are_valid(served: tuple[Testbed, Summary], name: str) -> None:
    found = scraped(served, name)
    own = [family for family in found.families.values() if family.name.startswith("dimee_")]
    assert len(own) > 5
    for family in found.families.values():
        assert family.documentation
        assert family.name.startswith(("dimee_", "process_")), family.name
        assert family.type != "unknown", family.name
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total"), sample.name
    build = found.families["dimee_build_info"].samples[0]
    assert build.labels["version"] == VERSION
    assert found.total("dimee_ready") == 1
    assert found.total("process_cpu_seconds_total") > 0


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")
def test_promtool_finds_no_fault(served: tuple[Testbed, Summary], name: str) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scraped(served, name).text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_labels_have_few_values_and_no_id_or_text(
    served: tuple[Testbed, Summary], name: str
) -> None:
    testbed, summary = served
    found = scraped(served, name)
    samples = [sample for family in found.families.values() for sample in family.samples]
    assert len(samples) < 1_000
    values = {value for sample in samples for value in sample.labels.values()}
    assert {label for sample in samples for label in sample.labels} <= LABELS
    assert len(values) < 150
    requests = LedgerClient(testbed.roles["ledger"].url).last_requests(1_000)
    ids = {
        getattr(entry, field)
        for entries in requests
        for entry in entries
        for field in ("request_id", "attempt_id", "text_hash", "bundle_id")
    }
    assert len(ids) >= summary.answered
    assert not values & ids
    assert not [text for text in sentences(60) if text in found.text]


def test_states_are_scraped(served: tuple[Testbed, Summary]) -> None:
    mobile, cloud = scraped(served, "mobile"), scraped(served, "cloud")
    for tier in ("edge", "cloud"):
        assert mobile.total("dimee_circuit_breaker_state", tier=tier) == 1
        assert mobile.total("dimee_tier_readiness", tier=tier) == 1
    assert mobile.total("dimee_circuit_breaker_state", tier="cloud", state="closed") == 1
    assert mobile.total("dimee_alarm_active") == 0
    assert mobile.total("dimee_degraded") == 0
    assert mobile.total("dimee_errors_total", code="invalid_input", status="422") == 1
    audits = mobile.total("dimee_audits_total", result=("same", "different"))
    assert audits > 0
    assert mobile.total("dimee_calls_in_flight") == 0
    assert cloud.total("dimee_queue_length") == 0
    assert cloud.total("dimee_queue_limit") == 256
    assert cloud.total("dimee_workers") == cloud.total("dimee_worker_up") == 2
    assert cloud.total("dimee_worker_cpu_seconds_total") > 0
    assert cloud.total("dimee_worker_resident_memory_bytes") > 1e6
    for tier in Tier:
        outbox = scraped(served, tier.value)
        assert outbox.total("dimee_outbox_limit_bytes") == 512e6
        assert outbox.total("dimee_outbox_oldest_entry_age_seconds") == 0
        assert outbox.total("dimee_ledger_delivery_failing_seconds") == 0


def test_dead_edge_worker_and_ledger_are_seen(tmp_path: Path) -> None:
    """A dead tier, a replaced worker and a growing outbox."""
    with start(tmp_path, DIMEE_WORKERS="1") as testbed:
        mobile, cloud = testbed.roles["mobile"].url, testbed.roles["cloud"].url
        testbed.kill("ledger")
        os.kill(worker_of(testbed.processes["cloud"].pid), signal.SIGKILL)
        with httpx.Client(base_url=mobile, trust_env=False, timeout=60) as http:
            for text in sentences(8):
                body = {"texts": [text], "policy": "cloud"}
                assert http.post("/v1/classify", json=body).status_code == 200
        scrape_until(cloud, lambda found: found.total("dimee_worker_restarts_total") == 1)
        assert scrape(cloud).total("dimee_worker_up") == 1
        waiting = scrape_until(
            mobile, lambda found: found.total("dimee_ledger_delivery_failing_seconds") > 0
        )
        assert waiting.total("dimee_outbox_entries") >= 8
        assert waiting.total("dimee_outbox_oldest_entry_age_seconds") > 0
        testbed.kill("edge")
        scrape_until(
            mobile,
            lambda found: found.total("dimee_tier_readiness", tier="edge", state="unreachable") > 0,
        )


def worker_of(pid: int) -> int:
    """Return the process id of the only worker of a tier."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_a_token_needs_the_scope_metrics(tmp_path: Path) -> None:
    file = tmp_path / "tokens.jsonl"
    own, _ = new_token(file, "tier", ["infer", "ledger:write"])
    scraper = {"authorization": f"Bearer {new_token(file, 'prometheus', ['metrics'])[0]}"}
    other = {"authorization": f"Bearer {new_token(file, 'app', ['classify'])[0]}"}
    with start(tmp_path / "state", DIMEE_TOKENS=str(file), DIMEE_TOKEN=own) as testbed:
        for name in SERVICES:
            url = testbed.roles[name].url
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
                assert http.get("/metrics").status_code == 401
                refused = http.get("/metrics", headers=other)
                assert refused.status_code == 403
                assert "lacks the scope metrics" in refused.json()["error"]["message"]
                assert http.get("/openapi.json", headers=scraper).status_code == 403
            found = scrape(url, scraper)
            assert found.total("dimee_errors_total", code="unauthorised") == 1
            assert found.total("dimee_errors_total", code="forbidden") == 2


def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    with start(tmp_path, DIMEE_METRICS="off") as testbed:
        for name in SERVICES:
            url = testbed.roles[name].url
            assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 404


def test_the_page_names_every_metric_and_no_other(served: tuple[Testbed, Summary]) -> None:
    page = (REPOSITORY / "docs" / "how-to" / "watch-the-metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(dimee_\w+)`", page))
    scraped_names = {
        family.name + ("_total" if family.type == "counter" else "")
        for name in SERVICES
        for family in scraped(served, name).families.values()
        if family.name.startswith("dimee_")
    }
    # only with a certificate
    assert named - scraped_names == {"dimee_certificate_expiry_timestamp_seconds"}
    assert scraped_names - named == set()
