"""Samples: every exit's probabilities, mean word embedding, length and label of examples.

They are computed once and cached; every method is simulated on them.
Shape suffixes: N samples, E exits, C classes, H hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from lab.data.examples import Example, data_hash
from lab.models.embedding_tables import mean_embeddings, word_rows
from lab.models.pair_features import PairFeatures
from lab.models.predict import predict_encoded
from lab.models.run import Run
from shared.bundle.correctness_heads import Floats
from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.devices import CPU, ComputeDevice
from shared.inference.layers import softmax
from shared.inference.tokenizer import EncodedText
from shared.policies import TextFeatures
from shared.terminal import progress_stream

BATCH = 32


@dataclass(frozen=True)
class Samples:
    """Exit outputs and features of N examples.

    ``tokens_N`` includes special tokens. ``rare_N`` counts the pieces that continue a word.
    ``pair_NP`` has the features of pairs (`shared.bundle.pair_features`); None for single texts and
    for outputs that lack them. ``group_N`` numbers the groups of samples that share text
    (`lab.evaluate.groups`); None if unknown.
    """

    probabilities_NEC: NDArray[np.float32]
    embedding_NH: NDArray[np.float32]
    tokens_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    data_hash: str
    model_hash: str
    rare_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    pair_NP: Floats | None = None
    group_N: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if not len(self.rare_N):
            object.__setattr__(self, "rare_N", np.zeros(len(self.labels_N), np.int64))

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def confidence_NE(self) -> NDArray[np.float32]:
        """Largest softmax probability of each exit."""
        confidence: NDArray[np.float32] = self.probabilities_NEC.max(-1)
        return confidence

    @cached_property
    def margin_NE(self) -> Floats:
        """Difference of the two largest softmax probabilities of each exit."""
        largest_NE2 = np.partition(self.probabilities_NEC, -2, axis=-1)[..., -2:].astype(np.float64)
        margin: Floats = largest_NE2[..., 1] - largest_NE2[..., 0]
        return margin

    @property
    def answers_NE(self) -> NDArray[np.int64]:
        """Label of each exit."""
        answers: NDArray[np.int64] = self.probabilities_NEC.argmax(-1)
        return answers

    def features(self, index: int) -> TextFeatures:
        """Return the features of one sample, which the mobile has before it runs a layer."""
        return TextFeatures(
            self.embedding_NH[index],
            int(self.tokens_N[index]),
            int(self.rare_N[index]),
            None if self.pair_NP is None else self.pair_NP[index],
        )

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """Return the samples of these rows, in this order."""
        return Samples(
            self.probabilities_NEC[rows],
            self.embedding_NH[rows],
            self.tokens_N[rows],
            self.labels_N[rows],
            self.data_hash,
            self.model_hash,
            self.rare_N[rows],
            None if self.pair_NP is None else self.pair_NP[rows],
            None if self.group_N is None else self.group_N[rows],
        )


def samples_of_run(run: Run, examples: Sequence[Example], name: str) -> Samples:
    """Return the samples of one pass of the torch model in fp32, cached in the run's folder.

    The cache key covers data, model and truncation. Embeddings come from the 8-bit word table of a
    bundle.
    """
    data, model = data_hash(examples), run.model_hash()
    max_tokens: int = run.facts["max_tokens"]
    key = hashlib.sha256(f"5 {data} {model} {max_tokens}".encode()).hexdigest()[:16]
    file = run.folder / "outputs" / f"{name}-{key}.safetensors"
    if file.is_file():
        return load_samples(file)
    encoder = run.text_encoder
    rows = [encoder.encode(row.text, row.pair) for row in examples]
    labels_N = np.array([row.label for row in examples], np.int64)
    outputs = predict_encoded(run.model, rows, labels_N, run.device)
    samples = Samples(
        np.ascontiguousarray(outputs.probabilities_ENC.transpose(1, 0, 2)),
        mean_embeddings(run.model, rows),
        np.array([row.tokens for row in rows], np.int64),
        outputs.labels_N,
        data,
        model,
        np.array([row.rare_pieces for row in rows], np.int64),
        PairFeatures(encoder, *word_rows(run.model)).of_rows(rows) if run.task.pair_field else None,
    )
    file.parent.mkdir(exist_ok=True)
    save_samples(samples, file)
    return samples


def save_samples(samples: Samples, file: Path) -> None:
    """Write ``samples`` with the hashes of data and model, atomically."""
    part = file.with_suffix(".part")
    arrays: dict[str, NDArray[Any]] = {
        "probabilities": samples.probabilities_NEC,
        "embedding": samples.embedding_NH,
        "tokens": samples.tokens_N,
        "labels": samples.labels_N,
        "rare": samples.rare_N,
    }
    for name, values in (("pair", samples.pair_NP), ("group", samples.group_N)):
        if values is not None:
            arrays[name] = values
    save_file(
        arrays,
        part,
        {"data_hash": samples.data_hash, "model_hash": samples.model_hash},
    )
    part.replace(file)


def load_samples(file: Path) -> Samples:
    """Load what `save_samples` wrote."""
    with safe_open(file, framework="numpy") as tensors:
        facts, names = tensors.metadata(), set(tensors.keys())
        return Samples(
            tensors.get_tensor("probabilities"),
            tensors.get_tensor("embedding").astype(np.float32),
            tensors.get_tensor("tokens"),
            tensors.get_tensor("labels"),
            facts["data_hash"],
            facts["model_hash"],
            tensors.get_tensor("rare"),
            tensors.get_tensor("pair") if "pair" in names else None,
            tensors.get_tensor("group") if "group" in names else None,
        )


def samples_of_bundle(
    bundle: Bundle, examples: Sequence[Example], threads: int = 2, cloud: ComputeDevice = CPU
) -> Samples:
    """Return the samples of an exported bundle, computed by the mobile's runtime.

    The last exit, which is the cloud's answer, is computed on the device ``cloud``.
    """
    layers = bundle.manifest.layers
    classifier = Classifier(bundle, LayerRange(1, layers), threads)
    rows = [classifier.encoder.encode(row.text, row.pair) for row in examples]
    order = sorted(range(len(rows)), key=lambda i: rows[i].tokens)
    probabilities_NEC = np.empty((len(rows), layers, len(bundle.manifest.labels)), np.float32)
    for start in tqdm(
        range(0, len(order), BATCH), desc="bundle", mininterval=2, delay=2, file=progress_stream()
    ):
        part = order[start : start + BATCH]
        hidden_BTH, mask_BT = classifier.embeddings.first_hidden([rows[i] for i in part])
        for layer in range(1, layers + 1):
            hidden_BTH, logits_BC = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
            probabilities_NEC[part, layer - 1] = softmax(logits_BC)
    if cloud.runtime != "onnx":
        in_cloud = Classifier(bundle, LayerRange(1, layers), device=cloud)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            answers = in_cloud.classify([rows[i] for i in part], None)
            probabilities_NEC[part, -1] = [answer.probabilities for answer in answers]
    return Samples(
        probabilities_NEC,
        np.stack([classifier.embeddings.mean_word_embedding(row) for row in rows]),
        np.array([row.tokens for row in rows], np.int64),
        np.array([row.label for row in examples], np.int64),
        data_hash(examples),
        bundle.bundle_id,
        np.array([row.rare_pieces for row in rows], np.int64),
        _pair_features(classifier, rows) if bundle.manifest.pairs else None,
    )


def _pair_features(classifier: Classifier, rows: Sequence[EncodedText]) -> Floats:
    features = [classifier.embeddings.pair_features(row) for row in rows]
    return np.stack([features_P for features_P in features if features_P is not None])
