"""``dimee calibrate``: thresholds with a certified drop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.cli.common import PATH, require_lab
from shared.certificates.certificate import FILE, Metric
from shared.errors import InvalidInput
from shared.files import prepare_output
from shared.rounding import rounded_up
from shared.settings import default_bundle

if TYPE_CHECKING:
    from lab.certify.certify import Calibration
    from shared.inference.devices import Runtime


@click.command()
@click.argument("bundle", type=PATH, required=False, envvar="DIMEE_BUNDLE")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    required=True,
    help="Largest drop of accuracy against all-cloud (points), or share of different answers (%).",
)
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability that the certified limit does not hold.",
)
@click.option(
    "--metric",
    type=click.Choice(["accuracy", "consistency"]),
    default="accuracy",
    show_default=True,
    help="Certified loss: the drop of accuracy, or the share of answers that differ from "
    "all-cloud's, which needs no labels.",
)
@click.option("--per-tier", is_flag=True, help="Also bound the loss of each tier's own answers.")
@click.option(
    "--data",
    help="File or folder of labelled texts that the bundle was not trained on, or "
    "owner/name:config of a hub. Default for a GLUE task: GLUE, from the folder DIMEE_GLUE, "
    "../shared/glue or the hub.",
)
@click.option("--price-book", type=PATH, help="JSON file of prices; default: the bundle's.")
@click.option(
    "--runtime",
    type=click.Choice(["onnx", "cuda"]),
    default="onnx",
    show_default=True,
    help="What computes the cloud's answers: cuda for a cloud with DIMEE_DEVICE=cuda.",
)
@click.option(
    "--out", type=PATH, help=f"File of the certificate; default: {FILE} in the bundle's folder."
)
def calibrate(
    bundle: Path | None,
    max_drop: float,
    delta: float,
    metric: Metric,
    per_tier: bool,
    data: str | None,
    price_book: Path | None,
    runtime: Runtime,
    out: Path | None,
) -> None:
    """Choose the thresholds of the bundle's default policy for a given drop, and certify it.

    Half of the examples order the settings from safest to cheapest; the other half tests them in
    this order, and the last that passes is certified. BUNDLE defaults to the shipped bundle.
    """
    require_lab()
    from lab.certify.calibration_data import load_calibration_examples
    from lab.certify.certify import calibrate as run_calibration
    from lab.certify.certify import certify, run_settings
    from lab.evaluate.samples import samples_of_bundle
    from shared.bundle.loading import load_bundle
    from shared.inference.devices import CPU, first_gpu
    from shared.pricing.live_prices import LivePrices, read_price_file

    loaded = load_bundle(bundle or default_bundle())
    prepare_output(file := out or loaded.path / FILE, "out")
    live_prices = LivePrices(loaded.cost_model, price_book)
    expires = read_price_file(price_book).valid_until if price_book else None
    calibration_data = load_calibration_examples(loaded, data, labelled=metric == "accuracy")
    if len(calibration_data.examples) < 2:
        raise InvalidInput("data: one example cannot be split in two; give more", field="data")
    cloud = first_gpu("runtime") if runtime == "cuda" else CPU
    samples = samples_of_bundle(loaded, calibration_data.examples, cloud=cloud)
    outcomes = run_settings(loaded, samples, live_prices.cost_model)
    calibration = run_calibration(outcomes, metric, max_drop / 100, delta)
    click.echo(
        f"data: {len(samples):,} examples, {calibration_data.description}; "
        f"hash {samples.data_hash[:16]}\n"
        f"{len(calibration.ordering_rows):,} ordered the settings, "
        f"{len(calibration.test_rows):,} tested them at delta = {delta:g}; "
        f"policy {outcomes.policy}"
    )
    _echo_steps(calibration)
    certificate = certify(loaded, calibration, live_prices.book, expires, per_tier, runtime=runtime)
    for tier, bound in certificate.per_tier.items():
        click.echo(
            f"{tier.value}: its {bound.n:,} answers lose at most "
            f"{rounded_up(100 * bound.bound, 2):.2f}, all tiers at once, with probability "
            f"{100 * (1 - delta):g} %"
        )
    certificate.write(file)
    click.echo(f"{certificate.sentence()}\nwritten: {file}")


def _echo_steps(calibration: Calibration) -> None:
    """Print a row for each setting; losses and bounds are in points, like ``--max-drop``."""
    click.echo(
        f"{'Λ':>9}{'α':>8}{'cost λ':>8}{'against all-cloud':>19}"
        f"{'loss, ordering':>16}{'test':>9}{'bound':>8}"
    )
    all_cloud = calibration.outcomes.cost_model.all_cloud
    for step in calibration.steps():
        change = 100 * (step.cost / all_cloud - 1)
        cost_weight = calibration.outcomes.thresholds(step.setting).get("cost_weight")
        row = f"{'–':>9}" if cost_weight is None else f"{cost_weight:>9g}"
        row += f"{step.setting.alpha:>8.4g}{step.cost:>8.2f}"
        row += f"{change:>+17.1f} %"
        row += f"{100 * step.ordering_loss:>16.2f}"
        if step.test_loss is None or step.bound is None:
            row += f"{'–':>9}{'–':>8}  not tested"
        else:
            row += f"{100 * step.test_loss:>9.2f}{100 * step.bound:>8.2f}"
            row += "  passed" if step.passed else f"  above {100 * calibration.max_drop:g}"
        click.echo(row)
