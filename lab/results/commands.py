"""The commands that made a JSON, from what it records of its run."""

from __future__ import annotations

from lab.results.load import Result

OPTIONS = (
    ("task", "--task"), ("data", "--data"), ("encoder", "--encoder"), ("split", "--split"),
    ("pooling", "--pooling"), ("loss", "--loss"), ("epochs", "--epochs"),
    ("batch_size", "--batch-size"), ("learning_rate", "--learning-rate"),
    ("max_tokens", "--max-tokens"), ("seed", "--seed"), ("limit", "--limit"),
)  # fmt: skip
DEFAULT_MU = 0.1


def train_command(result: Result) -> str:
    """``dimee train …`` with every option that the run records."""
    name = str(result["data"])
    data = f"nyu-mll/{name}" if ":" in name else f"../shared/glue/{name}"
    facts = result["run"] | {"data": data, "encoder": result.encoder}
    given = [f"{option} {facts[key]}" for key, option in OPTIONS if facts.get(key) is not None]
    return f"dimee train {' '.join(given)} --out {run_folder(result)}"


def evaluate_command(result: Result) -> str:
    """``dimee evaluate …`` with the layers, and μ and γ where they are not the preset's."""
    words = [
        f"dimee evaluate {run_folder(result)} --on {result.on}",
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


def run_folder(result: Result) -> str:
    """Where the commands keep the run."""
    return f"runs/{result.task}-{result.encoder}"


def all_cloud(result: Result) -> float:
    """λ of one request that the cloud answers: oc + γ."""
    prices = result["cost_model"]
    return float(prices["offload_cloud"] + prices["cloud_fee"])
