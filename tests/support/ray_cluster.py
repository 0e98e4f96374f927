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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster

from cloud_server.ray_app import build
from shared.domain import InputText
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.ray_serve.options import RayOptions
from testbed.chaos.traffic import send_traffic, violation
from testbed.load.runner import Action, PlannedRequest
from testbed.processes.processes import Role, Testbed
from tests.support.paths import BUNDLE, free_ports
from tests.support.running_testbed import sentences

RATE = 25.0
"""Requests a second."""
SECONDS = 24.0
KILL_AT_S, ADD_AT_S = 6.0, 10.0
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

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self._folder = folder
        os.environ |= {
            "DIMEE_BUNDLE": str(BUNDLE),
            "DIMEE_LEDGER_URL": f"http://127.0.0.1:{ports['ledger']}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.cluster = Cluster()
        self._start(num_cpus=0, include_dashboard=False)
        self.nodes = {name: self.add(name) for name in ("a", "b")}
        ray.init(address=self.cluster.address, log_to_driver=False)
        serve.start(
            http_options={"host": "127.0.0.1", "port": ports["cloud"]}, proxy_location="HeadOnly"
        )
        serve.run(build(RayOptions(min_replicas=2, host="127.0.0.1")), name="cloud")

    def add(self, name: str) -> Any:
        """Add a node that has the disk and the name ``name``."""
        os.environ["DIMEE_STATE_DIR"] = str(self._folder / name)
        os.environ["DIMEE_REPLICA"] = name
        return self._start(num_cpus=1)

    def _start(self, **options: Any) -> Any:
        """Start a node; Ray gives up after 30 s, which a slow machine may need."""
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

    def close(self) -> None:
        """Stop the cloud, whose replicas deliver their entries, and the cluster."""
        serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()


def main(folder: Path) -> dict[str, Any]:
    """Send requests while a node is killed and comes back; return what happened."""
    names = ("ledger", "mobile", "cloud")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    started = time.monotonic()
    cloud = RayCloud(folder, ports)
    took_s = time.monotonic() - started
    urls = {f"DIMEE_{name.upper()}_URL": f"http://127.0.0.1:{ports[name]}" for name in names}
    urls["DIMEE_EDGE_URL"] = "http://127.0.0.1:9"  # no edge: a failed attempt ends on the mobile
    roles = [
        Role("ledger", "shared.ledger.server", ports["ledger"]),
        Role("mobile", "mobile_client", ports["mobile"], urls),
    ]
    texts = sentences(200)
    plan = [
        PlannedRequest(number / RATE, InputText(texts[number % len(texts)]), "cloud")
        for number in range(int(RATE * SECONDS))
    ]
    times = {KILL_AT_S: threading.Event(), ADD_AT_S: threading.Event()}
    actions = [Action(at_s, "go on", event.set) for at_s, event in times.items()]
    with Testbed(roles, folder / "testbed", {"DIMEE_BUNDLE": str(BUNDLE)}) as testbed:
        testbed.start_all()
        with ThreadPoolExecutor(1) as pool:  # Ray starts nodes in the main thread only
            url = testbed.roles["mobile"].url
            traffic = pool.submit(asyncio.run, send_traffic(url, plan, DEADLINE_S, actions))
            assert times[KILL_AT_S].wait(60)
            cloud.kill("a")
            assert times[ADD_AT_S].wait(60)
            cloud.nodes["a"] = cloud.add("a")
            outcomes, _ = traffic.result()
        until(lambda: len(replica_pids(folder / "a")) == 1, "a replica on the added node")
        cloud.close()
        ledger = LedgerClient(testbed.roles["ledger"].url)
        report = wait_for_consistent(ledger, 30, len(plan))
        entries = ledger_entries(testbed.state_dir / "ledger.sqlite")
    done = Counter(
        (entry["replica"], entry["state"]) for entry in entries if entry["side"] == "tier"
    )
    return {
        "started_s": round(took_s, 1),
        "violations": [found for one in outcomes if (found := violation(one, DEADLINE_S))],
        "statuses": Counter(one.status for one in outcomes),
        "consistent": report.consistent,
        "findings": [str(finding) for finding in report.findings],
        "requests": report.requests,
        "tier_entries": {f"{replica} {state}": count for (replica, state), count in done.items()},
        "callers": Counter(
            f"{entry['tier']} {entry['state']} {entry['delivery']}"
            for entry in entries
            if entry["side"] == "caller"
        ),
        "total_s": round(time.monotonic() - started, 1),
    }


def ledger_entries(file: Path) -> list[sqlite3.Row]:
    """Return every entry of the ledger in ``file``."""
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        return database.execute(
            "SELECT side, tier, replica, state, delivery FROM entries"
        ).fetchall()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
