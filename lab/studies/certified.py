"""Study of certified and measured losses: ``docs/results/certified.md`` and its JSON.

``python -m lab.studies.certified BUNDLE…`` calibrates bundles on examples that they were not
trained on, and measures the chosen settings on examples that were used for nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from lab.certify.calibrate import Candidates, Rows, choose
from lab.certify.calibration_data import load_calibration_examples
from lab.certify.certify import Calibration, SettingOutcomes, calibrate, run_settings
from lab.cli.common import PATH, results_option
from lab.data.examples import load_examples
from lab.data.tasks import task_of_bundle
from lab.evaluate.samples import samples_of_bundle
from lab.reports.pages import write_study
from shared.bundle.loading import Bundle, load_bundle
from shared.certificates.certificate import Metric
from shared.errors import DimeeError

DELTA = 0.05
DROPS = (0.005, 0.01, 0.02)
METRICS: tuple[Metric, ...] = ("accuracy", "consistency")
PARTITIONS = 200


def study(bundle: Bundle, source: str) -> dict[str, Any]:
    """Return what is certified for one bundle at each drop, and the loss on held-out examples."""
    data = load_calibration_examples(bundle, source)
    outcomes = run_settings(bundle, samples_of_bundle(bundle, data.examples), bundle.cost_model)
    paper = bundle.manifest.accuracy["split"] == "paper"
    others = None
    if paper:  # GLUE's own validation file was used for nothing else
        rows = load_examples(source, task_of_bundle(bundle.manifest, bundle.path), "validation")
        others = run_settings(bundle, samples_of_bundle(bundle, rows), bundle.cost_model)
    manifest = bundle.manifest
    return {
        "bundle_id": bundle.bundle_id,
        "task": manifest.task,
        "encoder": manifest.encoder,
        "layers": manifest.layers,
        "hidden_size": manifest.hidden_size,
        "split": manifest.accuracy["split"],
        "examples": len(outcomes.samples),
        "data_hash": outcomes.samples.data_hash,
        "others": len(others.samples) if others else None,
        "all_cloud_accuracy": _accuracy(outcomes),
        "certified": [
            _certified(calibrate(outcomes, metric, drop, DELTA), others)
            for metric in METRICS
            for drop in DROPS
        ],
        "held_out": [
            _held_out(outcomes.candidates(metric), metric, drop)
            for metric in METRICS
            for drop in DROPS
        ],
    }


def _accuracy(outcomes: SettingOutcomes) -> float:
    right_N = outcomes.samples.answers_NE[:, -1] == outcomes.samples.labels_N
    return round(100 * float(right_N.mean()), 2)


def _certified(calibration: Calibration, others: SettingOutcomes | None) -> dict[str, Any]:
    """Return the result of ``dimee calibrate`` as a row; losses are in points."""
    row: dict[str, Any] = {
        "metric": calibration.metric,
        "max_drop": 100 * calibration.max_drop,
        "n": len(calibration.test_rows),
        "steps": len(calibration.choice.settings),
        "passed": calibration.choice.passed,
    }
    setting = calibration.choice.setting
    if setting is None:
        return row | {"refusal": calibration.refusal().message}
    chosen = [step for step in calibration.steps() if step.passed][-1]
    assert chosen.test_loss is not None
    assert chosen.bound is not None
    row |= {
        "price": chosen.setting.price,
        "alpha": chosen.setting.alpha,
        "bound": round(100 * chosen.bound, 2),
        "test_loss": round(100 * chosen.test_loss, 2),
        "cost_change": round(
            100 * (chosen.cost / calibration.outcomes.cost_model.all_cloud - 1), 1
        ),
    }
    if others is not None:
        loss_N = others.candidates(calibration.metric).losses[0].loss_SN[setting]
        row["others_loss"] = round(100 * float(loss_N.mean()), 2)
        spread = 1.96 * float(loss_N.std()) / np.sqrt(len(loss_N))
        row["others_error"] = round(100 * spread, 2)
    return row


def _held_out(candidates: Candidates, metric: Metric, drop: float) -> dict[str, Any]:
    """Calibrate on a random half and measure on the other, `PARTITIONS` times."""
    losses, costs = [], []
    for number in range(PARTITIONS):
        ordering_rows, test_rows, held_out = _parts(candidates.count, number)
        choice = choose(candidates, ordering_rows, test_rows, drop, DELTA)
        if choice.setting is not None:
            losses.append(candidates.losses[0].loss_SN[choice.setting, held_out].mean())
            costs.append(candidates.cost_SN[choice.setting, held_out].mean())
    row: dict[str, Any] = {
        "metric": metric,
        "max_drop": 100 * drop,
        "n": len(test_rows),
        "kept": len(held_out),
        "certified": len(losses),
        "of": PARTITIONS,
    }
    if losses:
        row |= {
            "loss": round(100 * float(np.mean(losses)), 2),
            "largest_loss": round(100 * float(np.max(losses)), 2),
            "above": int(np.sum(np.array(losses) > drop)),
            "cost_change": round(100 * (float(np.mean(costs)) / candidates.all_cloud - 1), 1),
        }
    return row


def _parts(count: int, seed: int) -> tuple[Rows, Rows, Rows]:
    """Return a quarter of the rows to order, a quarter to test, and a half to measure."""
    order = np.random.default_rng(seed).permutation(count)
    quarter = count // 4
    return order[:quarter], order[quarter : 2 * quarter], order[2 * quarter :]


@click.command()
@click.argument("bundles", type=PATH, nargs=-1, required=True)
@click.option("--data", default="../shared/glue", show_default=True, help="Folder of GLUE tasks.")
@results_option
def main(bundles: tuple[Path, ...], data: str, out: Path) -> None:
    """Calibrate and measure BUNDLES; write ``extra/certified.json`` and ``certified.md``."""
    try:
        loaded = [load_bundle(bundle) for bundle in bundles]
        results = [study(bundle, f"{data}/{bundle.manifest.task}") for bundle in loaded]
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    facts = {"delta": DELTA, "bundles": results}
    click.echo("written: {}, {}".format(*write_study("certified", facts, out)))


if __name__ == "__main__":
    main()
