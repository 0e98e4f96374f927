"""All result pages and plots, from the JSONs."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lab.reports import claim, commands, comparisons, load, paper, sensitivity
from lab.reports.figures import all_plots
from lab.reports.figures_sweeps import PRICES
from lab.reports.load import Result, load_results
from lab.reports.render import render
from shared.inference.codec import CODECS
from shared.link_profiles import LINKS

PAGES = (
    "README", "tables", "claim", "figures", "comparisons", "cascade-routing", "limitations",
    "baselines", "data",
)  # fmt: skip
STUDIES = ("certified", "exits", "links", "resume")
"""Studies with a JSON of their own under ``extra`` and a page of the same name."""


def build(data: Path, out: Path) -> list[Path]:
    """Write every page and plot of the JSONs in ``data`` under ``out``; old plots are removed."""
    results = load_results(data)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    written = [plot.save(folder) for plot in all_plots(results)]
    for name, page in (pages(results) | study_pages(out / "extra")).items():
        (out / name).write_text(page, encoding="utf-8")
        written.append(out / name)
    return written


def pages(results: list[Result]) -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    context = {
        "results": results,
        "cases": comparisons.all_cases(results),
        "plots": all_plots(results),
        "claim": claim,
        "commands": commands,
        "comparisons": comparisons,
        "load": load,
        "paper": paper,
        "sensitivity": sensitivity,
        "PRICES": PRICES,
        "median": median,
    }
    return {f"{name}.md": render(name, **context) for name in PAGES}


def study_page(name: str, facts: dict[str, Any]) -> str:
    """Return the page of the study ``name`` for the facts of its JSON."""
    return render(name, facts=facts, CODECS=CODECS, LINKS=LINKS, sqrt=np.sqrt)


def study_pages(extra: Path) -> dict[str, str]:
    """Return the page of each study whose JSON is in ``extra``, by the name of its file."""
    files = {name: extra / f"{name}.json" for name in STUDIES}
    return {
        f"{name}.md": study_page(name, json.loads(file.read_text(encoding="utf-8")))
        for name, file in files.items()
        if file.is_file()
    }


def write_study(name: str, facts: dict[str, Any], out: Path) -> tuple[Path, Path]:
    """Write ``extra/NAME.json`` and ``NAME.md`` under ``out``; returns both paths."""
    file, page = out / "extra" / f"{name}.json", out / f"{name}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(study_page(name, facts), encoding="utf-8")
    return file, page
