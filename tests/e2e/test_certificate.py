"""The four processes with a certificate: audits are recorded and shown by `dimee status`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from shared.bundle.loading import Bundle
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.wire import ClassifyResponse
from testbed.processes.processes import Testbed
from tests.support.certificates import written
from tests.support.running_testbed import sentences, start

COUNT = 40


def status(testbed: Testbed) -> tuple[int, dict[str, Any]]:
    urls = {f"DIMEE_{name.upper()}_URL": role.url for name, role in testbed.roles.items()}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dimee"), "status", "--json"],
        env=os.environ | urls,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_audits_are_recorded_and_shown_in_the_status(bundle: Bundle, tmp_path: Path) -> None:
    # a bound that every cloud meets
    file = written(bundle, tmp_path, max_drop=0.9)
    with start(tmp_path, DIMEE_CERTIFICATE=str(file), DIMEE_AUDIT_SHARE="1") as testbed:
        with httpx.Client(trust_env=False, timeout=60.0) as http:
            url = testbed.roles["mobile"].url
            response = http.post(f"{url}/v1/classify", json={"texts": sentences(COUNT)})
            ready = [
                http.get(f"{testbed.roles[name].url}/readyz").json() for name in ("edge", "cloud")
            ]
        items = ClassifyResponse.model_validate_json(response.content).items
        certificate_id = json.loads(file.read_text())["certificate_id"]
        answers = [item.result for item in items if item.result is not None]
        assert len(answers) == COUNT
        assert {answer.certificate_id for answer in answers} == {certificate_id}
        assert [one["certificate_id"] for one in ready] == [certificate_id] * 2

        ledger = LedgerClient(testbed.roles["ledger"].url)
        until = time.monotonic() + 60
        while ledger.summary().audits.compared < COUNT and time.monotonic() < until:
            time.sleep(0.2)
        report = wait_for_consistent(ledger, wait_s=60, requests=COUNT)
        assert report.consistent, report
        summary = ledger.summary()
        assert (summary.audits.compared, summary.requests) == (COUNT, COUNT)
        spent = sum(answer.cost.cost_lambda for answer in answers)
        assert abs(summary.cost_lambda - spent) < 1e-6

        code, said = status(testbed)
        assert (code, said["problems"]) == (0, [])
        assert said["mobile"]["audits"]["seen"] == COUNT
        assert said["mobile"]["audits"]["differ"] == summary.audits.differ
        testbed.kill("edge")
        code, said = status(testbed)
        assert code == 1
        assert said["problems"][0].startswith("the edge cannot be reached")
