"""``README.md`` of the results, and all pages and plots at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.reports import certified, exit_options, links, resume
from lab.reports.baselines import baselines_page
from lab.reports.cascade_page import cascade_page
from lab.reports.claim import claim_page
from lab.reports.comparisons import comparisons_page
from lab.reports.gallery import all_plots, figures_page
from lab.reports.limitations import limitations_page
from lab.reports.load import DEFAULT_POLICY, Result, load_results
from lab.reports.opening import opening_table, sentences
from lab.reports.scope import data_page
from lab.reports.tables import tables_page

HEAD = (
    "# Results",
    "",
    "Change in accuracy (points) and in cost against all-cloud, with MPNet 12 × 768 (the size of "
    "BERT-base), m = 3, n = 6 and the paper's prices, on GLUE's validation files. **Bold** meets "
    "the paper's claim: more than 43 % cheaper at a drop of less than 0.3 points, also in the "
    "paper's metric. `python -m lab.reports` writes this page from the JSONs in `data/`.",
    "",
)

AFTER = (
    "",
    f"`{DEFAULT_POLICY}` is set as in a bundle: its drop on the validation part, plus one standard "
    "error, is at most 0.3 points. On QNLI and QQP the margin leaves only all-cloud "
    "([with the mean alone](cascade-routing.md)). QNLI, QQP and MNLI are parts of GLUE's files "
    "([data](data.md#the-part-of-glue-that-was-used)).",
    "",
)

BETWEEN = (
    "",
    "The same on the paper's test tenth of the training file, which overlaps the training part in "
    "SST-2 ([data](data.md)):",
    "",
)

LINKS = (
    "",
    "## More",
    "",
    "- [Tables](tables.md): Tables I and II of the paper beside ours, every method on every run",
    "- [Claim](claim.md): the claim task by task with intervals, what the centroids add, accuracy "
    "by depth",
    "- [Figures](figures.md): Figures 2a, 2b, 2c and 3 beside the paper's text, sweeps over γ and "
    "α, m and n, routers",
    "- [Comparisons](comparisons.md): the default policy against each method of the paper, case by "
    "case",
    "- [Default policy](cascade-routing.md): allowed drops, parts, predictors",
    "- [Limitations](limitations.md) of the paper: γ, baselines, low confidence, prices, the "
    "adaptive rule",
    "- [Baselines](baselines.md): which method of the paper each policy is",
    "- [Data and commands](data.md): what was run, on which part of GLUE, by which commands",
    "- [Links](links.md): shares, accuracy, cost and latency of three policies over five links",
    "- [Certified drops](certified.md), [exit heads](exits.md), [going on from a hidden "
    "state](resume.md)",
)


def readme(results: list[Result]) -> str:
    """The whole page."""
    spoken = [f"{i}. {text}" for i, text in enumerate(sentences(results), start=1)]
    lines = [*HEAD, *opening_table(results, "glue"), *AFTER, *spoken, *BETWEEN,
             *opening_table(results, "test"), *LINKS]  # fmt: skip
    return "\n".join(lines) + "\n"


def build(data: Path, out: Path) -> list[Path]:
    """Write every page and plot of ``data``'s JSONs under ``out``; plots of before are removed."""
    results = load_results(data)
    plots = all_plots(results)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    written = [plot.save(folder) for plot in plots]
    for name, page in pages(results).items():
        (out / name).write_text(page, encoding="utf-8")
        written.append(out / name)
    for name, page in study_pages(out / "extra").items():
        (out / name).write_text(page, encoding="utf-8")
        written.append(out / name)
    return written


STUDIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "certified": certified.page,
    "exits": exit_options.page,
    "links": links.page,
    "resume": resume.page,
}
"""Studies that write a JSON of their own under ``extra``, and the page that each makes of it."""


def study_pages(extra: Path) -> dict[str, str]:
    """The page of each study whose JSON stands in ``extra``, by its file's name."""
    files = {name: extra / f"{name}.json" for name in STUDIES}
    return {
        f"{name}.md": STUDIES[name](json.loads(file.read_text(encoding="utf-8")))
        for name, file in files.items()
        if file.is_file()
    }


def pages(results: list[Result]) -> dict[str, str]:
    """Each page by its file's name."""
    return {
        "README.md": readme(results),
        "tables.md": tables_page(results),
        "claim.md": claim_page(results),
        "figures.md": figures_page(results, all_plots(results)),
        "comparisons.md": comparisons_page(results),
        "cascade-routing.md": cascade_page(results),
        "limitations.md": limitations_page(results),
        "baselines.md": baselines_page(),
        "data.md": data_page(results),
    }
