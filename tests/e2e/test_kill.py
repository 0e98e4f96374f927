"""SIGKILL of each service under load: every request gets an answer or a clear error."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.processes.processes import Testbed
from tests.support.running_testbed import sentences, start

DEADLINE_MS = 5_000


class RequestLoop:
    """Sends requests one after the other until `stop`."""

    def __init__(self, url: str, policy: str) -> None:
        self._url, self._policy = url, policy
        self._stop = threading.Event()
        self._texts = sentences(200)
        self._changed = threading.Condition()
        self.outcomes: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30.0) as http:
            while not self._stop.is_set():
                text = self._texts[len(self.outcomes) % len(self._texts)]
                body = {"texts": [text], "policy": self._policy, "deadline_ms": DEADLINE_MS}
                answer = http.post("/v1/classify", json=body)
                outcome = {
                    "status": answer.status_code,
                    "body": answer.json(),
                    "took_s": answer.elapsed.total_seconds(),
                }
                with self._changed:
                    self.outcomes.append(outcome)
                    self._changed.notify_all()

    def wait_for(self, more: int) -> None:
        """Return when ``more`` further requests have ended."""
        with self._changed:
            goal = len(self.outcomes) + more
            assert self._changed.wait_for(lambda: len(self.outcomes) >= goal, timeout=60)

    def wait_for_tier(self, tier: str) -> None:
        """Return when ``tier`` has answered the last request."""

        def answers() -> bool:
            last = self.outcomes[-1]
            return last["status"] == 200 and last["body"]["items"][0]["result"]["tier"] == tier

        with self._changed:
            assert self._changed.wait_for(answers, timeout=60)

    def stop(self) -> list[dict[str, Any]]:
        self._stop.set()
        self._thread.join(60)
        return self.outcomes


LONG_ROLES = [pytest.param(role, marks=pytest.mark.long) for role in ("edge", "cloud")]


@pytest.mark.parametrize("role", [*LONG_ROLES, "ledger"])
def test_killed_service_loses_no_request_and_recovers(role: str, tmp_path: Path) -> None:
    policy = "edge" if role == "ledger" else role
    with start(tmp_path) as testbed:
        requests = RequestLoop(testbed.roles["mobile"].url, policy)
        try:
            requests.wait_for(10)
            testbed.kill(role)
            requests.wait_for(10)
            testbed.start(role)
            testbed.wait_ready(role)
            requests.wait_for(10)
            requests.wait_for_tier(policy)  # after its circuit breaker has closed
        finally:
            outcomes = requests.stop()
        _all_ended_well(outcomes)
        results = [
            outcome["body"]["items"][0]["result"]
            for outcome in outcomes
            if outcome["status"] == 200
        ]
        other = [result for result in results if result["tier"] != policy]
        if role == "ledger":
            assert len(results) == len(outcomes)
            assert not other
        else:
            assert len(other) >= 8
            assert all(result["failed_over"] for result in other)
            assert results[-1]["tier"] == policy
        ledger = LedgerClient(testbed.roles["ledger"].url)
        report = wait_for_consistent(ledger, wait_s=60, requests=len(outcomes))
        assert report.consistent, report
        assert report.requests == len(outcomes)


def test_killed_mobile_closes_its_open_attempts_on_restart(tmp_path: Path) -> None:
    """They are recorded as abandoned, and the ledger is consistent."""
    with start(tmp_path) as testbed:
        url = testbed.roles["mobile"].url
        texts = sentences(200)
        failed: list[Exception] = []

        def ask() -> None:
            with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as http:
                try:
                    http.post("/v1/classify", json={"texts": texts, "policy": "cloud"})
                except httpx.HTTPError as error:
                    failed.append(error)

        sender = threading.Thread(target=ask)
        sender.start()
        _until_cloud_works(testbed)
        testbed.kill("mobile")
        sender.join(60)
        assert failed, "the mobile answered before it was killed"
        testbed.start("mobile")
        testbed.wait_ready("mobile")
        ledger = LedgerClient(testbed.roles["ledger"].url)
        report = wait_for_consistent(ledger, wait_s=60, requests=1)
        assert report.consistent, report
        states = ledger.summary().attempts_by_state
        assert states.get("abandoned", 0) >= 1, states


def test_mobile_answers_if_both_servers_are_killed(tmp_path: Path) -> None:
    with start(tmp_path) as testbed:
        testbed.kill("edge")
        testbed.kill("cloud")
        url = testbed.roles["mobile"].url
        with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as http:
            answer = http.post("/v1/classify", json={"texts": ["fine"], "policy": "edge"})
            (item,) = answer.json()["items"]
            assert item["result"]["tier"] == "mobile"
            assert item["result"]["degraded_because"] == "offline"
            tiers = {one["tier"] for one in item["result"]["attempts"]}
            assert tiers == {"edge", "cloud", "mobile"}
            local = http.post("/v1/classify", json={"texts": ["fine"], "policy": "mobile"})
            assert local.status_code == 200
        report = wait_for_consistent(
            LedgerClient(testbed.roles["ledger"].url), wait_s=60, requests=2
        )
        assert report.consistent, report
        assert report.requests == 2


def _until_cloud_works(testbed: Testbed) -> None:
    ledger = LedgerClient(testbed.roles["ledger"].url)
    for _ in range(10_000):
        if ledger.verify().caller_rows > 0:
            return
    pytest.fail("no attempt reached the ledger")


def _all_ended_well(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["took_s"] * 1e3 < DEADLINE_MS + 1_000
        if outcome["status"] != 200:
            assert outcome["status"] in (429, 503, 504), outcome
            assert outcome["body"]["error"]["message"]
