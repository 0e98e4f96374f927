"""What a bundle does as shipped: its exits, and the policies, with the phone's own objects.

Shape suffixes: E exits, N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lab.data import Example
from lab.predict import ExitOutputs
from shared.bundle import Bundle
from shared.cost import CostModel
from shared.domain import LayerRange, Tier
from shared.policies import POLICY_NAMES, make_policy
from shared.runtime.classifier import Classifier
from shared.runtime.encoding import EncodedText
from shared.runtime.layers import softmax

GAMMAS = (1.0, 3.0, 5.0, 9.0, 15.0, 30.0)
BATCH = 32


def shipped_outputs(bundle: Bundle, examples: Sequence[Example], threads: int = 2) -> ExitOutputs:
    """Every exit's probabilities from the bundle's own files and the phone's own runtime."""
    layers = bundle.manifest.layers
    classifier = Classifier(bundle, LayerRange(1, layers), threads)
    rows = [classifier.encoder.encode(row.text, row.pair) for row in examples]
    order = sorted(range(len(rows)), key=lambda i: rows[i].tokens)
    probabilities_ENC = np.empty((layers, len(rows), len(bundle.manifest.labels)), np.float32)
    for start in tqdm(range(0, len(order), BATCH), desc="as shipped", mininterval=2, delay=2):
        part = order[start : start + BATCH]
        hidden_BTH, mask_BT = classifier.embeddings.first_hidden([rows[i] for i in part])
        for layer in range(1, layers + 1):
            hidden_BTH, logits_BC = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
            probabilities_ENC[layer - 1, part] = softmax(logits_BC)
    return ExitOutputs(probabilities_ENC, np.array([row.label for row in examples]))


@dataclass(frozen=True)
class PolicyOutcome:
    """One policy over a list of samples: where each went and where it left."""

    tier_N: NDArray[np.object_]
    exit_N: NDArray[np.int64]
    right_N: NDArray[np.bool_]

    def cost(self, model: CostModel) -> float:
        """Mean λ of a sample."""
        pairs = zip(self.tier_N, self.exit_N, strict=True)
        return float(np.mean([model.attempt(tier, int(layer)) for tier, layer in pairs]))


def replay(
    bundle: Bundle, name: str, examples: Sequence[Example], outputs: ExitOutputs, seed: int = 0
) -> PolicyOutcome:
    """Route the samples in their order with the policy that the phone runs, and answer them.

    Phone and edge answer at their first exit with C_i >= α, else at their last; the cloud at l.
    """
    classifier = Classifier(bundle, LayerRange(1, 1))
    policy = make_policy(name, bundle, seed)
    rows: list[EncodedText] = [classifier.encoder.encode(row.text, row.pair) for row in examples]
    tier_N = np.array(
        [policy.route(classifier.embeddings.mean_word_embedding(row)).tier for row in rows], object
    )
    manifest = bundle.manifest
    last = {Tier.MOBILE: manifest.mobile_layers, Tier.EDGE: manifest.edge_layers}
    confidence_EN = outputs.probabilities_ENC.max(-1)
    exit_N = np.full(len(rows), manifest.layers)
    for tier, layers in last.items():
        confident_EN = confidence_EN[:layers] >= manifest.alpha
        first_N = np.where(confident_EN.any(0), confident_EN.argmax(0) + 1, layers)
        exit_N[tier_N == tier] = first_N[tier_N == tier]
    label_EN = outputs.probabilities_ENC.argmax(-1)
    right_N = label_EN[exit_N - 1, np.arange(len(rows))] == outputs.labels_N
    return PolicyOutcome(tier_N, exit_N, right_N)


def policy_table(
    bundle: Bundle, examples: Sequence[Example], outputs: ExitOutputs
) -> dict[str, Any]:
    """Every policy's accuracy (percent), shares and cost against all-cloud, with the γ sweep."""
    table: dict[str, Any] = {}
    for name in POLICY_NAMES:
        outcome = replay(bundle, name, examples, outputs)
        model = bundle.cost_model
        table[name] = {
            "accuracy": round(100 * float(outcome.right_N.mean()), 2),
            "shares": {
                tier.value: round(float((outcome.tier_N == tier).mean()), 4) for tier in Tier
            },
            "cost_lambda": round(outcome.cost(model), 3),
            "cost_against_all_cloud": round(100 * (outcome.cost(model) / model.all_cloud - 1), 1),
            "by_cloud_fee": {
                str(gamma): round(100 * (outcome.cost(other) / other.all_cloud - 1), 1)
                for gamma in GAMMAS
                for other in [CostModel.paper(model.layers, cloud_fee=gamma)]
            },
        }
    return table


def exit_table(full: ExitOutputs, shipped: ExitOutputs) -> dict[str, Any]:
    """Accuracy (percent) and mean confidence by exit, fp32 and as shipped, and how far apart."""

    def by_exit(outputs: ExitOutputs) -> dict[str, list[float]]:
        right_EN = outputs.probabilities_ENC.argmax(-1) == outputs.labels_N
        return {
            "accuracy": [round(100 * float(value), 2) for value in right_EN.mean(1)],
            "confidence": [
                round(float(value), 4) for value in outputs.probabilities_ENC.max(-1).mean(1)
            ],
        }

    apart_ENC = np.abs(full.probabilities_ENC - shipped.probabilities_ENC)
    return {
        "examples": len(full.labels_N),
        "fp32": by_exit(full),
        "shipped": by_exit(shipped),
        "largest_probability_difference": [round(float(v), 4) for v in apart_ENC.max((1, 2))],
    }
