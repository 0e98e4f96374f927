"""Temperatures: the fit recovers a known one, and folding them changes confidence only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import softmax

from lab.cli.fit_temperatures import fit_temperatures as command
from lab.models.predict import ExitOutputs
from lab.models.run import Run
from lab.train.temperatures import calibration_error, fit_temperatures, negative_log_likelihood


def test_fit_recovers_known_temperatures() -> None:
    rng = np.random.default_rng(1)
    logits_NC = rng.normal(0, 2, (20_000, 3))
    true_NC = softmax(logits_NC, -1)
    labels_N = (true_NC.cumsum(-1) < rng.random((20_000, 1))).sum(-1)
    scaled = [softmax(logits_NC * t, -1) for t in (0.5, 1.0, 3.0)]
    outputs = ExitOutputs(np.stack(scaled).astype(np.float32), labels_N)
    assert fit_temperatures(outputs) == pytest.approx([0.5, 1.0, 3.0], rel=0.05)
    assert calibration_error(scaled[1], labels_N) < 1 < calibration_error(scaled[2], labels_N)


def test_folded_temperatures_change_confidence_and_no_answer(
    fixed_run: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        command, [str(fixed_run), "--out", str(tmp_path)], catch_exceptions=False
    )
    assert "temperatures of the exits 1 to 3: " in done.output
    runs = Run(fixed_run), Run(tmp_path)
    before, after = (run.predict(run.split().validation) for run in runs)
    log_before, log_after = (
        np.log(outputs.probabilities_ENC.astype(np.float64)) for outputs in (before, after)
    )
    # the temperature divides the difference of two logits; 1e-3 covers rounding in fp32
    temperature_E = np.array(runs[1].facts["temperatures"])[:, None]
    margin_EN, folded_EN = (log[..., 1] - log[..., 0] for log in (log_before, log_after))
    np.testing.assert_allclose(folded_EN, margin_EN / temperature_E, rtol=1e-3, atol=1e-3)
    for exit_ in range(3):
        loss_before, loss_after = (
            negative_log_likelihood(log[exit_], before.labels_N, 1.0)
            for log in (log_before, log_after)
        )
        assert loss_after <= loss_before + 1e-6
