"""Calibrate a bundle's cascade routing, and certify its loss of accuracy where the data allow it.

Shape suffixes: S settings, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.certify.calibrate import Candidates, Choice, Floats, Losses, Rows, choose, halves, needed
from lab.certify.calibrate import tier_bounds as bounds_of
from lab.evaluate.choose_lambda import PRICES, TEXT_ALPHAS, Setting
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
from shared.policies import PolicyFacts
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook

JUDGED_TIERS = (Tier.MOBILE, Tier.EDGE)
"""Tiers whose answers can differ from all-cloud's."""


@dataclass(frozen=True)
class Swept:
    """What ``cascade-routing`` does to every sample at every setting."""

    settings: list[Setting]
    answer_SN: NDArray[np.int64]
    tier_SN: NDArray[np.object_]
    cost_SN: Floats
    escalated_SN: NDArray[np.bool_]
    samples: Samples
    cost_model: CostModel

    def candidates(self, metric: Metric) -> Candidates:
        """The losses against all-cloud by ``metric``, and the costs.

        The drop of accuracy is at most the share that the cloud gets right and this wrong: the
        second way to bound it, for which there is an exact test.
        """
        cloud_N = self.samples.answers_NE[:, -1]
        differs_SN = (self.answer_SN != cloud_N).astype(np.float64)
        ways: tuple[Losses, ...] = (Losses(DISAGREEMENT, differs_SN),)
        if metric == "accuracy":
            labels_N = self.samples.labels_N
            right_SN = (self.answer_SN == labels_N).astype(np.float64)
            drop_SN = (cloud_N == labels_N) - right_SN
            ways = Losses(DROP, drop_SN), Losses(DISAGREEMENT, np.maximum(drop_SN, 0))
        return Candidates(ways, self.cost_SN, self.cost_model.all_cloud)


def sweep(bundle: Bundle, samples: Samples, cost_model: CostModel) -> Swept:
    """Run cascade routing over the samples at every Λ > 0 and α, at these prices."""
    facts = replace(PolicyFacts.of(bundle), cost_model=cost_model)
    heads = facts.heads
    own = () if heads is None else (round(float(heads.alpha), 6),)
    settings = [
        Setting(price, alpha) for alpha in sorted({*own, *TEXT_ALPHAS}) for price in PRICES if price
    ]
    traces = [
        simulate(
            CascadeRouting(heads, cost_model, setting.price, setting.alpha),
            samples,
            facts,
            bundle.manifest.edge_layers,
        )
        for setting in settings
    ]
    return Swept(
        settings,
        np.stack([trace.answer_N for trace in traces]),
        np.stack([trace.tier_N for trace in traces]),
        np.stack([trace.cost_N for trace in traces]),
        np.stack([_escalated(trace, cost_model) for trace in traces]),
        samples,
        cost_model,
    )


def _escalated(trace: Trace, cost_model: CostModel) -> NDArray[np.bool_]:
    """Where more was paid than for the attempt that answered."""
    last = zip(trace.tier_N, trace.exit_N.tolist(), strict=True)
    paid_N = np.array([cost_model.attempt(tier, layer) for tier, layer in last])
    escalated_N: NDArray[np.bool_] = trace.cost_N > paid_N + 1e-9
    return escalated_N


@dataclass(frozen=True)
class Step:
    """A setting that was tested: mean losses on both halves, its bound, its cost (λ), the verdict.

    ``passed``, ``judged_loss`` and ``bound`` are None for what stands behind the one that failed.
    """

    setting: Setting
    cost: float
    sweep_loss: float
    judged_loss: float | None
    bound: float | None
    passed: bool | None


@dataclass(frozen=True)
class Calibration:
    """A calibration of one bundle; ``max_drop`` is a share of requests, not points."""

    swept: Swept
    metric: Metric
    max_drop: float
    delta: float
    sweep: Rows
    judged: Rows
    choice: Choice

    def steps(self) -> Iterator[Step]:
        """What was tested, in order, and what was not."""
        candidates = self.swept.candidates(self.metric)
        promised_SN = candidates.ways[0].loss_SN
        for number, setting in enumerate(self.choice.settings):
            step = Step(
                self.swept.settings[setting],
                float(self.swept.cost_SN[setting].mean()),
                float(promised_SN[setting, self.sweep].mean()),
                judged_loss=None,
                bound=None,
                passed=None,
            )
            if number <= self.choice.passed:
                passed = number < self.choice.passed
                way = candidates.ways[self.choice.ways[number]]
                bound = upper_bound(way.loss_SN[setting, self.judged], self.delta, way.kind)
                step = replace(
                    step,
                    judged_loss=float(promised_SN[setting, self.judged].mean()),
                    # the test itself is exact, the bound is rounded up
                    bound=min(bound, self.max_drop) if passed else bound,
                    passed=passed,
                )
            yield step

    def tier_bounds(self) -> dict[Tier, TierBound]:
        """Of the chosen setting, what each tier's own answers lose at most; the cloud's nothing."""
        tier_N = self.swept.tier_SN[self.choice.setting]
        bounds = bounds_of(
            self.swept.candidates(self.metric),
            self.choice,
            tier_N,
            self.judged,
            self.delta,
            JUDGED_TIERS,
        )
        result = {
            tier: TierBound(n=n, bound=max(0.0, bound)) for tier, (n, bound) in bounds.items()
        }
        cloud = int(np.sum(tier_N[self.judged] == Tier.CLOUD))
        return result | {Tier.CLOUD: TierBound(n=cloud, bound=0.0)}

    def disagreement(self) -> float:
        """Of the chosen setting, the bound of the share of answers that differ from all-cloud's.

        At ``delta``, over all settings, any of which might have been chosen.
        """
        differs_SN = self.swept.candidates("consistency").ways[0].loss_SN
        loss_N = differs_SN[self.choice.setting, self.judged]
        return upper_bound(loss_N, self.delta / len(self.choice.settings), DISAGREEMENT)

    def refusal(self) -> InvalidInput:
        """Why nothing was certified, and how many samples it would take."""
        n, points = len(self.judged), f"{100 * self.max_drop:g}"
        start = f"max-drop: {points} cannot be certified with n = {n:,}"
        if not self.choice.settings:
            return InvalidInput(
                f"{start}: at these prices no setting of the policy cascade-routing is cheaper "
                "than the cloud alone, which needs no certificate",
                field="max_drop",
            )
        candidates = self.swept.candidates(self.metric)
        first = self.choice.settings[0]
        way = candidates.ways[self.choice.ways[0]]
        count = needed(way.loss_SN[first], self.max_drop, self.delta, way.kind)
        if count is None:
            loss = 100 * float(candidates.ways[0].loss_SN[first].mean())
            return InvalidInput(
                f"{start}, nor with any number worth labelling: the safest setting that saves "
                f"anything loses {loss:.2f} here; allow more, or serve from the cloud",
                field="max_drop",
            )
        if count <= n:  # chance was against it
            count = 2 * n
        more = f"needs about {_round_up(count):,} (twice that in the file: half of it is judged)"
        best = min(upper_bound(np.zeros(n), self.delta, way.kind) for way in candidates.ways)
        if best > self.max_drop:
            more += f"; with 0 errors seen, n = {n:,} certifies no drop below {100 * best:.2f}"
        return InvalidInput(f"{start}, {more}", field="max_drop")


def calibrate(
    swept: Swept, metric: Metric, max_drop: float, delta: float, seed: int = 0
) -> Calibration:
    """Order the settings on one half of the samples and test them on the other."""
    parts = halves(len(swept.samples), seed)
    choice = choose(swept.candidates(metric), *parts, max_drop, delta)
    return Calibration(swept, metric, max_drop, delta, *parts, choice)


def certify(
    bundle: Bundle,
    calibration: Calibration,
    book: PriceBook,
    expires: datetime | None = None,
    per_tier: bool = False,
    now: datetime | None = None,
) -> Certificate:
    """The certificate of a calibration; raises its `refusal` where nothing passed."""
    setting = calibration.choice.setting
    if setting is None:
        raise calibration.refusal()
    tier_N = calibration.swept.tier_SN[setting, calibration.judged]
    *_, chosen = (step for step in calibration.steps() if step.passed)
    manifest, swept = bundle.manifest, calibration.swept
    promise: dict[str, Any] = {
        "bundle_id": bundle.bundle_id,
        "labels": manifest.labels,
        "data_hash": swept.samples.data_hash,
        "n": len(calibration.judged),
        "metric": calibration.metric,
        "max_drop": calibration.max_drop,
        "delta": calibration.delta,
        "bound": chosen.bound,
        "policy": CascadeRouting.name,
        "mobile_layers": manifest.mobile_layers,
        "edge_layers": manifest.edge_layers,
        "thresholds": {"alpha": chosen.setting.alpha, "cost_weight": chosen.setting.price},
        "prices": Prices.of(swept.cost_model, book),
        "per_tier": calibration.tier_bounds() if per_tier else {},
        "disagreement": calibration.disagreement() if calibration.metric == "accuracy" else None,
        "shares": {tier: float(np.mean(tier_N == tier)) for tier in Tier},
        "escalated": float(swept.escalated_SN[setting, calibration.judged].mean()),
        "created": now or datetime.now(UTC),
        "expires": expires,
    }
    return Certificate.of(CertificateContent(**promise))


def _round_up(count: int) -> int:
    """To three figures."""
    unit: int = 10 ** max(0, len(str(count)) - 3)
    return -(-count // unit) * unit
