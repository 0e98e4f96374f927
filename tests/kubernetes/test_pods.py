"""The pods of the overlay ``edge-cloud`` as processes: probes, load, a cut, a successor, scaling.

There is no cluster: what is tested is that the program does with these manifests what they promise.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from tests.support.kubernetes import (
    Manifest,
    container,
    named,
    needs_kubectl,
    workloads,
)
from tests.support.pods import PODS, Pods
from tests.support.postgres import postgres_server
from tests.support.prometheus_server import prometheus_with
from tests.support.scrapes import Scrape

pytestmark = [needs_kubectl, pytest.mark.long]
TEXT = "a gripping, funny film"
LONG_TEXT = " ".join([TEXT] * 30)
CONNECTIONS = 120
"""More than the 80 texts that may arrive at once on any tier (shared.tier_server.admission)."""
LABELS = {
    "__meta_kubernetes_namespace": "dimee",
    "__meta_kubernetes_pod_label_app_kubernetes_io_name": "dimee",
    "__meta_kubernetes_pod_container_port_name": "https",
}


@pytest.fixture(scope="module")
def edge_cloud(all_manifests: dict[str, list[Manifest]]) -> list[Manifest]:
    return all_manifests["overlays/edge-cloud"]


@pytest.fixture(scope="module")
def pods(
    edge_cloud: list[Manifest], deployment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pods]:
    """One pod of each service, with the ledger on a PostgreSQL of the test."""
    with (
        postgres_server() as server,
        Pods(
            edge_cloud,
            deployment / "base" / "secrets",
            tmp_path_factory.mktemp("pods"),
            DIMEE_DATABASE_URL=server.get_uri(),
            DIMEE_WORKERS="1",
        ) as running,
    ):
        yield running


@pytest.fixture
def gateway(pods: Pods) -> Iterator[httpx.Client]:
    """An application that calls the gateway with its token."""
    credentials = pods.credentials("app")
    with httpx.Client(
        base_url=pods.url("mobile"),
        auth=credentials.auth,
        verify=credentials.verify,
        trust_env=False,
        timeout=60,
    ) as http:
        yield http


@pytest.fixture(scope="module")
def ledger(pods: Pods) -> LedgerClient:
    return LedgerClient(pods.url("ledger"), credentials=pods.credentials("operator"))


def classify(gateway: httpx.Client, policy: str, count: int = 1) -> list[dict[str, Any]]:
    body = {"texts": [TEXT] * count, "policy": policy, "deadline_ms": 20_000}
    answer = gateway.post("/v1/classify", json=body)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    assert [item["error"] for item in items] == [None] * count
    return [item["result"] for item in items]


class Load:
    """Requests for the edge, with ids of their own, from more connections than its queue takes."""

    def __init__(self, pods: Pods, name: str) -> None:
        self._pods = pods
        self._name = name
        self._stopped = threading.Event()
        self.statuses: set[int] = set()
        self.sent = 0

    async def _send(self) -> None:
        credentials = self._pods.credentials("mobile")
        async with httpx.AsyncClient(
            base_url=self._pods.url("edge"),
            headers=credentials.headers(),
            verify=credentials.verify,
            trust_env=False,
            timeout=60,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        ) as http:
            await asyncio.gather(*(self._ask(http, number) for number in range(CONNECTIONS)))

    async def _ask(self, http: httpx.AsyncClient, number: int) -> None:
        while not self._stopped.is_set():
            self.sent += 1
            body = {
                "request_id": f"{self._name}-{number}",
                "attempt_id": f"{self._name}-{number}-{self.sent}",
                "text": LONG_TEXT,
                "deadline_ms": 60_000,
            }
            self.statuses.add((await http.post("/v1/infer", json=body)).status_code)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send during the block, which begins when the edge has refused a request."""
        thread = threading.Thread(target=lambda: asyncio.run(self._send()))
        thread.start()
        try:
            until = time.monotonic() + 120
            while 429 not in self.statuses:
                assert thread.is_alive()
                assert time.monotonic() < until, self.statuses
                time.sleep(0.05)
            yield
        finally:
            self._stopped.set()
            thread.join(120)


def test_pods_answer_and_the_ledger_names_their_replicas(
    pods: Pods, gateway: httpx.Client, ledger: LedgerClient
) -> None:
    before = ledger.verify().requests
    tiers = [classify(gateway, policy)[0]["tier"] for policy in ("mobile", "edge", "cloud")]
    assert tiers == ["mobile", "edge", "cloud"]
    report = wait_for_consistent(ledger, 60, before + 3)
    assert report.consistent
    assert report.requests >= before + 3
    assert {tier: pods.readiness(tier)["replica"] for tier in ("edge", "cloud")} == {
        "edge": "edge-0",
        "cloud": "cloud-0",
    }


def test_no_call_is_answered_without_a_token(pods: Pods) -> None:
    for name, path in (("mobile", "/v1/classify"), ("edge", "/v1/infer"), ("ledger", "/v1/verify")):
        credentials = pods.credentials("prometheus")
        answer = httpx.get(pods.url(name) + path, verify=credentials.verify, trust_env=False)
        assert answer.status_code in (401, 405), (name, answer.text)
        assert b"dimee_" not in answer.content


@pytest.mark.parametrize("name", ["edge", "cloud"])
def test_metric_of_the_autoscaler_exists(
    pods: Pods, edge_cloud: list[Manifest], deployment: Path, name: str
) -> None:
    credentials = pods.credentials("prometheus")
    answer = httpx.get(
        f"{pods.url(name)}/metrics",
        headers=credentials.headers(),
        verify=credentials.verify,
        trust_env=False,
    )
    adapter = yaml.safe_load((deployment / "autoscaling" / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0] in Scrape.of(answer.text).families
    spec = named(edge_cloud, "HorizontalPodAutoscaler")[name]["spec"]
    assert [metric["type"] for metric in spec["metrics"]] == ["Pods", "Resource"]
    assert spec["metrics"][1]["resource"]["name"] == "cpu"
    assert spec["scaleTargetRef"]["name"] == name


def test_edge_site_works_through_a_cut_and_delivers_afterwards(
    pods: Pods, gateway: httpx.Client, ledger: LedgerClient
) -> None:
    """The cloud and the ledger are gone; then the edge dies, and its successor has its volume."""
    before = ledger.verify().requests
    for name in ("cloud", "ledger"):
        pods.kill(name)
    answers = [result for policy in ("cloud", "edge") for result in classify(gateway, policy, 5)]
    assert {answer["tier"] for answer in answers} <= {"mobile", "edge"}
    for name in ("mobile", "edge"):
        for kind in ("livenessProbe", "readinessProbe"):
            assert pods.probe(name, kind)[0], (name, kind)
    pods.kill("edge")
    pods.start("edge")
    pods.wait_started("edge")
    for name in ("ledger", "cloud"):
        pods.start(name)
        pods.wait_started(name)
    report = wait_for_consistent(ledger, 90, before + 10)
    assert report.consistent, report
    assert report.requests >= before + 10


def test_a_pod_that_is_told_to_stop_ends_in_time_and_loses_no_request(
    pods: Pods, edge_cloud: list[Manifest], gateway: httpx.Client, ledger: LedgerClient
) -> None:
    before = ledger.verify().requests
    spec = workloads(edge_cloud)["edge"]["spec"]["template"]["spec"]
    sleep_s = float(
        container(workloads(edge_cloud)["edge"])["lifecycle"]["preStop"]["exec"]["command"][1]
    )
    results: list[list[dict[str, Any]]] = []
    calls = [
        threading.Thread(target=lambda: results.append(classify(gateway, "edge", 20)))
        for _ in range(4)
    ]
    for call in calls:
        call.start()
    pods.processes["edge"].send_signal(signal.SIGTERM)
    grace_s = spec["terminationGracePeriodSeconds"] - sleep_s
    # uvicorn ends with the signal that it was stopped by
    assert pods.processes["edge"].wait(grace_s) in (0, -signal.SIGTERM), pods.log("edge")
    for call in calls:
        call.join(60)
    assert [len(one) for one in results] == [20] * 4
    pods.start("edge")
    pods.wait_started("edge")
    report = wait_for_consistent(ledger, 90, before + 80)
    assert report.consistent, report


# The tests below are the last: their requests have no caller in the ledger.


def test_probes_pass_while_the_edge_refuses_requests(pods: Pods) -> None:
    """A busy pod must not be restarted, and no others must get its requests."""
    load = Load(pods, "probes")
    failed = []
    with load.running():
        for _ in range(20):
            for kind in ("livenessProbe", "readinessProbe"):
                passed, said = pods.probe("edge", kind)
                if not passed:
                    failed.append((kind, said))
    assert load.statuses == {200, 429}
    assert failed == []


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's package prometheus")
def test_queue_wait_of_a_busy_edge_reaches_the_autoscaler(
    pods: Pods, edge_cloud: list[Manifest], deployment: Path, tmp_path: Path
) -> None:
    """Prometheus scrapes as configured; the adapter's query gives the autoscaler its metric.

    Debian's Prometheus has no discovery of Kubernetes, so the test names the pods, with the labels
    that the discovery would give. prometheus-adapter fills its query in; the test does it instead.
    """
    chart = yaml.safe_load((deployment / "autoscaling" / "prometheus.yaml").read_text())
    (job,) = yaml.safe_load(chart["extraScrapeConfigs"])
    (discovery,) = job.pop("kubernetes_sd_configs")
    assert discovery == {"role": "pod", "namespaces": {"names": ["dimee"]}}
    label = "__meta_kubernetes_pod_label_app_kubernetes_io_component"
    job["static_configs"] = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": LABELS | {"__meta_kubernetes_pod_name": PODS[name], label: name},
        }
        for name, port in pods.ports.items()
    ]
    # a pod of another program in the namespace, and another port of a pod, are not scraped
    job["static_configs"] += [
        {"targets": ["127.0.0.1:1"], "labels": LABELS | {label: "postgres"}},
        {
            "targets": ["127.0.0.1:2"],
            "labels": LABELS
            | {label: "edge", next(iter(LABELS)): "x"}
            | {"__meta_kubernetes_pod_container_port_name": "other"},
        },
    ]
    secrets = deployment / "base" / "secrets"
    assert job["tls_config"]["ca_file"] == "/etc/dimee/ca.crt"
    job["tls_config"]["ca_file"] = str(secrets / "ca.crt")
    assert job["authorization"]["credentials_file"] == "/etc/dimee/token"
    job["authorization"]["credentials_file"] = str(secrets / "prometheus.token")
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [job],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    adapter = yaml.safe_load((deployment / "autoscaling" / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    query = (
        rule["metricsQuery"]
        .replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
        .replace("<<.LabelMatchers>>", 'namespace="dimee",pod=~"edge-0|cloud-0"')
        .replace("<<.GroupBy>>", "pod")
    )
    assert "<<" not in query
    (metric, _) = named(edge_cloud, "HorizontalPodAutoscaler")["edge"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    target = metric["pods"]["target"]["averageValue"]
    assert target.endswith("m")

    with prometheus_with(tmp_path) as server:
        server.wait_until(
            lambda: server.targets() == dict.fromkeys(pods.ports, ("up", "")), server.targets
        )
        series = server.query(rule["seriesQuery"])
        assert {one["metric"]["pod"]: one["metric"]["namespace"] for one in series} == {
            "edge-0": "dimee",
            "cloud-0": "dimee",
        }

        def wait_s() -> dict[str, float]:
            return {one["metric"]["pod"]: float(one["value"][1]) for one in server.query(query)}

        with Load(pods, "scaling").running():
            # how long it is, against the target, depends on the machine
            server.wait_until(lambda: wait_s()["edge-0"] > 0, wait_s)
        assert wait_s()["cloud-0"] == 0
