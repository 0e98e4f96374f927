"""Output of the chaos commands: JSON on the terminal and in a file."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

out_option = click.option(
    "--out", type=click.Path(path_type=Path), help="Write the figures to this JSON file."
)


def write_figures(
    figures: dict[str, Any], out: Path | None, only_in_file: Collection[str] = ()
) -> None:
    """Print the figures but those ``only_in_file``, and write all of them to ``out``."""
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    shown = {name: value for name, value in figures.items() if name not in only_in_file}
    click.echo(json.dumps(shown, indent=2))
