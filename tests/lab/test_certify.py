"""``dimee calibrate``: certificates, their data, and errors where nothing can be certified."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lab.certify.calibration_data import glue_source, load_calibration_examples
from lab.certify.certify import SettingOutcomes, calibrate, certify, run_settings
from lab.cli.calibrate import calibrate as command
from lab.data.examples import Example, data_hash, load_examples
from lab.data.splits import hold_out_sentences, paper_split
from lab.data.tasks import get_task
from lab.evaluate.choose_lambda import Setting
from lab.evaluate.samples import Samples, samples_of_bundle
from lab.evaluate.simulate import simulate
from lab.reports.pages import study_page
from lab.studies.certified import study
from shared.bundle.loading import Bundle
from shared.certificates.certificate import certified_policy, load_certificate
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.policies import PolicyFacts
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook
from tests.support.paths import BUNDLE, REPOSITORY
from tests.support.tiny_data import make_rows, write_rows

SST2 = get_task("sst2")
PUBLISHED = REPOSITORY / "docs" / "results"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return make_rows(240, 31)


@pytest.fixture(scope="module")
def outcomes(bundle: Bundle, rows: list[dict[str, Any]]) -> SettingOutcomes:
    examples = [Example(row["sentence"], None, row["label"]) for row in rows]
    return run_settings(bundle, samples_of_bundle(bundle, examples), bundle.cost_model)


def made_up_outcomes(count: int, wrong: int = 0, settings: int = 1) -> SettingOutcomes:
    """Return samples that the cloud gets right, and every setting but for ``wrong`` of them."""
    probabilities_NEC = np.tile(np.array([0.9, 0.1], np.float32), (count, 6, 1))
    samples = Samples(
        probabilities_NEC,
        np.zeros((count, 4), np.float32),
        np.full(count, 5),
        np.zeros(count, np.int64),
        "ab" * 32,
        "none",
    )
    answer_SN = np.zeros((settings, count), np.int64)
    answer_SN[:, :wrong] = 1
    tier_SN = np.full((settings, count), Tier.EDGE, dtype=object)
    cost_SN = np.repeat(np.linspace(6, 3, settings)[:, None], count, 1)
    prices = [Setting(0.001 * (number + 1), 0.95) for number in range(settings)]
    never_SN = np.zeros((settings, count), bool)
    return SettingOutcomes(
        prices, answer_SN, tier_SN, cost_SN, never_SN, samples, CostModel.paper(6)
    )


@pytest.mark.parametrize("metric", ["accuracy", "consistency"])
def test_certified_policy_answers_like_the_tested_setting(
    metric: Any, outcomes: SettingOutcomes, bundle: Bundle
) -> None:
    """The mobile's policy, made from the certificate, gives the answers of the calibration."""
    done = calibrate(outcomes, metric, 0.3, 0.05)
    certificate = certify(bundle, done, PriceBook())
    policy = certified_policy(certificate, bundle)
    facts = PolicyFacts.of(bundle)
    trace = simulate(policy, outcomes.samples, facts, bundle.manifest.edge_layers)
    np.testing.assert_array_equal(trace.answer_N, outcomes.answer_SN[done.choice.setting])
    np.testing.assert_array_equal(trace.cost_N, outcomes.cost_SN[done.choice.setting])
    assert certificate.bound <= certificate.max_drop == 0.3
    assert certificate.n == 120
    assert certificate.data_hash == outcomes.samples.data_hash


def test_certificate_has_shares_and_disagreement_for_monitoring(
    outcomes: SettingOutcomes, bundle: Bundle
) -> None:
    done = calibrate(outcomes, "accuracy", 0.3, 0.05)
    certificate = certify(bundle, done, PriceBook())
    chosen = done.choice.setting
    differs_N = outcomes.answer_SN[chosen] != outcomes.samples.answers_NE[:, -1]
    assert certificate.disagreement is not None
    assert np.mean(differs_N[done.test_rows]) < certificate.disagreement < 1
    assert sum(certificate.shares.values()) == pytest.approx(1)
    edge = np.mean(outcomes.tier_SN[chosen, done.test_rows] == Tier.EDGE)
    assert certificate.shares[Tier.EDGE] == edge
    assert (
        certify(bundle, calibrate(outcomes, "consistency", 0.3, 0.05), PriceBook()).disagreement
        is None
    )


def test_escalated_samples_cost_two_attempts(outcomes: SettingOutcomes) -> None:
    """A cloud answer that costs more than all-cloud was escalated."""
    cloud_SN = outcomes.tier_SN == Tier.CLOUD
    above_SN = outcomes.cost_SN > outcomes.cost_model.all_cloud + 1e-9
    np.testing.assert_array_equal(outcomes.escalated_SN & cloud_SN, above_SN & cloud_SN)
    assert not (outcomes.escalated_SN & (outcomes.tier_SN == Tier.MOBILE)).any()


def test_last_setting_that_passed_is_certified_and_later_ones_are_not_tested(
    outcomes: SettingOutcomes, bundle: Bundle
) -> None:
    done = calibrate(outcomes, "consistency", 0.1, 0.05)
    steps = list(done.steps())
    verdicts = [step.passed for step in steps]
    passed = done.choice.passed
    assert verdicts[:passed] == [True] * passed
    assert verdicts[passed : passed + 1] in ([False], [])
    assert set(verdicts[passed + 1 :]) <= {None}
    assert all(step.test_loss is None and step.bound is None for step in steps[passed + 1 :])
    assert [step.cost for step in steps] == sorted((s.cost for s in steps), reverse=True)
    certificate = certify(bundle, done, PriceBook())
    chosen = steps[passed - 1].setting
    assert certificate.thresholds == {"alpha": chosen.alpha, "cost_weight": chosen.price}
    assert certificate.bound == steps[passed - 1].bound


def test_certificate_has_a_bound_for_each_tier(outcomes: SettingOutcomes, bundle: Bundle) -> None:
    done = calibrate(outcomes, "consistency", 0.3, 0.05)
    plain = certify(bundle, done, PriceBook())
    certificate = certify(bundle, done, PriceBook(), per_tier=True)
    assert plain.per_tier == {}
    assert set(certificate.per_tier) == set(Tier)
    assert sum(bound.n for bound in certificate.per_tier.values()) == certificate.n
    assert certificate.per_tier[Tier.CLOUD].bound == 0
    edge = certificate.per_tier[Tier.EDGE]
    tier_N = outcomes.tier_SN[done.choice.setting][done.test_rows]
    loss_N = (
        outcomes.candidates("consistency").losses[0].loss_SN[done.choice.setting][done.test_rows]
    )
    assert edge.bound > loss_N[tier_N == Tier.EDGE].mean()


@pytest.mark.parametrize("metric", ["accuracy", "consistency"])
def test_error_for_too_few_samples_has_the_number_needed(metric: Any, bundle: Bundle) -> None:
    done = calibrate(made_up_outcomes(816), metric, 0.005, 0.05)
    with pytest.raises(
        InvalidInput,
        match=r"max-drop: 0\.5 cannot be certified with n = 408, needs about 598 \(twice that .*; "
        r"with 0 errors seen, n = 408 certifies no drop below 0\.74$",
    ):
        certify(bundle, done, PriceBook())
    assert (
        certify(bundle, calibrate(made_up_outcomes(816), metric, 0.0074, 0.05), PriceBook()).n
        == 408
    )
    assert (
        certify(bundle, calibrate(made_up_outcomes(1196), metric, 0.005, 0.05), PriceBook()).n
        == 598
    )


def test_errors_raise_the_number_needed(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match=r"with n = 408, needs about [2-5],\d\d0 "):
        certify(
            bundle, calibrate(made_up_outcomes(816, 2), "consistency", 0.005, 0.05), PriceBook()
        )


def test_loss_above_the_limit_cannot_be_certified(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match=r"nor with a practical number .* loses 5\.00 here"):
        certify(bundle, calibrate(made_up_outcomes(800, 40), "accuracy", 0.02, 0.05), PriceBook())


def test_settings_that_cost_more_are_not_certified(bundle: Bundle) -> None:
    expensive = made_up_outcomes(800)
    expensive = replace(expensive, cost_SN=expensive.cost_SN + 20)
    with pytest.raises(InvalidInput, match="no setting of the policy cascade-routing is cheaper"):
        certify(bundle, calibrate(expensive, "accuracy", 0.02, 0.05), PriceBook())


def test_right_answer_where_the_cloud_is_wrong_is_a_negative_drop() -> None:
    """For consistency it is a different answer."""
    gaining = made_up_outcomes(100, 10)
    labels_N = gaining.samples.labels_N.copy()
    labels_N[:10] = 1
    gaining = replace(gaining, samples=replace(gaining.samples, labels_N=labels_N))
    drop, harmed = gaining.candidates("accuracy").losses
    (differs,) = gaining.candidates("consistency").losses
    assert drop.loss_SN.mean() == -0.1
    assert harmed.loss_SN.mean() == 0
    assert differs.loss_SN.mean() == 0.1


def trained_on(bundle: Bundle, split: str, examples: list[Example]) -> Bundle:
    """Return the bundle as if it had been trained on ``examples``."""
    update = {"data_hash": data_hash(examples), "accuracy": {"split": split}}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=update))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "sst2" / "train.jsonl", make_rows(400, 3))
    write_rows(tmp_path / "sst2" / "validation.jsonl", make_rows(60, 4))
    return tmp_path / "sst2"


def test_test_part_of_the_split_paper_is_used(bundle: Bundle, folder: Path) -> None:
    train = load_examples(str(folder), SST2, "train")
    split = paper_split(train, bundle.manifest.seed)
    known = split.train + split.validation
    data = load_calibration_examples(trained_on(bundle, "paper", known), str(folder))
    seen = {row.text for row in known}
    assert data.examples == [row for row in split.test if row.text not in seen]
    assert "the test part of" in data.description
    assert "neither exits nor heads have seen" in data.description


def test_validation_file_is_used_for_the_split_glue(bundle: Bundle, folder: Path) -> None:
    train, held = hold_out_sentences(
        load_examples(str(folder), SST2, "train"), bundle.manifest.seed
    )
    copied = {"sentence": train[0].text, "label": train[0].label}
    write_rows(folder / "validation.jsonl", [*make_rows(60, 4), copied])
    data = load_calibration_examples(trained_on(bundle, "glue", train + held), str(folder))
    assert train[0].text not in {row.text for row in data.examples}
    assert len(data.examples) <= 60
    assert "that they were fitted on)" in data.description


def test_training_data_of_the_bundle_is_refused(bundle: Bundle, folder: Path) -> None:
    train = load_examples(str(folder), SST2, "train")
    split = paper_split(train, bundle.manifest.seed)
    made = trained_on(bundle, "paper", split.train + split.validation)
    data = load_calibration_examples(made, str(folder / "train.jsonl"))
    seen = {row.text for row in split.train + split.validation}
    assert data.examples == [row for row in split.test if row.text not in seen]
    assert "the test part of" in data.description
    parts = hold_out_sentences(train, bundle.manifest.seed)
    made = trained_on(bundle, "glue", [*parts[0], *parts[1]])
    with pytest.raises(InvalidInput, match="correctness heads were fitted on"):
        load_calibration_examples(made, str(folder / "train.jsonl"))
    made = trained_on(bundle, "paper", train)
    with pytest.raises(InvalidInput, match="correctness heads were fitted on"):
        load_calibration_examples(made, str(folder / "train.jsonl"))


def test_data_with_only_training_texts_is_refused(bundle: Bundle, folder: Path) -> None:
    train, held = hold_out_sentences(
        load_examples(str(folder), SST2, "train"), bundle.manifest.seed
    )
    copies = [{"sentence": row.text, "label": row.label} for row in train[:5]]
    write_rows(folder / "validation.jsonl", copies)
    with pytest.raises(InvalidInput, match="was trained on every text"):
        load_calibration_examples(trained_on(bundle, "glue", train + held), str(folder))


def test_other_data_are_used_and_described_as_unknown(bundle: Bundle, folder: Path) -> None:
    data = load_calibration_examples(bundle, str(folder))
    assert data.examples == load_examples(str(folder), SST2, "validation")
    assert "it is unknown whether" in data.description
    file = write_rows(folder / "own.jsonl", make_rows(5, 9))
    assert len(load_calibration_examples(bundle, str(file)).examples) == 5


def test_consistency_needs_no_labels(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"sentence": "a warm film"}, {"sentence": "a cold day", "label": -1}]
    file = str(write_rows(tmp_path / "texts.jsonl", rows))
    examples = load_calibration_examples(bundle, file, labelled=False).examples
    assert [row.label for row in examples] == [-1, -1]
    with pytest.raises(InvalidInput, match="row 1 has no field 'label'"):
        load_calibration_examples(bundle, file)


def test_bundle_with_other_labels_than_the_task_is_refused(bundle: Bundle, folder: Path) -> None:
    manifest = bundle.manifest.model_copy(update={"labels": ("good", "bad")})
    with pytest.raises(InvalidInput, match="has the labels good, bad, and sst2 has negative"):
        load_calibration_examples(replace(bundle, manifest=manifest), str(folder))


def test_glue_source_is_the_configured_folder_or_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMEE_GLUE", str(folder.parent))
    assert glue_source(SST2) == str(folder)
    monkeypatch.setenv("DIMEE_GLUE", str(folder / "none"))
    monkeypatch.chdir(folder)
    assert glue_source(SST2) == "nyu-mll/glue:sst2"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(command, [str(BUNDLE), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_command_writes_a_certificate_that_loads(
    rows: list[dict[str, Any]], bundle: Bundle, tmp_path: Path
) -> None:
    data = str(write_rows(tmp_path / "own.jsonl", rows))
    out = tmp_path / "c.json"
    book = tmp_path / "prices.json"
    book.write_text(
        json.dumps(
            {
                "version": "2027-01",
                "valid_until": "2099-01-01T00:00:00Z",
                "cost_model": {"cloud_fee": 20.0},
            }
        )
    )
    output = run("--max-drop", "30", "--metric", "consistency", "--per-tier", "--data", data,
                "--price-book", str(book), "--out", str(out))  # fmt: skip
    certificate = load_certificate(out, bundle)
    assert certificate.prices.cloud_fee == 20.0
    assert certificate.prices.price_book == "2027-01"
    assert certificate.expires == datetime(2099, 1, 1, tzinfo=UTC)
    assert certificate.data_hash[:16] in output
    assert "240 examples, all of" in output
    assert "120 ordered the settings, 120 tested them at delta = 0.05" in output
    assert "passed" in output
    assert "cloud: its" in output
    assert certificate.sentence() in output
    with pytest.raises(BundleError, match="the prices 2027-01, which expired"):
        load_certificate(out, bundle, datetime(2099, 1, 2, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="cannot be certified with n = 120, needs about"):
        run("--max-drop", "0.5", "--metric", "consistency", "--data", data, "--out", str(out))


def test_expired_price_book_is_refused(tmp_path: Path) -> None:
    book = tmp_path / "prices.json"
    book.write_text(json.dumps({"version": "old", "valid_until": "2020-01-01T00:00:00Z"}))
    with pytest.raises(InvalidInput, match=r"price-book: old in .* expired on 2020-01-01"):
        run("--max-drop", "2", "--price-book", str(book))


@pytest.mark.parametrize(
    "arguments",
    [["--max-drop", "0"], ["--max-drop", "100"], ["--max-drop", "1", "--delta", "0"],
     ["--max-drop", "1", "--delta", "1"], ["--max-drop", "1", "--metric", "speed"], []],
    ids=" ".join,
)  # fmt: skip
def test_options_out_of_range_are_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(command, [str(BUNDLE), *arguments])
    assert done.exit_code == 2
    assert "--" in done.output


def test_single_example_is_refused(tmp_path: Path) -> None:
    data = str(write_rows(tmp_path / "one.jsonl", make_rows(1, 1)))
    with pytest.raises(InvalidInput, match="cannot be split in two"):
        run("--max-drop", "2", "--data", data)


def test_shipped_bundle_on_the_glue_validation_file(
    glue: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """872 unseen sentences certify a drop of five points, but not of half a point."""
    monkeypatch.setattr("lab.certify.certify.TEXT_ALPHAS", (0.98,))
    data = load_calibration_examples(bundle, str(glue / "sst2"))
    assert "neither exits nor heads have seen" in data.description
    assert len(data.examples) == 872
    outcomes = run_settings(bundle, samples_of_bundle(bundle, data.examples), bundle.cost_model)
    for metric in ("accuracy", "consistency"):
        with pytest.raises(InvalidInput, match="cannot be certified with n = 436, needs about"):
            certify(bundle, calibrate(outcomes, metric, 0.005, 0.05), PriceBook())
    assert certify(bundle, calibrate(outcomes, "accuracy", 0.05, 0.05), PriceBook()).bound <= 0.05


def test_published_page_equals_that_of_its_json() -> None:
    facts = json.loads((PUBLISHED / "extra" / "certified.json").read_text(encoding="utf-8"))
    written = (PUBLISHED / "certified.md").read_text(encoding="utf-8")
    assert study_page("certified", facts) == written, (
        "run: python -m lab.studies.certified BUNDLE …"
    )
    rows = [row for bundle in facts["bundles"] for row in bundle["certified"]]
    assert {row["max_drop"] for row in rows} == {0.5, 1.0, 2.0}
    assert all("refusal" in row or row["bound"] <= row["max_drop"] for row in rows)


def test_study_and_page_of_made_up_texts(bundle: Bundle, tmp_path: Path) -> None:
    write_rows(tmp_path / "sst2" / "validation.jsonl", make_rows(120, 5))
    facts = study(bundle, str(tmp_path / "sst2"))
    assert facts["held_out"][0]["certified"] == 0
    assert "refusal" in facts["certified"][0]
    assert "cannot be certified" in study_page("certified", {"delta": 0.05, "bundles": [facts]})
