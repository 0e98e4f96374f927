"""What runs on the phone itself: the decision, and layers 1..m off the event loop."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mobile_client.settings import MobileSettings
from shared.bundle import Bundle, load_bundle, tier_layers
from shared.domain import RoutingDecision
from shared.policies import RoutingPolicy, make_policy
from shared.runtime.classifier import Classifier
from shared.runtime.encoding import EncodedText


@dataclass(frozen=True, slots=True)
class Decided:
    """A tokenised text, where it goes first, and the milliseconds that this took."""

    encoded: EncodedText
    routing: RoutingDecision
    decision_ms: float


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """The phone's own prediction, with its wait and its work in milliseconds."""

    label: str
    probabilities: dict[str, float]
    confidence: float
    exit_layer: int
    queue_ms: float
    compute_ms: float


class Device:
    """The phone's bundle: tokeniser, embeddings, policies by name and layers 1..m."""

    def __init__(self, settings: MobileSettings) -> None:
        self.bundle: Bundle = load_bundle(settings.bundle)
        layers = tier_layers(self.bundle, settings.mobile_layers, settings.edge_layers)
        self._classifier = Classifier(self.bundle, layers.mobile, settings.threads)
        self._seed = settings.policy_seed
        self._policies: dict[str, RoutingPolicy] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="phone-layers")

    def policy(self, name: str) -> RoutingPolicy:
        """The policy of this name; it is made once and keeps its state. Raises `InvalidInput`."""
        if name not in self._policies:
            self._policies[name] = make_policy(name, self.bundle, self._seed)
        return self._policies[name]

    def decide(self, text: str, pair: str | None, policy: str) -> Decided:
        """Tokenise, look up the mean word embedding, choose a tier. Call in arrival order."""
        started = time.perf_counter()
        encoded = self._classifier.encoder.encode(text, pair)
        embedding_H = self._classifier.embeddings.mean_word_embedding(encoded)
        routing = self.policy(policy).route(embedding_H)
        return Decided(encoded, routing, (time.perf_counter() - started) * 1e3)

    async def answer(self, encoded: EncodedText) -> LocalAnswer:
        """Run layers 1..m; the first exit with C_i >= α answers, else the last one."""
        asked = time.perf_counter()

        def work() -> LocalAnswer:
            started = time.perf_counter()
            prediction = self._classifier.classify([encoded], self.bundle.manifest.alpha)[0]
            ended = time.perf_counter()
            labels = self.bundle.manifest.labels
            return LocalAnswer(
                label=labels[prediction.label_index],
                probabilities=dict(zip(labels, prediction.probabilities, strict=True)),
                confidence=prediction.confidence,
                exit_layer=prediction.exit_layer,
                queue_ms=(started - asked) * 1e3,
                compute_ms=(ended - started) * 1e3,
            )

        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def close(self) -> None:
        """Let running work end."""
        self._worker.shutdown(wait=True, cancel_futures=True)
