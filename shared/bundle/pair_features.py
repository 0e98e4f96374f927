"""Features of a pair of texts, computed without running a layer.

The mean word embedding of a whole pair does not show how its texts relate. These features compare
the mean word embeddings, the tokens and the lengths of the two texts.

Shape suffixes: H hidden size, T tokens, P pair features.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PAIR_FEATURES = (
    "cosine",
    "dot_product",
    "distance",
    "mean_difference",
    "largest_difference",
    "jaccard",
    "overlap_of_first",
    "overlap_of_second",
    "log_first_tokens",
    "log_second_tokens",
    "log_length_ratio",
    "first_norm",
    "second_norm",
)
"""Names of the P features, in order."""


def pair_features(
    first_H: NDArray[np.float32],
    second_H: NDArray[np.float32],
    first_ids_T: NDArray[np.int64],
    second_ids_T: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return ``pair_P`` from the mean word embedding and the token ids of each text.

    The ids exclude special tokens; neither array may be empty.
    """
    u_H, v_H = first_H.astype(np.float64), second_H.astype(np.float64)
    difference_H = np.abs(u_H - v_H)
    norms = float(np.sqrt(u_H @ u_H)), float(np.sqrt(v_H @ v_H))
    dot = float(u_H @ v_H)
    first, second = set(first_ids_T.tolist()), set(second_ids_T.tolist())
    common = len(first & second)
    lengths = math.log(len(first_ids_T)), math.log(len(second_ids_T))
    return np.array(
        [
            dot / max(norms[0] * norms[1], 1e-12),
            dot,
            float(np.sqrt(difference_H @ difference_H)),
            float(difference_H.mean()),
            float(difference_H.max()),
            common / len(first | second),
            common / len(first),
            common / len(second),
            *lengths,
            abs(lengths[0] - lengths[1]),
            *norms,
        ]
    )
