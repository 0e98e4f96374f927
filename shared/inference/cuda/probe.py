"""Print the GPUs that torch can use, as JSON: ``python -m shared.inference.cuda.probe``."""

from __future__ import annotations

import json

import torch


def found() -> dict[str, object]:
    """Return the names of the GPUs, and why there is none."""
    if torch.version.cuda is None:
        problem = f"torch {torch.__version__} is a build without CUDA; install one with CUDA"
        return {"gpus": [], "problem": problem}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    problem = "" if names else "torch finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return {"gpus": names, "problem": problem}


if __name__ == "__main__":
    print(json.dumps(found()))
