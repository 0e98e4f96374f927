"""``dimee pools`` and ``dimee export``: from a run to a bundle, and from a bundle to a mobile one.

The commands import torch and similar packages when they run, so that ``dimee --help`` is fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lab.cli.common import (
    PATH,
    data_option,
    device_option,
    echo_export,
    require_lab,
)
from lab.cli.export_mobile import export_mobile, mobile_options, refuse_other_options


def _pool_options(command: Any) -> Any:
    for option in (
        click.option(
            "--max-tokens",
            type=click.IntRange(8, 512),
            default=256,
            show_default=True,
            help="Limit of the bundle in tokens; longer texts are cut.",
        ),
        click.option(
            "--mobile-layers",
            type=int,
            default=2,
            show_default=True,
            help="Layers on the mobile, m.",
        ),
        click.option(
            "--edge-layers", type=int, default=3, show_default=True, help="Layers on the edge, n."
        ),
        click.option(
            "--mu",
            type=click.FloatRange(0),
            default=0.1,
            show_default=True,
            help="Confidence that one answer of the cloud may cost (μ of eq. 2).",
        ),
        click.option(
            "--cloud-fee", type=click.FloatRange(0), help="γ in λ; default: the preset's."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("run", type=PATH)
@data_option
@device_option
@_pool_options
def pools(run: Path, data: str | None, device: str, **options: Any) -> None:
    """Choose α of RUN by expected reward and print the pools of Algorithm 1.

    Both come from the validation part.
    """
    require_lab()
    from lab.export.bundle import pools_of_run
    from lab.models.device import choose_device
    from lab.models.run import Run

    result = pools_of_run(Run(run, choose_device(device)), data, **options)
    click.echo(" alpha  expected reward    easy  moderate    hard")
    for option in result.candidates:
        chosen = " <- α" if option.alpha == result.alpha else ""
        easy, moderate, hard = option.pool_sizes
        click.echo(
            f"{option.alpha:>6.4f} {option.expected_reward:>16.5f}"
            f" {easy:>7} {moderate:>9} {hard:>7}{chosen}"
        )
    for name in result.empty:
        click.echo(
            f"warning: no example is {name} at this α, so no text will be routed to its tier; "
            "change --mobile-layers, --edge-layers or --mu",
            err=True,
        )


@click.command()
@click.argument("run", type=PATH, required=False)
@click.argument("bundle", type=PATH, required=False)
@mobile_options
@data_option
@device_option
@_pool_options
@click.option(
    "--no-samples",
    is_flag=True,
    help="Leave out the sample texts: up to 60 texts of the data, for dimee demo and dimee load.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Points of accuracy that an exit may lose by the exported precision. The export is "
    "refused if the 95 % interval of an exit's loss on the reported texts lies above it.",
)
def export(
    run: Path | None,
    bundle: Path | None,
    data: str | None,
    device: str,
    no_samples: bool,
    mobile: Path | None,
    bundle_of_mobile: Path | None,
    with_app: bool,
    gateway: str | None,
    edge_url: str | None,
    cloud_url: str | None,
    ledger_url: str | None,
    needs_token: bool,
    **options: Any,
) -> None:
    """Export RUN to the folder BUNDLE and print the card, or a bundle for browsers (--mobile).

    A bundle holds the layers with their exits in ONNX, embedding tables, router, manifest, card and
    sample texts of the data.
    Notes on stderr say if the data had too few examples for the default policy or for a check.
    """
    context = click.get_current_context()
    refuse_other_options(context)
    if mobile is not None:
        source = context.get_parameter_source
        m, n = (
            options[name] if source(name) is not ParameterSource.DEFAULT else None
            for name in ("mobile_layers", "edge_layers")
        )
        addresses = {"gateway": gateway, "edge": edge_url, "cloud": cloud_url, "ledger": ledger_url}
        export_mobile(mobile, bundle_of_mobile, m, n, with_app, addresses, needs_token)
        return
    if run is None or bundle is None:
        raise click.UsageError("give RUN and BUNDLE, or --mobile FOLDER")
    require_lab()
    from lab.export.bundle import export_run
    from lab.models.device import choose_device
    from lab.models.run import Run

    loaded = Run(run, choose_device(device))
    exported = export_run(loaded, bundle, data, with_samples=not no_samples, **options)
    echo_export(exported.card, exported.notes)
