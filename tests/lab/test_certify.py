"""``dimee calibrate``: what is certified is what is served; what cannot be is said, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lab.certify.calibration_data import fresh_examples, glue_source
from lab.certify.certify import Swept, calibrate, certify, sweep
from lab.cli.calibrate import calibrate as command
from lab.data.examples import Example, data_hash, hold_out_sentences, load_examples, paper_split
from lab.data.tasks import get_task
from lab.evaluate.choose_lambda import Setting
from lab.evaluate.samples import Samples, samples_of_bundle
from lab.evaluate.simulate import simulate
from lab.reports.certified import page
from lab.studies.certified import study
from shared.bundle.loading import Bundle
from shared.certificates.certificate import certified_policy, load_certificate
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.policies import PolicyFacts
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook
from tests.lab.conftest import make_rows
from tests.support.paths import BUNDLE, REPOSITORY

SST2 = get_task("sst2")
PUBLISHED = REPOSITORY / "docs" / "results"


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return make_rows(240, 31)


@pytest.fixture(scope="module")
def swept(bundle: Bundle, rows: list[dict[str, Any]]) -> Swept:
    examples = [Example(row["sentence"], None, row["label"]) for row in rows]
    return sweep(bundle, samples_of_bundle(bundle, examples), bundle.cost_model)


def flat(count: int, wrong: int = 0, settings: int = 1) -> Swept:
    """Samples of which every setting answers ``wrong`` otherwise than the cloud, which is right."""
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
    return Swept(prices, answer_SN, tier_SN, cost_SN, never_SN, samples, CostModel.paper(6))


@pytest.mark.parametrize("metric", ["accuracy", "consistency"])
def test_what_is_certified_is_what_the_policy_serves(
    metric: Any, swept: Swept, bundle: Bundle
) -> None:
    """The mobile's own object, made from the certificate, answers as the judged samples did."""
    done = calibrate(swept, metric, 0.3, 0.05)
    certificate = certify(bundle, done, PriceBook())
    policy = certified_policy(certificate, bundle)
    facts = PolicyFacts.of(bundle)
    trace = simulate(policy, swept.samples, facts, bundle.manifest.edge_layers)
    np.testing.assert_array_equal(trace.answer_N, swept.answer_SN[done.choice.setting])
    np.testing.assert_array_equal(trace.cost_N, swept.cost_SN[done.choice.setting])
    assert certificate.bound <= certificate.max_drop == 0.3
    assert certificate.n == 120
    assert certificate.data_hash == swept.samples.data_hash


def test_what_service_is_watched_by_stands_beside_the_promise(swept: Swept, bundle: Bundle) -> None:
    done = calibrate(swept, "accuracy", 0.3, 0.05)
    certificate = certify(bundle, done, PriceBook())
    chosen = done.choice.setting
    differs_N = swept.answer_SN[chosen] != swept.samples.answers_NE[:, -1]
    assert certificate.disagreement is not None
    assert np.mean(differs_N[done.judged]) < certificate.disagreement < 1
    assert sum(certificate.shares.values()) == pytest.approx(1)
    edge = np.mean(swept.tier_SN[chosen, done.judged] == Tier.EDGE)
    assert certificate.shares[Tier.EDGE] == edge
    assert (
        certify(bundle, calibrate(swept, "consistency", 0.3, 0.05), PriceBook()).disagreement
        is None
    )


def test_escalated_is_what_paid_for_two_attempts(swept: Swept) -> None:
    """In the cloud the price of the last attempt is known; what costs more was escalated."""
    cloud_SN = swept.tier_SN == Tier.CLOUD
    dearer_SN = swept.cost_SN > swept.cost_model.all_cloud + 1e-9
    np.testing.assert_array_equal(swept.escalated_SN & cloud_SN, dearer_SN & cloud_SN)
    assert not (swept.escalated_SN & (swept.tier_SN == Tier.MOBILE)).any()


def test_the_last_that_passed_is_certified_and_the_rest_is_not_looked_at(
    swept: Swept, bundle: Bundle
) -> None:
    done = calibrate(swept, "consistency", 0.1, 0.05)
    steps = list(done.steps())
    verdicts = [step.passed for step in steps]
    passed = done.choice.passed
    assert verdicts[:passed] == [True] * passed
    assert verdicts[passed : passed + 1] in ([False], [])
    assert set(verdicts[passed + 1 :]) <= {None}
    assert all(step.judged_loss is None and step.bound is None for step in steps[passed + 1 :])
    assert [step.cost for step in steps] == sorted((s.cost for s in steps), reverse=True)
    certificate = certify(bundle, done, PriceBook())
    chosen = steps[passed - 1].setting
    assert certificate.thresholds == {"alpha": chosen.alpha, "cost_weight": chosen.price}
    assert certificate.bound == steps[passed - 1].bound


def test_a_bound_for_each_tier(swept: Swept, bundle: Bundle) -> None:
    done = calibrate(swept, "consistency", 0.3, 0.05)
    plain = certify(bundle, done, PriceBook())
    certificate = certify(bundle, done, PriceBook(), per_tier=True)
    assert plain.per_tier == {}
    assert set(certificate.per_tier) == set(Tier)
    assert sum(bound.n for bound in certificate.per_tier.values()) == certificate.n
    assert certificate.per_tier[Tier.CLOUD].bound == 0
    edge = certificate.per_tier[Tier.EDGE]
    tier_N = swept.tier_SN[done.choice.setting][done.judged]
    loss_N = swept.candidates("consistency").ways[0].loss_SN[done.choice.setting][done.judged]
    assert edge.bound > loss_N[tier_N == Tier.EDGE].mean()


@pytest.mark.parametrize("metric", ["accuracy", "consistency"])
def test_too_few_samples_say_how_many_it_takes(metric: Any, bundle: Bundle) -> None:
    done = calibrate(flat(816), metric, 0.005, 0.05)
    with pytest.raises(
        InvalidInput,
        match=r"max-drop: 0\.5 cannot be certified with n = 408, needs about 598 \(twice that .*; "
        r"with 0 errors seen, n = 408 certifies no drop below 0\.73$",
    ):
        certify(bundle, done, PriceBook())
    assert certify(bundle, calibrate(flat(816), metric, 0.0074, 0.05), PriceBook()).n == 408
    assert certify(bundle, calibrate(flat(1196), metric, 0.005, 0.05), PriceBook()).n == 598


def test_with_errors_seen_it_takes_more(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match=r"with n = 408, needs about [2-5],\d\d0 "):
        certify(bundle, calibrate(flat(816, 2), "consistency", 0.005, 0.05), PriceBook())


def test_what_is_not_so_cannot_be_certified_by_any_number(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match=r"nor with any number .* loses 5\.00 here"):
        certify(bundle, calibrate(flat(800, 40), "accuracy", 0.02, 0.05), PriceBook())


def test_where_nothing_saves_nothing_is_certified(bundle: Bundle) -> None:
    dear = flat(800)
    dear = replace(dear, cost_SN=dear.cost_SN + 20)
    with pytest.raises(InvalidInput, match="no setting of the policy cascade-routing is cheaper"):
        certify(bundle, calibrate(dear, "accuracy", 0.02, 0.05), PriceBook())


def test_a_gain_is_no_loss_of_accuracy_but_another_answer() -> None:
    """Where the cloud is wrong and this is right: the drop is −1, the answer differs."""
    gaining = flat(100, 10)
    labels_N = gaining.samples.labels_N.copy()
    labels_N[:10] = 1
    gaining = replace(gaining, samples=replace(gaining.samples, labels_N=labels_N))
    drop, harmed = gaining.candidates("accuracy").ways
    (differs,) = gaining.candidates("consistency").ways
    assert drop.loss_SN.mean() == -0.1
    assert harmed.loss_SN.mean() == 0
    assert differs.loss_SN.mean() == 0.1


def made_from(bundle: Bundle, split: str, known: list[Example]) -> Bundle:
    """The bundle as if it had learnt from these."""
    update = {"data_hash": data_hash(known), "accuracy": {"split": split}}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=update))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "sst2" / "train.jsonl", make_rows(400, 3))
    write_rows(tmp_path / "sst2" / "validation.jsonl", make_rows(60, 4))
    return tmp_path / "sst2"


def test_of_the_paper_s_split_the_test_part_is_taken(bundle: Bundle, folder: Path) -> None:
    train = load_examples(str(folder), SST2, "train")
    split = paper_split(train, bundle.manifest.seed)
    known = split.train + split.validation
    fresh = fresh_examples(made_from(bundle, "paper", known), str(folder))
    seen = {row.text for row in known}
    assert fresh.examples == [row for row in split.test if row.text not in seen]
    assert "the test part of" in fresh.what
    assert "neither exits nor heads have seen" in fresh.what


def test_of_glue_s_split_the_validation_file_is_taken(bundle: Bundle, folder: Path) -> None:
    train, held = hold_out_sentences(
        load_examples(str(folder), SST2, "train"), bundle.manifest.seed
    )
    copied = {"sentence": train[0].text, "label": train[0].label}
    write_rows(folder / "validation.jsonl", [*make_rows(60, 4), copied])
    fresh = fresh_examples(made_from(bundle, "glue", train + held), str(folder))
    assert train[0].text not in {row.text for row in fresh.examples}
    assert len(fresh.examples) <= 60
    assert "that have)" in fresh.what


def test_what_the_bundle_learnt_from_is_refused(bundle: Bundle, folder: Path) -> None:
    train = load_examples(str(folder), SST2, "train")
    split = paper_split(train, bundle.manifest.seed)
    made = made_from(bundle, "paper", split.train + split.validation)
    with pytest.raises(InvalidInput, match="were fitted on, and proves nothing"):
        fresh_examples(made, str(folder / "train.jsonl"))
    made = made_from(bundle, "paper", train)
    with pytest.raises(InvalidInput, match="were fitted on, and proves nothing"):
        fresh_examples(made, str(folder / "train.jsonl"))


def test_where_every_text_was_seen_nothing_is_left(bundle: Bundle, folder: Path) -> None:
    train, held = hold_out_sentences(
        load_examples(str(folder), SST2, "train"), bundle.manifest.seed
    )
    copies = [{"sentence": row.text, "label": row.label} for row in train[:5]]
    write_rows(folder / "validation.jsonl", copies)
    with pytest.raises(InvalidInput, match="has learnt from every text"):
        fresh_examples(made_from(bundle, "glue", train + held), str(folder))


def test_others_data_are_taken_and_said_to_be_unknown(bundle: Bundle, folder: Path) -> None:
    fresh = fresh_examples(bundle, str(folder))
    assert fresh.examples == load_examples(str(folder), SST2, "validation")
    assert "is not known" in fresh.what
    file = write_rows(folder / "own.jsonl", make_rows(5, 9))
    assert len(fresh_examples(bundle, str(file)).examples) == 5


def test_consistency_needs_no_labels(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"sentence": "a warm film"}, {"sentence": "a cold day", "label": -1}]
    file = str(write_rows(tmp_path / "texts.jsonl", rows))
    examples = fresh_examples(bundle, file, labelled=False).examples
    assert [row.label for row in examples] == [-1, -1]
    with pytest.raises(InvalidInput, match="row 1 has no field 'label'"):
        fresh_examples(bundle, file)


def test_a_bundle_with_labels_that_the_task_has_not_is_refused(
    bundle: Bundle, folder: Path
) -> None:
    manifest = bundle.manifest.model_copy(update={"labels": ("good", "bad")})
    with pytest.raises(InvalidInput, match="has the labels good, bad, and sst2 has negative"):
        fresh_examples(replace(bundle, manifest=manifest), str(folder))


def test_glue_is_looked_for_where_the_setting_says(
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


def test_the_command_writes_a_certificate_that_loads(
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
    shown = run("--max-drop", "30", "--metric", "consistency", "--per-tier", "--data", data,
                "--price-book", str(book), "--out", str(out))  # fmt: skip
    certificate = load_certificate(out, bundle)
    assert certificate.prices.cloud_fee == 20.0
    assert certificate.prices.price_book == "2027-01"
    assert certificate.expires == datetime(2099, 1, 1, tzinfo=UTC)
    assert certificate.data_hash[:16] in shown
    assert "240 examples, all of" in shown
    assert "120 ordered the settings, 120 judged them at delta = 0.05" in shown
    assert "passed" in shown
    assert "cloud: its" in shown
    assert certificate.sentence() in shown
    with pytest.raises(BundleError, match="the prices 2027-01, which expired"):
        load_certificate(out, bundle, datetime(2099, 1, 2, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="cannot be certified with n = 120, needs about"):
        run("--max-drop", "0.5", "--metric", "consistency", "--data", data, "--out", str(out))


def test_an_expired_price_book_is_refused(tmp_path: Path) -> None:
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


def test_one_example_cannot_be_halved(tmp_path: Path) -> None:
    data = str(write_rows(tmp_path / "one.jsonl", make_rows(1, 1)))
    with pytest.raises(InvalidInput, match="cannot be halved"):
        run("--max-drop", "2", "--data", data)


def test_the_ready_bundle_on_glue_s_validation_file(
    glue: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """872 sentences that it has not seen: half a point takes more, five points can be had."""
    monkeypatch.setattr("lab.certify.certify.TEXT_ALPHAS", (0.98,))
    fresh = fresh_examples(bundle, str(glue / "sst2"))
    assert "neither exits nor heads have seen" in fresh.what
    assert len(fresh.examples) == 872
    swept = sweep(bundle, samples_of_bundle(bundle, fresh.examples), bundle.cost_model)
    for metric in ("accuracy", "consistency"):
        with pytest.raises(InvalidInput, match="cannot be certified with n = 436, needs about"):
            certify(bundle, calibrate(swept, metric, 0.005, 0.05), PriceBook())
    assert certify(bundle, calibrate(swept, "accuracy", 0.05, 0.05), PriceBook()).bound <= 0.05


def test_the_published_page_is_what_its_json_says() -> None:
    facts = json.loads((PUBLISHED / "extra" / "certified.json").read_text(encoding="utf-8"))
    written = (PUBLISHED / "certified.md").read_text(encoding="utf-8")
    assert page(facts) == written, "run: python -m lab.studies.certified BUNDLE …"
    rows = [row for bundle in facts["bundles"] for row in bundle["certified"]]
    assert {row["max_drop"] for row in rows} == {0.5, 1.0, 2.0}
    assert all("refusal" in row or row["bound"] <= row["max_drop"] for row in rows)


def test_a_study_of_made_up_texts(bundle: Bundle, tmp_path: Path) -> None:
    """Every part of the page, on data of no meaning."""
    write_rows(tmp_path / "sst2" / "validation.jsonl", make_rows(120, 5))
    facts = study(bundle, str(tmp_path / "sst2"))
    assert facts["kept_back"][0]["certified"] == 0
    assert "refusal" in facts["certified"][0]
    assert "cannot be certified" in page({"delta": 0.05, "bundles": [facts]})
