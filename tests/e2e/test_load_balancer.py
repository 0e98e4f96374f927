"""Two clouds behind a load balancer, one of which is killed: the ledger stays consistent."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.up import PORTS, make_testbed
from tests.support.load_balancer import LoadBalancer
from tests.support.paths import BUNDLE, free_ports
from tests.support.running_testbed import sentences

TEXTS = 40


def test_error_of_a_balancer_is_not_work_of_a_tier(tmp_path: Path) -> None:
    names = [*PORTS, "cloud-1", "cloud-2", "balancer"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    settings = {"DIMEE_BUNDLE": str(BUNDLE), "DIMEE_WORKERS": "1"}
    testbed = make_testbed(ports, tmp_path, settings, replicas={"cloud": 2})
    mobile = testbed.roles["mobile"]
    balanced = {"DIMEE_CLOUD_URL": f"http://127.0.0.1:{ports['balancer']}"}
    testbed.roles["mobile"] = replace(mobile, settings=mobile.settings | balanced)
    balancer = LoadBalancer(ports["balancer"], [ports["cloud-1"], ports["cloud-2"]])
    requests = 0
    with balancer, testbed, httpx.Client(trust_env=False, timeout=60.0) as http:
        testbed.start_all()
        ledger = LedgerClient(testbed.roles["ledger"].url)

        def ask() -> Counter[str]:
            """Send texts one after the other, and return how many each tier answered."""
            nonlocal requests
            tiers: Counter[str] = Counter()
            for text in sentences(TEXTS):
                body = {"texts": [text], "policy": "cloud"}
                answer = http.post(f"{mobile.url}/v1/classify", json=body)
                assert answer.status_code == 200, answer.text
                tiers[answer.json()["items"][0]["result"]["tier"]] += 1
                requests += 1
            return tiers

        def consistent() -> None:
            report = wait_for_consistent(ledger, wait_s=60, requests=requests)
            assert (report.consistent, report.requests) == (True, requests), report

        assert ask() == {"cloud": TEXTS}
        consistent()
        shares = {one.replica: one.answered for one in ledger.summary().replicas}
        assert shares == {"cloud-1": TEXTS // 2, "cloud-2": TEXTS // 2}

        # everything of the first cloud is delivered, so that it owes nothing while it is dead
        testbed.kill("cloud-1")
        ask()
        assert balancer.errors > 0
        consistent()
        balancer.drained = True
        assert ask()["cloud"] == 0
        consistent()
        states = ledger.summary().attempts_by_state
        assert states["failed"] >= 3, states
