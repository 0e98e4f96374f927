"""Accuracy of the emulated links: the published figures, and the command that measures them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import DimeeError
from shared.link_profiles import LINKS
from testbed.links.probe import Measurement
from testbed.load import link_accuracy
from testbed.load.link_accuracy import main, page, relay
from tests.support.paths import REPOSITORY

PUBLISHED = REPOSITORY / "docs/benchmarks/2026-11-23-links.json"


def test_published_page_matches_its_json() -> None:
    report = json.loads(PUBLISHED.read_text())
    assert page(report, PUBLISHED.name) == PUBLISHED.with_suffix(".md").read_text()


def test_published_figures_are_of_todays_profiles_and_within_ten_percent() -> None:
    measured = {one["spec"]: one for one in json.loads(PUBLISHED.read_text())["links"]}
    assert list(measured) == list(LINKS)
    for name, link in LINKS.items():
        one = measured[name]
        nominal = (link.round_trip_ms, link.up_mbps, link.down_mbps)
        found = (one["rtt_ms"], one["up_mbps"], one["down_mbps"])
        assert nominal == (
            one["nominal_rtt_ms"],
            one["nominal_up_mbps"],
            one["nominal_down_mbps"],
        )
        assert found == pytest.approx(nominal, rel=0.10), name


def test_relay_runs_for_the_length_of_its_block() -> None:
    with relay("4g,loss=0.01") as control:
        assert control.report()["spec"] == "4g,loss=0.01"
    with pytest.raises(DimeeError):
        control.report()


def test_deviating_link_is_written_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deviating = Measurement("lan", "lan", 0.5, 0.7, 1000.0, 1000.0, 1000.0, 1000.0, 0.0, 31)
    monkeypatch.setattr(link_accuracy, "LINKS", {"lan": LINKS["lan"]})
    monkeypatch.setattr(link_accuracy, "measure", lambda control: deviating)
    found = CliRunner().invoke(main, ["--out", str(tmp_path / "links")])
    assert found.exit_code == 1
    assert "| +40.0% |" in (tmp_path / "links.md").read_text()
    assert "0 of 1 profiles" in (tmp_path / "links.md").read_text()
    assert not json.loads((tmp_path / "links.json").read_text())["links"][0]["verified"]
