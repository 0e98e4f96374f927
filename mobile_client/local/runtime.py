"""What runs on the mobile itself: the decision, and its layers off the event loop."""

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
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.live_prices import LivePrices


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A tokenised text, what a policy may know of it, and the milliseconds that this took."""

    encoded: EncodedText
    features: TextFeatures
    read_ms: float


@dataclass(frozen=True, slots=True)
class RoutedText:
    """A tokenised text, where and how it is answered first, and the milliseconds until then."""

    encoded: EncodedText
    features: TextFeatures
    routing: RoutingDecision
    decision_ms: float


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """The mobile's own prediction, with its wait and its work in milliseconds.

    ``sure``: its confidence reaches the decision's α. ``state`` is what another tier can go on
    from, where that is wanted.
    """

    label: str
    label_index: int
    probabilities: dict[str, float]
    confidence: float
    sure: bool
    exit_layer: int
    queue_ms: float
    compute_ms: float
    state: HiddenState | None = None


class LocalRuntime:
    """The mobile's bundle: tokeniser, embeddings, policies by name, layers 1..m and what they need.

    Layers beyond m are loaded with the first policy that runs them, and kept.
    """

    def __init__(self, settings: MobileSettings) -> None:
        self.bundle: Bundle = load_bundle(settings.bundle)
        self.live_prices = LivePrices(self.bundle.cost_model, settings.price_book)
        self.guard = load_guard(settings, self.bundle, self.live_prices)
        self.tier_stats = TierStats(
            self.live_prices,
            settings.waiting_price,
            certified=self.guard.cost_model,
            fixed=settings.waiting_price_is_fixed,
        )
        layers = tier_layers(self.bundle, settings.mobile_layers, settings.edge_layers)
        self.mobile_layers = layers.mobile.last
        last_layers = {Tier.EDGE: layers.edge.last, Tier.CLOUD: layers.cloud.last}
        self.resumption = Resumption(settings, self.bundle.bundle_id, last_layers)
        self._classifier = Classifier(self.bundle, layers.mobile, settings.threads)
        self._facts = PolicyFacts.of(self.bundle, self.mobile_layers)
        self._seed = settings.policy_seed
        self._policies: dict[str, RoutingPolicy] = {}
        self._making = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mobile-layers")

    @property
    def layers_held(self) -> int:
        """How many layers are loaded: m, or more for a policy that runs deeper."""
        return self._classifier.layers.range.last

    def make_policy(self, name: str) -> RoutingPolicy:
        """The policy of this name, made once with the layers it runs; it keeps its state.

        Raises `InvalidInput` for an unknown name and `BundleError` where a layer cannot be run.
        """
        if name not in self._policies:
            policy = self.guard.kept(make_policy(name, self._facts, self._seed))
            if isinstance(policy, CascadeRouting):
                policy.conditions = self.tier_stats.conditions
            self._classifier.layers.deepen(policy.policy_layers or self.mobile_layers)
            self._policies[name] = policy
        return self._policies[name]

    async def policy(self, name: str) -> RoutingPolicy:
        """As `make_policy`, with layers loaded off the event loop; callers go on as they came."""
        async with self._making:
            if name in self._policies:
                return self._policies[name]
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._worker, self.make_policy, name)

    def read(self, text: str, pair: str | None) -> PreparedText:
        """Tokenise and look up the mean word embedding; raises `InvalidInput`."""
        started = time.perf_counter()
        encoded = self._classifier.encoder.encode(text, pair)
        embedding_H = self._classifier.embeddings.mean_word_embedding(encoded)
        pair_P = self._classifier.embeddings.pair_features(encoded)
        features = TextFeatures(embedding_H, encoded.tokens, encoded.rare_pieces, pair_P)
        return PreparedText(encoded, features, (time.perf_counter() - started) * 1e3)

    def decide(self, read: PreparedText, policy: RoutingPolicy, left_ms: float) -> RoutedText:
        """Choose where and how a text is answered first, within ``left_ms``, in arrival order."""
        started = time.perf_counter()
        self.tier_stats.now(left_ms)
        routing = policy.route(read.features)
        spent_ms = (time.perf_counter() - started) * 1e3
        return RoutedText(read.encoded, read.features, routing, read.read_ms + spent_ms)

    def alpha(self, routing: RoutingDecision) -> float:
        """The exit threshold of a decision: its own, or the bundle's."""
        return self.bundle.manifest.alpha if routing.alpha is None else routing.alpha

    async def answer(self, decided: RoutedText, check_time: Callable[[], None]) -> LocalAnswer:
        """Run layers 1 to the decision's last; its first asked exit with C_i >= α answers.

        The last one answers whatever its confidence. ``check_time`` raises where the work would
        begin too late.
        """
        routing = decided.routing
        asked = time.perf_counter()

        def work() -> LocalAnswer:
            check_time()
            started = time.perf_counter()
            alpha = self.alpha(routing)
            last = routing.last_layer or self.mobile_layers
            first_exit = routing.first_exit
            keep: dict[int, Floats] | None = {} if self.resumption.wanted else None
            (prediction,) = self._classifier.classify(
                [decided.encoded], alpha, last, first_exit, keep
            )
            ended = time.perf_counter()
            labels = self.bundle.manifest.labels
            return LocalAnswer(
                label=labels[prediction.label_index],
                label_index=prediction.label_index,
                probabilities=dict(zip(labels, prediction.probabilities, strict=True)),
                confidence=prediction.confidence,
                sure=bool(meets_threshold(prediction.confidence, alpha)),
                exit_layer=prediction.exit_layer,
                queue_ms=(started - asked) * 1e3,
                compute_ms=(ended - started) * 1e3,
                state=HiddenState(keep[0], prediction.exit_layer) if keep else None,
            )

        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def close(self) -> None:
        """Let running work end."""
        self._worker.shutdown(wait=True, cancel_futures=True)
