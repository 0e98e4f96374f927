"""Study of exit heads: runs that differ in their heads or losses, on the validation part.

``python -m lab.studies.exits RUN…`` writes ``extra/exits.json`` and ``exits.md`` of the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from lab.cli.common import PATH, device_option, results_option
from lab.models.device import choose_device
from lab.models.predict import accuracy_by_exit
from lab.models.run import Run
from lab.reports.pages import write_study
from lab.train.settings import with_defaults
from lab.train.temperatures import calibration_error, fit_temperatures, negative_log_likelihood
from shared.errors import DimeeError, InvalidInput

REPORTED_FACTS = (
    "task", "encoder", "split", "limit", "seed", "epochs", "batch_size", "learning_rate",
    "pooling", "head_hidden", "loss", "distil",
)  # fmt: skip
EQUAL_FACTS = REPORTED_FACTS[:8]


def study(runs: list[Run]) -> dict[str, Any]:
    """Return accuracy, likelihood and calibration by exit on each run's validation part.

    Raises `InvalidInput` for runs that differ in more than their exits.
    """
    first = with_defaults(runs[0].facts)
    rows = []
    for run in runs:
        facts = with_defaults(run.facts)
        for name in EQUAL_FACTS:
            if facts[name] != first[name]:
                raise InvalidInput(f"runs: {run.folder} differs in {name}; compare exits only")
        validation = run.split().validation
        outputs = run.predict(validation)
        temperatures = fit_temperatures(outputs)
        log_ENC = np.log(np.clip(outputs.probabilities_ENC.astype(np.float64), 1e-12, 1))
        scaled = [
            np.exp(log_NC / t) / np.exp(log_NC / t).sum(-1, keepdims=True)
            for log_NC, t in zip(log_ENC, temperatures, strict=True)
        ]
        likelihood, error = negative_log_likelihood, calibration_error
        labels_N = outputs.labels_N
        rows.append(
            {
                **{name: facts[name] for name in REPORTED_FACTS[8:]},
                "accuracy": accuracy_by_exit(outputs),
                "temperature": [round(t, 3) for t in temperatures],
                "nll": [round(likelihood(part, labels_N, 1.0), 4) for part in log_ENC],
                "nll_calibrated": [
                    round(likelihood(part, labels_N, t), 4)
                    for part, t in zip(log_ENC, temperatures, strict=True)
                ],
                "ece": [round(error(part, labels_N), 2) for part in outputs.probabilities_ENC],
                "ece_calibrated": [round(error(part, labels_N), 2) for part in scaled],
            }
        )
    return {
        **{name: first[name] for name in EQUAL_FACTS},
        "examples": runs[0].facts["examples"],
        "data_hash": runs[0].facts["data_hash"],
        "runs": rows,
    }


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@device_option
@results_option
def main(runs: tuple[Path, ...], device: str, out: Path) -> None:
    """Compare RUNS that differ in their exits only."""
    try:
        chosen = choose_device(device)
        facts = study([Run(run, chosen) for run in runs])
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    click.echo("written: {}, {}".format(*write_study("exits", facts, out)))


if __name__ == "__main__":
    main()
