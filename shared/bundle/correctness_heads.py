"""Correctness heads: what the mobile expects of each tier before it runs a layer. numpy only.

Shape suffixes: H hidden size, C classes, F features, K heads, T tiers (mobile, edge, cloud).

``exit 0`` is a linear classifier on the mean word embedding: how clearly it decides tells more of
a text's difficulty than where the text lies. Its margin, the length, the norm, the rare pieces and
the embedding itself are the features of logistic heads, fitted on examples that the exits were not
trained on. For a pair of texts the features of the pair (`shared.bundle.pair_features`) stand in
the place of the embedding, which says nothing of how two texts relate. One matrix product on the
mobile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from shared.bundle.pair_features import PAIR_FEATURES
from shared.domain import Tier
from shared.errors import BundleError

Floats = NDArray[np.float64]
TIERS = tuple(Tier)
EXTRA = 8
QUANTILES = 32


@dataclass(frozen=True)
class CorrectnessHeads:
    """Weights as they stand in ``router.npz`` under ``heads_*``.

    Columns of ``weight_FK``: for each tier 'its answer is right', then for mobile and edge 'it
    leaves at an exit that is sure'. ``layers_T2`` holds the mean exit layer when sure and when not;
    ``right_T2`` the share of right answers when sure and when not; ``next_TT2`` the share that
    tier u gets right of what tier t was sure, not sure of. ``gain_TUG`` predicts, after an answer
    of t, 'u would be right' minus 'this is right' (`gain`); ``diff_FT`` predicts, for a text, 'tier
    t is right' minus 'the cloud is right'. ``gains_TSQU`` holds, for answers of tier t that were
    sure (S = 0) and that were not (S = 1), `QUANTILES` typical gains of each other tier, from which
    the value of going on later is known (`CascadeRouting`). ``alpha`` is the threshold of exits
    that all of this was fitted at, ``price`` the default Λ.
    """

    exit0_HC: Floats
    exit0_C: Floats
    mean_F: Floats
    scale_F: Floats
    weight_FK: Floats
    bias_K: Floats
    layers_T2: Floats
    right_T2: Floats
    next_TT2: Floats
    this_TG: Floats
    gain_TUG: Floats
    diff_FT: Floats
    diff_T: Floats
    gains_TSQU: Floats
    alpha: Floats
    price: Floats

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> CorrectnessHeads | None:
        """Read the heads from a router's arrays; None if it has none."""
        names = [f"heads_{field.name}" for field in fields(cls)]
        if not any(name in arrays for name in names):
            return None
        try:
            values = [np.asarray(arrays[name], np.float64) for name in names]
        except KeyError as missing:
            raise BundleError(f"bundle: the router lacks {missing}; export it again") from None
        if not all(np.isfinite(value).all() for value in values):
            raise BundleError("bundle: the correctness heads are not finite; export it again")
        return cls(*values)

    def to_arrays(self) -> dict[str, Floats]:
        """The arrays for ``router.npz``."""
        return {f"heads_{field.name}": getattr(self, field.name) for field in fields(self)}

    @property
    def reads_pairs(self) -> bool:
        """Return whether the heads were fitted on the features of pairs."""
        return len(self.mean_F) == len(PAIR_FEATURES) + EXTRA

    def scaled(self, features_F: Floats) -> Floats:
        """Features less their mean, over their deviation; one that is not known is at its mean."""
        x_F: Floats = (features_F - self.mean_F) / self.scale_F
        if self.reads_pairs:  # only features of a pair can be unknown
            return np.nan_to_num(x_F, nan=0.0)
        return x_F

    def expect(self, features_F: Floats) -> Floats:
        """Probabilities of the K heads for raw features."""
        logits_K = self.scaled(features_F) @ self.weight_FK + self.bias_K
        return _sigmoids(logits_K)

    def lead(self, features_F: Floats) -> Floats:
        """Expected lead of each tier over the cloud, in probability of a right answer."""
        result: Floats = self.scaled(features_F) @ self.diff_FT + self.diff_T
        return result

    def gain(self, tier: int, target: int, facts_G: Floats) -> float:
        """P(``target`` right) − P(this answer right) after an answer of ``tier``."""
        return _sigmoid(float(facts_G @ self.gain_TUG[tier, target])) - _sigmoid(
            float(facts_G @ self.this_TG[tier])
        )

    def gains(self, tier: int, target: int, facts_NG: Floats) -> Floats:
        """The same as `gain` for N answers at once."""
        result: Floats = _sigmoids(facts_NG @ self.gain_TUG[tier, target]) - _sigmoids(
            facts_NG @ self.this_TG[tier]
        )
        return result


def raw_features(
    exit0_HC: Floats,
    exit0_C: Floats,
    embedding_H: NDArray[np.float32],
    tokens: int,
    rare: int,
    pair_P: Floats | None = None,
) -> tuple[Floats, int]:
    """Return ``features_F`` of a text or pair, and the label that exit 0 would give.

    They are the embedding, or the features of the pair where those are given, and `EXTRA` more.
    """
    x_H = embedding_H.astype(np.float64)
    logits_C = x_H @ exit0_HC + exit0_C
    ordered_C = np.sort(logits_C)
    margin = float(ordered_C[-1] - ordered_C[-2])
    length = math.log(tokens)
    norm = float(np.sqrt(x_H @ x_H))
    extra = (
        margin,
        margin * margin,
        math.log1p(margin),
        length,
        norm,
        margin * length,
        norm * length,
        math.log1p(rare),
    )
    return np.concatenate([x_H if pair_P is None else pair_P, extra]), int(logits_C.argmax())


def answer_facts(confidence: float, agrees: bool, margin: float, length: float) -> Floats:
    """``facts_G`` of an answer: its confidence, whether exit 0 agrees, margin and length."""
    p = min(max(confidence, 1e-6), 1 - 1e-6)
    z = math.log(p / (1 - p))
    side = 1.0 if agrees else -1.0
    return np.array([1.0, z, z * z / 10, side, side * math.log1p(margin), length])


ANSWER_FACTS = 6


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, value))))


def _sigmoids(values: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-np.clip(values, -30, 30)))
    return result
