"""Certified beside measured: ``docs/results/certified.md`` and its JSON.

``python -m lab.studies.certified`` calibrates bundles on what they have not learnt from, and
measures the settings that were chosen on examples that had no part in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from lab.certify.calibrate import Candidates, Rows, choose
from lab.certify.calibration_data import fresh_examples
from lab.certify.certify import Calibration, Swept, calibrate, sweep
from lab.data.examples import load_examples
from lab.data.tasks import get_task
from lab.evaluate.samples import samples_of_bundle
from lab.reports.certified import page
from shared.bundle.loading import Bundle, load_bundle
from shared.certificates.certificate import Metric
from shared.errors import DimeeError

DELTA = 0.05
DROPS = (0.005, 0.01, 0.02)
METRICS: tuple[Metric, ...] = ("accuracy", "consistency")
PARTITIONS = 200


def study(bundle: Bundle, source: str) -> dict[str, Any]:
    """One bundle: what is certified at each drop, and how it does on examples kept back."""
    fresh = fresh_examples(bundle, source)
    swept = sweep(bundle, samples_of_bundle(bundle, fresh.examples), bundle.cost_model)
    paper = bundle.manifest.accuracy["split"] == "paper"
    others = None
    if paper:  # GLUE's own validation file has had no part in anything
        rows = load_examples(source, get_task(bundle.manifest.task), "validation")
        others = sweep(bundle, samples_of_bundle(bundle, rows), bundle.cost_model)
    manifest = bundle.manifest
    return {
        "bundle_id": bundle.bundle_id,
        "task": manifest.task,
        "encoder": manifest.encoder,
        "layers": manifest.layers,
        "hidden_size": manifest.hidden_size,
        "split": manifest.accuracy["split"],
        "examples": len(swept.samples),
        "data_hash": swept.samples.data_hash,
        "others": len(others.samples) if others else None,
        "all_cloud_accuracy": _accuracy(swept),
        "certified": [
            _certified(calibrate(swept, metric, drop, DELTA), others)
            for metric in METRICS
            for drop in DROPS
        ],
        "kept_back": [
            _kept_back(swept.candidates(metric), metric, drop)
            for metric in METRICS
            for drop in DROPS
        ],
    }


def _accuracy(swept: Swept) -> float:
    right_N = swept.samples.answers_NE[:, -1] == swept.samples.labels_N
    return round(100 * float(right_N.mean()), 2)


def _certified(done: Calibration, others: Swept | None) -> dict[str, Any]:
    """One row of ``dimee calibrate``; all losses in points."""
    row: dict[str, Any] = {
        "metric": done.metric,
        "max_drop": 100 * done.max_drop,
        "n": len(done.judged),
        "steps": len(done.choice.settings),
        "passed": done.choice.passed,
    }
    setting = done.choice.setting
    if setting is None:
        return row | {"refusal": done.refusal().message}
    chosen = [step for step in done.steps() if step.passed][-1]
    assert chosen.judged_loss is not None
    assert chosen.bound is not None
    row |= {
        "price": chosen.setting.price,
        "alpha": chosen.setting.alpha,
        "bound": round(100 * chosen.bound, 2),
        "judged_loss": round(100 * chosen.judged_loss, 2),
        "cost_change": round(100 * (chosen.cost / done.swept.cost_model.all_cloud - 1), 1),
    }
    if others is not None:
        loss_N = others.candidates(done.metric).ways[0].loss_SN[setting]
        row["others_loss"] = round(100 * float(loss_N.mean()), 2)
        spread = 1.96 * float(loss_N.std()) / np.sqrt(len(loss_N))
        row["others_error"] = round(100 * spread, 2)
    return row


def _kept_back(candidates: Candidates, metric: Metric, drop: float) -> dict[str, Any]:
    """Half of the examples calibrate, the other half is measured; `PARTITIONS` times at random."""
    losses, costs = [], []
    for number in range(PARTITIONS):
        sweep_rows, judged, kept = _parts(candidates.count, number)
        choice = choose(candidates, sweep_rows, judged, drop, DELTA)
        if choice.setting is not None:
            losses.append(candidates.ways[0].loss_SN[choice.setting, kept].mean())
            costs.append(candidates.cost_SN[choice.setting, kept].mean())
    row: dict[str, Any] = {
        "metric": metric,
        "max_drop": 100 * drop,
        "n": len(judged),
        "kept": len(kept),
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
    """A quarter to order, a quarter to judge, half to measure."""
    order = np.random.default_rng(seed).permutation(count)
    quarter = count // 4
    return order[:quarter], order[quarter : 2 * quarter], order[2 * quarter :]


@click.command()
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", default="../shared/glue", show_default=True, help="Folder of GLUE tasks.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"))
def main(bundles: tuple[Path, ...], data: str, out: Path) -> None:
    """Measure, and write ``extra/certified.json`` and ``certified.md``."""
    try:
        loaded = [load_bundle(bundle) for bundle in bundles]
        results = [study(bundle, f"{data}/{bundle.manifest.task}") for bundle in loaded]
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    facts = {"delta": DELTA, "bundles": results}
    file = out / "extra" / "certified.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "certified.md").write_text(page(facts), encoding="utf-8")
    click.echo(f"{file}, {out / 'certified.md'}")


if __name__ == "__main__":
    main()
