"""A fleet against replicas: each device has a link, an outbox and a budget; the ledger agrees."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.load.cli import load

pytestmark = [
    pytest.mark.long,  # two links are measured, and eight processes load a bundle
    pytest.mark.skipif(sys.platform != "linux", reason="devices are addresses in 127/8"),
]

DEVICES = 20
CLASSES = [
    {"name": "4g", "share": 0.6, "link": "4g", "policy": "cloud", "requests_per_s": 1.0,
     "deadline_ms": 20_000.0},
    {"name": "limited", "share": 0.4, "link": "wifi", "policy": "cascade-routing",
     "requests_per_s": 1.0, "escalation_budget": 0.0, "escalation_burst": 1,
     "deadline_ms": 20_000.0},
]  # fmt: skip


def test_fleet_against_two_clouds_leaves_a_consistent_ledger(tmp_path: Path) -> None:
    mix, out = tmp_path / "mix.json", tmp_path / "fleet"
    mix.write_text(json.dumps({"classes": CLASSES}))
    arguments = ["--devices", str(DEVICES), "--mix", str(mix), "--duration", "4", "--processes",
                 "2", "--cloud-replicas", "2", "--allow-unverified", "--out", str(out)]  # fmt: skip
    done = CliRunner().invoke(load, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["requests"] == report["planned"] == report["answered"] > DEVICES
    assert report["ledger"]["consistent"]
    assert report["ledger"]["requests"] == report["requests"] + report["warm_up_requests"]
    assert report["ledger_agrees"], report["ledger_totals"]
    assert report["undelivered"] == 0
    far, limited = (report["classes"][one["name"]] for one in CLASSES)
    assert (far["devices"], limited["devices"]) == (12, 8)
    assert far["answered_by"]["cloud"] == far["requests"]
    # the smallest round trip of 4G is 60 ms, on each link
    assert far["network_ms"]["p50"] > 60
    assert limited["escalated"] <= 8 * 2, "a budget for each device, not for the class"
    assert len(report["by_device"]) == DEVICES
    assert report["fairness"]["all"]["answered"]["jain"] == pytest.approx(1.0)
    page = out.with_suffix(".html").read_text()
    for text in ("Jain", "by chance", "Cost of a device", "Latency by link class"):
        assert text in page
