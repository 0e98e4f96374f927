"""``tables.md``: Tables I and II in the paper's layout, then every method on every run."""

from __future__ import annotations

from lab.results import paper
from lab.results.commands import evaluate_command, train_command
from lab.results.load import (
    METHODS,
    PAPER_METHODS,
    SPLITS,
    TASKS,
    Result,
    missing_runs,
)
from lab.results.text import (
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

HEAD = (
    "# Tables",
    "",
    "Made by `make results` from the JSONs in `data/`; a test fails when this page and a JSON "
    "differ.",
    "",
    "Costs are in λ of the preset `paper`, whose γ is our choice "
    "([decision 0002](../decisions/0002-cost-preset.md)); every saving depends on it "
    "([README](README.md)).",
    "Intervals are the central 95 % of 1,000 bootstrap resamples of the reported examples, the "
    "same resamples for all rows.",
    "Methods in which chance or order plays a part are means over five seeds or orders.",
    "",
    "## Tables I and II, in the paper's layout",
    "",
    "In the row `bert` the metric itself (%), in every other row the change against it in points.",
    "Cost is the change against all-cloud.",
    "The paper's 'Acc' is evidently GLUE's metric: Matthews for CoLA, F1 for MRPC and QQP, "
    "accuracy for the others.",
)

PAPER_NOTE = (
    f"**The paper's figures.** Its tables were not at hand: {UNKNOWN} marks a cell that the paper "
    "fills and that we do not know.",
    "Two figures are known. Its abstract, naming no task: the cost falls by more than "
    f"{paper.CLAIMED_SAVING:g} % at a drop of less than {paper.CLAIMED_DROP:g} points against "
    "all-cloud.",
    f"And for SST-2 {percent(paper.SST2_COST, 0)} at {change(paper.SST2_CHANGE, 1)}, of which we "
    "know neither the variant (fixed or adaptive) nor the encoder's size; it stands in Table I.",
)

METRICS = {"cola": "Matthews", "mrpc": "F1", "qqp": "F1"}
SIZES = (
    (
        True,
        "Table I: the base size",
        "BERT-base in the paper; it could not be downloaded here, so its place is taken by MPNet, "
        "which has the same size (12 × 768).",
    ),
    (
        False,
        "Table II: the second size",
        "**BERT-large in the paper, which could not be downloaded here. This table is no "
        "reproduction of the paper's Table II:** it holds the small encoder, MiniLM 6 × 384.",
    ),
)


def tables_page(results: list[Result]) -> str:
    """The whole page."""
    lines = list(HEAD)
    for base, title, note in SIZES:
        sized = [result for result in results if result.is_base is base]
        lines += ["", f"### {title}", "", note]
        for encoder in dict.fromkeys(result.encoder for result in sized):
            of_encoder = [result for result in sized if result.encoder == encoder]
            for on, meaning in SPLITS.items():
                here = [result for result in of_encoder if result.on == on]
                lines += ["", f"**{of_encoder[0].encoder_title}, `{on}`** ({meaning})", ""]
                lines += paper_table(here, base) if here else [f"{NOT_RUN}."]
        if not sized:
            lines += ["", *paper_table([], base)]
    lines += ["", *PAPER_NOTE, "", *_every_run(results)]
    return "\n".join(lines) + "\n"


def paper_table(results: list[Result], base: bool) -> list[str]:
    """One table in the paper's layout, ending in what is known of the paper's own rows."""
    by_task = {result.task: result for result in results}
    header = ["method"]
    for task, title in TASKS.items():
        metric = by_task[task]["metric"] if task in by_task else METRICS.get(task, "accuracy")
        header += [f"{title} {metric}", f"{title} cost"]
    rows = []
    for method in PAPER_METHODS:
        cells = [_cells(by_task.get(task), method) for task in TASKS]
        rows.append([f"`{method}`", *(text for pair in cells for text in pair)])
    unknown = [UNKNOWN] * (len(header) - 1)
    known = [change(paper.SST2_CHANGE, 1), percent(paper.SST2_COST, 0)] if base else unknown[:2]
    rows.append(["*paper: DIMEE*", *known, *unknown[2:]])
    rows.append(["*paper: the other methods*", *unknown])
    return table(header, rows)


def _cells(result: Result | None, method: str) -> list[str]:
    if result is None:
        return [NOT_RUN, NOT_RUN]
    row = result.method(method)
    shown = number(row["metric"]) if method == "bert" else change(result.metric_change(method))
    return [shown, percent(row["cost_change"])]


def _every_run(results: list[Result]) -> list[str]:
    lines = ["## Every method on every run", ""]
    lines += [f"- [{result.title}](#{_anchor(result)})" for result in results]
    lines += [f"- {TASKS[task]}, {encoder}, {on}: {NOT_RUN}"
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
        f"{result.task_title} with {result.encoder_title} on {SPLITS[result.on]}: "
        f"{result['reported']:,} examples, {number(result['majority'])} % of them of one class.",
        f"Trained on {examples['train']:,}; m = {result['m']}, n = {result['n']}, "
        f"l = {result['layers']}; α = {number(result['alpha'], 4)}; pools of the "
        f"{examples['validation']:,} validation examples: {pools}.",
    ]
    if result.task in paper.SUBSETS:
        facts.append(f"Data: {paper.SUBSETS[result.task]}.")
    if empty:
        facts.append(f"**Empty at this α: {', '.join(empty)}; nothing is routed to its tier.**")
    lines = [f"### {result.name}", "", *facts, ""]
    lines += [*code([train_command(result), evaluate_command(result)]), ""]
    extra = [f"{result['metric']} (%)"] if result.has_other_metric else []
    header = [
        "method", "accuracy (%)", *extra, "against cloud (points)", "cost (λ)",
        "against all-cloud (%)", "mobile (%)", "edge (%)", "cloud (%)", "mean exit",
        "spread over runs",
    ]  # fmt: skip
    rows = [_full_row(result, method) for method in METHODS]
    return lines + table(header, rows)


def _full_row(result: Result, method: str) -> list[str]:
    row = result.method(method)
    metric = f"{number(row['metric'])} {between(row['metric_interval'])}"
    return [
        f"`{method}`",
        f"{number(row['accuracy'])} {between(row['accuracy_interval'])}",
        *([metric] if result.has_other_metric else []),
        f"{change(row['against_cloud'])} {between(row['against_cloud_interval'], signed=True)}",
        number(row["cost_lambda"]),
        f"{change(row['cost_change'], 1)} {between(row['cost_change_interval'], 1, signed=True)}",
        *(share(row["shares"][tier]) for tier in ("mobile", "edge", "cloud")),
        number(row["mean_exit"]),
        f"± {number(row['spread_over_runs'])} ({row['runs']})" if row["runs"] > 1 else "",
    ]
