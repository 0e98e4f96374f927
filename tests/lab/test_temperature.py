"""Temperatures: the fit finds what was put in, and folding them changes confidence only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from lab.cli.temperatures import temper
from scipy.special import softmax

from lab.models.predict import ExitOutputs, predict
from lab.models.run import Run
from lab.train.temperatures import calibration_error, fit_temperatures, negative_log_likelihood
from lab.train.trainer import TrainSettings, train


def test_the_fit_finds_the_temperature_that_was_put_in() -> None:
    rng = np.random.default_rng(1)
    logits_NC = rng.normal(0, 2, (20_000, 3))
    true_NC = softmax(logits_NC, -1)
    labels_N = (true_NC.cumsum(-1) < rng.random((20_000, 1))).sum(-1)
    scaled = [softmax(logits_NC * t, -1) for t in (0.5, 1.0, 3.0)]
    outputs = ExitOutputs(np.stack(scaled).astype(np.float32), labels_N)
    assert fit_temperatures(outputs) == pytest.approx([0.5, 1.0, 3.0], rel=0.05)
    assert calibration_error(scaled[1], labels_N) < 1 < calibration_error(scaled[2], labels_N)


def test_folded_temperatures_change_no_answer(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=2, bf16=False)
    train(settings, tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "tempered")]
    done = CliRunner().invoke(temper, arguments, catch_exceptions=False)
    assert "temperatures of the exits 1 to 3: " in done.output
    before, after = Run(tmp_path / "run"), Run(tmp_path / "tempered")
    validation = before.split().validation
    one, other = (
        predict(run.model, run.tokenizer, validation, run.facts["max_tokens"])
        for run in (before, after)
    )
    np.testing.assert_array_equal(
        one.probabilities_ENC.argmax(-1), other.probabilities_ENC.argmax(-1)
    )
    log = [np.log(outputs.probabilities_ENC) for outputs in (one, other)]
    for exit_ in range(3):
        first, second = (negative_log_likelihood(part[exit_], one.labels_N, 1.0) for part in log)
        assert second <= first + 1e-6
