"""Few validation rows, two to twenty classes: pools, heads, temperatures and policies stay finite.

The samples are made up, so that no verdict depends on the CPU's arithmetic.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lab.cli.train import few_steps_note
from lab.evaluate.bundle_report import exit_table
from lab.evaluate.fit_heads import fit_embedding_classifier
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import simulate
from lab.export.bundle import accuracy_of, with_heads
from lab.export.layers import write_router
from lab.models.predict import ExitOutputs
from lab.train.temperatures import calibration_error, fit_temperatures
from shared.bundle.correctness_heads import MIN_HEAD_EXAMPLES, CorrectnessHeads
from shared.policies import POLICY_NAMES, make_policy
from tests.support.paths import REPOSITORY
from tests.support.toy_samples import COSTS

LAYERS, HIDDEN = COSTS.layers, 6
SIZES = [
    (count, classes)
    for count in (20, 40, 99, 100, 200)
    for classes in (2, 3, 20)
    if count >= classes
]
CASES = [
    (count, classes, seed)
    for count, classes in SIZES
    for seed in (range(3) if count < MIN_HEAD_EXAMPLES else range(1))
]


def few(count: int, classes: int, seed: int, sharpness: float = 2.0) -> Samples:
    """Return samples whose exits get better and surer with depth; every class occurs."""
    rng = np.random.default_rng(seed)
    labels_N = rng.permutation(np.arange(count) % classes)
    logits_NEC = rng.normal(0, 1, (count, LAYERS, classes))
    logits_NEC[np.arange(count), :, labels_N] += np.linspace(0.5, 3, LAYERS)
    logits_NEC *= sharpness
    odds_NEC = np.exp(logits_NEC - logits_NEC.max(-1, keepdims=True))
    embedding_NH = rng.normal(0, 1, (count, HIDDEN)) + labels_N[:, None] / classes
    return Samples(
        (odds_NEC / odds_NEC.sum(-1, keepdims=True)).astype(np.float32),
        embedding_NH.astype(np.float32),
        rng.integers(3, 20, count),
        labels_N,
        "d",
        "m",
        rng.integers(0, 3, count),
    )


def fitted(validation: Samples, seed: int) -> tuple[Pools, object, str | None]:
    """Return what an export fits on the validation part; a warning of numpy is an error."""
    classes = validation.probabilities_NEC.shape[-1]
    train = few(max(60, 2 * classes), classes, seed + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        embedding_classifier = fit_embedding_classifier(train.embedding_NH, train.labels_N)
        pools = make_pools(validation, COSTS, 2, 3, 0.1)
        return with_heads(embedding_classifier, validation, pools)


def check_policies(pools: Pools, samples: Samples) -> None:
    """Every policy that the pools allow answers every sample at a finite cost."""
    for name in POLICY_NAMES:
        if name == "cascade-routing" and pools.heads is None:
            continue
        trace = simulate(make_policy(name, pools.facts), samples, pools.facts, pools.edge_layers)
        assert np.isfinite(trace.cost_N).all(), name
        assert set(trace.exit_N.tolist()) <= set(range(1, LAYERS + 1)), name


@pytest.mark.parametrize(("count", "classes", "seed"), CASES)
def test_few_rows_and_many_classes(count: int, classes: int, seed: int, tmp_path: Path) -> None:
    validation = few(count, classes, seed)
    pools, chosen, note = fitted(validation, seed)
    assert 1 / classes <= pools.alpha <= 1
    assert sum(pools.sizes.values()) == count
    empty_D = np.isnan(pools.centroids_DH).any(1)
    np.testing.assert_array_equal(empty_D, pools.counts_D == 0)
    assert (pools.heads is None) == (count < MIN_HEAD_EXAMPLES) == (chosen is None)
    if pools.heads is None:
        assert note is not None
        assert f"{count} validation examples are too few" in note
    write_router(pools, tmp_path / "router.npz")
    with np.load(tmp_path / "router.npz") as arrays:
        loaded = CorrectnessHeads.from_arrays(dict(arrays))  # raises if a head is not finite
    assert (loaded is None) == (pools.heads is None)
    figures = accuracy_of(pools, chosen, "paper")  # type: ignore[arg-type]
    assert np.isfinite(np.array(figures["candidates"])).all()
    check_policies(pools, validation)
    check_policies(pools, few(7, classes, seed + 9))


@pytest.mark.parametrize(("count", "classes"), SIZES)
def test_temperatures_of_few_rows(count: int, classes: int) -> None:
    samples = few(count, classes, 5)
    outputs = ExitOutputs(samples.probabilities_NEC.transpose(1, 0, 2), samples.labels_N)
    for temperature in fit_temperatures(outputs):
        assert 0.1 <= temperature <= 10
    assert np.isfinite(calibration_error(samples.probabilities_NEC[:, -1], samples.labels_N))


@pytest.mark.parametrize("count", [20, 100])
@pytest.mark.parametrize("case", ["all right", "all wrong", "all equal", "certain"])
def test_constant_outcomes(case: str, count: int) -> None:
    """Heads, pools and temperatures have no variance to fit."""
    samples = few(count, 3, 2, sharpness=1e3 if case == "certain" else 2.0)
    if case in ("all right", "all wrong"):
        answers_N = (samples.labels_N + (case == "all wrong")) % 3
        samples.probabilities_NEC[:] = np.eye(3, dtype=np.float32)[answers_N][:, None] * 0.7 + 0.1
    elif case == "all equal":
        samples.probabilities_NEC[:] = 1 / 3
        samples.embedding_NH[:] = 1.0
        samples.tokens_N[:] = 5
    pools, _, _ = fitted(samples, 3)
    check_policies(pools, samples)
    outputs = ExitOutputs(samples.probabilities_NEC.transpose(1, 0, 2), samples.labels_N)
    assert np.isfinite(fit_temperatures(outputs)).all()
    table = exit_table(samples, samples)
    assert np.isfinite(table["fp32"]["accuracy"]).all()


def test_exits_have_the_metric_of_the_task() -> None:
    samples = few(60, 3, 1)
    found = exit_table(samples, samples, "macro-f1")["fp32"]["metric"]
    expected = [
        100 * f1_score(samples.labels_N, answer_N, average="macro")
        for answer_N in samples.answers_NE.T
    ]
    np.testing.assert_allclose(found, expected, atol=0.006)
    assert "metric" not in exit_table(samples, samples)["fp32"]


def test_how_to_has_the_note_on_few_rows() -> None:
    _, _, note = fitted(few(40, 2, 8), 8)
    page = (REPOSITORY / "docs" / "how-to" / "train-a-bundle.md").read_text(encoding="utf-8")
    assert f"note: {note}\n" in page


def test_validation_rows_that_share_text_leave_no_folds() -> None:
    """100 rows in three groups cannot be cross-fitted; the note says what to do."""
    samples = few(120, 2, 4)
    object.__setattr__(samples, "group_N", np.arange(120) % 3)
    pools, chosen, note = fitted(samples, 4)
    assert pools.heads is None
    assert chosen is None
    assert note is not None
    assert "share so much text" in note
    assert "dimee-fixed by default" in note
    assert "different texts" in note


def test_class_without_a_validation_row_is_no_error() -> None:
    """A tenth of a small file rarely has every one of twenty classes."""
    samples = few(40, 20, 6)
    samples.labels_N[samples.labels_N > 14] = 0
    pools, _, _ = fitted(samples, 6)
    check_policies(pools, samples)


def test_note_names_the_tiers_that_no_text_reaches() -> None:
    """Answers that are never sure make every text hard, so that the cloud alone is used."""
    samples = few(40, 2, 7)
    samples.probabilities_NEC[:, :3] = 0.5
    samples.probabilities_NEC[:, 3] = np.eye(2, dtype=np.float32)[samples.labels_N]
    pools, _, note = fitted(samples, 7)
    assert pools.unused_tiers == ["mobile", "edge"]
    assert note is not None
    assert "no pool sends texts to the mobile and edge" in note
    check_policies(pools, samples)


def test_note_says_that_the_cloud_alone_is_used() -> None:
    """Only the last exit is ever right, so that no cheaper setting keeps the drop."""
    samples = few(120, 2, 10)
    wrong_N = 1 - samples.labels_N
    samples.probabilities_NEC[:, :3] = (np.eye(2, dtype=np.float32)[wrong_N] * 0.4 + 0.3)[:, None]
    samples.probabilities_NEC[:, 3] = np.eye(2, dtype=np.float32)[samples.labels_N] * 0.8 + 0.1
    pools, chosen, note = fitted(samples, 10)
    assert pools.heads is not None
    assert chosen.setting.price == 0  # type: ignore[attr-defined]
    assert note is not None
    assert "cascade-routing sends every text to the cloud, because on 120 validation" in note


def test_note_on_a_training_of_few_steps() -> None:
    facts = {"examples": {"train": 256}, "batch_size": 32, "epochs": 3}
    note = few_steps_note(facts)
    assert note is not None
    assert "only 24 steps (3 epochs of 8)" in note
    assert "train with --epochs 10 and another --out" in note
    assert few_steps_note(facts | {"epochs": 10}) is None
    assert few_steps_note(facts | {"examples": {"train": 2_560}}) is None
    tiny = facts | {"examples": {"train": 5}}
    assert "--epochs 80 " in str(few_steps_note(tiny))
