"""Algorithm 1 on the validation split: pools, α by expected reward, and the pools' centroids.

Shape suffixes: E exits, N samples, D difficulties (easy, moderate, hard), H hidden size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lab.data import Example, data_hash
from lab.predict import ExitOutputs, predict
from lab.reward import DIFFICULTIES, Candidate, best, candidates, place
from lab.run import Run
from shared.cost import CostModel
from shared.errors import InvalidInput
from shared.runtime.embeddings import Embeddings
from shared.runtime.encoding import TextEncoder


@dataclass(frozen=True)
class Pools:
    """What Algorithm 1 and eqs. 2, 3 made of the validation split."""

    alpha: float
    mu: float
    mobile_layers: int
    edge_layers: int
    cost_model: CostModel
    candidates: list[Candidate]
    centroids_DH: NDArray[np.float32]
    counts_D: NDArray[np.int64]

    @property
    def sizes(self) -> dict[str, int]:
        """Samples by difficulty."""
        return {
            name.value: int(count) for name, count in zip(DIFFICULTIES, self.counts_D, strict=True)
        }

    @property
    def empty(self) -> list[str]:
        """Pools without a sample: no text is ever routed to their tier."""
        return [name for name, count in self.sizes.items() if count == 0]


def exit_outputs(run: Run, examples: list[Example], name: str) -> ExitOutputs:
    """Every exit's probabilities in fp32, cached for equal data and an equal model."""
    key = hashlib.sha256((data_hash(examples) + run.model_hash()).encode()).hexdigest()[:16]
    file = run.folder / "outputs" / f"{name}-{key}.safetensors"
    if file.is_file():
        cached = load_file(file)
        return ExitOutputs(cached["probabilities"], cached["labels"])
    outputs = predict(run.model, run.tokenizer, examples, run.facts["max_tokens"])
    file.parent.mkdir(exist_ok=True)
    save_file({"probabilities": outputs.probabilities_ENC, "labels": outputs.labels_N}, file)
    return outputs


def make_pools(
    outputs: ExitOutputs,
    embedding_NH: NDArray[np.float32],
    cost_model: CostModel,
    mobile_layers: int,
    edge_layers: int,
    mu: float,
) -> Pools:
    """Choose α, form the pools and average their embeddings.

    Raises `InvalidInput` for layers that do not hold 1 <= m < n <= l, or a split without one of
    the classes. An empty pool has the centroid NaN and the count 0; see `Pools.empty`.
    """
    layers, _, classes = outputs.probabilities_ENC.shape
    if not 1 <= mobile_layers < edge_layers <= layers:
        raise InvalidInput(
            f"layers: m = {mobile_layers} and n = {edge_layers} must hold 1 <= m < n <= {layers}"
        )
    if absent := sorted(set(range(classes)) - set(outputs.labels_N.tolist())):
        raise InvalidInput(
            f"data: the validation split has no example of class {absent[0]}; use more data"
        )
    confidence_EN = outputs.probabilities_ENC.max(-1)
    options = candidates(confidence_EN, classes, cost_model, mu, mobile_layers, edge_layers)
    alpha = best(options).alpha
    pool_N = place(confidence_EN, alpha, mobile_layers, edge_layers).pool_N
    counts_D = np.bincount(pool_N, minlength=len(DIFFICULTIES))
    centroids_DH = np.full((len(DIFFICULTIES), embedding_NH.shape[1]), np.nan, np.float32)
    for pool in np.flatnonzero(counts_D):
        centroids_DH[pool] = embedding_NH[pool_N == pool].mean(0, dtype=np.float64)
    return Pools(alpha, mu, mobile_layers, edge_layers, cost_model, options, centroids_DH, counts_D)


def mean_embeddings(
    examples: list[Example], tokenizer_file: Path, embeddings_file: Path, max_tokens: int
) -> NDArray[np.float32]:
    """``embedding_NH`` as the phone computes it: from the table in 8 bits that is shipped."""
    encoder = TextEncoder(tokenizer_file, max_tokens)
    embeddings = Embeddings(embeddings_file)
    return np.stack(
        [embeddings.mean_word_embedding(encoder.encode(row.text, row.pair)) for row in examples]
    )
