"""Three clouds: even shares, SIGKILL of one at random moments, and its successor's outbox."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from shared.domain import Reason, State
from shared.ledger.cli import ledger as ledger_command
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.processes.processes import Testbed
from tests.support.running_testbed import sentences, start

CLOUDS = ("cloud-1", "cloud-2", "cloud-3")
DEADLINE_MS = 5_000
SENDERS = 6


class Load:
    """Sends texts to the cloud from several threads, until it is told to stop."""

    def __init__(self, url: str, senders: int = SENDERS) -> None:
        self._url, self._texts = url, sentences(200)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.outcomes: list[tuple[int, dict[str, Any]]] = []
        self._pool = ThreadPoolExecutor(senders)
        self._running = [self._pool.submit(self._send, seed) for seed in range(senders)]

    def _send(self, seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30.0) as http:
            while not self._stop.is_set():
                body = {
                    "texts": [rng.choice(self._texts)],
                    "policy": "cloud",
                    "deadline_ms": DEADLINE_MS,
                }
                answer = http.post("/v1/classify", json=body)
                with self._changed:
                    self.outcomes.append((answer.status_code, answer.json()))
                    self._changed.notify_all()

    def wait_for(self, more: int) -> None:
        """Return when ``more`` further requests have ended."""
        with self._changed:
            goal = len(self.outcomes) + more
            assert self._changed.wait_for(lambda: len(self.outcomes) >= goal, timeout=120)

    def stop(self) -> list[tuple[int, dict[str, Any]]]:
        self._stop.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()
        return self.outcomes


def verify(testbed: Testbed, wait_s: float) -> tuple[int, str]:
    """Return the exit status and the output of ``dimee ledger verify``."""
    url = testbed.roles["ledger"].url
    result = CliRunner().invoke(
        ledger_command, ["verify", "--ledger-url", url, "--wait", str(wait_s)]
    )
    return result.exit_code, result.output


def clouds_of(url: str) -> Counter[str]:
    """Return what the mobile knows of the clouds: how many of them are in each state."""
    httpx.get(f"{url}/readyz", trust_env=False, timeout=30.0)  # probes what is not known
    status = httpx.get(f"{url}/v1/status", trust_env=False, timeout=30.0).json()
    return Counter(one["ready"] for one in status["replicas"]["cloud"])


def attempts_of(outcomes: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the attempts of the requests that were answered."""
    items = [body["items"][0] for status, body in outcomes if status == 200]
    return [one for item in items if "result" in item for one in item["result"]["attempts"]]


def answered_by(outcomes: list[tuple[int, dict[str, Any]]]) -> Counter[str]:
    """Return how many requests each replica answered."""
    attempts = attempts_of(outcomes)
    return Counter(one["replica"] for one in attempts if one["state"] == State.ANSWERED)


def send_until_undisturbed(url: str) -> list[list[tuple[int, dict[str, Any]]]]:
    """Send 240 requests, and again if an attempt failed; return the outcomes of each time.

    On a busy machine a replica may stand still for longer than its callers wait. It then rests for
    a while, and has a smaller share. The requests go one after another: of several at once, a
    replica with more of a busy processor gets more.
    """
    every = []
    for _ in range(5):
        load = Load(url, senders=1)
        try:
            load.wait_for(240)
        finally:
            every.append(load.stop())
        requests, attempts = len(every[-1]), len(attempts_of(every[-1]))
        if requests == attempts == answered_by(every[-1]).total():
            return every
        _until(lambda: clouds_of(url) == {"ready": len(CLOUDS)})
    pytest.fail("an attempt failed each of five times; use a machine that is less busy")


def test_replicas_share_the_load_and_survive_kills(tmp_path: Path) -> None:
    rng = random.Random(20)
    with start(tmp_path, {"cloud": len(CLOUDS)}, DIMEE_WORKERS="1") as testbed:
        url = testbed.roles["mobile"].url
        ledger = LedgerClient(testbed.roles["ledger"].url)
        _until(lambda: clouds_of(url) == {"ready": len(CLOUDS)})
        undisturbed = send_until_undisturbed(url)
        requests = sum(len(outcomes) for outcomes in undisturbed)
        shares = answered_by(undisturbed[-1])
        assert set(shares) == set(CLOUDS)
        mean = sum(shares.values()) / len(shares)
        assert all(abs(count - mean) <= 0.1 * mean for count in shares.values()), shares
        report = wait_for_consistent(ledger, wait_s=60, requests=requests)
        assert (report.consistent, report.requests) == (True, requests)
        recorded = Counter({one.replica: one.answered for one in ledger.summary().replicas})
        assert recorded == sum(map(answered_by, undisturbed), Counter())

        load = Load(url)
        try:
            for _ in range(2):
                load.wait_for(rng.randint(10, 60))
                killed = rng.choice(CLOUDS)
                testbed.kill(killed)
                load.wait_for(rng.randint(10, 60))
                testbed.start(killed)
                testbed.wait_ready(killed)
            load.wait_for(30)
        finally:
            outcomes = load.stop()
        failed = [body for status, body in outcomes if status != 200]
        for (
            body
        ) in failed:  # a clear error is allowed, but there were always two clouds and an edge
            assert body["error"]["message"]
        results = [body["items"][0].get("result") for status, body in outcomes if status == 200]
        assert len(results) == len(outcomes)
        assert all(result is not None for result in results)
        # another cloud, not another tier, answered in place of the one that was killed
        assert Counter(result["tier"] for result in results) == {"cloud": len(results)}
        attempts = attempts_of(outcomes)
        assert {one["reason"] for one in attempts} <= {Reason.ROUTE, Reason.RETRY}
        assert any(one["reason"] == Reason.RETRY for one in attempts)
        report = wait_for_consistent(ledger, wait_s=60, requests=requests + len(outcomes))
        assert report.consistent, report
        assert report.gaps == []
        assert set(answered_by(outcomes)) == set(CLOUDS)
        status, text = verify(testbed, 1)
        assert status == 0, text


def test_verify_names_a_dead_replica_until_its_successor_delivers(tmp_path: Path) -> None:
    """The entries that a killed cloud had not delivered are in its state folder."""
    with start(tmp_path, {"cloud": 2}, DIMEE_WORKERS="1") as testbed:
        url = testbed.roles["mobile"].url
        # without the ledger no outbox can deliver
        testbed.kill("ledger")
        with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as http:
            texts = sentences(20)
            items = http.post("/v1/classify", json={"texts": texts, "policy": "cloud"}).json()
        by_replica = Counter(item["result"]["attempts"][-1]["replica"] for item in items["items"])
        assert set(by_replica) == {"cloud-1", "cloud-2"}
        lost = by_replica["cloud-2"]
        testbed.kill("cloud-2")
        testbed.start("ledger")
        testbed.wait_ready("ledger")
        ledger = LedgerClient(testbed.roles["ledger"].url)

        def owed() -> bool:
            report = ledger.verify()
            return report.requests == 20 and report.total_findings == lost

        _until(owed)
        (gap,) = ledger.verify().gaps
        assert (gap.tier, gap.replica, gap.missing, gap.open) == ("cloud", "cloud-2", lost, 0)
        status, text = verify(testbed, 0)
        assert status == 1
        assert f"the cloud replica cloud-2 has not delivered {lost} attempts that it" in text
        testbed.start("cloud-2")
        testbed.wait_ready("cloud-2")
        report = wait_for_consistent(ledger, wait_s=60, requests=20)
        assert (report.consistent, report.gaps) == (True, []), report
        replicas = {one.replica: one.answered for one in ledger.summary().replicas}
        assert replicas == by_replica


def _until(condition: Any, timeout_s: float = 60.0) -> None:
    ended = threading.Event()
    for _ in range(int(timeout_s / 0.1)):
        if condition():
            return
        ended.wait(0.1)
    pytest.fail("the condition did not become true")
