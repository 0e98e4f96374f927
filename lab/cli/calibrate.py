"""``dimee calibrate``: a promise in one line, and the certificate that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.cli.train import _need_lab
from shared.certificates.certificate import FILE, Metric
from shared.errors import InvalidInput
from shared.settings import default_bundle

if TYPE_CHECKING:
    from lab.certify.certify import Calibration

_path = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=_path, required=False, envvar="DIMEE_BUNDLE")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    required=True,
    help="In points: accuracy at most so far under all-cloud's, or answers that differ from it.",
)
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="The probability with which the promise may fail.",
)
@click.option(
    "--metric",
    type=click.Choice(["accuracy", "consistency"]),
    default="accuracy",
    show_default=True,
    help="Accuracy against all-cloud's, or answers equal to all-cloud's: this needs no labels.",
)
@click.option("--per-tier", is_flag=True, help="Also bound what each tier's own answers lose.")
@click.option(
    "--data",
    help="A file or folder of JSON lines that the bundle has not learnt from, or owner/name:config "
    "of a hub; GLUE's if left out: from the folder DIMEE_GLUE, ../shared/glue, or the hub.",
)
@click.option("--price-book", type=_path, help="A price book; the bundle's prices if left out.")
@click.option("--out", type=_path, help=f"{FILE} in the bundle's folder if left out.")
def calibrate(
    bundle: Path | None,
    max_drop: float,
    delta: float,
    metric: Metric,
    per_tier: bool,
    data: str | None,
    price_book: Path | None,
    out: Path | None,
) -> None:
    """Choose the thresholds of `cascade-routing` so that a stated drop holds, and certify it.

    Half of the examples order the settings from safest to cheapest; the other half tests them in
    this order, and the last that passes is written. BUNDLE is the ready one if left out.
    """
    _need_lab()
    from lab.certify.calibration_data import fresh_examples
    from lab.certify.certify import calibrate as run_calibration
    from lab.certify.certify import certify, sweep
    from lab.evaluate.samples import samples_of_bundle
    from shared.bundle.loading import load_bundle
    from shared.pricing.live_prices import LivePrices, read_price_file

    loaded = load_bundle(bundle or default_bundle())
    tariff = LivePrices(loaded.cost_model, price_book)
    expires = read_price_file(price_book).valid_until if price_book else None
    fresh = fresh_examples(loaded, data, labelled=metric == "accuracy")
    if len(fresh.examples) < 2:
        raise InvalidInput("data: one example cannot be halved; give more", field="data")
    samples = samples_of_bundle(loaded, fresh.examples)
    swept = sweep(loaded, samples, tariff.cost_model)
    done = run_calibration(swept, metric, max_drop / 100, delta)
    click.echo(
        f"data: {len(samples):,} examples, {fresh.what}; hash {samples.data_hash[:16]}\n"
        f"{len(done.sweep):,} ordered the settings, {len(done.judged):,} judged them at "
        f"delta = {delta:g}"
    )
    _echo_steps(done)
    certificate = certify(loaded, done, tariff.book, expires, per_tier)
    for tier, bound in certificate.per_tier.items():
        click.echo(
            f"{tier.value}: its {bound.n:,} answers lose at most {100 * bound.bound:.2f}, "
            f"all tiers at once, with probability {100 * (1 - delta):g} %"
        )
    certificate.write(file := out or loaded.path / FILE)
    click.echo(f"{certificate.sentence()}\nwritten: {file}")


def _echo_steps(done: Calibration) -> None:
    """All figures that were lost are points, as ``--max-drop``."""
    click.echo(
        f"{'Λ':>9}{'α':>8}{'cost λ':>8}{'against all-cloud':>19}"
        f"{'lost, ordering':>16}{'judged':>9}{'bound':>8}"
    )
    all_cloud = done.swept.cost_model.all_cloud
    for step in done.steps():
        change = 100 * (step.cost / all_cloud - 1)
        row = f"{step.setting.price:>9g}{step.setting.alpha:>8.4g}{step.cost:>8.2f}"
        row += f"{change:>+17.1f} %"
        row += f"{100 * step.sweep_loss:>16.2f}"
        if step.judged_loss is None or step.bound is None:
            row += f"{'–':>9}{'–':>8}  not tested"
        else:
            row += f"{100 * step.judged_loss:>9.2f}{100 * step.bound:>8.2f}"
            row += "  passed" if step.passed else f"  above {100 * done.max_drop:g}"
        click.echo(row)
