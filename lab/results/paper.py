"""What is known here of the paper's own figures, of the prototype's, and of the data's extent.

Nothing else of the paper's tables is at hand; nothing may be added without its source.
"""

from __future__ import annotations

CLAIMED_SAVING = 43.0
CLAIMED_DROP = 0.3
"""The abstract: the cost falls by more than 43 % at a drop of less than 0.3 points."""

SST2_CHANGE = 0.1
SST2_COST = -47.0
"""SST-2: −47 % at +0.1, as the issue quotes the paper."""

PAPER_LAYERS_COST = 12.0
"""λ of all twelve layers on the phone in the preset `paper`."""

SUBSETS = {
    "qnli": "9.5 % of GLUE's training file, 4,463 of 5,463 validation pairs",
    "qqp": "3.3 % of GLUE's training file, a part of its validation file",
    "mnli": "6.5 % of GLUE's training file, half of dev_matched",
    "cola": "the whole training file, the in-domain part of the validation file",
}
"""From the README of the data."""

PROTOTYPE = (
    ("cloud", None, "all layers", 94.55, None),
    ("dimee-fixed", "0.98", "`dimee-fixed`, α = 0.98", 93.54, -52.0),
    ("dimee-fixed", "0.995", "`dimee-fixed`, α = 0.995", 93.69, -47.0),
    ("dimee-adaptive", "0.995", "`dimee-adaptive`, α = 0.995", 93.70, -45.0),
    ("random-same-mix", "0.995", "`random-same-mix`, α = 0.995", 92.86, -48.0),
    ("true-difficulty", "0.98", "`true-difficulty`, α = 0.98", 94.54, -49.0),
)
"""SST-2 with MiniLM, n = 6,735: method, α, row, accuracy, cost against all-cloud (%)."""

PROTOTYPE_AUROC = {"nearest centroid": 0.694, "length": 0.617, "logistic regression": 0.806}
"""The same run: AUROC for 'exits on the phone'."""
