"""A cloud that starts after the gateway: requests go to it as soon as it is ready."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client import MobileClient, RequestOptions
from shared.domain import Tier
from shared.errors import NotReady
from testbed.up import PORTS, make_testbed
from tests.support.paths import BUNDLE, free_ports

TEXT = "a gripping, funny film"


def test_requests_with_policy_cloud_go_to_the_cloud_once_the_gateway_reaches_it(
    tmp_path: Path,
) -> None:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    testbed = make_testbed(ports, tmp_path, {"DIMEE_BUNDLE": str(BUNDLE)})
    url = testbed.roles["mobile"].url
    with testbed, httpx.Client(base_url=url, trust_env=False, timeout=60.0) as http:
        for name in ("ledger", "edge", "mobile"):
            testbed.start(name)
        testbed.wait_ready("edge")
        _wait_for_mobile_alone(http)
        with pytest.raises(NotReady, match="it waits for the cloud; see"):
            testbed.wait_ready("mobile", timeout_s=0.5)
        assert http.get("/readyz").json()["tiers"]["cloud"] != "ready"
        before = [_answer(http) for _ in range(5)]
        assert {answer["tier"] for answer in before} == {"edge"}
        assert all(answer["failed_over"] for answer in before)
        testbed.start("cloud")
        testbed.wait_ready("mobile")
        assert http.get("/readyz").json()["tiers"] == {"edge": "ready", "cloud": "ready"}
        after = [_answer(http) for _ in range(50)]
        assert {answer["tier"] for answer in after} == {"cloud"}
        assert not any(answer["failed_over"] for answer in after)


def test_sdk_sends_requests_to_the_cloud_once_it_is_ready(tmp_path: Path) -> None:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    testbed = make_testbed(ports, tmp_path / "testbed", {"DIMEE_BUNDLE": str(BUNDLE)})
    options = RequestOptions(policy="cloud")
    addresses = {f"{name}_url": testbed.roles[name].url for name in ("ledger", "edge", "cloud")}
    with testbed, MobileClient(bundle=BUNDLE, state_dir=tmp_path / "sdk", **addresses) as client:
        assert client.classify(TEXT, options=options).tier is Tier.MOBILE
        breaker = client._mobile.runtime.tier_stats.replicas[Tier.CLOUD][0].breaker
        while breaker.state == "closed":
            client.classify(TEXT, options=options)
        breaker._open_until = math.inf  # only a probe can close it
        closed = threading.Event()
        record_ready = breaker.record_ready

        def recorded() -> None:
            record_ready()
            closed.set()

        breaker.record_ready = recorded  # type: ignore[method-assign]
        testbed.start("cloud")
        assert closed.wait(60)
        assert client.classify(TEXT, options=options).tier is Tier.CLOUD


def _wait_for_mobile_alone(http: httpx.Client) -> None:
    transport = httpx.HTTPTransport(retries=20)  # waits longer before each of them
    with httpx.Client(transport=transport, base_url=http.base_url, timeout=60.0) as patient:
        assert patient.get("/readyz").status_code == 200


def _answer(http: httpx.Client) -> dict[str, Any]:
    response = http.post("/v1/classify", json={"texts": [TEXT], "policy": "cloud"})
    answer: dict[str, Any] = response.json()["items"][0]["result"]
    return answer
