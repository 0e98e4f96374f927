"""A mobile's disk fills while the ledger is away: every answered request arrives afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shared.ledger.disk_reserve import RESERVE_BYTES
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.verify import verify
from testbed.processes.processes import Role, Testbed
from tests.support.paths import BUNDLE, free_ports
from tests.support.small_disk import SmallDisk, small_disk

PART = 400
"""Texts of a call."""
WAIT_S = 120.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from small_disk(tmp_path / "disk", 24)


def classify(http: httpx.Client) -> tuple[list[str], list[str]]:
    """Return the identifiers of the answered requests and the messages of the others."""
    response = http.post("/v1/classify", json={"texts": ["a fine film"] * PART})
    items = response.json()["items"]
    return (
        [item["result"]["request_id"] for item in items if item["result"]],
        [item["error"]["message"] for item in items if item["error"]],
    )


def until(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.25)


@pytest.mark.long
@pytest.mark.parametrize("then", ["goes on", "is restarted", "is killed and restarted"])
def test_every_answer_arrives_after_the_disk_was_full(
    tmp_path: Path, disk: SmallDisk, then: str
) -> None:
    mobile_port, ledger_port = free_ports(2)
    settings = {
        "DIMEE_BUNDLE": str(BUNDLE),
        "DIMEE_POLICY": "mobile",
        "DIMEE_LEDGER_URL": f"http://127.0.0.1:{ledger_port}",
        "DIMEE_UNDELIVERED_WARNING_S": "1",
    }
    roles = [Role("mobile", "mobile_client", mobile_port)]
    ledger_role = [Role("ledger", "shared.ledger.server", ledger_port)]
    with (
        Testbed(ledger_role, tmp_path / "ledger", {}) as ledger,
        Testbed(roles, disk.folder, settings) as mobile,
        httpx.Client(
            base_url=f"http://127.0.0.1:{mobile_port}", trust_env=False, timeout=60.0
        ) as http,
    ):
        mobile.start_all()
        answered: list[str] = []
        refused: list[str] = []
        not_ready = httpx.codes.SERVICE_UNAVAILABLE
        # it may answer a few more after the first refusal, once its write-ahead log is emptied
        for _ in range(100):
            new, refused = classify(http)
            answered += new
            if not new:
                break
        assert len(answered) > 2_000
        assert refused, "the disk was never full"
        assert all("the disk is full" in message for message in refused)
        readiness = http.get("/readyz")
        assert readiness.status_code == not_ready
        assert "free disk space" in readiness.text
        assert http.get("/healthz").status_code == httpx.codes.OK
        state = http.get("/v1/status").json()["outbox"]
        assert state["recording"] == "refused"
        assert "free disk space" in state["problem"]
        assert "the disk is full" in mobile.log("mobile").read_text()
        if then == "is restarted":
            mobile.stop()
            mobile.start("mobile")
        elif then == "is killed and restarted":
            mobile.kill("mobile")
            mobile.start("mobile")
        ledger.start_all()
        mobile.wait_ready("mobile", WAIT_S)
        store = LedgerStore(f"sqlite:///{tmp_path / 'ledger' / 'ledger.sqlite'}")

        def missing() -> set[str]:
            return set(answered) - {entry.request_id for entry in store.entries() if entry.final}

        until(lambda: not missing(), "the delivery of every answered request")
        new, refused = classify(http)
        assert (len(new), refused) == (PART, []), "it answers again"
        answered += new
        until(lambda: not missing(), "the delivery of later requests")
        assert verify(store).consistent
        store.close()
        reserve = disk.folder / "mobile" / "outbox-0.reserve"
        assert reserve.stat().st_size == RESERVE_BYTES, "it is set aside again"


@pytest.mark.long
def test_ledger_on_the_same_full_disk_gets_the_space_of_what_it_stores(disk: SmallDisk) -> None:
    """Rows that are delivered give their space back while the outbox still refuses entries."""
    mobile_port, ledger_port = free_ports(2)
    settings = {
        "DIMEE_BUNDLE": str(BUNDLE),
        "DIMEE_POLICY": "mobile",
        "DIMEE_LEDGER_URL": f"http://127.0.0.1:{ledger_port}",
    }
    roles = [
        Role("ledger", "shared.ledger.server", ledger_port),
        Role("mobile", "mobile_client", mobile_port),
    ]
    with (
        Testbed(roles, disk.folder, settings) as testbed,
        httpx.Client(
            base_url=f"http://127.0.0.1:{mobile_port}", trust_env=False, timeout=60.0
        ) as http,
    ):
        testbed.start_all()
        testbed.kill("ledger")
        answered: list[str] = []
        while (part := classify(http))[0]:
            answered += part[0]
        assert len(answered) > 2_000
        testbed.start("ledger")
        testbed.wait_ready("ledger", WAIT_S)
        testbed.wait_ready("mobile", WAIT_S)
        store = LedgerStore(f"sqlite:///{disk.folder / 'ledger.sqlite'}")

        def all_stored() -> bool:
            return set(answered) <= {entry.request_id for entry in store.entries() if entry.final}

        until(all_stored, "the delivery of every answered request")
        assert verify(store).consistent
        store.close()
