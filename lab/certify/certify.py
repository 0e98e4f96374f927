"""Calibrate the default policy of a bundle and certify its loss.

Shape suffixes: S settings, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.certify.calibrate import (
    Candidates,
    Choice,
    Floats,
    LossTable,
    Rows,
    choose,
    samples_needed,
    split_rows,
)
from lab.certify.calibrate import tier_bounds as bounds_of
from lab.evaluate.choose_lambda import PRICES, TEXT_ALPHAS, Setting
from lab.evaluate.reward import CANDIDATES
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.bundle.loading import Bundle
from shared.certificates.certificate import (
    Certificate,
    CertificateContent,
    Metric,
    Prices,
    TierBound,
)
from shared.certificates.sequential_test import DISAGREEMENT, DROP, upper_bound
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.inference.devices import Runtime
from shared.policies import PolicyFacts, RoutingPolicy
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeFixed
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook
from shared.rounding import rounded_up

EARLY_EXIT_TIERS = (Tier.MOBILE, Tier.EDGE)
"""Tiers whose answers can differ from all-cloud's."""


@dataclass(frozen=True)
class SettingOutcomes:
    """Answers, tiers and costs of ``policy`` for every sample at every setting."""

    settings: list[Setting]
    answer_SN: NDArray[np.int64]
    tier_SN: NDArray[np.object_]
    cost_SN: Floats
    escalated_SN: NDArray[np.bool_]
    samples: Samples
    cost_model: CostModel
    policy: str = CascadeRouting.name

    def thresholds(self, setting: Setting) -> dict[str, float]:
        """Return the thresholds of a setting that a certificate names."""
        alpha = {"alpha": setting.alpha}
        if self.policy == CascadeRouting.name:
            return alpha | {"cost_weight": setting.price}
        return alpha

    def candidates(self, metric: Metric) -> Candidates:
        """Return the losses against all-cloud by ``metric``, and the costs.

        The drop of accuracy is at most the share of answers that are wrong here and right in the
        cloud; this second loss has an exact test.
        """
        cloud_N = self.samples.answers_NE[:, -1]
        differs_SN = (self.answer_SN != cloud_N).astype(np.float64)
        losses: tuple[LossTable, ...] = (LossTable(DISAGREEMENT, differs_SN),)
        if metric == "accuracy":
            labels_N = self.samples.labels_N
            right_SN = (self.answer_SN == labels_N).astype(np.float64)
            drop_SN = (cloud_N == labels_N) - right_SN
            losses = LossTable(DROP, drop_SN), LossTable(DISAGREEMENT, np.maximum(drop_SN, 0))
        return Candidates(losses, self.cost_SN, self.cost_model.all_cloud)


def run_settings(bundle: Bundle, samples: Samples, cost_model: CostModel) -> SettingOutcomes:
    """Simulate the bundle's default policy on the samples at every setting, at these prices."""
    facts = replace(PolicyFacts.of(bundle), cost_model=cost_model)
    policies = _policies(facts)
    traces = [
        simulate(policy, samples, facts, bundle.manifest.edge_layers) for _, policy in policies
    ]
    return SettingOutcomes(
        [setting for setting, _ in policies],
        np.stack([trace.answer_N for trace in traces]),
        np.stack([trace.tier_N for trace in traces]),
        np.stack([trace.cost_N for trace in traces]),
        np.stack([_escalated(trace, cost_model) for trace in traces]),
        samples,
        cost_model,
        bundle.default_policy,
    )


def _policies(facts: PolicyFacts) -> list[tuple[Setting, RoutingPolicy]]:
    """Return the settings to try, with their policies.

    `cascade-routing` has every Λ > 0 and α. `dimee-fixed`, for a bundle without correctness heads,
    has the candidates of Algorithm 1 for α, and those of `TEXT_ALPHAS`.
    """
    heads = facts.heads
    if heads is None:
        paper = np.linspace(1 / facts.classes, 1, CANDIDATES).tolist()
        alphas = sorted({round(alpha, 6) for alpha in (facts.alpha, *paper, *TEXT_ALPHAS)})
        return [
            (Setting(0.0, alpha), DimeeFixed(facts.centroids_DH, facts.counts_D, alpha))
            for alpha in alphas
        ]
    alphas = sorted({round(float(heads.alpha), 6), *TEXT_ALPHAS})
    settings = [Setting(price, alpha) for alpha in alphas for price in PRICES if price]
    return [
        (setting, CascadeRouting(heads, facts.cost_model, setting.price, setting.alpha))
        for setting in settings
    ]


def _escalated(trace: Trace, cost_model: CostModel) -> NDArray[np.bool_]:
    """Return whether each sample cost more than the attempt that answered it."""
    last = zip(trace.tier_N, trace.exit_N.tolist(), strict=True)
    paid_N = np.array([cost_model.attempt(tier, layer) for tier, layer in last])
    escalated_N: NDArray[np.bool_] = trace.cost_N > paid_N + 1e-9
    return escalated_N


@dataclass(frozen=True)
class Step:
    """A setting of the sequence: mean losses on both halves, bound, cost (λ) and result.

    ``passed``, ``test_loss`` and ``bound`` are None for settings after the first that failed.
    """

    setting: Setting
    cost: float
    ordering_loss: float
    test_loss: float | None
    bound: float | None
    passed: bool | None


@dataclass(frozen=True)
class Calibration:
    """A calibration of one bundle; ``max_drop`` is a share of requests, not points."""

    outcomes: SettingOutcomes
    metric: Metric
    max_drop: float
    delta: float
    ordering_rows: Rows
    test_rows: Rows
    choice: Choice

    def steps(self) -> Iterator[Step]:
        """Yield the settings in order, tested or not."""
        candidates = self.outcomes.candidates(self.metric)
        loss_SN = candidates.losses[0].loss_SN
        for number, setting in enumerate(self.choice.settings):
            step = Step(
                self.outcomes.settings[setting],
                float(self.outcomes.cost_SN[setting].mean()),
                float(loss_SN[setting, self.ordering_rows].mean()),
                test_loss=None,
                bound=None,
                passed=None,
            )
            if number <= self.choice.passed:
                passed = number < self.choice.passed
                losses = candidates.losses[self.choice.loss_indices[number]]
                bound = upper_bound(
                    losses.loss_SN[setting, self.test_rows], self.delta, losses.kind
                )
                step = replace(
                    step,
                    test_loss=float(loss_SN[setting, self.test_rows].mean()),
                    # the test itself is exact, the bound is rounded up
                    bound=min(bound, self.max_drop) if passed else bound,
                    passed=passed,
                )
            yield step

    def tier_bounds(self) -> dict[Tier, TierBound]:
        """Return the bound of the loss of each tier's own answers at the chosen setting."""
        tier_N = self.outcomes.tier_SN[self.choice.setting]
        bounds = bounds_of(
            self.outcomes.candidates(self.metric),
            self.choice,
            tier_N,
            self.test_rows,
            self.delta,
            EARLY_EXIT_TIERS,
        )
        result = {
            tier: TierBound(n=n, bound=max(0.0, bound)) for tier, (n, bound) in bounds.items()
        }
        cloud = int(np.sum(tier_N[self.test_rows] == Tier.CLOUD))
        return result | {Tier.CLOUD: TierBound(n=cloud, bound=0.0)}

    def disagreement(self) -> float:
        """Return the bound of the share of answers that differ from all-cloud's.

        It holds at level ``delta`` for all settings, any of which might have been chosen.
        """
        differs_SN = self.outcomes.candidates("consistency").losses[0].loss_SN
        loss_N = differs_SN[self.choice.setting, self.test_rows]
        return upper_bound(loss_N, self.delta / len(self.choice.settings), DISAGREEMENT)

    def refusal(self) -> InvalidInput:
        """Return the error for a calibration in which nothing passed, with the samples needed."""
        n, points = len(self.test_rows), f"{100 * self.max_drop:g}"
        beginning = f"max-drop: {points} cannot be certified with n = {n:,}"
        if not self.choice.settings:
            return InvalidInput(
                f"{beginning}: at these prices no setting of the policy {self.outcomes.policy} is "
                "cheaper than the cloud alone, which needs no certificate",
                field="max_drop",
            )
        candidates = self.outcomes.candidates(self.metric)
        first = self.choice.settings[0]
        losses = candidates.losses[self.choice.loss_indices[0]]
        count = samples_needed(losses.loss_SN[first], self.max_drop, self.delta, losses.kind)
        if count is None:
            loss = 100 * float(candidates.losses[0].loss_SN[first].mean())
            return InvalidInput(
                f"{beginning}, nor with a practical number of examples: the safest setting that "
                f"saves anything loses {loss:.2f} here; allow more, or serve from the cloud",
                field="max_drop",
            )
        if count <= n:  # these samples failed by chance
            count = 2 * n
        requirement = (
            f"needs about {_round_up(count):,} (twice that in the file: half of it is tested)"
        )
        best = min(
            upper_bound(np.zeros(n), self.delta, losses.kind) for losses in candidates.losses
        )
        if best > self.max_drop:
            least = rounded_up(100 * best, 2)
            requirement += f"; with 0 errors seen, n = {n:,} certifies no drop below {least:.2f}"
        return InvalidInput(f"{beginning}, {requirement}", field="max_drop")


def calibrate(
    outcomes: SettingOutcomes, metric: Metric, max_drop: float, delta: float, seed: int = 0
) -> Calibration:
    """Order the settings on one half of the samples and test them on the other."""
    parts = split_rows(len(outcomes.samples), seed)
    choice = choose(outcomes.candidates(metric), *parts, max_drop, delta)
    return Calibration(outcomes, metric, max_drop, delta, *parts, choice)


def certify(
    bundle: Bundle,
    calibration: Calibration,
    book: PriceBook,
    expires: datetime | None = None,
    per_tier: bool = False,
    now: datetime | None = None,
    runtime: Runtime = "onnx",
) -> Certificate:
    """Return the certificate of a calibration; raises its `refusal` if nothing passed.

    ``runtime`` is what computed the cloud's answers.
    """
    setting = calibration.choice.setting
    if setting is None:
        raise calibration.refusal()
    tier_N = calibration.outcomes.tier_SN[setting, calibration.test_rows]
    *_, chosen = (step for step in calibration.steps() if step.passed)
    manifest, outcomes = bundle.manifest, calibration.outcomes
    claims: dict[str, Any] = {
        "bundle_id": bundle.bundle_id,
        "labels": manifest.labels,
        "data_hash": outcomes.samples.data_hash,
        "n": len(calibration.test_rows),
        "metric": calibration.metric,
        "max_drop": calibration.max_drop,
        "delta": calibration.delta,
        "bound": chosen.bound,
        "policy": outcomes.policy,
        "mobile_layers": manifest.mobile_layers,
        "edge_layers": manifest.edge_layers,
        "thresholds": outcomes.thresholds(chosen.setting),
        "prices": Prices.of(outcomes.cost_model, book),
        "per_tier": calibration.tier_bounds() if per_tier else {},
        "disagreement": calibration.disagreement() if calibration.metric == "accuracy" else None,
        "shares": {tier: float(np.mean(tier_N == tier)) for tier in Tier},
        "escalated": float(outcomes.escalated_SN[setting, calibration.test_rows].mean()),
        "created": now or datetime.now(UTC),
        "expires": expires,
        "runtime": runtime,
    }
    return Certificate.of(CertificateContent(**claims))


def _round_up(count: int) -> int:
    """Round up to three significant figures."""
    unit: int = 10 ** max(0, len(str(count)) - 3)
    return -(-count // unit) * unit
