"""A temperature for each exit (Guo et al. 2017), fitted on validation and folded into its weights.

It changes the exits' confidence and no answer. Shape suffixes: E exits, N samples, C classes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lab.models.exit_heads import last_linear
from lab.models.model import save_model
from lab.models.predict import ExitOutputs
from lab.models.run import Run

BINS = 15


def negative_log_likelihood(log_NC: NDArray[Any], labels_N: NDArray[np.int64], t: float) -> float:
    """Return the mean −log p of the right class at the temperature ``t``."""
    scaled_NC = log_softmax(log_NC / t, axis=-1)
    return float(-scaled_NC[np.arange(len(labels_N)), labels_N].mean())


def fit_temperatures(outputs: ExitOutputs) -> list[float]:
    """Return each exit's temperature of least negative log-likelihood, between 0.1 and 10."""
    log_ENC = np.log(np.clip(outputs.probabilities_ENC.astype(np.float64), 1e-12, 1))
    temperatures = []
    for log_NC in log_ENC:

        def loss(log_t: float, log_NC: NDArray[Any] = log_NC) -> float:
            return negative_log_likelihood(log_NC, outputs.labels_N, float(np.exp(log_t)))

        best = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
        temperatures.append(float(np.exp(best.x)))
    return temperatures


def calibration_error(probabilities_NC: NDArray[Any], labels_N: NDArray[np.int64]) -> float:
    """Return the expected calibration error in points, over `BINS` equal bins of confidence."""
    confidence_N = probabilities_NC.max(-1)
    right_N = probabilities_NC.argmax(-1) == labels_N
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    gaps = [
        abs(right_N[bin_N == k].mean() - confidence_N[bin_N == k].mean()) * (bin_N == k).mean()
        for k in np.unique(bin_N)
    ]
    return 100 * float(sum(gaps))


def write_calibrated_run(run: Run, out: Path, data: str | None) -> dict[str, Any]:
    """Write ``run`` with a fitted temperature in each exit to ``out``; returns its facts."""
    validation = run.split(data).validation
    outputs = run.predict(validation)
    temperatures = fit_temperatures(outputs)
    model = run.model
    with torch.no_grad():
        for head, t in zip(model.exit_heads, temperatures, strict=True):
            last = last_linear(head)
            last.weight.div_(t)
            last.bias.div_(t)
    facts = run.facts | {"temperatures": [round(t, 4) for t in temperatures]}
    save_model(model, out / "model", facts)
    shutil.copy(run.tokenizer_file, out / "model" / run.tokenizer_file.name)
    return facts
