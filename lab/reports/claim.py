"""``claim.md``: the paper's claim judged on every run, and what decides it."""

from __future__ import annotations

from statistics import median

from lab.reports import paper
from lab.reports.exits import exits_section
from lab.reports.load import BASE, DEFAULT_POLICY, MEAN_POLICY, SPLITS, TASKS, Result, chosen
from lab.reports.text import NOT_RUN, ONE_BY_ONE, between, change, number, of, percent, span, table

OPENING = ("edge", "dimee-fixed", "dimee-adaptive", DEFAULT_POLICY)
"""The methods of the table that opens the results."""
OURS = (*OPENING, MEAN_POLICY)
"""The methods that the claim is judged for."""

HOLDS = "holds"
UNCERTAIN = "holds, within the noise"
ANY = "any of the five"

HEAD = (
    "# The claim of the paper, task by task",
    "",
    "This page judges the claim of the paper's abstract on every run: more than "
    f"{paper.CLAIMED_SAVING:g} % cheaper than all-cloud at a drop of less than "
    f"{paper.CLAIMED_DROP:g} points. `python -m lab.reports` wrote it from the JSONs in `data/`; "
    "[data](data.md) has the command of each JSON.",
    "",
    "How a run is judged:",
    "",
    f"- *{HOLDS}*: the cost falls by more than {paper.CLAIMED_SAVING:g} % and the drop is below "
    f"{paper.CLAIMED_DROP:g} points, in accuracy and in the paper's metric, and both 95 % "
    "intervals (accuracy, cost) lie within the claim; the metric is judged by its point figure.",
    f"- *{UNCERTAIN}*: the same by the point figures; one of the intervals reaches beyond the "
    "claim.",
    "- *no*: a point figure misses the claim, and the verdict says which.",
    "",
    f"`{DEFAULT_POLICY}` is the default policy at the setting that a bundle ships with: its drop "
    f"on the validation part plus one standard error is at most {paper.CLAIMED_DROP:g} points, on "
    f"all texts and on the longer half. `{MEAN_POLICY}` is the same policy where the mean drop "
    "alone is "
    f"at most {paper.CLAIMED_DROP:g}. `edge` answers every text on the edge.",
    "",
    ONE_BY_ONE,
)


def drop(result: Result, method: str) -> float:
    """The worse of the changes against all-cloud: accuracy, and the paper's metric."""
    return min(float(result.method(method)["against_cloud"]), result.metric_change(method))


def verdict(result: Result, method: str) -> str:
    """Return whether the claim holds for ``method``, or which half of it fails."""
    row = result.method(method)
    dear = row["cost_change"] >= -paper.CLAIMED_SAVING
    lossy = drop(result, method) <= -paper.CLAIMED_DROP
    if dear or lossy:
        parts = ["saves too little"] * dear + ["loses too much"] * lossy
        return "no: " + ", ".join(parts)
    accurate = row["against_cloud_interval"][0] > -paper.CLAIMED_DROP
    cheap = row["cost_change_interval"][1] < -paper.CLAIMED_SAVING
    return HOLDS if accurate and cheap else UNCERTAIN


def holds(result: Result, method: str) -> bool:
    """Return whether the claim holds by the point figures."""
    return result.has(method) and verdict(result, method) in (HOLDS, UNCERTAIN)


def reaching(results: dict[str, Result], methods: tuple[str, ...], sure: bool = False) -> list[str]:
    """The tasks on which the claim holds for one of ``methods``; ``sure``: beyond the noise."""
    accepted = (HOLDS,) if sure else (HOLDS, UNCERTAIN)
    return [
        TASKS[task]
        for task in TASKS
        if task in results
        and any(
            results[task].has(name) and verdict(results[task], name) in accepted for name in methods
        )
    ]


def claim_page(results: list[Result]) -> str:
    """The whole page."""
    lines = [*HEAD, "", *_counts(results), "", *_paper_itself()]
    for encoder in dict.fromkeys(result.encoder for result in results):
        here = [result for result in results if result.encoder == encoder]
        lines += ["", f"## {here[0].encoder_title}, task by task", "", *_judged(here)]
    lines += ["", *_centroids(results), "", *exits_section(results)]
    return "\n".join(lines) + "\n"


def _counts(results: list[Result]) -> list[str]:
    lines = ["## On how many tasks the claim holds", ""]
    if not results:
        return [*lines, f"{NOT_RUN}."]
    rows = []
    for encoder in dict.fromkeys(result.encoder for result in results):
        for on in SPLITS:
            here = chosen(results, encoder, on)
            if not here:
                continue
            title = next(iter(here.values())).encoder_title
            for name, methods in [*((f"`{name}`", (name,)) for name in OURS), (ANY, OURS)]:
                found, sure = reaching(here, methods), reaching(here, methods, sure=True)
                rows.append([title, f"`{on}`", name, of(len(found), len(here)),
                             ", ".join(found) or "none", of(len(sure), len(here))])  # fmt: skip
    header = ["encoder", "report", "method", "tasks, by the point figures", "which",
              "tasks, beyond the noise"]  # fmt: skip
    return lines + table(header, rows, left=3)


def _paper_itself() -> list[str]:
    rows = []
    for method in ("dimee-fixed", "dimee-adaptive"):
        tasks = [TASKS[task] for task in TASKS if paper.reaches_claim(method, task)]
        cells = [
            f"{change(paper.score_change(method, task), 1)} at "
            f"{percent(paper.TABLE_I[method][task].cost_change, 0)}"
            for task in TASKS
        ]
        rows.append([paper.ROW_NAMES[method], *cells, of(len(tasks), len(TASKS))])
    return [
        "## The paper's own Table I under the same rule",
        "",
        "Points against its row BERT, and cost; QNLI of Ours-F read as "
        f"{paper.MISPRINT_LIKELY} ([slips](tables.md#known-slips-of-the-paper)). Printed figures "
        "are rounded: a saving of exactly 43 % or a drop of exactly 0.3 points counts as not "
        "reached.",
        "",
        *table(["row", *TASKS.values(), "claim reached"], rows),
    ]


def _judged(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        for name in OURS:
            if not result.has(name):
                continue
            row = result.method(name)
            other = ""
            if result.has_other_metric:
                other = f"{result['metric']} {change(result.metric_change(name))}"
            rows.append([
                result.task_title,
                f"`{result.on}`",
                f"`{name}`",
                f"{change(row['against_cloud'])} "
                f"{between(row['against_cloud_interval'], signed=True)}",
                other,
                f"{percent(row['cost_change'])} "
                f"{between(row['cost_change_interval'], 1, signed=True)}",
                verdict(result, name),
            ])  # fmt: skip
    header = ["task", "report", "method", "accuracy (points)", "paper's metric (points)", "cost",
              "claim"]  # fmt: skip
    return [
        "All changes are against all-cloud, with 95 % intervals. The paper's metric stands where "
        "it is not accuracy.",
        "",
        *table(header, rows, left=3),
    ]


def gain(result: Result, other: str) -> float:
    """Accuracy of ``dimee-fixed`` less that of another method, in points."""
    return float(result.method("dimee-fixed")["accuracy"] - result.method(other)["accuracy"])


def _centroids(results: list[Result]) -> list[str]:
    lines = [
        "## What the centroids add",
        "",
        "`random-same-mix` sends the same share of the texts to each tier as `dimee-fixed`, at "
        "random; what `dimee-fixed` gains over it is what the centroids know. `true-difficulty` is "
        "an oracle: it sends each text to the tier of the pool that Algorithm 1 would put it in.",
        "",
    ]
    if not results:
        return [*lines, f"{NOT_RUN}."]
    gains = [gain(result, "random-same-mix") for result in results]
    better = sum(value > 0 for value in gains)
    rows = [
        [
            result.run_title,
            f"`{result.on}`",
            change(gain(result, "random-same-mix")),
            f"± {number(result.method('random-same-mix')['spread_over_runs'])}",
            change(gain(result, "edge")),
            change(gain(result, "true-difficulty")),
        ]
        for result in results
    ]
    header = ["run", "report", "less `random-same-mix` (points)", "spread of five seeds",
              "less `edge` (points)", "less `true-difficulty` (points)"]  # fmt: skip
    return [
        *lines,
        f"`dimee-fixed` is more accurate than `random-same-mix` in {of(better, len(results))} "
        f"runs, by {span(gains)} points (median {change(median(gains))}).",
        "",
        *table(header, rows, left=2),
    ]


def base_results(results: list[Result], on: str) -> dict[str, Result]:
    """The runs of BERT-base's size on one report, by task."""
    return chosen(results, BASE, on)
