"""``python -m lab.reports``: write every page and plot of the results from the JSONs."""

from __future__ import annotations

from pathlib import Path

import click

from shared.errors import DimeeError
from shared.extras import imports_of

with imports_of("lab.reports", "lab"):
    from lab.reports.pages import build

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--data",
    type=FOLDER,
    default=Path("docs/results/data"),
    show_default=True,
    help="Folder of the JSONs that `dimee evaluate` wrote.",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("docs/results"),
    show_default=True,
    help="Folder of the pages; plots go to its subfolder figures.",
)
def main(data: Path, out: Path) -> None:
    """Write every page and plot of the results."""
    try:
        written = build(data, out)
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    click.echo(f"{len(list(data.glob('*.json')))} JSONs -> {len(written)} files under {out}")


if __name__ == "__main__":
    main()
