"""The bundle on the mobile: tokenizer, embeddings, policies, and layers 1..m off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mobile_client.local.certificate_guard import load_guard
from mobile_client.local.resume import HiddenState, Resumption
from mobile_client.resilience.tier_stats import TierStats
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle, load_bundle, tier_layers
from shared.domain import RoutingDecision, Tier
from shared.inference.classifier import Classifier
from shared.inference.layers import Floats, meets_threshold
from shared.inference.tokenizer import EncodedText
from shared.policies import PolicyFacts, RoutingPolicy, TextFeatures, make_policy
from shared.pricing.live_prices import LivePrices


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A tokenized text, its features for the policy, and the time to prepare them."""

    encoded: EncodedText
    features: TextFeatures
    prepare_ms: float


@dataclass(frozen=True, slots=True)
class RoutedText:
    """A tokenized text with its routing decision; ``decision_ms`` includes the preparation."""

    encoded: EncodedText
    features: TextFeatures
    routing: RoutingDecision
    decision_ms: float


@dataclass(frozen=True, slots=True)
class TierAnswer:
    """A tier's prediction for one text.

    ``meets_alpha`` is True if the confidence reaches the decision's α; an answer of the cloud
    always does. ``queue_ms`` and ``compute_ms`` are set for answers of the mobile and 0 for others.
    ``hidden_state`` is the state from which another tier can resume, if it was kept.
    """

    label: str
    label_index: int
    probabilities: dict[str, float]
    confidence: float
    meets_alpha: bool
    exit_layer: int
    truncated: bool
    queue_ms: float
    compute_ms: float
    hidden_state: HiddenState | None = None


class LocalRuntime:
    """The mobile's bundle, with its policies by name and the classifier of its own layers.

    Layers beyond m are loaded when a policy first needs them, and stay loaded.
    """

    def __init__(
        self, settings: MobileSettings, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.bundle: Bundle = load_bundle(settings.bundle)
        self.live_prices = LivePrices(self.bundle.cost_model, settings.price_book)
        self.guard = load_guard(settings, self.bundle, self.live_prices)
        self.tier_stats = TierStats(
            self.live_prices,
            settings.waiting_price_lambda,
            clock=clock,
            certified=self.guard.cost_model,
            fixed=settings.waiting_price_is_fixed,
        )
        layers = tier_layers(self.bundle, settings.mobile_layers, settings.edge_layers)
        self.mobile_layers = layers.mobile.last
        last_layers = {Tier.EDGE: layers.edge.last, Tier.CLOUD: layers.cloud.last}
        self.resumption = Resumption(settings, self.bundle.bundle_id, last_layers)
        self._clock = clock
        self._classifier = Classifier(self.bundle, layers.mobile, settings.threads)
        self._facts = PolicyFacts.of(self.bundle, self.mobile_layers)
        self._seed = settings.policy_seed
        self.request_options = settings.request_options(self.bundle.default_policy)
        self._policies: dict[str, RoutingPolicy] = {}
        self._making_policy = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mobile-layers")

    @property
    def loaded_layers(self) -> int:
        """Number of loaded layers: m, or more for a policy that runs deeper."""
        return self._classifier.layers.range.last

    def make_policy(self, name: str) -> RoutingPolicy:
        """Return the policy with this name; the first call creates it and loads its layers.

        Raises `InvalidInput` for an unknown name and `BundleError` if a layer cannot be run.
        """
        if name not in self._policies:
            policy = self.guard.guarded(make_policy(name, self._facts, self._seed))
            policy.use_conditions(self.tier_stats.conditions)
            self._classifier.layers.deepen(policy.policy_layers or self.mobile_layers)
            self._policies[name] = policy
        return self._policies[name]

    async def policy(self, name: str) -> RoutingPolicy:
        """Return the result of `make_policy`, computed off the event loop, in order of calls."""
        async with self._making_policy:
            if name in self._policies:
                return self._policies[name]
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._worker, self.make_policy, name)

    def prepare(self, text: str, pair: str | None) -> PreparedText:
        """Tokenize a text and compute its features; raise `InvalidInput` if it has no tokens."""
        started = time.perf_counter()
        encoded = self._classifier.encoder.encode(text, pair)
        embedding_H = self._classifier.embeddings.mean_word_embedding(encoded)
        pair_P = self._classifier.embeddings.pair_features(encoded)
        features = TextFeatures(embedding_H, encoded.tokens, encoded.rare_pieces, pair_P)
        return PreparedText(encoded, features, (time.perf_counter() - started) * 1e3)

    def route(self, prepared: PreparedText, policy: RoutingPolicy, left_ms: float) -> RoutedText:
        """Choose the first tier for a text that has ``left_ms``; call in arrival order."""
        started = time.perf_counter()
        self.tier_stats.refresh(left_ms)
        routing = policy.route(prepared.features)
        spent_ms = (time.perf_counter() - started) * 1e3
        return RoutedText(
            prepared.encoded, prepared.features, routing, prepared.prepare_ms + spent_ms
        )

    def alpha(self, routing: RoutingDecision) -> float:
        """Return the exit threshold of a decision: its own, or the bundle's."""
        return self.bundle.manifest.alpha if routing.alpha is None else routing.alpha

    async def answer(self, routed: RoutedText, check_deadline: Callable[[], None]) -> TierAnswer:
        """Run layers up to the first exit whose confidence reaches α.

        The decision's last layer answers at any confidence. ``check_deadline`` raises
        `DeadlineExceeded` if the work would begin too late.
        """
        routing = routed.routing
        queued = self._clock()

        def work() -> TierAnswer:
            check_deadline()
            started = self._clock()
            alpha = self.alpha(routing)
            last = routing.last_layer or self.mobile_layers
            keep: dict[int, Floats] | None = {} if self.resumption.needs_hidden_states else None
            (prediction,) = self._classifier.classify(
                [routed.encoded], alpha, last, routing.first_exit, keep
            )
            ended = self._clock()
            labels = self.bundle.manifest.labels
            return TierAnswer(
                label=labels[prediction.label_index],
                label_index=prediction.label_index,
                probabilities=dict(zip(labels, prediction.probabilities, strict=True)),
                confidence=prediction.confidence,
                meets_alpha=bool(meets_threshold(prediction.confidence, alpha)),
                exit_layer=prediction.exit_layer,
                truncated=routed.encoded.truncated,
                queue_ms=(started - queued) * 1e3,
                compute_ms=(ended - started) * 1e3,
                hidden_state=HiddenState(keep[0], prediction.exit_layer) if keep else None,
            )

        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def close(self) -> None:
        """Wait until running work has ended."""
        self._worker.shutdown(wait=True, cancel_futures=True)
