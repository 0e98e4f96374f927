"""Pools and centroids: by hand, from the exported word table, and from the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import lab.evaluate.samples
from lab.evaluate.pools import make_pools
from lab.evaluate.samples import Samples
from lab.export.bundle import pools_of_run
from lab.export.layers import write_embeddings, write_router
from lab.models.embedding_tables import mean_embeddings
from lab.models.encoders import load_tokenizer
from lab.models.model import new_model
from lab.models.run import Run
from shared.domain import Tier
from shared.inference.tokenizer import TextEncoder
from shared.policies import TextFeatures
from shared.policies.centroids import DimeeFixed
from shared.pricing.cost_model import CostModel

COSTS = CostModel(
    mobile_layer=2, edge_layer=1, offload_edge=3, offload_cloud=5, cloud_fee=5, layers=3
)
EMBEDDING_NH = np.array([[1, 0], [0, 1], [0, 3], [4, 4]], np.float32)


@pytest.fixture
def run(fixed_run: Path) -> Run:
    return Run(fixed_run)


def samples(confidence_EN: list[list[float]]) -> Samples:
    """Return samples of two classes with these confidences."""
    confidence_NE = np.array(confidence_EN, np.float32).T
    probabilities_NEC = np.stack([1 - confidence_NE, confidence_NE], -1)
    labels_N = np.array([1, 1, 0, 0])
    return Samples(probabilities_NEC, EMBEDDING_NH, np.full(4, 5), labels_N, "data", "model")


def test_pools_and_centroids_by_hand() -> None:
    of_four = samples(
        [[0.90, 0.96, 0.60, 0.60], [0.95, 0.97, 0.70, 0.70], [0.99, 0.98, 0.75, 0.75]]
    )
    made = make_pools(of_four, COSTS, 1, 2, 0.1)
    # rewards at α = 17/18: 0.95 − 0.05 on the edge, 0.96 − 0.02 on the mobile, 0.75 − 0.1 twice;
    # at 1: 0.89, 0.88 and the same; at 16/18: 0.88, 0.94 and the same
    assert made.alpha == pytest.approx(17 / 18)
    assert max(option.expected_reward for option in made.candidates) == pytest.approx(0.785)
    assert made.sizes == {"easy": 1, "moderate": 1, "hard": 2}
    np.testing.assert_allclose(made.centroids_DH, [[0, 1], [1, 0], [2, 3.5]])
    assert made.empty == []


def test_empty_pool_is_named_and_never_chosen(tmp_path: Path) -> None:
    made = make_pools(samples([[0.5] * 4, [0.5] * 4, [0.99] * 4]), COSTS, 1, 2, 0.1)
    assert made.empty == ["easy", "moderate"]
    assert np.isnan(made.centroids_DH[:2]).all()
    write_router(made, tmp_path / "router.npz")
    with np.load(tmp_path / "router.npz", allow_pickle=False) as arrays:
        policy = DimeeFixed(arrays["centroids"], arrays["counts"])
    assert {policy.route(TextFeatures(row_H, 5)).tier for row_H in EMBEDDING_NH} == {Tier.CLOUD}


def test_lab_and_mobile_use_the_same_word_table(run: Run, tmp_path: Path) -> None:
    write_embeddings(run.model, tmp_path / "tables")
    example = run.split().validation[0]
    encoder = TextEncoder(run.tokenizer_file, 32)
    (found_H,) = mean_embeddings(run.model, [encoder.encode(example.text)])
    ids = load_tokenizer(run.facts["encoder"])(example.text, add_special_tokens=False)["input_ids"]
    tables = load_file(tmp_path / "tables")
    expected_H = np.mean([tables["word"][i] * tables["word_scale"][i] for i in ids], 0)
    np.testing.assert_allclose(found_H, expected_H, atol=1e-6)


def test_exported_word_table_is_within_half_a_step(tiny_encoder: Path, tmp_path: Path) -> None:
    model = new_model(str(tiny_encoder), 2, "mean")
    write_embeddings(model, tmp_path / "tables")
    tables = load_file(tmp_path / "tables")
    full_VH = model.encoder.embeddings.word_embeddings.weight.detach().numpy()
    exported_VH = tables["word"].astype(np.float32) * tables["word_scale"][:, None]
    assert (np.abs(full_VH - exported_VH) <= 0.5001 * tables["word_scale"][:, None]).all()


def test_second_call_reads_the_cache(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pools_of_run(run, None, 1, 2, 0.1, None, 64)

    def refuse(*args: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(lab.evaluate.samples, "predict_encoded", refuse)
    second = pools_of_run(Run(run.folder), None, 1, 2, 0.1, None, 64)
    assert second.alpha == first.alpha
    np.testing.assert_array_equal(second.centroids_DH, first.centroids_DH)
