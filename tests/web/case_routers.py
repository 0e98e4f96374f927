"""Synthetic routers of the shared cases, in the format of ``router.json``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import ANSWER_FACTS, EXTRA, QUANTILES, TIERS
from shared.bundle.mobile_bundle import array_json
from shared.bundle.pair_features import PAIR_FEATURES
from tests.web.text_cases import classifier

ROUTERS = ("pairs", "empty-pool", "headless")
CLASSES = 2
DECIMALS = 3
SEED = 5


def router_documents() -> dict[str, Any]:
    """Return the routers by name: one for pairs, one with an empty pool, one without heads."""
    rng = np.random.default_rng(SEED)
    size = classifier().embeddings.size
    centroids = _drawn(rng, (3, size), 0.02).astype(np.float32)
    empty = centroids.copy()
    empty[1] = np.nan
    return {
        "pairs": _document(_pair_heads(rng, size) | _pools(centroids, [40, 30, 20])),
        "empty-pool": _document(_pools(empty, [50, 0, 7])),
        "headless": _document(_pools(centroids, [3, 2, 1])),
    }


def _pools(centroids: NDArray[np.float32], counts: list[int]) -> dict[str, NDArray[Any]]:
    return {"centroids": centroids, "counts": np.array(counts, np.int64)}


def _pair_heads(rng: np.random.Generator, size: int) -> dict[str, NDArray[Any]]:
    """Return heads that read the features of pairs, with drawn weights."""
    t, f = len(TIERS), len(PAIR_FEATURES) + EXTRA
    shapes: dict[str, tuple[int, ...]] = {
        "exit0_HC": (size, CLASSES),
        "exit0_C": (CLASSES,),
        "mean_F": (f,),
        "weight_FK": (f, t + 2),
        "bias_K": (t + 2,),
        "this_TG": (t, ANSWER_FACTS),
        "gain_TUG": (t, t, ANSWER_FACTS),
        "diff_FT": (f, t),
        "diff_T": (t,),
        "gains_TSQU": (t, 2, QUANTILES, t),
    }
    heads = {name: _drawn(rng, shape, 0.3) for name, shape in shapes.items()}
    heads["scale_F"] = np.round(rng.uniform(0.5, 2, f), DECIMALS)
    heads["layers_T2"] = np.array([[1.2, 2.0], [1.5, 3.0], [6.0, 6.0]])
    heads["right_T2"] = np.array([[0.92, 0.61], [0.93, 0.7], [0.94, 0.9]])
    heads["next_TT2"] = np.round(rng.uniform(0.5, 1, (t, t, 2)), DECIMALS)
    heads["alpha"] = np.array(0.9)
    heads["price"] = np.array(0.004)
    return {f"heads_{name}": values for name, values in heads.items()}


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> NDArray[Any]:
    return np.round(rng.normal(0, scale, shape), DECIMALS)


def _document(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    parts = {name: json.loads(array_json(values)) for name, values in arrays.items()}
    return {"format_version": 1, "arrays": parts}
