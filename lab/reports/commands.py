"""The commands that made a JSON, from what it records of its run."""

from __future__ import annotations

from lab.reports.load import Result

OPTIONS = (
    ("task", "--task"), ("data", "--data"), ("encoder", "--encoder"), ("split", "--split"),
    ("pooling", "--pooling"), ("loss", "--loss"), ("epochs", "--epochs"),
    ("batch_size", "--batch-size"), ("learning_rate", "--learning-rate"),
    ("max_tokens", "--max-tokens"), ("seed", "--seed"), ("limit", "--limit"),
)  # fmt: skip
DEFAULT_MU = 0.1


def from_outputs(result: Result) -> bool:
    """Return whether it was made from exit outputs alone, without the weights of the encoder."""
    return bool(result["run"].get("source") == "outputs")


def commands(result: Result) -> list[str]:
    """Every command that is needed to write the JSON again."""
    evaluate = evaluate_command(result)
    return [evaluate] if from_outputs(result) else [train_command(result), evaluate]


def train_command(result: Result) -> str:
    """``dimee train …`` with every option that the run records."""
    facts = result["run"] | {"data": _data(result), "encoder": result.encoder}
    given = [f"{option} {facts[key]}" for key, option in OPTIONS if facts.get(key) is not None]
    return f"dimee train {' '.join(given)} --out {run_folder(result)}"


def evaluate_command(result: Result) -> str:
    """``dimee evaluate …`` with the layers, and μ and γ where they are not the preset's."""
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
    if abs(prices["mobile_layer"] * result["layers"] - all_cloud(result)) > 1e-6:
        words.append(f"--cloud-fee {prices['cloud_fee']:g}")
    if "shift" in result.facts:
        words.append("--shift ../shared/glue/shift")
    return " ".join(words)


def _data(result: Result) -> str:
    name = str(result["data"])
    return f"nyu-mll/{name}" if ":" in name else f"../shared/glue/{name}"


def run_folder(result: Result) -> str:
    """Return the folder of the run, or of its exit outputs."""
    if from_outputs(result):
        return f"../shared/outputs/{result['run']['folder']}"
    return f"runs/{result.task}-{result.encoder}"


def all_cloud(result: Result) -> float:
    """λ of one request that the cloud answers: oc + γ."""
    prices = result["cost_model"]
    return float(prices["offload_cloud"] + prices["cloud_fee"])
