"""A task of 1,000 labels, from a CSV to the answers of every tier, the ledger and the card."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli.train import export, train
from shared.bundle.loading import POLICY_WITH_HEADS, Bundle, load_bundle
from shared.domain import Tier
from tests.support.mobile import World, answered
from tests.support.tiny_data import NEUTRAL

pytestmark = pytest.mark.long
ODD = ('<b>"bold"</b> & co', "a,b;c={'d'}", "日本語 🎬", "é" * 256, "[link](http://x)")
LABELS = (*ODD, *(f"class {number}" for number in range(1_000 - len(ODD))))


@pytest.fixture(scope="module")
def bundle(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("thousand")
    rng = random.Random(4)
    with (folder / "codes.csv").open("w", encoding="utf-8", newline="") as content:
        rows = csv.writer(content)
        rows.writerow(["text", "label"])
        for number in range(5_000):
            words = " ".join(rng.choices(NEUTRAL, k=8))
            rows.writerow([f"{words} {number}", LABELS[number % len(LABELS)]])
    for command, options in (
        (train, ["--data", folder / "codes.csv", "--text-field", "text", "--epochs", 1,
                 "--encoder", tiny_encoder, "--max-tokens", 32, "--no-bf16",
                 "--out", folder / "run"]),
        (export, [folder / "run", folder / "bundle", "--mobile-layers", 1, "--edge-layers", 2,
                  "--max-loss", 100]),
    ):  # fmt: skip
        done = CliRunner().invoke(command, [*map(str, options)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    return load_bundle(folder / "bundle")


def test_bundle_keeps_the_names_and_its_card_is_short(bundle: Bundle) -> None:
    assert sorted(bundle.manifest.labels) == sorted(LABELS)
    assert bundle.default_policy == POLICY_WITH_HEADS
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert '&lt;b&gt;"bold"&lt;/b&gt; &amp; co' in card
    assert "and 992 more." in card
    assert len({sample.label for sample in bundle.samples()}) == len(bundle.samples()) == 60


@pytest.mark.parametrize("tier", Tier)
def test_every_tier_answers_with_a_thousand_probabilities(
    tier: Tier, bundle: Bundle, tmp_path: Path
) -> None:
    world = World(tmp_path, ("edge", "cloud"), settings={"policy": tier.value}, bundle=bundle.path)
    texts = [f"the film of the day {number}" for number in range(20)]
    outcomes = [answered(one) for one in world.run(lambda mobile: mobile.classify(texts))]
    assert {answer.tier for answer in outcomes} == {tier}
    for answer in outcomes:
        assert set(answer.probabilities) == set(LABELS)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-4)
    store = world.ledger()
    assert {entry.label for entry in store.entries()} == {answer.label for answer in outcomes}
    store.close()
