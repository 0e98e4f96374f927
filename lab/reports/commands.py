"""Commands that write a JSON again, from the facts of its run."""

from __future__ import annotations

import shlex

from lab.reports.load import Result

OPTIONS = (
    ("task", "--task"), ("data", "--data"), ("encoder", "--encoder"), ("split", "--split"),
    ("pooling", "--pooling"), ("loss", "--loss"), ("epochs", "--epochs"),
    ("batch_size", "--batch-size"), ("learning_rate", "--learning-rate"),
    ("max_tokens", "--max-tokens"), ("seed", "--seed"), ("limit", "--limit"),
    ("text_field", "--text-field"), ("pair_field", "--pair-field"),
    ("label_field", "--label-field"), ("metric", "--metric"), ("hold_out", "--hold-out"),
)  # fmt: skip
DEFAULT_MU = 0.1
BASE = (
    "dimee train --task qnli --data nyu-mll/glue:qnli --encoder bert-base-uncased --grid "
    "--out runs/qnli-bert-base",
    "dimee evaluate runs/qnli-bert-base --on test --mobile-layers 3 --edge-layers 6",
)
"""BERT-base, with a model hub."""
LARGE = (
    "dimee train --task qnli --data nyu-mll/glue:qnli --encoder bert-large-uncased --grid "
    "--out runs/qnli-bert-large",
    "dimee evaluate runs/qnli-bert-large --on test --mobile-layers 6 --edge-layers 12",
    "make results",
)
"""BERT-large (Table II), with a model hub."""


def from_outputs(result: Result) -> bool:
    """Return True if the result was made from saved exit outputs, without the encoder's weights."""
    return bool(result["run"].get("source") == "outputs")


def commands(result: Result) -> list[str]:
    """Return the commands that write the JSON again."""
    evaluate = evaluate_command(result)
    return [evaluate] if from_outputs(result) else [train_command(result), evaluate]


def train_command(result: Result) -> str:
    """Return ``dimee train …`` with every option that the run records."""
    facts = result["run"] | {"data": _data(result), "encoder": result.encoder}
    given = [
        f"{option} {shlex.quote(str(facts[key]))}"
        for key, option in OPTIONS
        if facts.get(key) is not None
    ]
    return f"dimee train {' '.join(given)} --out {run_folder(result)}"


def evaluate_command(result: Result) -> str:
    """Return ``dimee evaluate …`` with the layers, and μ and γ if they differ from the preset."""
    words = [f"dimee evaluate {run_folder(result)}"]
    if from_outputs(result):
        words.append(f"--data {_data(result)}")
    words += [
        f"--on {result.on}",
        f"--mobile-layers {result['m']} --edge-layers {result['n']}",
    ]
    if result["mu"] != DEFAULT_MU:
        words.append(f"--mu {result['mu']:g}")
    prices = result["cost_model"]
    if abs(prices["mobile_layer"] * result["layers"] - result.all_cloud) > 1e-6:
        words.append(f"--cloud-fee {prices['cloud_fee']:g}")
    if "shift" in result.facts:
        words.append("--shift ../shared/glue/shift")
    words += [f"--policy {path}" for path in result.facts.get("own_policies", {}).values()]
    return " ".join(words)


def _data(result: Result) -> str:
    if result["run"].get("text_field") is not None:  # a task of the user's own
        return "DATA"
    name = str(result["data"])
    return f"nyu-mll/{name}" if ":" in name else f"../shared/glue/{name}"


def run_folder(result: Result) -> str:
    """Return the folder of the run, or of its exit outputs."""
    if from_outputs(result):
        return f"../shared/outputs/{result['run']['folder']}"
    return f"runs/{result.task}-{result.encoder}"
