"""``dimee fit-temperatures``: a temperature for each exit."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli.common import PATH, data_option, device_option, require_lab


@click.command("fit-temperatures")
@click.argument("run", type=PATH)
@data_option
@device_option
@click.option("--out", type=PATH, required=True, help="Folder of the new run.")
def fit_temperatures(run: Path, data: str | None, device: str, out: Path) -> None:
    """Fit a temperature for each exit of RUN on the validation part and fold it into the weights.

    A temperature changes confidences, but no answer.
    """
    require_lab()
    from lab.models.device import choose_device
    from lab.models.run import Run
    from lab.train.temperatures import write_calibrated_run

    facts = write_calibrated_run(Run(run, choose_device(device)), out, data)
    temperatures = ", ".join(f"{t:.3f}" for t in facts["temperatures"])
    click.echo(f"temperatures of the exits 1 to {len(facts['temperatures'])}: {temperatures}")
