"""``dimee refit``: a bundle's policies under other prices, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lab.cli.train import _need_lab

_path = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=_path)
@click.argument("new", type=_path)
@click.option("--data", required=True, help="The data that the bundle was trained on.")
@click.option("--mobile-layers", type=int, help="m; the bundle's if left out.")
@click.option("--edge-layers", type=int, help="n; the bundle's if left out.")
@click.option("--mu", type=click.FloatRange(0), help="μ of eq. 2; the bundle's if left out.")
@click.option("--cloud-fee", type=click.FloatRange(0), help="γ in λ; the preset's if left out.")
@click.option("--price-book", type=_path, help="Prices from a file, as of dimee prices measure.")
def refit(bundle: Path, new: Path, **options: Any) -> None:
    """Fit α, pools, heads and Λ of BUNDLE anew for other prices, and write the bundle NEW.

    The layers stay as they are. Everything is fitted and measured as shipped, on the data that the
    bundle was trained on.
    """
    _need_lab()
    from lab.export.refit import refit as refit_bundle

    click.echo(refit_bundle(bundle, new, **options))
