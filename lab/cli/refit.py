"""``dimee refit``: the policies of a bundle under other prices, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lab.cli.common import PATH, echo_export, require_lab


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("new", type=PATH)
@click.option("--data", required=True, help="The data that the bundle was trained on.")
@click.option("--mobile-layers", type=int, help="Layers on the mobile, m; default: the bundle's.")
@click.option("--edge-layers", type=int, help="Layers on the edge, n; default: the bundle's.")
@click.option(
    "--mu",
    type=click.FloatRange(0),
    help="Confidence that one answer of the cloud may cost (μ of eq. 2); default: the bundle's.",
)
@click.option("--cloud-fee", type=click.FloatRange(0), help="γ in λ; default: the preset's.")
@click.option(
    "--price-book", type=PATH, help="JSON file of prices, as `dimee prices measure` writes it."
)
def refit(bundle: Path, new: Path, **options: Any) -> None:
    """Fit α, pools, heads and Λ of BUNDLE for other prices, and write the bundle NEW.

    The layers stay unchanged. Everything is fitted and measured with the exported layers, on the
    data that the bundle was trained on.
    """
    require_lab()
    from lab.export.refit import refit as refit_bundle

    exported = refit_bundle(bundle, new, **options)
    echo_export(exported.card, exported.notes)
