"""The published figures of the emulated links: the page is its JSON, and all profiles hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import DimeeError
from shared.link_profiles import LINKS
from testbed.links.probe import Measured
from testbed.load import link_accuracy
from testbed.load.link_accuracy import main, page, relay
from tests.support.paths import REPOSITORY

PUBLISHED = REPOSITORY / "docs/benchmarks/2026-11-23-links.json"


def test_the_page_is_its_json() -> None:
    report = json.loads(PUBLISHED.read_text())
    assert page(report, PUBLISHED.name) == PUBLISHED.with_suffix(".md").read_text()


def test_every_profile_was_measured_as_it_is_now_and_is_within_a_tenth() -> None:
    measured = {one["words"]: one for one in json.loads(PUBLISHED.read_text())["links"]}
    assert list(measured) == list(LINKS)
    for name, link in LINKS.items():
        one = measured[name]
        labels = (link.round_trip_ms, link.up_mbps, link.down_mbps)
        found = (one["rtt_ms"], one["up_mbps"], one["down_mbps"])
        assert labels == (one["label_rtt_ms"], one["label_up_mbps"], one["label_down_mbps"])
        assert found == pytest.approx(labels, rel=0.10), name


def test_a_relay_stands_while_it_is_used_and_no_longer() -> None:
    with relay("4g,loss=0.01") as control:
        assert control.show()["words"] == "4g,loss=0.01"
    with pytest.raises(DimeeError):
        control.show()


def test_a_link_off_its_label_is_written_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = Measured("lan", "lan", 0.5, 0.7, 1000.0, 1000.0, 1000.0, 1000.0, 0.0, 31)
    monkeypatch.setattr(link_accuracy, "LINKS", {"lan": LINKS["lan"]})
    monkeypatch.setattr(link_accuracy, "measure", lambda control: off)
    found = CliRunner().invoke(main, ["--out", str(tmp_path / "links")])
    assert found.exit_code == 1
    assert "| +40.0% |" in (tmp_path / "links.md").read_text()
    assert "0 of 1 profiles" in (tmp_path / "links.md").read_text()
    assert not json.loads((tmp_path / "links.json").read_text())["links"][0]["holds"]
