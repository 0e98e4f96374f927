"""A Ray cluster on this machine that serves the cloud while a node dies and another joins.

``python -m tests.support.ray_cluster FOLDER`` prints one JSON object. It must run in a network
namespace of its own (`tests.support.namespace`): Ray's nodes would otherwise use the machine's
address. The nodes have 0 (head) or 1 CPU, so that each other node runs one replica.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster

from cloud_server.ray_app import build
from shared.domain import InputText
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.ray_serve.options import RayOptions
from shared.serving.tokens import new_token
from testbed.chaos.traffic import Outcome, send_traffic, violation
from testbed.load.runner import Action, PlannedRequest
from testbed.processes.processes import Role, Testbed
from tests.support.paths import BUNDLE, free_ports
from tests.support.running_testbed import sentences

RATE = 25.0
"""Requests a second."""
SECONDS = 20.0
AFTERWARDS_S = 6.0
"""Time of further requests, when the node that joined serves."""
LEDGER_STOPS_S, NODE_DIES_S, LEDGER_STARTS_S, NODE_JOINS_S = 4.0, 6.0, 7.0, 9.0
DEADLINE_S = 10.0
STARTS = 4
"""Most attempts to start a node."""


def until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """Wait until ``condition()`` is true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {timeout_s:.0f} s"
        time.sleep(0.1)


def replica_pids(state_dir: Path) -> set[int]:
    """Return the processes that hold a replica's slot in ``state_dir``."""
    found = set()
    for process in psutil.process_iter():
        try:
            files = [file.path for file in process.open_files()]
        except psutil.Error:
            continue
        if any(file.startswith(f"{state_dir}/cloud/replica-") for file in files):
            found.add(process.pid)
    return found


class RayCloud:
    """The cloud on a Ray cluster; each node has a state folder, as each machine has a disk."""

    def __init__(self, folder: Path, ports: dict[str, int], tokens: Path) -> None:
        self._folder = folder
        self._settings = {
            "DIMEE_BUNDLE": str(BUNDLE),
            "DIMEE_LEDGER_URL": f"http://127.0.0.1:{ports['ledger']}",
            "DIMEE_TOKENS": str(tokens),
        }
        self.cluster = Cluster()
        self._start("head", num_cpus=0, include_dashboard=False)
        self.nodes = {name: self.add(name) for name in ("a", "b")}
        ray.init(address=self.cluster.address, log_to_driver=False)
        serve.start(
            http_options={"host": "127.0.0.1", "port": ports["cloud"]}, proxy_location="HeadOnly"
        )
        serve.run(build(RayOptions(min_replicas=2, host="127.0.0.1")), name="cloud")

    def add(self, name: str) -> Any:
        """Add a node that has the disk and the name ``name``."""
        return self._start(name, num_cpus=1)

    def _start(self, name: str, **options: Any) -> Any:
        """Start a node; Ray gives up after 30 s, which a slow machine may need."""
        own = {"DIMEE_STATE_DIR": str(self._folder / name), "DIMEE_REPLICA": name}
        with environment(self._settings | own):
            for _ in range(STARTS - 1):
                with suppress(Exception):  # Ray raises just that
                    return self.cluster.add_node(**options)
            return self.cluster.add_node(**options)

    def kill(self, name: str) -> None:
        """Kill a node with its replica (SIGKILL), as if its machine had lost its power."""
        replicas = replica_pids(self._folder / name)
        assert len(replicas) == 1, replicas
        for pid in replicas:
            os.kill(pid, signal.SIGKILL)
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def serves(self, replicas: int) -> bool:
        """Return whether so many replicas serve."""
        deployment = serve.status().applications["cloud"].deployments["cloud"]
        return deployment.replica_states.get("RUNNING", 0) == replicas

    def waiting_entries(self, name: str) -> int:
        """Return the number of entries on the disk of a node that the ledger does not have."""
        waiting = 0
        for file in (self._folder / name / "cloud").glob("outbox-*.sqlite"):
            with closing(sqlite3.connect(file)) as database:
                waiting += database.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return waiting

    def close(self) -> None:
        """Stop the cloud, whose replicas deliver their entries, and the cluster."""
        serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables during the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make_plan(seconds: float) -> list[PlannedRequest]:
    """Return requests for the cloud at a constant rate."""
    texts = sentences(200)
    return [
        PlannedRequest(number / RATE, InputText(texts[number % len(texts)]), "cloud")
        for number in range(int(RATE * seconds))
    ]


def send_while(
    url: str, cloud: RayCloud, testbed: Testbed, result: dict[str, Any]
) -> list[Outcome]:
    """Send requests while the ledger stops, a node dies, the ledger starts and a node joins."""
    times = (LEDGER_STOPS_S, NODE_DIES_S, LEDGER_STARTS_S, NODE_JOINS_S)
    reached = {at_s: threading.Event() for at_s in times}
    actions = [Action(at_s, "go on", event.set) for at_s, event in reached.items()]
    with ThreadPoolExecutor(1) as pool:  # Ray starts nodes in the main thread only
        sending = send_traffic(url, make_plan(SECONDS), DEADLINE_S, actions)
        traffic = pool.submit(asyncio.run, sending)
        assert reached[LEDGER_STOPS_S].wait(60)
        testbed.kill("ledger")
        assert reached[NODE_DIES_S].wait(60)
        cloud.kill("a")
        result["left_by_the_dead"] = cloud.waiting_entries("a")
        assert reached[LEDGER_STARTS_S].wait(60)
        testbed.start("ledger")
        assert reached[NODE_JOINS_S].wait(60)
        cloud.nodes["a"] = cloud.add("a")
        return traffic.result()[0]


def main(folder: Path) -> dict[str, Any]:
    """Send requests while a node is killed and comes back; return what happened."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    names = ("ledger", "mobile", "cloud")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    tokens = folder / "tokens.jsonl"
    token, _ = new_token(tokens, "mobile", ["infer"])
    urls = {f"DIMEE_{name.upper()}_URL": f"http://127.0.0.1:{ports[name]}" for name in names}
    # no edge: an attempt that fails at the cloud is followed by one on the mobile
    urls |= {"DIMEE_EDGE_URL": "http://127.0.0.1:9", "DIMEE_TOKEN": token}
    roles = [
        Role("ledger", "shared.ledger.server", ports["ledger"]),
        Role("mobile", "mobile_client", ports["mobile"], urls),
    ]
    started = time.monotonic()
    cloud = RayCloud(folder, ports, tokens)
    result: dict[str, Any] = {"started_s": round(time.monotonic() - started, 1)}
    with Testbed(roles, folder / "testbed", {"DIMEE_BUNDLE": str(BUNDLE)}) as testbed:
        testbed.start_all()
        url = testbed.roles["mobile"].url
        outcomes = send_while(url, cloud, testbed, result)
        until(lambda: cloud.serves(2), "a replica on the node that joined")
        served_since = time.time()
        outcomes += asyncio.run(send_traffic(url, make_plan(AFTERWARDS_S), DEADLINE_S))[0]
        refused = httpx.post(f"{urls['DIMEE_CLOUD_URL']}/v1/infer", json={}, trust_env=False)
        cloud.close()
        ledger = LedgerClient(testbed.roles["ledger"].url)
        report = wait_for_consistent(ledger, 60, len(outcomes))
        entries = ledger_entries(testbed.state_dir / "ledger.sqlite")
    worked = [entry for entry in entries if entry["side"] == "tier" and entry["tier"] == "cloud"]
    return result | {
        "sent": len(outcomes),
        "violations": [found for one in outcomes if (found := violation(one, DEADLINE_S))],
        "statuses": Counter(one.status for one in outcomes),
        "without_token": [refused.status_code, refused.json()["error"]["code"]],
        "consistent": report.consistent,
        "findings": [str(finding) for finding in report.findings],
        "requests": report.requests,
        "tier_entries": Counter(f"{one['replica']} {one['state']}" for one in worked),
        "answered_by_the_successor": sum(
            one["replica"] == "a-0" and one["started_at"] > served_since for one in worked
        ),
        "callers": Counter(
            f"{one['tier']} {one['state']} {one['delivery']}"
            for one in entries
            if one["side"] == "caller"
        ),
        "total_s": round(time.monotonic() - started, 1),
    }


def ledger_entries(file: Path) -> list[sqlite3.Row]:
    """Return every entry of the ledger in ``file``."""
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        return database.execute(
            "SELECT side, tier, replica, state, delivery, started_at FROM entries"
        ).fetchall()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
