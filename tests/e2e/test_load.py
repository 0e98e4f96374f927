"""``dimee load`` with real processes: the edge dies and is restarted, and a link stalls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from testbed.load.cli import load
from tests.support.paths import BUNDLE

ENDINGS = {"answered", "shed", "timed_out", "unavailable"}


def run(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    arguments = ["--rate", "20", "--bundle", str(BUNDLE), "--out", str(out), *options]
    found = CliRunner().invoke(load, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    ("scenario", "actions"),
    [
        ("edge-dies", ["edge killed", "edge ready again", "edge trusted again"]),
        pytest.param(
            "link-flap",
            3 * ["mobile-edge: stall", "mobile-edge: restored"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_every_request_ends_and_the_ledger_is_consistent(
    tmp_path: Path, scenario: str, actions: list[str]
) -> None:
    report, page = run(
        tmp_path / "load",
        "--scenario",
        scenario,
        "--duration",
        "5",
        "--seed",
        "3",
        "--allow-unverified",
    )
    names = [one["name"] for one in report["actions"]]
    faults = [one for one in report["actions"] if one["after_s"] is None]
    assert not any(one["error"] for one in faults)
    if scenario == "edge-dies":
        # on a busy machine the run may end before the edge is back, and the record says so
        assert names == actions[: len(names)]
        assert len(names) >= 2
        assert len(names) == 3 or "not before the end of the run" in report["actions"][1]["error"]
        killed, *later = report["actions"]
        assert all(one["at_s"] >= killed["at_s"] + one["after_s"] - 1e-6 for one in later)
    else:
        assert [name for name in names if "trusted" not in name] == actions
    ledger = report["ledger"]
    assert report["warm_up_requests"] == 20
    assert ledger["requests"] == report["requests"] + report["warm_up_requests"]
    assert 60 < report["requests"] == sum(report["endings"].values())
    assert set(report["endings"]) <= ENDINGS, report["error_codes"]
    assert report["endings"]["answered"] > 0.5 * report["requests"]
    assert report["ledger"]["consistent"], report["ledger"]
    assert report["over_deadline_by_50_ms"] == 0
    if scenario == "edge-dies":
        after = [one["endings"].get("edge", 0) for one in report["over_time"]]
        before, dead = after[0], after[len(after) // 2]
        assert before > dead == 0
    else:
        assert report["links"][0]["spec"] == "wifi"
        assert report["latency_ms"]["max"] > 100, "a request into the outage waits for its end"
    by_tier = report["answered_by"]
    whole = sum(sum(parts.values()) * by_tier[t] for t, parts in report["hops_ms"].items())
    mean = whole / report["endings"]["answered"]
    assert mean == pytest.approx(report["latency_ms"]["mean"], rel=0.02), (
        "the parts sum to the whole"
    )
    assert report["commit"] in page
    assert actions[0] in page
