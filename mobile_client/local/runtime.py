"""The bundle on the mobile: tokenizer, embeddings, policies, and layers 1..m off the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mobile_client.local.certificate_guard import load_guard
from mobile_client.local.model import LocalModel
from mobile_client.local.resume import HiddenState, Resumption
from mobile_client.resilience.tier_stats import TierStats
from mobile_client.settings import MobileSettings
from shared.answer_rules import AnswerRules
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, RoutingDecision, Tier
from shared.errors import DeadlineExceeded, InvalidInput, PolicyFailed
from shared.inference.layers import Floats, meets_threshold
from shared.inference.tokenizer import EncodedText
from shared.policies import (
    PolicyFacts,
    RoutingPolicy,
    TextFeatures,
    check_policy,
    make_known_policy,
    make_policy,
)
from shared.policies.loading import installed_names, is_path
from shared.pricing.live_prices import LivePrices

log = logging.getLogger(__name__)

LOAD_S = 30.0
"""Longest time in seconds that a call waits for its policy to be loaded."""


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

    Layers beyond m are loaded when a policy first needs them, and stay loaded. ``model`` may be
    that of several mobiles of this process, with the same settings of the bundle and its layers.
    """

    def __init__(
        self,
        settings: MobileSettings,
        clock: Callable[[], float] = time.perf_counter,
        model: LocalModel | None = None,
    ) -> None:
        self._owns_model = model is None
        self._model = model or LocalModel(settings)
        self.bundle: Bundle = self._model.bundle
        self.live_prices = LivePrices(self.bundle.cost_model, settings.price_book)
        self.guard = load_guard(settings, self.bundle, self.live_prices)
        self.tier_stats = TierStats(
            self.live_prices,
            settings.waiting_price_lambda,
            clock=clock,
            certified=self.guard.cost_model,
            fixed=settings.waiting_price_is_fixed,
        )
        layers = self._model.layers
        self.mobile_layers = layers.mobile.last
        last_layers = {Tier.EDGE: layers.edge.last, Tier.CLOUD: layers.cloud.last}
        self.resumption = Resumption(settings, self.bundle.bundle_id, last_layers)
        exits = {
            Tier.EDGE: layers.edge,
            Tier.CLOUD: LayerRange(layers.cloud.last, layers.cloud.last),
        }
        self.answer_rules = {
            tier: AnswerRules(
                tier,
                self.bundle.bundle_id,
                self.bundle.manifest.labels,
                tier_exits,
                self.bundle.manifest.max_tokens,
            )
            for tier, tier_exits in exits.items()
        }
        self._clock = clock
        self._classifier = self._model.classifier
        self._facts = PolicyFacts.of(self.bundle, self.mobile_layers)
        self._seed = settings.policy_seed
        self.request_options = settings.request_options(self.bundle.default_policy)
        self._policies: dict[str, RoutingPolicy] = {}
        self._added: list[tuple[str | RoutingPolicy, str]] = []
        self._making_policy = asyncio.Lock()
        self._loading: str | RoutingPolicy | None = None
        self._worker, self._tokenizing = self._model.worker, self._model.tokenizing

    @property
    def loaded_layers(self) -> int:
        """Number of loaded layers: m, or more for a policy that runs deeper."""
        return self._classifier.layers.range.last

    @property
    def waiting_texts(self) -> int:
        """Texts that wait for the mobile's layers."""
        return self._worker.waiting

    def make_policy(self, name: str) -> RoutingPolicy:
        """Return the policy with this name; the first call creates it and loads its layers.

        ``name`` is that of a built-in or installed policy, or of one in use; no ``module:Class`` is
        imported. Raises `InvalidInput` for an unknown name and `BundleError` if a layer cannot be
        run.
        """
        if name not in self._policies:
            self._load(self.guard.guarded(make_known_policy(name, self._facts, self._seed)))
        return self._policies[name]

    def add_policy(self, policy: str | RoutingPolicy) -> RoutingPolicy:
        """Return a policy that the user of this process chose, with its layers loaded.

        ``policy`` is a name, ``module:Class``, which is imported, or an object. The same path or
        object is loaded once. Raises `InvalidInput` if it cannot be used, or if another policy with
        its name is in use.
        """
        if isinstance(policy, str) and not is_path(policy):
            return self.make_policy(policy)
        for added, name in self._added:
            if added is policy or (isinstance(policy, str) and added == policy):
                return self._policies[name]
        made = (
            make_policy(policy, self._facts, self._seed)
            if isinstance(policy, str)
            else check_policy(policy, self._facts)
        )
        if made.name in self._policies:
            raise InvalidInput(
                f"policy: another policy with the name {made.name!r} is in use; give each its own",
                field="policy",
            )
        self._load(made)
        self._added.append((policy, made.name))
        return made

    def use_policy(self, policy: str | RoutingPolicy) -> None:
        """Load a policy and use it for requests that name none; see `add_policy`."""
        name = self.add_policy(policy).name
        self.request_options = replace(self.request_options, policy=name)

    def _load(self, policy: RoutingPolicy) -> None:
        policy.use_conditions(self.tier_stats.conditions)
        self._classifier.layers.deepen(policy.policy_layers or self.mobile_layers)
        self._policies[policy.name] = policy

    async def policy(self, policy: str | RoutingPolicy, may_import: bool = False) -> RoutingPolicy:
        """Return a request's policy, loaded off the event loop, in order of calls.

        ``may_import`` says that the caller is the user of this process, so that ``module:Class`` is
        imported. It must be False for a request that came over the network. Raises
        `DeadlineExceeded` if loading takes longer than `LOAD_S`.
        """
        known = self._known(policy)
        if known is not None and policy != self._loading:
            return known
        try:
            async with asyncio.timeout(LOAD_S), self._making_policy:
                return self._known(policy) or await self._make(policy, may_import)
        except TimeoutError:
            raise DeadlineExceeded(
                f"policy: was not loaded within {LOAD_S:.0f} s, because a policy blocks; import it "
                "and build it before the first call",
                field="policy",
            ) from None

    def _known(self, policy: str | RoutingPolicy) -> RoutingPolicy | None:
        return self._policies.get(policy) if isinstance(policy, str) else None

    async def _make(self, policy: str | RoutingPolicy, may_import: bool) -> RoutingPolicy:
        make: partial[RoutingPolicy]
        if may_import or not isinstance(policy, str):
            make = partial(self.add_policy, policy)
        else:
            make = partial(self._make_installed, policy)
        self._loading = policy
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, make)
        finally:
            self._loading = None

    def _make_installed(self, name: str) -> RoutingPolicy:
        """Return the result of `make_policy`; errors in an installed package go to the log only."""
        try:
            return self.make_policy(name)
        except InvalidInput as error:
            if name not in installed_names():
                raise
            log.error("%s", error.message)
            raise PolicyFailed(
                f"policy: {name!r} cannot be used; the log says why", field="policy"
            ) from error

    def prepare(self, text: str, pair: str | None) -> PreparedText:
        """Tokenize a text and compute its features; raise `InvalidInput` if it has no tokens."""
        started = time.perf_counter()
        encoded = self._classifier.encoder.encode(text, pair)
        embedding_H = self._classifier.embeddings.mean_word_embedding(encoded)
        pair_P = self._classifier.embeddings.pair_features(encoded)
        features = TextFeatures(embedding_H, encoded.tokens, encoded.rare_pieces, pair_P)
        return PreparedText(encoded, features, (time.perf_counter() - started) * 1e3)

    async def is_truncated(self, text: str, pair: str | None) -> bool:
        """Return whether the text is longer than the model reads, in order of calls."""

        def encode() -> bool:
            return self._classifier.encoder.encode(text, pair).truncated

        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, encode)

    async def off_event_loop(self, work: Callable[[], None]) -> None:
        """Run ``work`` in the thread that tokenizes large calls, in order of calls."""
        await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def route(self, prepared: PreparedText, policy: RoutingPolicy, left_ms: float) -> RoutedText:
        """Choose the first tier for a text that has ``left_ms``; call in arrival order."""
        started = time.perf_counter()
        self.tier_stats.refresh(left_ms)
        routing = policy.route(prepared.features)
        spent_ms = (time.perf_counter() - started) * 1e3
        return RoutedText(
            prepared.encoded, prepared.features, routing, prepared.prepare_ms + spent_ms
        )

    def unrouted(self, prepared: PreparedText, policy: RoutingPolicy) -> RoutedText:
        """Return a text for which ``policy`` made no decision, so that the ledger can name it."""
        routing = RoutingDecision(Tier.MOBILE, policy.name)
        return RoutedText(prepared.encoded, prepared.features, routing, prepared.prepare_ms)

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

    async def exit_confidences(self, text: str, pair: str | None, last: int) -> list[float]:
        """Return the confidence at each of the exits 1 to ``last``, for explanations."""

        def work() -> list[float]:
            rows = [self._classifier.encoder.encode(text, pair)]
            predictions = (
                self._classifier.classify(rows, None, layer)[0] for layer in range(1, last + 1)
            )
            return [prediction.confidence for prediction in predictions]

        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def close(self) -> None:
        """Close the model, unless other mobiles share it."""
        if self._owns_model:
            self._model.close()
