"""A ledger that is down: the tiers answer, and say that their entries are not delivered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from mobile_client.cli.status import status
from shared.ledger.client import LedgerClient
from testbed.processes.processes import Testbed
from testbed.up import PORTS, make_testbed
from tests.support.paths import BUNDLE, free_ports

TIERS = ("mobile", "edge", "cloud")
WAIT_S = 60.0
RECOVERED = "the ledger accepts this process again"


@pytest.fixture
def without_ledger(tmp_path: Path) -> Iterator[Testbed]:
    """Mobile, edge and cloud, whose ledger is not started."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    settings = {"DIMEE_BUNDLE": str(BUNDLE), "DIMEE_UNDELIVERED_WARNING_S": "0.5"}
    testbed = make_testbed(ports, tmp_path, settings)
    for name in TIERS:
        url = f"http://user:s3cret@127.0.0.1:{ports['ledger']}"
        testbed.roles[name].settings["DIMEE_LEDGER_URL"] = url
    with testbed:
        for name in TIERS:
            testbed.start(name)
        for name in TIERS:
            testbed.wait_ready(name)
        yield testbed


def reports(testbed: Testbed) -> dict[str, Any]:
    """Return the field ``ledger`` of the readiness of each tier, which answers 200."""
    found = {}
    for name in TIERS:
        response = httpx.get(f"{testbed.roles[name].url}/readyz", trust_env=False)
        assert response.status_code == 200
        found[name] = response.json()["ledger"]
    return found


def wait_for(testbed: Testbed, is_reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the reports once they meet a condition; fail if that takes longer than `WAIT_S`."""
    until = time.monotonic() + WAIT_S
    while not is_reached(found := reports(testbed)):
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return found


def run_status(testbed: Testbed, *words: str) -> Result:
    urls = [word for name, role in testbed.roles.items() for word in (f"--{name}-url", role.url)]
    return CliRunner().invoke(status, [*urls, *words])


def test_tiers_say_that_entries_are_not_delivered_until_the_ledger_comes(
    without_ledger: Testbed,
) -> None:
    gateway, ledger = without_ledger.roles["mobile"].url, without_ledger.roles["ledger"]
    for policy in TIERS:
        body = {"texts": ["a gripping, funny film"], "policy": policy}
        answer = httpx.post(f"{gateway}/v1/classify", json=body, trust_env=False, timeout=30)
        assert answer.json()["items"][0]["result"]["tier"] == policy

    found = wait_for(without_ledger, lambda said: all(said.values()))
    assert {name: report["undelivered"] for name, report in found.items()} == {
        "mobile": 4, "edge": 1, "cloud": 1,
    }  # fmt: skip
    for name, report in found.items():
        assert (report["url"], report["problem"]) == (ledger.url, "connection refused")
        log = without_ledger.log(name).read_text()
        assert log.count("undelivered for") == 1, "logged once"
        assert "s3cret" not in log
    said = run_status(without_ledger)
    assert said.exit_code == 1
    for name in TIERS:
        assert f"problem      the {name} has " in said.output
    assert f"{ledger.url}: connection refused" in said.output
    as_json = json.loads(run_status(without_ledger, "--json").output)
    assert as_json["mobile"]["ledger"]["undelivered"] == 4

    without_ledger.start("ledger")
    without_ledger.wait_ready("ledger")
    wait_for(without_ledger, lambda said: not any(said.values()))
    for name in TIERS:
        log = without_ledger.log(name).read_text()
        assert (log.count("undelivered for"), log.count(RECOVERED)) == (1, 1)
    healthy = run_status(without_ledger)
    assert (healthy.exit_code, healthy.output.splitlines()[-1]) == (0, "healthy")
    assert LedgerClient(ledger.url).verify().consistent
