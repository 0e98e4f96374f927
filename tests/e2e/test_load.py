"""``dimee load`` from the command line, over real processes that are killed and cut off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.load.bed import own_bed
from tests.conftest import REPOSITORY


def load(tmp_path: Path, *options: str) -> tuple[dict[str, Any], str]:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mobile_client.cli", "load", "--seed", "5", "--out", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "written" in done.stdout
    return json.loads((tmp_path / "run.json").read_text()), (tmp_path / "run.html").read_text()


def test_an_edge_that_dies_costs_no_answer(tmp_path: Path) -> None:
    report, html = load(
        tmp_path, "--scenario", "edge-dies", "--path", "edge", "--rate", "15", "--duration", "6"
    )
    assert report["endings"] == {"answered": report["requests"]}
    assert [one["what"] for one in report["happened"]] == ["edge killed"]
    assert all(one["error"] is None for one in report["happened"])
    assert report["failed_over"] > 0
    assert report["answered_by"]["edge"] > 0
    assert report["ledger"]["clean"] is True
    assert report["label"] is None  # no link was emulated, and the page does not pretend
    assert "the testbed has no emulated link" in html


def test_a_link_that_is_cut_is_labelled_measured_and_survived(tmp_path: Path) -> None:
    report, html = load(
        tmp_path, "--scenario", "link-flap", "--path", "edge", "--rate", "15", "--duration", "5"
    )
    assert report["endings"] == {"answered": report["requests"]}
    assert len(report["happened"]) == 6
    assert report["ledger"]["clean"] is True
    (link,) = report["links"]
    assert link["holds"] is True
    assert abs(link["off"]["rtt_ms"]) <= 0.1
    assert report["label"] == "phone-edge=wifi"
    assert "wifi" in html


def test_a_host_that_is_not_ours_is_refused() -> None:
    command = [sys.executable, "-m", "mobile_client.cli", "load", "--url", "http://example.org"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--allow-remote" in done.stderr


def test_locust_drives_the_gateway_with_the_same_client(tmp_path: Path) -> None:
    with own_bed({}, seed=1, revive_s=None) as bed:
        command = [sys.executable, "-m", "locust", "-f", str(REPOSITORY / "lab" / "locustfile.py")]
        command += ["--headless", "--users", "3", "--spawn-rate", "3", "--run-time", "2s"]
        command += ["--host", bed.url, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    (classify,) = json.loads(done.stdout)
    assert classify["num_requests"] > 0
    assert classify["num_failures"] == 0
