"""``baselines.md``: which method of the paper each policy is, and where the paper is vague."""

from __future__ import annotations

from lab.reports import paper
from lab.reports.load import PAPER_METHODS
from lab.reports.text import table

HEAD = (
    "# The baselines",
    "",
    "This page says which method of the paper each of our policies is, with the paper's section, "
    "and where the paper leaves a choice open. `python -m lab.reports` wrote it.",
    "",
    "The paper bills all baselines by its own prices and takes their hyperparameters from their "
    "own code (section IV-B, after item 7). The code is not part of the paper; ours follow the "
    "descriptions below.",
)

WHERE = {
    "bert": "section IV-B, item 1; section V, paragraph 2; caption of Table I",
    "random": "section IV-B, item 2; section V, paragraph 2",
    "early-exit": "section IV-B, item 3; section V, paragraph 2",
    "adaee": "section IV-B, item 4; sections II and V",
    "i-splitee": "section IV-B, item 5; sections II and V",
    "dimee-fixed": "section III-E, *Fixed*; section IV-B, item 6",
    "dimee-adaptive": "section III-E, *Adaptive*, and Algorithm 2; section IV-B, item 7",
}

OURS = {
    "bert": "All l layers on the mobile, answered at the last exit: λm · l = 18 λ. Its answers are "
    "those of all-cloud.",
    "random": "Mobile, edge or cloud with probability 1/3 each. Mobile and edge leave at their "
    "first exit with confidence ≥ α. Mean over five seeds.",
    "early-exit": "All l layers on the mobile; leaves at the first exit with confidence ≥ α. α is "
    "the one of `dimee-fixed` (highest expected reward on the validation tenth).",
    "adaee": "The mobile's exits 1 … m against a threshold; what stays below it goes to the "
    "cloud and costs both. UCB1 chooses among the ten thresholds of S; its reward is that of eq. 2 "
    "with costs as a share of all-cloud. Mean over five orders of the examples.",
    "i-splitee": "The mobile runs layers 1 … i, leaves there if confidence ≥ α, and otherwise "
    "offloads to the cloud and costs both. UCB1 chooses i among all l layers, with the same reward "
    "and the α of `dimee-fixed`. Mean over five orders of the examples.",
    "dimee-fixed": "Nearest of three centroids of mean word embeddings (Euclidean distance): easy "
    "→ mobile, moderate → edge, hard → cloud. Mobile and edge leave at their first exit with "
    "confidence ≥ α, else at their last.",
    "dimee-adaptive": "The same; the nearest centroid moves by the running mean of Algorithm 2, "
    "starting from the sizes of the validation pools. Mean over five orders of the examples.",
}

VAGUE = {
    "bert": "On the mobile in section IV-B, in the cloud in the caption of Table I. Section V says "
    "that BERT has no exits attached; whether it was trained without them is not said. Ours is the "
    "last exit of the network with exits.",
    "random": "The probabilities, and whether a tier leaves early.",
    "early-exit": "Section V says that the threshold comes from a validation set and not from an "
    "optimisation; how it is chosen there is not said.",
    "adaee": "The method is for two devices, edge and cloud; which exits, arms and reward it has "
    "with three is not said. Section V says that all samples are processed on the mobile first.",
    "i-splitee": "The method is for edge and cloud as well. Its exit threshold, its reward, and "
    "whether the mobile may hold more than m layers are not said. Ours needs all l layers on the "
    "mobile.",
    "dimee-fixed": "The distance, and the unit in which eq. 2 subtracts λ from a confidence: we "
    "take μ = 0.1 of confidence for the cost of all-cloud "
    "([decision 0003](../decisions/0003-alpha-split-and-pooling.md)). What happens on a tier where "
    "no exit reaches α: ours answers at the tier's last exit.",
    "dimee-adaptive": "As `dimee-fixed`.",
}


def baselines_page() -> str:
    """The whole page; it depends on no JSON."""
    rows = [[f"`{name}`", paper.ROW_NAMES[name], WHERE[name]] for name in PAPER_METHODS]
    lines = [*HEAD, "", *table(["ours", "the paper's row", "where"], rows, left=3)]
    for name in PAPER_METHODS:
        lines += [
            "", f"## `{name}`: {paper.ROW_NAMES[name]}", "", OURS[name], "",
            f"Open in the paper: {VAGUE[name]}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
