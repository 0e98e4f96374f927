"""``tables.md``: Tables I and II beside ours, then every method on every run."""

from __future__ import annotations

from typing import Any

from lab.reports import paper
from lab.reports.commands import commands
from lab.reports.load import (
    BASE,
    DEFAULT_POLICY,
    METHODS,
    PAPER_METHODS,
    SMALL,
    SPLITS,
    TASKS,
    Result,
    chosen,
    missing_runs,
)
from lab.reports.scope import LARGE, SUBSETS
from lab.reports.text import (
    NOT_RUN,
    UNKNOWN,
    between,
    change,
    code,
    number,
    percent,
    share,
    table,
)

METRICS = {"cola": "Matthews", "mrpc": "F1", "qqp": "F1"}
"""The paper's 'Acc' where it cannot be accuracy."""

HEAD = (
    "# Tables",
    "",
    "This page shows Table I of the paper beside our seven rows, Table II of the paper, and then "
    "every method on every run. `python -m lab.reports` wrote it from the JSONs in `data/`; a test "
    "fails when they differ.",
    "",
    "Costs use the paper's prices (section IV-D) at γ = 15 λ, which is our choice "
    "([decision 0002](../decisions/0002-cost-preset.md)); [limitations](limitations.md) has the "
    "sweep over γ. [Baselines](baselines.md) says which method of the paper each row is.",
    "Intervals are the central 95 % of 1,000 bootstrap resamples of the reported examples, the "
    "same resamples for all rows.",
    "Methods in which chance or order plays a part are means over five seeds or orders.",
)

LAYOUT = (
    "In each pair of columns: the score in percent (Matthews for CoLA, F1 for MRPC and QQP, "
    "accuracy for the others), and the cost against the row BERT, which is 1.00. "
    "Our row `bert` costs 18 λ, as much as all-cloud."
)


def tables_page(results: list[Result]) -> str:
    """The whole page."""
    base = {on: chosen(results, BASE, on) for on in SPLITS}
    lines = [*HEAD, "", *_slips(), "", "## Table I", "", LAYOUT, ""]
    lines += ["**The paper, BERT-base**", "", *_layout(_paper_cells(paper.TABLE_I), TASKS)]
    for on, title in SPLITS.items():
        lines += ["", f"**Ours, MPNet 12 × 768, m = 3, n = 6, `{on}`** ({title})", "",
                  *_layout(_our_cells(base[on]), TASKS)]  # fmt: skip
    lines += ["", "## Table I, task by task", "",
              "Score, change against the row BERT in points, and cost against it."]  # fmt: skip
    for task, title in TASKS.items():
        lines += ["", f"### {title} ({METRICS.get(task, 'accuracy')})", "", *_beside(task, base)]
    lines += ["", *_table_two(), "", *_small(results), "", *_every_run(results)]
    return "\n".join(lines) + "\n"


def _slips() -> list[str]:
    return ["## Known slips of the paper", "", *(f"- {slip}" for slip in paper.SLIPS)]


Cells = dict[str, dict[str, tuple[str, str]]]
"""(score, cost) as they are written, by method and task."""


def _paper_cells(numbers: dict[str, dict[str, paper.Cell]]) -> Cells:
    return {
        method: {
            task: (
                _printed(method, task, cell.score, numbers is paper.TABLE_I),
                _cost(method, cell),
            )
            for task, cell in row.items()
        }
        for method, row in numbers.items()
    }


def _printed(method: str, task: str, score: float, first: bool) -> str:
    mark = " †" if first and (method, task) == paper.MISPRINT else ""
    return number(score, 1) + mark


def _cost(method: str, cell: paper.Cell) -> str:
    return "1.00" if method == "bert" else percent(cell.cost_change, 0)


def _our_cells(results: dict[str, Result]) -> Cells:
    return {
        method: {
            task: (number(result.method(method)["metric"]), _our_cost(result, method))
            for task, result in results.items()
        }
        for method in PAPER_METHODS
    }


def _our_cost(result: Result, method: str) -> str:
    return "1.00" if method == "bert" else percent(_against_bert(result, method))


def _against_bert(result: Result, method: str) -> float:
    """Cost against our row BERT in percent."""
    bert = float(result.method("bert")["cost_lambda"])
    return 100 * (float(result.method(method)["cost_lambda"]) / bert - 1)


def _layout(cells: Cells, tasks: dict[str, str]) -> list[str]:
    """A table in the paper's layout: a row for each method, two columns for each task."""
    header = ["method"]
    for title in tasks.values():
        header += [title, "cost"]
    rows = []
    for method, name in paper.ROW_NAMES.items():
        pairs = [cells[method].get(task, (NOT_RUN, NOT_RUN)) for task in tasks]
        rows.append([name, *(text for pair in pairs for text in pair)])
    return table(header, rows)


def _beside(task: str, base: dict[str, dict[str, Result]]) -> list[str]:
    """The paper's seven rows and ours on one task."""
    rows = []
    for method, name in paper.ROW_NAMES.items():
        cell = paper.TABLE_I[method][task]
        cells = [
            _printed(method, task, cell.score, True),
            UNKNOWN if method == "bert" else change(paper.score_change(method, task), 1),
            _cost(method, cell),
        ]
        for on in SPLITS:
            result = base[on].get(task)
            if result is None:
                cells += [NOT_RUN] * 3
                continue
            row, bert = result.method(method), result.method("bert")
            cells += [
                f"{number(row['metric'])} {between(row['metric_interval'])}",
                UNKNOWN if method == "bert" else change(row["metric"] - bert["metric"]),
                _our_cost(result, method),
            ]
        rows.append([f"{name} (`{method}`)", *cells])
    header = ["method", "paper", "change", "cost"]
    for on in SPLITS:
        header += [f"ours, `{on}`", "change", "cost"]
    return table(header, rows)


def _table_two() -> list[str]:
    tasks = {task: TASKS[task] for task in paper.TABLE_II["bert"]}
    return [
        "## Table II",
        "",
        "**The paper, BERT-large**",
        "",
        *_layout(_paper_cells(paper.TABLE_II), tasks),
        "",
        f"**Ours: {NOT_RUN}.** Table II needs an encoder of 24 layers, and no model hub can be "
        "reached from where these pages are made. Where one can be reached, these commands run it "
        "(here QNLI; CoLA and MRPC in the same way):",
        "",
        *code(LARGE),
    ]


def _small(results: list[Result]) -> list[str]:
    lines = [
        "## A small encoder in the same layout",
        "",
        "The paper has no counterpart of this table: MiniLM 6 × 384 with m = 2 and n = 3. A layer "
        "counts as two of the paper's twelve.",
    ]
    for on, title in SPLITS.items():
        lines += ["", f"**MiniLM 6 × 384, `{on}`** ({title})", "",
                  *_layout(_our_cells(chosen(results, SMALL, on)), TASKS)]  # fmt: skip
    return lines


def _every_run(results: list[Result]) -> list[str]:
    lines = ["## Every method on every run", ""]
    lines += [f"- [{result.run_title}, `{result.on}`](#{_anchor(result)})" for result in results]
    lines += [f"- {TASKS[task]}, {encoder}, `{on}`: {NOT_RUN}"
              for task, encoder, on in missing_runs(results)]  # fmt: skip
    for result in results:
        lines += ["", *full_table(result)]
    return lines


def _anchor(result: Result) -> str:
    return result.name.lower().replace(".", "")


def full_table(result: Result) -> list[str]:
    """All rows of one JSON, under the commands that made it."""
    examples = result["run"]["examples"]
    pools = ", ".join(f"{count:,} {name}" for name, count in result["pools"].items())
    empty = result["empty_pools"]
    facts = [
        f"{result.run_title} on {SPLITS[result.on]}: {result['reported']:,} examples, "
        f"{number(result['majority'])} % of them of one class.",
        f"Trained on {examples['train']:,}; m = {result['m']}, n = {result['n']}, "
        f"l = {result['layers']}; α = {number(result['alpha'], 4)}; pools of the "
        f"{examples['validation']:,} validation examples: {pools}.",
    ]
    if result.task in SUBSETS:
        facts.append(f"Data: {SUBSETS[result.task]}.")
    if empty:
        facts.append(f"**Empty at this α: {', '.join(empty)}; nothing is routed to its tier.**")
    lines = [f"### {result.name}", "", *facts, "", *code(commands(result)), ""]
    extra = [f"{result['metric']} (%)"] if result.has_other_metric else []
    header = [
        "method", "accuracy (%)", *extra, "against cloud (points)", "cost (λ)",
        "against all-cloud (%)", "mobile (%)", "edge (%)", "cloud (%)", "mean exit",
        "spread over runs",
    ]  # fmt: skip
    rows = [_full_row(result, f"`{name}`", result.method(name)) for name in METHODS]
    if result.has_value:
        rows += [
            _full_row(result, f"`{DEFAULT_POLICY}`, {drop} allowed", result.cascade_row(drop))
            for drop in result["cascade_routing"]["chosen"]
        ]
    return lines + table(header, rows)


def _full_row(result: Result, name: str, row: dict[str, Any]) -> list[str]:
    metric = f"{number(row['metric'])} {between(row['metric_interval'])}"
    return [
        name,
        f"{number(row['accuracy'])} {between(row['accuracy_interval'])}",
        *([metric] if result.has_other_metric else []),
        f"{change(row['against_cloud'])} {between(row['against_cloud_interval'], signed=True)}",
        number(row["cost_lambda"]),
        f"{change(row['cost_change'], 1)} {between(row['cost_change_interval'], 1, signed=True)}",
        *(share(row["shares"][tier]) for tier in ("mobile", "edge", "cloud")),
        number(row["mean_exit"]),
        f"± {number(row['spread_over_runs'])} ({row['runs']})" if row["runs"] > 1 else "",
    ]
