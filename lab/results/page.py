"""``README.md`` of the results, and all pages and plots at once."""

from __future__ import annotations

from pathlib import Path

from lab.results.claim import claim_section
from lab.results.exits import exits_section
from lab.results.gallery import all_plots, figures_page
from lab.results.holes import holes_section
from lab.results.load import ENCODERS, PLANNED, SPLITS, TASKS, Result, load_results
from lab.results.scope import prototype_section, scope_section
from lab.results.tables import tables_page
from lab.results.text import NOT_RUN, table
from lab.results.value_page import value_page

HEAD = (
    "# Results",
    "",
    "What the paper reports, measured anew with the policies that the phone runs: six tasks of "
    "GLUE, its seven methods, and beside them the rows without which nobody can judge.",
    "Every number of this page comes from a JSON in `data/`; `make results` rewrites the page, and "
    "a test fails when they differ.",
    "The command that made each JSON stands above its table.",
    "",
    "- [Tables](tables.md): Tables I and II in the paper's layout, every method on every run",
    "- [Figures](figures.md): Figures 2 and 3, the sweeps over γ and α, frontiers, routers, "
    "ablations",
    "- [Beyond the paper](value.md): the policy `value`",
    "- [Exits worth having](exits.md): heads, losses, distillation, temperature",
    "- [Going on from a hidden state](resume.md): codecs, bytes, break-even",
)


def readme(results: list[Result]) -> str:
    """The whole page."""
    lines = list(HEAD)
    sections = (_extent, claim_section, exits_section, holes_section, prototype_section,
                scope_section)  # fmt: skip
    for section in sections:
        lines += ["", *section(results)]
    return "\n".join(lines) + "\n"


def _extent(results: list[Result]) -> list[str]:
    have = {(r.task, r.encoder): r for r in results}
    on = {(r.task, r.encoder, r.on): r for r in results}
    rows = []
    for task, encoder in dict.fromkeys([*PLANNED, *have]):
        run = have.get((task, encoder))
        cells = [
            f"{on[task, encoder, split]['reported']:,}" if (task, encoder, split) in on else NOT_RUN
            for split in SPLITS
        ]
        known = ENCODERS.get(encoder, encoder)
        rows.append([
            TASKS.get(task, task),
            run.encoder_title if run else known,
            f"m = {run['m']}, n = {run['n']}" if run else NOT_RUN,
            f"{run['run']['examples']['train']:,}" if run else NOT_RUN,
            *cells,
        ])  # fmt: skip
    header = ["task", "encoder", "layers", "trained on", "reported, `test`", "reported, `glue`"]
    return ["## What was run", "",
            "`test` is the paper's split, 80/10/10 of the training file; `glue` reports GLUE's "
            "validation file.", "", *table(header, rows, left=3)]  # fmt: skip


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
    return written


def pages(results: list[Result]) -> dict[str, str]:
    """Each page by its file's name."""
    return {
        "README.md": readme(results),
        "tables.md": tables_page(results),
        "figures.md": figures_page(all_plots(results)),
        "value.md": value_page(results),
    }
