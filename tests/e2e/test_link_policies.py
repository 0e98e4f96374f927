"""Study of policies over links: a few texts through a real testbed, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lab.reports.pages import study_page
from shared.pricing.cost_model import LATENCY_PRICE_LAMBDA
from testbed.load.link_policies import POLICIES, PolicyAnswer, main, summarize
from tests.support.paths import BUNDLE

TEXTS = (
    ("a wonderful film", 1),
    ("painfully bad dialogue", 0),
    ("i want my two hours back", 0),
    ("a debut of uncommon confidence", 1),
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [json.dumps({"sentence": text, "label": label}) for text, label in TEXTS]
    (folder / "validation.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.long
def test_every_policy_answers_over_the_link(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "extra" / "links.json"
    result = CliRunner().invoke(
        main,
        ["--data", str(data), "--text-field", "sentence", "--out", str(out), "--limit", "3",
         "--link", "wifi", "--bundle", str(BUNDLE), "--allow-unverified"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    facts = json.loads(out.read_text())
    assert facts["latency_price_lambda"] == LATENCY_PRICE_LAMBDA
    (link,) = facts["links"]
    assert [one["spec"] for one in link["measured"]] == ["wifi", "wifi"]
    assert [row["policy"] for row in link["rows"]] == list(POLICIES)
    for row in link["rows"]:
        assert row["requests"] == 3
        assert sum(row["shares"].values()) == pytest.approx(100, abs=0.1)
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["cost_lambda"] > 0
    assert facts["command"] in study_page("links", facts)


def test_missing_data_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--data", str(tmp_path / "none"), "--bundle", str(BUNDLE)])
    assert result.exit_code == click.ClickException.exit_code
    assert "none cannot be read" in result.output


def test_row_summarizes_the_answers() -> None:
    answers = [
        PolicyAnswer("mobile", True, 10.0, 3.0, 18.0),
        PolicyAnswer("mobile", True, 20.0, 3.0, 18.0),
        PolicyAnswer("edge", False, 30.0, 6.0, 18.0),
        PolicyAnswer("cloud", True, 1000.0, 24.0, 18.0),
    ]
    row = summarize("cascade-routing", answers)
    assert row["shares"] == {"mobile": 50.0, "edge": 25.0, "cloud": 25.0}
    assert (row["accuracy"], row["cost_lambda"], row["cost_change"]) == (75.0, 9.0, -50.0)
    assert row["p50_ms"] == 25.0


def test_page_names_links_that_deviate_from_their_profile() -> None:
    row = summarize("cascade-routing", [PolicyAnswer("mobile", True, 10.0, 3.0, 18.0)])
    measured = [
        {"hop": "mobile-edge", "verified": True},
        {"hop": "mobile-cloud", "verified": False},
    ]
    facts = {
        "links": [{"link": "4g", "measured": measured, "rows": [row]}],
        "machine": {"cores": 2, "system": "Linux", "load_before": 0.5},
        "latency_price_lambda": 0.018,
        "limit": 1,
        "data": "sst2",
        "task": "sst2",
        "seed": 0,
        "command": "c",
        "bundle_id": "b",
        "made_at": "now",
        "commit": "x",
    }
    assert (
        "Links that deviate from their profile by more than 10 %: 4G (mobile-cloud)."
        in study_page("links", facts)
    )
    measured[1]["verified"] = True
    assert "deviate from their profile" not in study_page("links", facts)
