"""Correctness heads: linear models that predict whether each tier would be right.

The embedding classifier (``exit0``) is a linear classifier on the mean word embedding. Its margin
predicts a text's difficulty better than the embedding alone does. The margin, the length, the norm,
the number of rare pieces and the embedding are the features of logistic heads, which are fitted on
examples that the exits were not trained on. For a pair of texts, the features of the pair
(`shared.bundle.pair_features`) replace the embedding. The prediction is one matrix product.

Shape suffixes: H hidden size, C classes, F features of a text, G features of an answer, K heads,
T and U tiers (mobile, edge, cloud), S states of an answer, Q typical answers, N texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from shared.bundle.pair_features import PAIR_FEATURES
from shared.domain import Tier
from shared.errors import BundleError
from shared.field_types import MAX_PRICE

Floats = NDArray[np.float64]
TIERS = tuple(Tier)
EXTRA = 8
"""Number of features in addition to the embedding or the features of a pair."""
QUANTILES = 32
"""Number of typical answers of each state."""
NEW_ROUTER = "fit another router with: dimee refit BUNDLE NEW --data DATA"
"""Advice in errors about a router that cannot be used."""
MIN_HEAD_EXAMPLES = 100
"""Least number of validation examples on which heads are fitted."""


@dataclass(frozen=True)
class CorrectnessHeads:
    """Weights of the correctness heads, stored in ``router.npz`` under ``heads_*``.

    An answer is confident if its confidence reaches α; pairs of columns are for confident answers
    and for the others.

    - ``exit0_HC``, ``exit0_C``: the embedding classifier.
    - ``weight_FK``, ``bias_K``: for each tier 'its answer is right', then for mobile and edge 'its
      answer is confident'.
    - ``layers_T2``: mean exit layer. ``right_T2``: share of right answers. ``next_TT2``: share of
      the answers of tier t that tier u gets right.
    - ``this_TG``, ``gain_TUG``: after an answer of t, 'it is right' and 'u would be right'.
    - ``diff_FT``, ``diff_T``: for a text, 'tier t is right' minus 'the cloud is right'.
    - ``gains_TSQU``: for answers of tier t that are confident (S = 0) or not (S = 1), `QUANTILES`
      typical gains of each other tier. `CascadeRouting` values later escalations by them.
    - ``alpha``: threshold of the exits for which the heads were fitted. ``cost_weight``: default Λ.
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
    cost_weight: Floats

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> CorrectnessHeads | None:
        """Return the heads in a router's arrays; None if there are none."""
        names = [_array_name(field.name) for field in fields(cls)]
        if not any(name in arrays for name in names):
            return None
        missing = next((name for name in names if name not in arrays), None)
        if missing is not None:
            raise BundleError(f"bundle: the router lacks {missing!r}; {NEW_ROUTER}")
        if any(arrays[name].dtype.kind not in "iuf" for name in names):
            raise BundleError(f"bundle: the correctness heads are no numbers; {NEW_ROUTER}")
        values = [np.asarray(arrays[name], np.float64) for name in names]
        if not all(np.isfinite(value).all() for value in values):
            raise BundleError(f"bundle: the correctness heads are not finite; {NEW_ROUTER}")
        return cls(*values)

    def wrong_shape(self, embedding_size: int, classes: int) -> str | None:
        """Return the first array whose shape is wrong, in words; None if all are right."""
        features = EXTRA + (len(PAIR_FEATURES) if self.reads_pairs else embedding_size)
        t, g, k = len(TIERS), ANSWER_FACTS, len(TIERS) + 2
        expected: dict[str, tuple[int, ...]] = {
            "exit0_HC": (embedding_size, classes),
            "exit0_C": (classes,),
            "mean_F": (features,),
            "scale_F": (features,),
            "weight_FK": (features, k),
            "bias_K": (k,),
            "layers_T2": (t, 2),
            "right_T2": (t, 2),
            "next_TT2": (t, t, 2),
            "this_TG": (t, g),
            "gain_TUG": (t, t, g),
            "diff_FT": (features, t),
            "diff_T": (t,),
            "gains_TSQU": (t, 2, QUANTILES, t),
            "alpha": (),
            "cost_weight": (),
        }
        for name, shape in expected.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                return f"{_array_name(name)} has the shape {found} instead of {shape}"
        if not (self.scale_F > 0).all():
            return f"{_array_name('scale_F')} holds numbers that are not above 0"
        if not 0 <= self.cost_weight <= MAX_PRICE:
            return f"{_array_name('cost_weight')} is not between 0 and {MAX_PRICE:g}"
        return None

    def to_arrays(self) -> dict[str, Floats]:
        """Return the arrays to store in ``router.npz``."""
        return {_array_name(field.name): getattr(self, field.name) for field in fields(self)}

    @property
    def reads_pairs(self) -> bool:
        """True if the heads were fitted on the features of pairs."""
        return self.mean_F.shape == (len(PAIR_FEATURES) + EXTRA,)

    def scaled(self, features_F: Floats) -> Floats:
        """Return standardised features; an unknown feature (NaN) is replaced by its mean."""
        x_F: Floats = (features_F - self.mean_F) / self.scale_F
        if self.reads_pairs:  # only features of pairs can be unknown
            return np.nan_to_num(x_F, nan=0.0)
        return x_F

    def expect(self, features_F: Floats) -> Floats:
        """Return the probabilities of the K heads for raw features."""
        logits_K = self.scaled(features_F) @ self.weight_FK + self.bias_K
        return _sigmoids(logits_K)

    def lead(self, features_F: Floats) -> Floats:
        """Return P(tier is right) − P(cloud is right) for each tier."""
        result: Floats = self.scaled(features_F) @ self.diff_FT + self.diff_T
        return result

    def gain(self, tier: int, target: int, facts_G: Floats) -> float:
        """Return P(``target`` is right) − P(this answer is right) after an answer of ``tier``."""
        return _sigmoid(float(facts_G @ self.gain_TUG[tier, target])) - _sigmoid(
            float(facts_G @ self.this_TG[tier])
        )

    def gains(self, tier: int, target: int, facts_NG: Floats) -> Floats:
        """Return `gain` for N answers at once."""
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
    """Return ``features_F`` of a text or pair, and the embedding classifier's label.

    The features are the embedding, or ``pair_P`` if given, and `EXTRA` more.
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
    """Return ``facts_G`` of an answer: functions of its confidence, margin and length.

    ``agrees`` says whether the embedding classifier gives the same label.
    """
    p = min(max(confidence, 1e-6), 1 - 1e-6)
    z = math.log(p / (1 - p))
    sign = 1.0 if agrees else -1.0
    return np.array([1.0, z, z * z / 10, sign, sign * math.log1p(margin), length])


ANSWER_FACTS = 6
"""Length of ``facts_G``."""


def _array_name(field: str) -> str:
    """Return the name in ``router.npz``; released bundles store Λ as ``heads_price``."""
    return "heads_price" if field == "cost_weight" else f"heads_{field}"


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, value))))


def _sigmoids(values: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-np.clip(values, -30, 30)))
    return result
