"""``value.md``: what the policy ``value`` reaches beyond the paper, beside the goals."""

from __future__ import annotations

from typing import Any

from lab.results.load import Result
from lab.results.text import between, change, number, percent, table

RIVALS = ("dimee-fixed", "dimee-adaptive", "adaee", "i-splitee")


def value_page(results: list[Result]) -> str:
    """The whole page."""
    known = [result for result in results if "value" in result.facts]
    lines = [
        "# Beyond the paper: `value`",
        "",
        "The policy `value` starts and escalates where P(right) − Λ · cost is highest "
        "([how](../decisions/0006-value.md)). Its heads, Λ and α come from the run's validation "
        "part, cross-fitted in five folds; the reported part is used for nothing but this page.",
        "",
        *_goals(known),
        *_chosen(known),
        *_ablation(known),
        *_router(known),
        *_duels(known),
        *_frontiers(known),
    ]
    return "\n".join(lines).rstrip() + "\n"


GOALS = ((0.3, -60.0), (0.02, -50.0))
"""A measured drop in points, and the change of cost in percent that is to be reached at it."""
GOAL_AUROC = 0.85


def _goals(results: list[Result]) -> list[str]:
    """The goals of SST-2 with MiniLM on the paper's split, beside what was measured."""
    found = [r for r in results if (r.task_title, r.on) == ("SST-2", "test")]
    if not found:
        return []
    result = found[0]
    frontier = result["value"]["frontier"]
    rows = []
    for drop, goal in GOALS:
        fit = {allowed: row for allowed, row in frontier.items() if row["against_cloud"] >= -drop}
        allowed, best = min(fit.items(), key=lambda item: item[1]["cost_change"])
        adaptive = _row(result, "dimee-adaptive")
        rows.append(
            [
                f"cost at a measured drop ≤ {drop:g} points",
                adaptive,
                f"{_brief(best)} (≤ {allowed} allowed on validation)",
                percent(goal, 0),
                "yes" if best["cost_change"] <= goal else "no",
            ]
        )
    auroc = result["value"]["auroc"]["phone_exits"]
    rows.append(
        [
            "AUROC 'the phone would exit' before any layer",
            _auroc(result["auroc"]["phone_unsure"].get("nearest centroid")),
            number(auroc, 3),
            f"≥ {GOAL_AUROC:g}",
            "yes" if auroc >= GOAL_AUROC else "no",
        ]
    )
    header = ["goal", "`dimee-adaptive` (centroids)", "`value`", "to reach", "reached"]
    return [
        f"## The goals, on {_name(result)}",
        "",
        "Change of accuracy in points and of cost against all-cloud at γ = 11 λ. Every setting "
        "was chosen on validation; the first two rows read the frontier below where the measured "
        "drop is what the goal names.",
        "",
        *table(header, rows, left=1),
        "",
    ]


def _ablation(results: list[Result]) -> list[str]:
    """What heads and escalation bring by themselves."""
    known = [result for result in results if "ablation" in result["value"]]
    if not known:
        return []
    rows = []
    for result in known:
        for drop, parts in result["value"]["ablation"].items():
            cells = [_brief(parts[name]) for name in ("heads alone", "escalation alone", "both")]
            rows.append([_name(result), f"≤ {drop}", _row(result, "dimee-fixed"), *cells])
    header = [
        "run",
        "drop allowed on validation",
        "`dimee-fixed` (distances)",
        "success heads, no escalation",
        "all to the edge, then escalation",
        "both: `value`",
    ]
    return [
        "## What each part brings by itself",
        "",
        "Each at its own settings, chosen on validation, against all-cloud at γ = 11 λ. What the "
        "exits bring is in [exits](exits.md); going on from a hidden state saves the next tier's "
        "milliseconds, of which the abstract λ of an escalation knows nothing "
        "([resume](resume.md)).",
        "",
        *table(header, rows, left=1),
        "",
    ]  # fmt: skip


def _name(result: Result) -> str:
    return f"{result.task_title}, {result.encoder_title}, {result.on}"


def _chosen(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        for drop, row in result["value"]["chosen"].items():
            shares = " / ".join(number(100 * share, 0) for share in row["shares"].values())
            rows.append(
                [
                    _name(result),
                    f"≤ {drop}",
                    f"{row['alpha']:.4g}",
                    f"{row['price']:.3g}",
                    f"{change(row['against_cloud'])} "
                    f"{between(row['against_cloud_interval'], signed=True)}",
                    percent(row["cost_change"]),
                    shares,
                    _row(result, "dimee-adaptive"),
                    _row(result, "true-difficulty"),
                    _row(result, "cheapest-right"),
                ]
            )
    header = ["run", "drop allowed on validation", "α", "Λ", "measured, against all-cloud",
              "cost", "phone / edge / cloud (%)", "`dimee-adaptive`", "`true-difficulty`",
              "`cheapest-right`"]  # fmt: skip
    return [
        "## At a drop that the validation part allows",
        "",
        "Accuracy in points and cost in percent against all-cloud, at γ = 11 λ; the last two are "
        "oracles.",
        "",
        *table(header, rows, left=1),
        "",
    ]


def _row(result: Result, name: str) -> str:
    return _brief(result.method(name))


def _brief(row: dict[str, Any]) -> str:
    return f"{change(row['against_cloud'])} at {percent(row['cost_change'], 0)}"


def _router(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        found = result["value"]["auroc"]
        others = result["auroc"]["phone_unsure"]
        rows.append(
            [_name(result), number(100 * found["share_exiting"], 1), _auroc(found["phone_exits"])]
            + [_auroc(others.get(name)) for name in
               ("nearest centroid", "length", "nearest neighbours", "logistic regression")]
        )  # fmt: skip
    header = ["run", "texts that exit on the phone (%)", "success head", "nearest centroid",
              "length", "nearest neighbours", "logistic regression on the embedding"]  # fmt: skip
    return [
        "## Who foresees, before any layer, that the phone will exit",
        "",
        "AUROC. The success head sees how clearly a linear classifier on the mean word embedding "
        "decides (exit 0), beside what the others see.",
        "",
        *table(header, rows),
        "",
    ]


def _auroc(value: float | None) -> str:
    return "–" if value is None else number(value, 3)


def _duels(results: list[Result]) -> list[str]:
    lines = [
        "## Against each rival at equal accuracy, by γ",
        "",
        "The setting of `value` is the cheapest that is at least as accurate as the rival on the "
        "validation part. Each cell: difference in accuracy (points) / in cost (percent of the "
        "rival's), **bold** where the whole 95 % interval of the cost lies below nought and that "
        "of the accuracy reaches it.",
        "",
    ]
    won = total = 0
    rows = []
    for result in results:
        for gamma, duels in result["value"]["duels"].items():
            cells = []
            for name in RIVALS:
                duel = duels[name]
                better = _wins(duel)
                won, total = won + better, total + 1
                text = (
                    f"{change(duel['accuracy_difference'])} / "
                    f"{percent(100 * duel['cost_difference'] / duel['rival_cost'], 0)}"
                )
                cells.append(f"**{text}**" if better else text)
            rows.append([_name(result), f"{float(gamma):g}", *cells])
    header = ["run", "γ (λ)", *(f"`{name}`" for name in RIVALS)]
    verdict = f"Cheaper at equal accuracy, intervals and all, in {won} of {total} duels."
    return [*lines, verdict, "", *table(header, rows, left=1), ""]


def _wins(duel: dict[str, Any]) -> bool:
    return bool(duel["cost_interval"][1] < 0 <= duel["accuracy_interval"][1])


def _frontiers(results: list[Result]) -> list[str]:
    if not results:
        return []
    drops = list(results[0]["value"]["frontier"])
    rows = []
    for result in results:
        curve = result["value"]["frontier"]
        rows.append([_name(result)] + [_brief(curve[drop]) for drop in drops])
    header = ["run", *(f"≤ {drop}" for drop in drops)]
    return [
        "## The frontier: measured, by the drop that validation allows",
        "",
        *table(header, rows),
        "",
    ]
